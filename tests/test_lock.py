"""requirements.lock, and the comparison of its hashes with what pip has installed."""

import json
import re
import subprocess
import sys

import pytest

from tests.helpers.command import ROOT

LOCK = """\
one-pkg==1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
two==2.0 ; sys_platform == 'linux' \\
    --hash=sha256:cc
three==3.0
"""


def package(name, digest=None):
    archive = {"archive_info": {"hashes": {"sha256": digest}}} if digest else {"dir_info": {}}
    return {"metadata": {"name": name, "version": "1"}, "download_info": archive}


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([package("One_Pkg", "bb"), package("two", "cc"), package("isr-jax")], 0, ""),
        (
            [package("One.Pkg", "bb"), package("two", "dd")],
            1,
            "not what requirements.lock says: two 1",
        ),
        ([package("three", "x"), package("four", "y")], 0, "installed unchecked: four, three"),
    ],
)
def test_hashes_are_compared(tmp_path, packages, code, said):
    (tmp_path / "lock").write_text(LOCK)
    (tmp_path / "report").write_text(json.dumps({"install": packages}))
    command = [sys.executable, ".ci/check_hashes.py", tmp_path / "report", tmp_path / "lock"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == code
    assert said in done.stdout + done.stderr


def test_every_pin_but_pytorch_s_has_a_hash():
    entries = re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text().strip())
    bare = [entry for entry in entries if "--hash=sha256:" not in entry]
    assert len(entries) > 150
    assert [entry.split("==")[0] for entry in bare] == ["torch"]
