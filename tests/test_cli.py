"""The `isr` commands on photographs and weights, and what each says to mistakes."""

import sys
from importlib import metadata

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import isr_jax
from isr_jax import cli, config, export, protocols, resize
from isr_jax.checkpoints.restore import restore_generator
from isr_jax.checkpoints.runs import write_generator
from isr_jax.cli import data, evaluate, options, upscale
from isr_jax.cli import weights as cli_weights
from isr_jax.errors import UserError
from isr_jax.models import GENERATORS, generator
from isr_jax.perceptual import lpips, niqe
from isr_jax.photo import limits, writing
from isr_jax.pytorch.state_dicts import export_torch
from isr_jax.resize import resize_uint8
from tests.helpers.command import run

EDSR = {**GENERATORS["edsr_baseline"], "width": 4, "blocks": 1}
SMALL = {"name": "rrdbnet", "width": 8, "growth": 4, "blocks": 1, "doublings": 1}


def read(path):
    with Image.open(path) as image:
        return np.array(image)


def photo(h, w, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (h // 4 + 1, w // 4 + 1, 3))
    return resize_uint8(coarse.astype(np.uint8), size=(h, w))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Two files of random weights of one small network, as PyTorch code saves them."""
    files = []
    for seed in (1, 2):
        network = generator(SMALL, scale=2)
        params, stats = network.init(jax.random.key(seed))
        files.append(tmp_path_factory.mktemp("weights") / f"{seed}.safetensors")
        export_torch(files[-1], params, stats, options=SMALL, size=2)
    return files


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    Image.fromarray(photo(20, 27)).save(folder / "a.png")
    Image.fromarray(photo(18, 16, seed=1)[..., 0]).save(folder / "deep" / "gray.bmp")
    return folder


def test_the_version_is_the_package_s(capsys):
    assert run(capsys, "--version") == (0, f"isr_jax {metadata.version('isr-jax')}\n", [])


def test_a_folder_is_enlarged_into_another(photos, tmp_path, capsys):
    out = tmp_path / "out"
    code, _, err = run(capsys, "upscale", photos, "--model", "lanczos", "--scale", 3, "--out", out)
    assert (code, err) == (0, ["isr upscale: 2 upscaled, 0 skipped, 0 failed"])
    for name, made in (("a.png", "a_x3.png"), ("deep/gray.bmp", "deep/gray_x3.bmp")):
        image, written = read(photos / name), read(out / made)
        np.testing.assert_array_equal(written, resize_uint8(image, scale=3, method="lanczos"))
    assert len([path for path in out.rglob("*") if path.is_file()]) == 2


def test_beside_each_image_and_never_over_one(photos, capsys):
    options = ("--model", "nearest", "--scale", 2)
    assert run(capsys, "upscale", photos / "a.png", photos / "deep", *options)[0] == 0
    assert (photos / "deep" / "gray_x2.bmp").exists()
    made = photos / "a_x2.png"
    made.write_bytes(b"precious")
    code, _, (line,) = run(capsys, "upscale", photos / "a.png", *options)
    assert code == 0
    assert "0 upscaled, 1 skipped (already exist; --overwrite replaces them), 0 failed" in line
    assert made.read_bytes() == b"precious"
    assert run(capsys, "upscale", photos / "a.png", *options, "--overwrite")[0] == 0
    assert read(made).shape == (40, 54, 3)


def test_a_single_image_into_a_named_file(photos, tmp_path, capsys):
    target = tmp_path / "new" / "big.png"
    options = ("--model", "bicubic", "--scale", 2, "--out", target)
    assert run(capsys, "upscale", photos / "a.png", *options)[0] == 0
    assert read(target).shape == (40, 54, 3)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("evaluate", "--data", "."), 2, "required: --model"),
        (
            ("upscale", "none.png", "--model", "bicubic", "--scale", 2),
            1,
            "no such file or folder: none",
        ),
        (("upscale", "a.png", "--model", "bicubic"), 1, "bicubic has no scale of its own"),
        (("upscale", "a.png", "--model", "none"), 1, "there is no model none"),
        (("upscale", "a.png", "--model", "none.pth"), 1, "there is no model none.pth"),
        (("import-torch", "none.pth", "out"), 1, "no such file: none.pth"),
        (("interpolate", "x", "y", "out"), 2, "required: --alpha"),
        (("export-torch", "x", "y.txt"), 1, "y.txt must end in one of .pth"),
        (("shrink",), 2, "invalid choice: 'shrink'"),
    ],
)
def test_mistakes_are_one_line(photos, capsys, monkeypatch, arguments, code, message):
    monkeypatch.chdir(photos)
    found, out, (line,) = run(capsys, *arguments)
    assert (found, out) == (code, "")
    assert message in line


def test_a_pytorch_file_is_a_model(weights, photos, tmp_path, capsys):
    """The file itself, and the run folder made of it, upscale alike, and it comes out again."""
    code, out, err = run(capsys, "import-torch", weights[0], tmp_path / "run")
    assert (code, err) == (0, [])
    assert "2x generator, " in out
    assert "name=rrdbnet" in out
    assert "growth=4" in out
    image = photo(20, 27)
    direct, folder = isr_jax.load(weights[0]), isr_jax.load(tmp_path / "run")
    assert direct.scale == folder.scale == 2
    np.testing.assert_array_equal(direct(image), folder(image))
    written = tmp_path / "sr.png"
    options = ("--model", weights[0], "--out", written)
    assert run(capsys, "upscale", photos / "a.png", *options)[0] == 0
    np.testing.assert_array_equal(read(written), direct(image))
    code, out, _ = run(capsys, "export-torch", tmp_path / "run", tmp_path / "back.safetensors")
    assert code == 0
    before, after = load_file(weights[0]), load_file(tmp_path / "back.safetensors")
    assert before.keys() == after.keys()
    for key, array in before.items():
        np.testing.assert_array_equal(array, after[key])
    code, _, err = run(capsys, "export-torch", tmp_path / "run", tmp_path / "back.safetensors")
    assert code == 1
    assert "already exists" in err[0]
    code, _, err = run(capsys, "import-torch", weights[0], tmp_path / "run")
    assert code == 1
    assert "run is not empty: name a new folder" in err[0]


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_interpolation_mixes_every_parameter(weights, tmp_path, capsys, alpha):
    out = tmp_path / "mix"
    assert run(capsys, "interpolate", *weights, out, "--alpha", alpha)[0] == 0
    a, b, mix = (restore_generator(path).params for path in (*weights, out))
    jax.tree.map(
        lambda x, y, z: np.testing.assert_allclose((1 - alpha) * x + alpha * y, z, atol=1e-7),
        a,
        b,
        mix,
    )


def test_only_equals_mix(weights, tmp_path, capsys):
    other = {**SMALL, "growth": 5}
    network = generator(other, scale=2)
    write_generator(
        tmp_path / "b", *network.init(jax.random.key(0)), {"scale": 2, "generator": other}
    )
    code, _, (line,) = run(
        capsys, "interpolate", weights[0], tmp_path / "b", tmp_path / "mix", "--alpha", 0.5
    )
    assert code == 1
    assert "generator.growth=4 and the second 5" in line
    with pytest.raises(UserError, match="there is no model"):
        restore_generator(tmp_path / "mix")


def test_what_a_file_does_not_tell_is_said_and_can_be_set(tmp_path, capsys):
    options = {**EDSR, "residual_scale": 0.5}
    network = generator(options, scale=2)
    file = tmp_path / "edsr.safetensors"
    export_torch(file, *network.init(jax.random.key(0)), options=options, size=2)
    code, _, (line,) = run(capsys, "import-torch", file, tmp_path / "assumed")
    assert code == 0
    assert "not determined by the file: " in line
    assert "residual_scale" in line
    setting = ("--set", "residual_scale=0.5")
    assert run(capsys, "import-torch", file, tmp_path / "told", *setting)[0] == 0
    scales = [
        restore_generator(tmp_path / name).config.generator.residual_scale
        for name in ("assumed", "told")
    ]
    assert scales == [1.0, 0.5]
    code, _, (line,) = run(capsys, "import-torch", file, tmp_path / "no", "--set", "width")
    assert code == 2
    assert "'width' is not NAME=VALUE" in line


def test_choices_are_the_keys_of_the_tables():
    """The parser repeats them, to answer without loading JAX."""
    assert tuple(resize.METHODS) == options.INTERPOLATIONS
    assert options.MAX_PIXELS == limits.MAX_PIXELS
    written = [name for name, known in writing.FORMATS.items() if known.writes != "never"]
    assert tuple(written) == upscale.FILE_FORMATS
    assert tuple(protocols.PROTOCOLS) == evaluate.PROTOCOLS
    assert tuple(lpips.NETWORKS) == evaluate.LPIPS_NETWORKS
    assert tuple(niqe.FORMS) == evaluate.NIQE_FORMS
    assert tuple(export.EXPORTERS) == cli_weights.EXPORT_FORMATS
    assert tuple(export.SUFFIXES) == cli_weights.EXPORT_SUFFIXES
    assert config.get_config().data.crop == data.CROP


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--port", "99999"), 2, "is not a port"),
        (("--max-megapixels", "none"), 2, "is not a number above 0"),
        (("--port", "0", "--model", "none"), 1, "there is no model none"),
        (("--port", "0", "--host", "no.such.host.invalid"), 1, "cannot listen on no.such.host"),
    ],
)
def test_mistakes_of_the_demo_are_one_line(capsys, arguments, code, message):
    pytest.importorskip("uvicorn", reason="needs pip install 'isr-jax[demo]'")
    try:
        found = cli.main(["demo", *arguments])
    except SystemExit as stop:
        found = stop.code
    out, err = capsys.readouterr()
    assert (found, out) == (code, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_missing_extra_of_the_demo_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "isr_jax.demo.server", None)
    monkeypatch.delitem(sys.modules, "isr_jax.demo.server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli.main(["demo"]) == 1
    assert "pip install 'isr-jax[demo]'" in capsys.readouterr().err
