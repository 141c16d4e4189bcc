"""Four virtual CPU devices, runtime shape checks, strict dtypes, and the path of the benchmark images."""

import os
import shutil
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# No dtype may change unasked: mixing two is an error, in the processes that tests start too.
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
# The tests compile for longer than they run: LLVM's optimizations would only cost time.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=4",
        "--xla_backend_optimization_level=0",
    ]
)

from jaxtyping import install_import_hook

install_import_hook("isr_jax", "beartype.beartype")

import pytest


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
