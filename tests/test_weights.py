"""Weight files: where they are found, downloads from a local server, and what is read from them."""

import hashlib
import pickle
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from isr_jax.errors import UserError
from isr_jax.perceptual import weight_files as weights

CONTENT = np.random.default_rng(0).bytes(3 * weights.CHUNK + 17)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ARRAYS = {
    "features.0.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "classifier.0.bias": np.ones(2, np.float32),
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user who has no weights anywhere yet."""
    for name in ("ISR_WEIGHTS", "TORCH_HOME", "KERAS_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path


@pytest.fixture
def server():
    """The root URL of a server of CONTENT, and the list of paths that were asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path == "/absent.pth":
                self.send_error(404)
                return
            self.send_response(200)
            if self.path != "/unmeasured.pth":
                self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            broken = self.path == "/broken.pth"
            self.wfile.write(CONTENT[: weights.CHUNK + 5] if broken else CONTENT)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as service:
        thread = threading.Thread(target=service.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{service.server_port}", asked
        service.shutdown()
        thread.join()


def published(name, url="http://127.0.0.1:9", checksum=f"sha256:{SHA256}", elsewhere=None):
    return weights.WeightFile(name, f"{url}/{name}", checksum, lambda: elsewhere)


def put(path, content=b"here"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def message(call):
    """What a UserError says, which is one line."""
    with pytest.raises(UserError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_folders_are_searched_in_order(home, monkeypatch):
    digest = hashlib.sha256(b"here").hexdigest()
    file = published("net.pth", checksum=f"sha256:{digest}", elsewhere=home / "elsewhere")
    last = put(home / "elsewhere" / "net.pth")
    assert weights.find(file) == last
    cached = put(weights.cache_folder() / "net.pth")
    assert weights.find(file) == cached
    monkeypatch.setenv("ISR_WEIGHTS", str(home / "mine"))
    assert weights.find(file) == last
    mine = put(home / "mine" / "net.pth")
    assert weights.find(file) == mine
    (home / "given").mkdir()
    assert weights.find(file, path=home / "given") == mine
    given = put(home / "given" / "net.pth")
    assert weights.find(file, path=str(home / "given")) == given


def test_a_cached_file_is_checked_once(home, monkeypatch):
    """What is there may have been cut short, or put there by others; reading it all takes time."""
    file = published("net.pth", checksum=f"sha256:{hashlib.sha256(b'here').hexdigest()}")
    cached = put(weights.cache_folder() / "net.pth", b"there")
    assert "net.pth is not net.pth: its sha256 is" in message(lambda: weights.find(file))
    put(cached)
    assert weights.find(file) == cached
    with monkeypatch.context() as context:
        context.setattr(weights.hashlib, "file_digest", pytest.fail)
        assert weights.find(file) == cached
    put(cached, b"other")
    assert "remove it, and it is downloaded again" in message(lambda: weights.find(file))


def test_downloads_go_to_the_users_caches_unless_told(home, monkeypatch):
    assert home in weights.cache_folder().parents
    assert weights.cache_folder().name == "isr_jax"
    monkeypatch.setenv("ISR_WEIGHTS", "~/mine")
    assert weights.cache_folder() == home / "mine"


def test_safetensors_of_the_same_stem_will_do(home):
    file = published("net-1.0.pth")
    put(weights.cache_folder() / "net-1.0.pth")
    plain = put(weights.cache_folder() / "net-1.0.safetensors")
    assert weights.find(file) == plain


def test_a_path_that_is_given_counts(home):
    put(weights.cache_folder() / "net.pth")
    mine = put(home / "under-another-name.safetensors")
    assert weights.find(published("net.pth"), path=mine) == mine
    text = message(lambda: weights.find(published("net.pth"), path=home / "absent"))
    assert str(home / "absent") in text
    assert "net.pth" in text


def test_publishers_own_folders(home, monkeypatch):
    hub = put(home / "caches" / "torch" / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth")
    assert weights.find(weights.FILES["vgg19"]) == hub
    keras = weights.FILES["vgg19_keras"]
    kept = put(home / ".keras" / "models" / keras.name)
    assert weights.find(keras) == kept
    monkeypatch.setenv("TORCH_HOME", str(home / "torch"))
    moved = put(home / "torch" / "hub" / "checkpoints" / "vgg16-397923af.pth")
    assert weights.find(weights.FILES["vgg16"]) == moved


def test_an_installed_lpips_package_is_searched_but_not_imported(home, monkeypatch):
    monkeypatch.delitem(sys.modules, "lpips", raising=False)
    put(home / "site" / "lpips" / "__init__.py", b"raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(home / "site")
    expected = put(home / "site" / "lpips" / "weights" / "v0.1" / "alex.pth")
    assert weights.find(weights.FILES["lpips_alex"]) == expected


@pytest.mark.parametrize("name", ["net.safetensors", "unmeasured.safetensors"])
def test_download_is_kept(home, server, capfd, name):
    url, asked = server
    file = published(name, url)
    found = weights.find(file)
    assert found == weights.cache_folder() / name
    assert found.read_bytes() == CONTENT
    assert list(found.parent.iterdir()) == [found]
    assert f"downloading {name}" in capfd.readouterr().err
    assert weights.find(file) == found
    assert asked == [f"/{name}"]


def test_md5_is_checked_too(home, server):
    digits = hashlib.md5(CONTENT).hexdigest()
    good = published("good.safetensors", server[0], f"md5:{digits}")
    assert weights.find(good).exists()
    bad = published("bad.safetensors", server[0], f"md5:{SHA256[:32]}")
    assert digits in message(lambda: weights.find(bad))


def test_a_wrong_file_is_removed_and_named(home, server):
    url, _ = server
    text = message(lambda: weights.find(published("net.safetensors", url, "sha256:00c0ffee")))
    assert f"{url}/net.safetensors" in text
    assert SHA256 in text
    assert "00c0ffee" in text
    assert list(weights.cache_folder().iterdir()) == []


@pytest.mark.parametrize(
    "name, reason",
    [
        ["broken.pth", f"broke after {weights.CHUNK + 5} of {len(CONTENT)} bytes"],
        ["absent.pth", "404"],
    ],
)
def test_a_failed_download_leaves_nothing(home, server, name, reason):
    pytest.importorskip("torch", reason="a .pth needs PyTorch")
    url, _ = server
    text = message(lambda: weights.find(published(name, url)))
    cache = weights.cache_folder()
    assert f"{name} is not in {cache} " in text
    assert f"{url}/{name}" in text
    assert reason in text
    assert text.endswith(f"put it into {cache}")
    assert list(cache.iterdir()) == []


def test_without_a_network_the_file_is_named(home):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, but nobody listens
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        text = message(lambda: weights.find(published("net.safetensors", url)))
    assert f"cannot be downloaded from {url}/net.safetensors" in text


def test_a_cache_that_cannot_be_written_is_named(home, server, monkeypatch):
    monkeypatch.setenv("ISR_WEIGHTS", str(put(home / "a file")))
    text = message(lambda: weights.find(published("net.safetensors", server[0])))
    assert str(home / "a file") in text


def test_interrupted_download_leaves_nothing(home, server, monkeypatch):
    read = weights.http.client.HTTPResponse.read
    calls = []

    def interrupted(response, size):
        calls.append(size)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return read(response, size)

    monkeypatch.setattr(weights.http.client.HTTPResponse, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        weights.find(published("net.safetensors", server[0]))
    assert list(weights.cache_folder().iterdir()) == []


def test_missing_pytorch_stops_before_the_download(home, server, monkeypatch):
    url, asked = server
    monkeypatch.setitem(sys.modules, "torch", None)
    text = message(lambda: weights.find(published("net-1.pth", url)))
    assert "pip install 'isr-jax[torch]'" in text
    assert "net-1.safetensors" in text
    assert asked == []
    assert text == message(lambda: weights.read(put(home / "net-1.pth")))


def test_missing_h5py_is_named(home, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert "pip install h5py" in message(lambda: weights.read(put(home / "net.h5")))


def check_arrays(path):
    """Reads ARRAYS from a file, whole and in part."""
    read = weights.read(path)
    assert set(read) == set(ARRAYS)
    part = weights.read(path, prefix="features.")
    assert set(part) == {"features.0.weight"}
    for name, array in (read | part).items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, ARRAYS[name])


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", ["tensor", "parameter", "half"])
def test_torch_files_are_read(tmp_path, legacy, kind):
    """torchvision's files are old: the format before PyTorch 1.6, some holding parameters."""
    torch = pytest.importorskip("torch", reason="reads PyTorch's files")
    make = {
        "tensor": torch.tensor,
        "parameter": lambda array: torch.nn.Parameter(torch.tensor(array)),
        "half": lambda array: torch.tensor(array).half(),
    }[kind]
    state = {name: make(array) for name, array in ARRAYS.items()}
    torch.save(state, tmp_path / "net.pth", _use_new_zipfile_serialization=not legacy)
    check_arrays(tmp_path / "net.pth")


def test_safetensors_are_read_without_pytorch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    half = {name: array.astype(np.float16) for name, array in ARRAYS.items()}
    for arrays in (ARRAYS, half):
        save_file(arrays, tmp_path / "net.safetensors")
        check_arrays(tmp_path / "net.safetensors")


def write_keras(path, arrays):
    """A file as Keras 2's `save_weights` writes it; pools have a group without weights."""
    h5py = pytest.importorskip("h5py", reason="reads Keras's files")
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"input_1", *(layer.encode() for layer in arrays)]
        file.attrs["backend"] = b"tensorflow"
        file.create_group("input_1").attrs["weight_names"] = np.zeros(0, "S1")
        for layer, (kernel, bias) in arrays.items():
            names = [f"{layer}_W_1:0", f"{layer}_b_1:0"]
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in names]
            group[names[0]], group[names[1]] = kernel, bias


def test_keras_files_are_read(tmp_path):
    kernel, bias = np.arange(24.0).reshape(2, 2, 3, 2), np.arange(2.0)
    write_keras(tmp_path / "net.h5", {"block1_conv1": (kernel, bias), "block1_conv2": (bias, bias)})
    read = weights.read(tmp_path / "net.h5", prefix="block1_conv1")
    assert set(read) == {"block1_conv1/kernel", "block1_conv1/bias"}
    assert read["block1_conv1/kernel"].dtype == np.float32
    np.testing.assert_array_equal(read["block1_conv1/kernel"], kernel)
    np.testing.assert_array_equal(read["block1_conv1/bias"], bias)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".h5"])
@pytest.mark.parametrize("content", ["cut", "noise", "empty", "page"])
def test_damaged_files_are_named(tmp_path, suffix, content):
    path = tmp_path / f"net{suffix}"
    if suffix == ".pth":
        torch = pytest.importorskip("torch", reason="reads PyTorch's files")
        torch.save({name: torch.tensor(array) for name, array in ARRAYS.items()}, path)
    elif suffix == ".h5":
        write_keras(path, {"block1_conv1": (np.ones((3, 3, 3, 64)), np.ones(64))})
    else:
        save_file(ARRAYS, path)
    whole = path.read_bytes()
    path.write_bytes(
        {
            "cut": whole[: len(whole) // 2],
            "noise": CONTENT[:2000],
            "empty": b"",
            "page": b"<!DOCTYPE html><html>rate limit exceeded</html>",
        }[content]
    )
    text = message(lambda: weights.read(path))
    assert text.startswith(f"{path} is damaged or holds no weights")


class Intruder:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_code_in_a_torch_file_is_run(tmp_path):
    torch = pytest.importorskip("torch", reason="reads PyTorch's files")
    torch.save(Intruder(tmp_path / "touched"), tmp_path / "net.pth")
    text = message(lambda: weights.read(tmp_path / "net.pth"))
    assert "weights_only" not in text
    assert not (tmp_path / "touched").exists()
    pickle.loads(pickle.dumps(Intruder(tmp_path / "touched")))
    assert (tmp_path / "touched").exists()


def test_other_files_are_refused(tmp_path):
    assert ".safetensors" in message(lambda: weights.read(put(tmp_path / "net.zip")))


def test_torchvisions_names_end_in_their_checksum():
    names = {
        "alexnet": "alexnet-owt-7be5be79.pth",
        "vgg16": "vgg16-397923af.pth",
        "vgg19": "vgg19-dcbb9e9d.pth",
        "squeezenet": "squeezenet1_1-b8a52dc0.pth",
    }
    for key, name in names.items():
        file = weights.FILES[key]
        assert file.name == name
        assert len(file.checksum) == len("sha256:") + 64
        assert file.url.endswith(f"/{name}")
