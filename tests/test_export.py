"""Exports against the generators themselves: StableHLO run by JAX, ONNX by ONNX Runtime."""

import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax import export as jax_export
from safetensors import numpy as safetensors

import isr_jax
from isr_jax import config as base
from isr_jax.checkpoints.restore import restore_generator
from isr_jax.checkpoints.runs import write_generator
from isr_jax.errors import UserError
from isr_jax.export import export_model, to_onnx, to_stablehlo
from isr_jax.models import generator
from isr_jax.pytorch.state_dicts import export_torch
from tests.helpers.command import run

SMALL = {"width": 6, "blocks": 1}
DEEP = {"name": "rrdbnet", "width": 6, "growth": 3, "blocks": 1}
COMPACT = {"name": "srvggnet", "width": 6, "layers": 1}
MSR = {"name": "msrresnet", **SMALL}
SRRESNET = {"kernel": 9, "batch_norm": True, "head_activation": True, "tail_activation": True}
EDSR = {"residual_scale": 0.1, "rgb_mean": (0.4, 0.5, 0.6), "img_range": 255.0}

# name: options, scale
CASES = {
    "rrdbnet x1": (DEEP, 1),
    "rrdbnet x2": (DEEP, 2),
    "rrdbnet x4": (DEEP, 4),
    **{f"srvggnet x{s}": (COMPACT, s) for s in (1, 3)},
    **{f"msrresnet x{s}": (MSR, s) for s in (2, 3)},
    "resnet x3": (SMALL, 3),
    "srresnet": ({**SMALL, **SRRESNET, "activation": "prelu"}, 4),
    "edsr": ({**SMALL, **EDSR}, 2),
    "concat": ({**SMALL, "skip": "concat", "activation": "leaky_relu"}, 8),
    "equivariant": ({**SMALL, "global_skip": "bicubic", "equivariant": True}, 2),
    "direct": ({**SMALL, "tail": "direct", "convs": 1, "long_skip": False}, 3),
    "hr_conv": (
        {
            **SMALL,
            "tail": "hr_conv",
            "tail_activation": True,
            "equivariant": True,
            "global_skip": "bicubic",
        },
        4,
    ),
    **{
        f"on {method}": ({**SMALL, "tail": "direct", "global_skip": method}, 4)
        for method in ("nearest", "bilinear", "bicubic")
    },
}
CASES |= {
    "span": ({"name": "span", "width": 4, "norm": False}, 2),
    "plksr": ({"name": "plksr", "width": 8, "blocks": 1, "kernel": 5, "partial": 3}, 2),
    "rcan": ({"name": "rcan", "width": 8, "groups": 1, "blocks": 1, "squeezed": 2}, 2),
}
# Networks of which images are not NCHW throughout.
BLOCKS = {"depths": (2,), "heads": (2,)}
PLKSR = {"name": "realplksr", "width": 8, "blocks": 1, "kernel": 5, "partial": 3, "norm_groups": 2}
ATTENTION = {
    "swinir": ({"name": "swinir", **BLOCKS, "width": 8, "window": 4, "features": 4}, 2),
    "hat": (
        {"name": "hat", **BLOCKS, "width": 8, "window": 4, "overlapping": 6, "features": 4}
        | {"compressed": 3, "squeezed": 2},
        2,
    ),
    "dat": ({"name": "dat", "depths": (4,), "heads": (2,), "width": 32, "split": (2, 4)}, 2),
    "omnisr": ({"name": "omnisr", "width": 8, "groups": 1}, 2),
    "realplksr": (PLKSR, 2),
    "layer norm": ({**PLKSR, "norm": "layer"}, 2),
    "dysample": ({**PLKSR, "upsampler": "dysample"}, 3),
}
# Odd and even, none of them a multiple of 4.
SIZES = ((2, 5, 7), (1, 6, 3))


def random_network(options, scale):
    """A generator, with something in every parameter and statistic, variances being positive."""
    network = generator(options, scale=scale)
    rng = np.random.default_rng(0)

    def draw(leaf):
        if leaf.ndim == 4:
            return rng.normal(0.0, np.prod(leaf.shape[:3]) ** -0.5, leaf.shape).astype(np.float32)
        return rng.uniform(0.1, 0.5, leaf.shape).astype(np.float32)

    return network, *jax.tree.map(draw, jax.eval_shape(network.init, jax.random.key(0)))


def images(shape):
    return np.random.default_rng(1).random((*shape, 3), np.float32)


def enlarged(network, params, stats, lr):
    """What the generator itself makes of images."""
    return np.array(
        jax.jit(network.apply, static_argnames="train")(params, stats, lr, train=False)[0]
    )


def run_onnx(content, lr):
    """NHWC -> NHWC by ONNX Runtime, of a file's bytes or its path."""
    runtime = pytest.importorskip("onnxruntime", reason="runs ONNX: pip install isr-jax[onnx]")
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (sr,) = session.run(["output"], {"input": lr.transpose(0, 3, 1, 2)})
    return sr.transpose(0, 2, 3, 1)


@pytest.mark.parametrize("case", CASES)
def test_onnx_enlarges_images_of_any_size_as_the_generator(case):
    onnx = pytest.importorskip("onnx", reason="writes ONNX: pip install isr-jax[onnx]")
    network, params, stats = random_network(*CASES[case])
    graph = to_onnx(network, params, stats)
    for shape in SIZES:
        lr = images(shape)
        sr = enlarged(network, params, stats, lr)
        largest = np.abs(sr).max()
        assert sr.shape == (shape[0], network.scale * shape[1], network.scale * shape[2], 3)
        np.testing.assert_allclose(run_onnx(graph, lr), sr, atol=1e-5 * largest)
    model = onnx.load_from_string(graph)
    assert [(x.domain, x.version) for x in model.opset_import] == [("", 17)]
    assert [x.dim_param for x in model.graph.input[0].type.tensor_type.shape.dim] == [
        "n", "", "h", "w",
    ]  # fmt: skip
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"Transpose", "Gather", "Where"}


@pytest.mark.parametrize(
    "case",
    ["rrdbnet x1", "rrdbnet x4", "srvggnet x3", "srresnet", "on bicubic", "swinir"],
)
def test_stablehlo_enlarges_images_of_any_size_as_the_generator(case):
    network, params, stats = random_network(*{**CASES, **ATTENTION}[case])
    exported = jax_export.deserialize(to_stablehlo(network, params, stats))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    for shape in SIZES:
        lr = images(shape)
        sr = enlarged(network, params, stats, lr)
        np.testing.assert_allclose(exported.call(lr), sr, atol=1e-5 * np.abs(sr).max())


@pytest.mark.parametrize("case", ATTENTION)
def test_onnx_holds_attention_and_normalisation(case):
    pytest.importorskip("onnx", reason="writes ONNX: pip install isr-jax[onnx]")
    network, params, stats = random_network(*ATTENTION[case])
    graph = to_onnx(network, params, stats)
    for shape in ((2, 13, 9), (1, 10, 16)):
        lr = images(shape)
        sr = enlarged(network, params, stats, lr)
        np.testing.assert_allclose(run_onnx(graph, lr), sr, atol=1e-5 * np.abs(sr).max())


def test_what_onnx_cannot_hold_is_said():
    pytest.importorskip("onnx", reason="writes ONNX: pip install isr-jax[onnx]")
    network, params, stats = random_network(SMALL, 2)

    def apply(params, stats, lr, *, train):
        sr, stats = network.apply(params, stats, lr, train=train)
        return jnp.sort(sr, axis=1), stats

    with pytest.raises(UserError, match=r"cannot be written as ONNX .*: --format stablehlo"):
        to_onnx(network._replace(apply=apply), params, stats)


def test_onnx_enlarges_at_a_published_width():
    """Real-ESRGAN's compact model for photographs: 1.2 million parameters."""
    pytest.importorskip("onnx", reason="writes ONNX: pip install isr-jax[onnx]")
    network, params, stats = random_network(base.GENERATORS["srvggnet"], 4)
    lr = images((1, 20, 31))
    sr = enlarged(network, params, stats, lr)
    np.testing.assert_allclose(run_onnx(to_onnx(network, params, stats), lr), sr, atol=1e-3)


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A run folder of a generator that was trained in bfloat16."""
    folder = tmp_path_factory.mktemp("export") / "run"
    options = {**COMPACT, "dtype": "bfloat16"}
    _, params, stats = random_network(options, 2)
    write_generator(folder, params, stats, {"scale": 2, "generator": options})
    return folder


@pytest.mark.parametrize(
    "suffix, said", [("onnx", "[n, 3, 2h, 2w]"), ("stablehlo", "[n, 2h, 2w, 3]")]
)
def test_the_command_exports_a_run_and_says_so(half, tmp_path, capsys, suffix, said):
    """In float32, though the run computes in bfloat16; by suffix or by --format."""
    if suffix == "onnx":
        pytest.importorskip("onnx", reason="writes ONNX: pip install isr-jax[onnx]")
    network, params, stats = random_network(COMPACT, 2)
    lr = images((1, 5, 7))
    sr = enlarged(network, params, stats, lr)
    told, named = tmp_path / "new" / f"x2.{suffix}", tmp_path / "x2"
    code, out, err = run(capsys, "export", half, told)
    assert (code, err) == (0, [])
    assert out.startswith(f"{told}: {suffix}, 0.0 MB, input float32 [n, ")
    assert out.endswith(f"output float32 {said}\n")
    assert run(capsys, "export", half, named, "--format", suffix)[0] == 0
    for file in (told, named):
        if suffix == "onnx":
            found = run_onnx(file.read_bytes(), lr)
        else:
            found = jax_export.deserialize(file.read_bytes()).call(lr)
        np.testing.assert_allclose(found, sr, atol=1e-5)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["new", "x2", f"x2.{suffix}"]


def test_a_model_file_is_the_model(half, tmp_path, capsys):
    """With its type; as a whole generator for everything that takes one."""
    file = tmp_path / "x2.safetensors"
    code, out, err = run(capsys, "export", half, file)
    assert (code, err) == (0, [])
    assert out == f"{file}: safetensors, 0.0 MB, a 2x generator for isr_jax\n"
    lr = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    saved, original = isr_jax.load(file), isr_jax.load(half)
    assert (saved.scale, saved.config.generator.dtype) == (2, "bfloat16")
    np.testing.assert_array_equal(saved(lr), original(lr))
    assert run(capsys, "export", file, tmp_path / "x2.stablehlo")[0] == 0
    found = jax_export.deserialize((tmp_path / "x2.stablehlo").read_bytes()).call(lr[None] / 255.0)
    np.testing.assert_allclose(np.clip(found[0], 0, 1), saved(lr) / 255.0, atol=0.03)
    file.write_bytes(file.read_bytes()[:-9])
    code, _, (line,) = run(capsys, "export", file, tmp_path / "again.stablehlo")
    assert code == 1
    assert "x2.safetensors is damaged" in line


@pytest.mark.parametrize(
    "metadata, message",
    [
        ("{", r"is damaged: "),
        ("[]", r"is damaged: "),
        ('{"scale": 2}', r"is damaged: 'generator'"),
        ('{"scale": 2, "generator": {"name": "vdsr"}}', r"unknown generator\.name 'vdsr'"),
        ('{"scale": 2, "generator": {"width": "6"}}', r"width is '6'; it must be an integer"),
        ('{"scale": 2, "generator": {"blocks": 10000000}}', r"must be in \[0, 1024\]"),
        ('{"scale": 2, "generator": {"width": 6, "blocks": 2}}', r"its arrays are not those"),
    ],
)
def test_a_model_file_is_checked_before_it_is_used(tmp_path, metadata, message):
    _, params, stats = random_network(SMALL, 2)
    arrays = flatten_dict({"params": params, "stats": stats}, sep="/")
    safetensors.save_file(
        {name: np.asarray(x) for name, x in arrays.items()},
        tmp_path / "x2.safetensors",
        metadata={"isr_jax": metadata},
    )
    with pytest.raises(UserError, match=message) as error:
        isr_jax.load(tmp_path / "x2.safetensors")
    assert "x2.safetensors" in str(error.value)


def test_a_model_file_keeps_batch_norm_s_statistics_and_tuples(tmp_path):
    options = {**SMALL, **SRRESNET, "activation": "prelu", "rgb_mean": (0.4, 0.5, 0.6)}
    _, params, stats = random_network(options, 4)
    write_generator(tmp_path / "run", params, stats, {"scale": 4, "generator": options})
    export_model(tmp_path / "run", tmp_path / "x4.safetensors")
    lr = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    saved, original = isr_jax.load(tmp_path / "x4.safetensors"), isr_jax.load(tmp_path / "run")
    np.testing.assert_array_equal(saved(lr), original(lr))
    assert saved.config.generator.rgb_mean == (0.4, 0.5, 0.6)


def test_a_model_file_of_half_the_size_holds_the_nearest_parameters(tmp_path, capsys):
    network, params, stats = random_network(SMALL, 2)
    options = {"scale": 2, "generator": SMALL}
    write_generator(tmp_path / "run", params, stats, options)
    whole, small = tmp_path / "whole.safetensors", tmp_path / "small.safetensors"
    assert run(capsys, "export", tmp_path / "run", whole)[0] == 0
    assert run(capsys, "export", tmp_path / "run", small, "--dtype", "float16")[0] == 0
    (arrays,) = {frozenset(safetensors.load_file(file)) for file in (whole, small)}
    size = sum(safetensors.load_file(whole)[name].nbytes for name in arrays)
    assert whole.stat().st_size - small.stat().st_size == pytest.approx(size / 2, abs=200)
    saved = restore_generator(small)
    assert {x.dtype for x in jax.tree.leaves(saved.params)} == {np.dtype("float32")}
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a, np.asarray(b, np.float16)),
        saved.params,
        params,
    )
    lr = jnp.asarray(np.random.default_rng(0).random((1, 9, 7, 3)), jnp.float32)
    (found, _), (expected, _) = (
        network.apply(x, stats, lr, train=False) for x in (saved.params, params)
    )
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_a_parameter_that_float16_cannot_hold_is_refused(tmp_path, capsys):
    _, params, stats = random_network(SMALL, 2)
    params = jax.tree.map(lambda x: x + 1e5, params)
    write_generator(tmp_path / "run", params, stats, {"scale": 2, "generator": SMALL})
    file = tmp_path / "small.safetensors"
    code, _, (line,) = run(capsys, "export", tmp_path / "run", file, "--dtype", "float16")
    assert (code, file.exists()) == (1, False)
    assert "exceed what float16 can hold" in line


def test_a_pytorch_file_can_be_exported(tmp_path, capsys):
    network, params, stats = random_network(DEEP, 4)
    weights = tmp_path / "weights.safetensors"
    export_torch(weights, params, stats, options=DEEP, size=4)
    assert run(capsys, "export", weights, tmp_path / "x4.bin")[0] == 0
    lr = images((1, 5, 7))
    found = jax_export.deserialize((tmp_path / "x4.bin").read_bytes()).call(lr)
    sr = enlarged(network, params, stats, lr)
    np.testing.assert_allclose(found, sr, atol=1e-5 * np.abs(sr).max())


def test_export_torch_writes_whole_files_and_replaces_none(half, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run(capsys, "export-torch", half, "~/new/x2.safetensors")[0] == 0
    written = tmp_path / "new/x2.safetensors"
    assert written.stat().st_mode & 0o777 == 0o666 & ~umask()
    code, _, (line,) = run(capsys, "export-torch", half, "~/new/x2.safetensors")
    assert code == 1
    assert "~/new/x2.safetensors already exists" in line
    assert [*written.parent.iterdir()] == [written]


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_no_file_is_replaced_unasked(half, tmp_path, capsys):
    file = tmp_path / "x2.stablehlo"
    file.write_bytes(b"precious")
    code, out, (line,) = run(capsys, "export", half, file)
    assert (code, out) == (1, "")
    assert "x2.stablehlo already exists; name another file, or add --overwrite" in line
    assert file.read_bytes() == b"precious"
    assert run(capsys, "export", half, file, "--overwrite")[0] == 0
    assert jax_export.deserialize(file.read_bytes()).platforms == ("cpu", "cuda", "tpu")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("none", "a.onnx"), 1, "there is no model none"),
        (("none.pth", "a.onnx"), 1, "there is no model none.pth"),
        (("bicubic", "a.onnx"), 1, "bicubic is an interpolation and has no network"),
        (
            ("none", "a.pt"),
            1,
            "a.pt ends in none of .onnx, .stablehlo, .bin, .safetensors: rename it",
        ),
        (("none", "a.onnx", "--dtype", "float16"), 1, "onnx holds float32; leave out --dtype"),
        (("none", "a.onnx", "--format", "tflite"), 2, "invalid choice: 'tflite'"),
        (("RUN", "folder.onnx"), 1, "folder.onnx is a folder; name a file"),
        (("RUN", "file/a.stablehlo"), 1, "file/a.stablehlo cannot be written: "),
    ],
)
def test_mistakes_are_one_line(half, tmp_path, capsys, monkeypatch, arguments, code, message):
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    given = [half if x == "RUN" else x for x in arguments]
    found, out, (line,) = run(capsys, "export", *given)
    assert (found, out) == (code, "")
    assert line.startswith("isr export: ")
    assert message in line


def test_a_missing_package_is_named(half, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    code, _, (line,) = run(capsys, "export", half, tmp_path / "a.onnx")
    assert code == 1
    assert "pip install 'isr-jax[onnx]'" in line
    assert not list(tmp_path.iterdir())
