"""Four virtual CPU devices, checks of shapes and dtypes, and the path of the benchmark images."""

import atexit
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.pop("COLUMNS", None)  # xdist's: tables would be as wide as the terminal of the tests
# The tests compile for longer than they run: LLVM's optimizations would only cost time, and so
# would its threads, and XLA's newer emitters of fusions where it still has the older: these take a
# third of the time.
older = "--xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else ""
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=4",
        "--xla_backend_optimization_level=0",
        older,
        "--xla_cpu_parallel_codegen_split_count=1",
        # Where other programs keep the cores busy, a virtual device can be late for a collective,
        # and XLA would abort after 40 seconds.
        "--xla_cpu_collective_call_terminate_timeout_seconds=600",
    ]
)

# Programs that are the same are compiled once, by whichever process of the run needs them first.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="isr-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
# Where in Python an operation comes from is noted for each, and read by nobody here.
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"

# A shell's background jobs ignore Ctrl-C, and those of nohup a closed terminal: so would the
# processes that tests start and signal.
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)

import numpy as np
from jaxtyping import install_import_hook

install_import_hook("isr_jax", "beartype.beartype")

import dm_pix
import flax.linen as nn
import jax
import optax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")  # mixing two dtypes is an error
_mixing = jax.numpy_dtype_promotion("standard")  # for the parts of libraries that mix them


def _under_mixing(make: Callable[..., optax.GradientTransformation]) -> Callable[..., Any]:
    def made(*arguments: Any, **options: Any) -> optax.GradientTransformation:
        transformation = make(*arguments, **options)
        return transformation._replace(update=_mixing(transformation.update))

    return made


optax.adam, optax.chain = _under_mixing(optax.adam), _under_mixing(optax.chain)
nn.BatchNorm.__call__ = _mixing(nn.BatchNorm.__call__)
dm_pix.ssim = _mixing(dm_pix.ssim)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Spare the garbage collector what stays: the libraries, which tracing makes it visit often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


@pytest.fixture(scope="session")
def isr_data() -> Path:
    """The folder with benchmarks/ and train/, or a skip that says what to set."""
    path = os.environ.get("ISR_DATA")
    if not path:
        pytest.skip("set ISR_DATA to the folder that holds benchmarks/ and train/")
    return Path(path)


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """A folder of small photographs; see `tiny_runs`."""
    from tests.helpers.tiny_runs import write_photos

    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium, or a skip that says what is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("needs the program chromium, which apt-get install chromium brings")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Without the pictures of a run, a third of its time: for tests of what else it leaves."""
    from isr_jax.training import pictures

    monkeypatch.setattr(pictures, "curves", lambda run: None)
    blank = np.zeros((8, 8, 3), np.uint8)
    monkeypatch.setattr(pictures, "panel", lambda photos, images, *, scale, crop: blank)


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory) -> str:
    """An empty folder for TFDS data sets."""
    return str(tmp_path_factory.mktemp("tfds"))


@pytest.fixture(scope="session")
def trained(photos, tmp_path_factory) -> Path:
    """A finished run of 8 steps that nothing disturbed."""
    import isr_jax
    from tests.helpers.tiny_runs import silent, tiny

    run = tmp_path_factory.mktemp("runs") / "trained"
    isr_jax.train(tiny(photos, **{"train.checkpoint_every": 2}), run, console=silent())
    return run
