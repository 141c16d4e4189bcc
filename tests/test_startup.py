"""What starting loads: help nothing heavy, upscaling nothing that only training needs."""

import subprocess
import sys

import pytest
from PIL import Image

ELSEWHERE = {  # in training, in evaluation, for some photos, or for videos
    "av", "grain", "matplotlib", "optax", "orbax", "scipy", "skimage", "tensorboardX",
    "tensorflow_datasets", "torch",
}  # fmt: skip
HEAVY = {*ELSEWHERE, "PIL", "flax", "imagecodecs", "jax", "jaxlib", "numpy", "rich"}


def loaded(program: str, *arguments: object) -> set[str]:
    """Return the top-level packages that a program of its own has loaded at its end."""
    listing = "\nfinally:\n    import sys; print('LOADED', *{m.split('.')[0] for m in sys.modules})"
    tried = "try:\n    " + program + listing
    done = subprocess.run(
        [sys.executable, "-c", tried, *map(str, arguments)], capture_output=True, text=True
    )
    return set(done.stdout.split("LOADED")[1].split())


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("upscale", "--help"),
        ("evaluate", "--help"),
        ("data", "check", "--help"),
        ("upscale", "--tile", "x"),
    ],
)
def test_help_and_wrong_usage_load_nothing_heavy(arguments):
    program = "from isr_jax.cli import main; main()"
    assert not loaded(program, *arguments) & HEAVY


def test_importing_the_package_loads_nothing_heavy():
    assert not loaded("import isr_jax; assert 'load' in dir(isr_jax)") & HEAVY


def test_upscaling_an_opaque_photo_loads_only_what_it_needs(tmp_path):
    photo = tmp_path / "a.png"
    Image.new("RGB", (24, 20), (200, 90, 30)).save(photo)
    program = "from isr_jax.cli import main; main()"
    packages = loaded(program, "upscale", photo, "--model", "compact-x4")
    assert (tmp_path / "a_x4.png").exists()
    assert "jax" in packages
    assert not packages & ELSEWHERE
