"""Files of weights: found at any place and under any name, and told by their content."""

import sys
import tarfile
import zipfile

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="writes PyTorch's files")

from safetensors.torch import save_file

from isr_jax.errors import UserError
from isr_jax.models.generators import complete
from isr_jax.pytorch import state_dicts as torch_weights
from isr_jax.pytorch.files import read_tensors, write_state_dict
from tests.helpers import torch_generators as twins

RRDB = {"width": 6, "growth": 4, "blocks": 2, "doublings": 2}
VGG = {"width": 4, "layers": 3}


def a_network():
    torch.manual_seed(0)
    network = twins.SRVGGNet("srvggnet", scale=2, **VGG)
    for module in network.modules():
        if isinstance(module, torch.nn.PReLU):
            module.weight.data.uniform_(0.1, 0.4)
    return network


def small_state():
    return {key: value.clone() for key, value in a_network().state_dict().items()}


def prefixed(prefix, state):
    return {prefix + key: value for key, value in state.items()}


WRAPPINGS = {
    "bare": lambda state, other: state,
    "params": lambda state, other: {"params": state},
    "params_ema before params": lambda state, other: {"params": other, "params_ema": state},
    "state_dict": lambda state, other: {"epoch": 3, "state_dict": state, "optimizer": {"lr": 1}},
    "generatorEMA": lambda state, other: {"generator": other, "generatorEMA": state},
    "ema_model. of an entry ema": lambda state, other: {
        "ema": prefixed("online_model.", other) | prefixed("ema_model.", state)
    },
    "ema_state_dict": lambda state, other: {"state_dict": other, "ema_state_dict": state},
    "model": lambda state, other: {"model": state, "note": "text"},
    "nested": lambda state, other: {"model": {"params": state}},
    "module.": lambda state, other: prefixed("module.", state),
    "netG.": lambda state, other: {**prefixed("netD.", other), **prefixed("netG.", state)},
    "module.generator.": lambda state, other: {"params": prefixed("module.generator.", state)},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_every_wrapping_is_taken_off(wrapping, tmp_path):
    state = small_state()
    other = {key: torch.zeros_like(value) for key, value in state.items()}
    torch.save(WRAPPINGS[wrapping](state, other), tmp_path / "model.pth")
    found = torch_weights.import_torch(tmp_path / "model.pth")
    assert found.config["scale"] == 2
    assert found.config["generator"] == complete({"name": "srvggnet", **VGG}, scale=2)
    np.testing.assert_array_equal(found.params["PReLU_1"]["slope"], state["body.3.weight"])


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_precision_is_read_as_float32(suffix, dtype, tmp_path):
    state = {key: value.to(getattr(torch, dtype)) for key, value in small_state().items()}
    path = tmp_path / f"model{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    found = read_tensors(path)
    for key, value in state.items():
        assert found[key].dtype == np.float32
        rounded = small_state()[key].numpy().astype(np.dtype(getattr(ml_dtypes, dtype, dtype)))
        np.testing.assert_array_equal(found[key], rounded.astype(np.float32))
        np.testing.assert_array_equal(found[key], value.float().numpy())


def test_files_of_old_pytorch_are_read(tmp_path):
    torch.save(small_state(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert torch_weights.import_torch(tmp_path / "old.pth").key_map == "srvggnet"


def test_safetensors_need_no_torch_and_pth_says_what_to_install(tmp_path, monkeypatch):
    state = {key: value.numpy() for key, value in small_state().items()}
    write_state_dict(tmp_path / "model.safetensors", state)
    write_state_dict(tmp_path / "model.pth", state)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert torch_weights.import_torch(tmp_path / "model.safetensors").key_map == "srvggnet"
    for use in (read_tensors, lambda path: write_state_dict(path, state)):
        with pytest.raises(UserError, match=r"pip install isr-jax\[torch\]"):
            use(tmp_path / "model.pth")


def test_an_unknown_file_is_refused_in_one_short_line(tmp_path):
    state = {f"layers.{i}.weight": torch.zeros(2) for i in range(100)}
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(
        UserError, match=r"other.pth: .* no known architecture.*and 92 more"
    ) as caught:
        torch_weights.import_torch(tmp_path / "other.pth")
    assert len(str(caught.value)) < 400 + len(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_nothing_but_tensors_is_unpickled(tmp_path):
    torch.save(a_network(), tmp_path / "module.pth")
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match=r"holds more than tensors.*save the network's"):
        read_tensors(tmp_path / "module.pth")
    for name in ("text.pth", "text.safetensors"):
        with pytest.raises(UserError, match="is damaged or holds no weights"):
            read_tensors(tmp_path / name)
    with pytest.raises(UserError, match="holds no tensors"):
        torch_weights.import_torch(tmp_path / "list.pth")
    with pytest.raises(UserError, match="no such file"):
        read_tensors(tmp_path / "none.pth")


FILES = {
    "lightning": lambda state: {
        "pytorch-lightning_version": "2.4",
        "state_dict": prefixed("model.", state) | {"loss.vgg.0.weight": torch.zeros(4, 4)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
    },
    "mmagic": lambda state: {
        "meta": {},
        "state_dict": prefixed("generator.", {k: v * 0 for k, v in state.items()})
        | prefixed("generator_ema.", state)
        | prefixed("discriminator.", {k: v * 0 for k, v in state.items()}),
    },
    "compiled": lambda state: {"params": prefixed("_orig_mod.", state)},
    "params-ema": lambda state: {
        "params": {k: v * 0 for k, v in state.items()},
        "params-ema": state,
    },
    "one key": lambda state: {"whatever": {"deep": [prefixed("net_g.module.", state)]}},
    "profiled": lambda state: (
        state
        | {
            "total_ops": torch.zeros(1),
            "body.0.total_params": torch.zeros(1),
            "iter": torch.ones(()),
        }
    ),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("suffix", ["", ".ckpt", ".bin", ".PTH"])
def test_weights_are_found_wherever_they_are(kind, suffix, tmp_path):
    if suffix and kind != "lightning":
        return
    path = tmp_path / f"model{suffix}"
    torch.save(FILES[kind](small_state()), path)
    found = torch_weights.import_torch(path)
    np.testing.assert_array_equal(found.params["PReLU_1"]["slope"], small_state()["body.3.weight"])
    left = {
        "lightning": ("state_dict/loss. (1 tensor)", "optimizer_states/0/state/0 (1 tensor)"),
        "mmagic": ("state_dict/generator. (14 tensors)", "state_dict/discriminator. (14 tensors)"),
        "params-ema": ("params (14 tensors)",),
    }
    assert found.left_out == left.get(kind, ())


def test_what_a_file_is_is_told_by_its_content(tmp_path):
    state = {key: value.numpy() for key, value in small_state().items()}
    write_state_dict(tmp_path / "x.safetensors", state)
    (tmp_path / "x.safetensors").rename(tmp_path / "weights.pth")
    assert torch_weights.import_torch(tmp_path / "weights.pth").key_map == "srvggnet"
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"script/{name}", b"")
    with tarfile.open(tmp_path / "old.pth", "w") as archive:
        archive.add(tmp_path / "weights.pth", "storages")
    (tmp_path / "page.pth").write_text("\n<!DOCTYPE html><html>404</html>")
    (tmp_path / "pointer.pth").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:1"
    )
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "keras.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (tmp_path / "model.onnx").write_bytes(b"\x08\x08\x12\x07pytorch")
    program = jax.export.export(jax.jit(jnp.sin))(jnp.ones(3)).serialize()
    (tmp_path / "model.stablehlo").write_bytes(program)
    (tmp_path / "newer.stablehlo").write_bytes(program.replace(b"StableHLO_v1.", b"StableHLO_v9."))
    for name, said in {
        "model.stablehlo": r"model\.stablehlo is a StableHLO program, which JAX runs without",
        "newer.stablehlo": r"newer\.stablehlo is a StableHLO program of a newer JAX",
        "script.pt": r"script\.pt is TorchScript, a program; save its weights in PyTorch",
        "old.pth": r"old\.pth is a tar archive, as PyTorch wrote before",
        "page.pth": r"page\.pth is a web page: download the file itself",
        "pointer.pth": r"pointer\.pth is a pointer of Git LFS",
        "empty.pth": r"empty\.pth is empty; download it again",
        "keras.h5": r"keras\.h5 is a Keras or HDF5 file",
        "model.onnx": r"model\.onnx is an ONNX model, a program; look for the \.pth",
    }.items():
        with pytest.raises(UserError, match=said):
            torch_weights.import_torch(tmp_path / name)


def test_a_nearly_known_network_is_named():
    """One key too many of an RRDBNet is that key's fault; a key too few is named."""
    state = {
        key: x.numpy()
        for key, x in twins.RRDBNet("rrdbnet_basicsr", scale=4, **RRDB).state_dict().items()
    }
    foreign = state | {"conv_extra.weight": np.zeros((4, 4, 3, 3), np.float32)}
    with pytest.raises(UserError, match=r"rrdbnet_basicsr, except for: conv_extra\.weight .unkn"):
        torch_weights.to_params(foreign, torch_weights.detect(foreign))
    del state["conv_body.weight"]
    with pytest.raises(
        UserError, match=r"nearest is rrdbnet_basicsr, except for: conv_body\.weight \(missing\)"
    ):
        torch_weights.detect(state)
