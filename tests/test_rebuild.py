"""The pretrained models can be made again: their training begins as their cards say.

    make rebuild

It takes minutes for each model, so `make test` leaves it out.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isr_jax.pretrained import PRETRAINED, describe
from tests.helpers.command import ROOT
from tests.helpers.tiny_runs import environment

UPDATES = 200
MOST_SECONDS = 1800


@pytest.mark.slow
@pytest.mark.skipif("ISR_REBUILD" not in os.environ, reason="takes long; make rebuild runs it")
@pytest.mark.parametrize("name", PRETRAINED)
def test_training_begins_as_the_card_says(name, tmp_path):
    """By its last command of training, which is stopped after 200 updates."""
    if "ISR_DATA" not in os.environ:
        pytest.skip("needs ISR_DATA, whose folder train has T91 and BSD400")
    card = describe(name).card
    command = [line for line in card["commands"] if line.startswith("python run.py")][-1]
    command = command.replace("PHOTOGRAPHS", f"{os.environ['ISR_DATA']}/train")
    words = [sys.executable, *shlex.split(command)[1:], "--workdir", str(tmp_path)]
    with subprocess.Popen(words, cwd=ROOT, env=environment(optimized=True)) as training:
        losses = _first_losses(tmp_path / "metrics.jsonl", training)
        training.send_signal(signal.SIGINT)
    assert losses == pytest.approx(card["beginning"], rel=0.02)


def _first_losses(file: Path, training: subprocess.Popen) -> dict[str, float]:
    """Return the logged losses by update, once there are enough of them."""
    for _ in range(MOST_SECONDS):
        lines = file.read_text().split("\n")[:-1] if file.exists() else []  # whole ones
        entries = map(json.loads, lines)
        losses = {str(x["step"]): x["loss"] for x in entries if x["kind"] == "train"}
        if str(UPDATES) in losses or training.poll() is not None:
            break
        time.sleep(1)
    return {step: loss for step, loss in losses.items() if int(step) <= UPDATES}
