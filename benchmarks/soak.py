"""Kill training at random moments, resume it, and compare it with a run that nothing disturbed.

    python -m benchmarks.soak [--kills N] [--kinds KIND ...] [--jobs N] [--seed N]

Each kind of run is started again and again, and gets SIGKILL, SIGTERM or SIGHUP after a random
time: while it starts, takes steps, saves or validates. When it has ended by itself, its arrays and
records are compared, bit for bit, with those of an undisturbed run. Then it begins anew, until
there have been so many kills. The exit code is 1 where anything was lost.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import skimage.data
from PIL import Image

from benchmarks import timing
from isr_jax.checkpoints.runs import open_manager
from tests.helpers.events import shown
from tests.helpers.tiny_runs import overrides

RUN = Path(__file__).parent.parent / "run.py"
DEADLINE = 60.0  # seconds in which a process must end after a signal
COUNTS = (
    "kills",
    "resumes",
    "undisturbed ends",
    "steps lost beyond the last checkpoint",
    "differing arrays",
    "unreadable checkpoints",
    "lost records",
    "lost TensorBoard points",
    "times without a checkpoint",
    "hangs",
)
LOST = COUNTS[3:]

FIELDS = {
    "train.steps": 60,
    "train.validate_every": 20,
    "train.checkpoint_every": 4,
}
# What is different in each kind of run.
KINDS: dict[str, dict[str, Any]] = {
    "pool": {},
    "stream": {"data.loader": "stream"},
    "workers": {"data.loader": "stream", "data.workers": 1},
    "pmap": {"train.parallel": "pmap"},
}
STUDY = "study"


def main() -> None:
    """Print a Markdown table of what was lost."""
    parser = timing.parser(__doc__)
    parser.add_argument("--kills", type=int, default=300, help="of all kinds together")
    parser.add_argument("--kinds", nargs="+", default=[*KINDS, STUDY], choices=[*KINDS, STUDY])
    parser.add_argument("--jobs", type=int, default=2, help="runs at once")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the signals")
    options = parser.parse_args()
    timing.print_machine()
    kinds = options.kinds
    each = -(-options.kills // len(kinds))
    with TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        photos.mkdir()
        for i, image in enumerate((skimage.data.coffee(), skimage.data.astronaut())):
            Image.fromarray(image).resize((64 + 8 * i, 56)).save(photos / f"{i}.png")

        def soak(i: int) -> Counter:
            rng = np.random.default_rng((options.seed, i))
            count = _soak(kinds[i], photos, Path(folder) / kinds[i], kills=each, rng=rng)
            print(f"{kinds[i]}: {dict(count)}", file=sys.stderr, flush=True)
            return count

        with ThreadPoolExecutor(options.jobs) as pool:
            counts = dict(zip(kinds, pool.map(soak, range(len(kinds))), strict=True))
    print(f"| | {' | '.join(kinds)} | all |\n|---|{'---:|' * (len(kinds) + 1)}")
    for name in COUNTS:
        row = [counts[kind][name] for kind in kinds]
        print(f"| {name} | {' | '.join(map(str, row))} | {sum(row)} |")
    sys.exit(any(count[name] for count in counts.values() for name in LOST))


def _command(kind: str, photos: Path, run: Path) -> list[str]:
    fields = overrides(photos, **FIELDS, **KINDS.get(kind, {}))
    config = "isr_jax/config.py"
    if kind == STUDY:
        config = "configs/study.py:quick"
        study = {"study.seeds": (0,), "study.learning_rates": ()}
        fields |= {**study, "study.lpips": "none", "study.niqe": "none", "study.pictures": 1}
        fields |= {"train.steps": 30, "train.validate_every": 15, "train.checkpoint_every": 5}
    options = [f"--config.{name}={value}" for name, value in fields.items()]
    return [sys.executable, str(RUN), "--config", config, *options, f"--workdir={run}"]


def _start(kind: str, photos: Path, run: Path) -> subprocess.Popen:
    devices = 2 if kind == "pmap" else 1
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": flags,
        "JAX_COMPILATION_CACHE_DIR": str(run.parent / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    # Its log stays beside it, for what went wrong.
    log = open(f"{run}.log", "ab")  # noqa: SIM115
    return subprocess.Popen(
        _command(kind, photos, run), stdout=log, stderr=log, cwd=RUN.parent, env=environment
    )


def _soak(kind: str, photos: Path, home: Path, *, kills: int, rng: np.random.Generator) -> Counter:
    """Kill runs of a kind so many times; return the counts."""
    home.mkdir()
    straight, run = home / "straight", home / "run"
    count: Counter = Counter()
    for _ in range(2):  # the second finds its programs compiled, as the others will
        shutil.rmtree(straight, ignore_errors=True)
        begin = time.monotonic()
        if _start(kind, photos, straight).wait(600):
            raise SystemExit(f"{kind} fails undisturbed:\n{Path(f'{straight}.log').read_text()}")
        usual = time.monotonic() - begin
    while count["kills"] < kills or run.exists():  # at last, a run ends by itself
        process = _start(kind, photos, run)
        before = _steps(run)
        try:
            process.wait(rng.uniform(0.0, usual) if count["kills"] < kills else 600)
        except subprocess.TimeoutExpired:
            number = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
            process.send_signal(int(number))
            count["kills"] += 1
            try:
                process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                count["hangs"] += 1
                process.kill()
                process.wait()
        after = _steps(run)
        count["times without a checkpoint"] += bool(before) and not after
        lost = max(before, default=0) - max(after, default=0)
        count["steps lost beyond the last checkpoint"] += max(0, lost)
        if process.returncode == 0:
            count["undisturbed ends"] += 1
            _compare(straight, run, kind, count)
            shutil.rmtree(run)
        else:
            count["resumes"] += 1
    return count


def _steps(run: Path) -> list[int]:
    """Return the steps of the complete checkpoints of a run."""
    return [int(path.name) for path in run.glob("checkpoints/*") if path.name.isdigit()]


def _compare(straight: Path, run: Path, kind: str, count: Counter) -> None:
    """Count what a run that was killed has lost."""
    count["unreadable checkpoints"] += len(list(run.rglob("quarantine/*")))
    if kind == STUDY:
        # Times differ; losses and scores must not.
        first, second = (json.loads((one / "results.json").read_text()) for one in (straight, run))
        for results in (first, second):
            del results["seconds"]
        count["lost records"] += first != second
        pairs = [(a, run / a.relative_to(straight)) for a in straight.glob("candidates/*/seed_*")]
    else:
        lines = [(one / "metrics.jsonl").read_bytes().splitlines() for one in (straight, run)]
        count["lost records"] += sum(a != b for a, b in zip(*lines, strict=False))
        count["lost records"] += abs(len(lines[0]) - len(lines[1]))
        count["lost TensorBoard points"] += len({*shown(straight)} - {*shown(run)})
        pairs = [(straight, run)]
    for a, b in pairs:
        first, second = arrays(a), arrays(b)
        first, second = ({name: x.tobytes() for name, x in one.items()} for one in (first, second))
        names = first.keys() | second.keys()
        count["differing arrays"] += sum(first.get(name) != second.get(name) for name in names)


def arrays(run: Path) -> dict[str, np.ndarray]:
    """Return all arrays of a run's latest checkpoint."""
    with open_manager(run) as manager:
        step = manager.latest_step()
        folder = run / "checkpoints" / str(step)
        items = [item for item in ("generator", "training") if (folder / item).exists()]
        args = {item: ocp.args.StandardRestore() for item in items}
        saved: Any = manager.restore(step, args=ocp.args.Composite(**args))
    leaves = jax.tree_util.tree_leaves_with_path({item: saved[item] for item in items})
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


if __name__ == "__main__":
    main()
