"""Files as an enemy would make them: nothing endless, nothing executed, memory asked for first."""

import io
import json
import os
import struct
import subprocess
import sys
import zipfile

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from safetensors import numpy as safetensors

import isr_jax
from isr_jax import tensor_files
from isr_jax.errors import UserError, printable
from isr_jax.photo import limits
from isr_jax.photo.formats import KINDS
from isr_jax.photo.reading import decode_rgb, open_photo
from isr_jax.pytorch.files import read_tensors
from tests.helpers.image_files import chunk, noise, png, read, twice, upscale


def circular_tiff(big=False):
    """A TIFF file whose only directory follows itself."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, noise(4, 5), bigtiff=big, metadata=None)
    data = bytearray(buffer.getvalue())
    code, at = ("<Q", 8) if big else ("<I", 4)
    (first,) = struct.unpack_from(code, data, at)
    count_bytes, entry = (8, 20) if big else (2, 12)
    count = int.from_bytes(data[first : first + count_bytes], "little")
    struct.pack_into(code, data, first + count_bytes + count * entry, first)
    return bytes(data)


def many_frames(count):
    """A GIF of more frames than are read, from small repeated parts."""
    buffer = io.BytesIO()
    frames = [Image.new("P", (2, 2), i % 2) for i in range(3)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    frame = b"\x21\xf9\x04\0\1\0\0\0\x2c\0\0\0\0\2\0\2\0\0\2\2\x84\x51\0"
    return buffer.getvalue()[:-1] + frame * count + b";"


def wide_frame():
    """A GIF whose second frame goes far beyond what its header says."""
    data = bytearray(many_frames(1))
    at = data.rindex(b",")
    struct.pack_into("<HHHH", data, at + 1, 0, 0, 60000, 50000)
    return bytes(data)


def declared_jpeg(height, width):
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    at = data.index(b"\xff\xc0")
    struct.pack_into(">HH", data, at + 5, height, width)
    return bytes(data)


ANIMATED = chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))
HOSTILE = {
    "circle.tif": (circular_tiff(), "follow each other in a circle"),
    "circle_big.tif": (circular_tiff(big=True), "follow each other in a circle"),
    "frames.gif": (many_frames(3000), "more than 1000 pages or frames"),
    "frames.png": (png(noise(2, 2), ANIMATED), "more than 1000 pages or frames"),
    "wide.gif": (wide_frame(), "60000x50000 pixels"),
    "declared.jpg": (declared_jpeg(30000, 32000), "bytes cannot hold so many"),
    "declared.png": (png(noise(2, 2), declared=(20000, 20000)), "bytes cannot hold so many"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_is_refused_by_its_header(tmp_path, name):
    data, message = HOSTILE[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        open_photo(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name))
    with pytest.raises(UserError, match=message):
        decode_rgb(io.BytesIO(data), name=name)


def test_the_pixels_of_all_pages_count_together(tmp_path):
    pages = [Image.new("L", (10, 10), i) for i in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(UserError, match=r"10x10 pixels on 3 pages, more than the limit of 299"):
        open_photo(tmp_path / "a.tif", max_pixels=299)
    assert open_photo(tmp_path / "a.tif", max_pixels=300).read().page_count == 3


def test_flat_images_are_as_small_as_the_limits_allow(tmp_path):
    """What encoders make of the least content is not taken for a forgery."""
    flat = Image.new("L", (6000, 5000))
    flat.save(tmp_path / "a.png", compress_level=9)
    Image.new("1", (6000, 5000)).save(tmp_path / "b.png", compress_level=9)
    flat.save(tmp_path / "c.jpg", quality=1, optimize=True, progressive=True)
    for file in tmp_path.iterdir():
        with open(file, "rb") as opened:
            assert decode_rgb(opened, name=file.name).shape == (5000, 6000, 3)


def test_what_does_not_fit_the_memory_is_not_decoded(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(png(noise(200, 300, 3)))
    monkeypatch.setattr(limits, "memory", lambda: 300_000.0)
    with pytest.raises(UserError, match=r"300x200 pixels, which take 0\.0 GB"):
        open_photo(tmp_path / "a.png")


def test_pillow_s_own_limit_is_back_after_each_file(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    (tmp_path / "a.png").write_bytes(png(noise(20, 30, 3)))
    assert open_photo(tmp_path / "a.png").read().page_count == 1
    assert Image.MAX_IMAGE_PIXELS == 10


def test_postscript_is_not_run(tmp_path):
    """Ghostscript would be asked to draw it, whatever its name is."""
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) = quit\n"
    (tmp_path / "photo.png").write_bytes(script)
    with pytest.raises(UserError, match=f"not a {KINDS} image"):
        open_photo(tmp_path / "photo.png")


def tuple_for_width():
    """A TIFF file with two numbers as its ImageWidth."""
    entries = [(256, 4, 2, 8), (257, 4, 1, 2), (258, 3, 1, 8), (273, 4, 1, 8), (279, 4, 1, 4)]
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 16) + struct.pack("<II", 2, 2) + directory


def test_one_bad_file_is_that_file_s_alone(tmp_path, capsys):
    (tmp_path / "a.tif").write_bytes(tuple_for_width())
    image = Image.fromarray(noise(4, 5, 3))
    image.save(tmp_path / "b.png", icc_profile=b"\0" * 16 + b"RGB XYZ " + bytes(200))
    image.save(tmp_path / "c.png")
    code, lines = upscale(capsys, tmp_path, "--format", "bmp")
    assert (code, lines[-1]) == (1, "2 upscaled, 0 skipped, 1 failed")
    assert lines[0].startswith("a damaged colour profile was left out")
    assert lines[1].startswith(f"{tmp_path}/a.tif: ")
    for name in ("b_x2.bmp", "c_x2.bmp"):
        np.testing.assert_array_equal(read(tmp_path / name), twice(np.array(image)))


def test_a_bug_is_shown_after_the_other_files(tmp_path, capsys, monkeypatch):
    for name in ("a", "b", "c"):
        Image.fromarray(noise(4, 5, 3)).save(tmp_path / f"{name}.png")
    from isr_jax.upscaling import folders

    fit = folders.fit

    def broken(page, format, calls=[]):  # noqa: B006
        calls.append(0)
        if len(calls) == 2:
            raise LookupError("no such thing")
        return fit(page, format)

    monkeypatch.setattr(folders, "fit", broken)
    from isr_jax import cli

    assert cli.main(["upscale", "--model", "nearest", "--scale", "2", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert err.index("Traceback") < err.index("b.png: a bug in isr_jax, LookupError: no such thing")
    assert err.splitlines()[-1] == "isr upscale: 2 upscaled, 0 skipped, 1 failed"


def test_a_file_name_cannot_forge_lines(tmp_path, capsys):
    name = "a\nisr upscale: 9 upscaled\x1b[2J\u202egnp.png"
    (tmp_path / name).write_bytes(b"no image")
    code, lines = upscale(capsys, tmp_path)
    assert code == 1
    assert len(lines) == 2
    assert r"a\nisr upscale: 9 upscaled\x1b[2J\u202egnp.png: unreadable" in lines[0]
    assert printable("grün 図.png") == "grün 図.png"


@pytest.mark.parametrize("length", [240, 251, 255])
def test_names_may_be_as_long_as_the_disk_allows(tmp_path, capsys, length):
    Image.fromarray(noise(4, 5, 3)).save(tmp_path / "a.png")
    target = tmp_path / ("b" * (length - 4) + ".png")
    assert upscale(capsys, tmp_path / "a.png", "--out", target)[0] == 0
    assert read(target).shape == (8, 10, 3)


def test_a_photo_is_not_replaced_by_itself_unless_asked(tmp_path, capsys):
    photo = tmp_path / "a.png"
    Image.fromarray(noise(4, 5, 3)).save(photo)
    before = photo.read_bytes()
    for options in (("--suffix", ""), ("--suffix", "", "--overwrite"), ("--out", photo)):
        code, lines = upscale(capsys, photo, *options)
        assert code == 2
        assert (
            "a.png would replace itself: give --out or another --suffix, or --in-place" in lines[0]
        )
    assert photo.read_bytes() == before
    assert upscale(capsys, photo, "--suffix", "", "--in-place")[0] == 0
    assert read(photo).shape == (8, 10, 3)


def test_only_files_are_replaced(tmp_path, capsys):
    from isr_jax import cli

    for target in ("/dev/full", "/dev/null"):
        file = tmp_path / "x.safetensors"
        file.unlink(missing_ok=True)
        file.symlink_to(target)
        export = ["export", "compact-x2", str(file), "--overwrite"]
        assert cli.main(export) == 1
        assert "x.safetensors is not a file: name another" in capsys.readouterr().err
        assert file.is_symlink()


def header_only(tmp_path, header):
    text = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    return tmp_path / "a.safetensors"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({f"x{i}": {} for i in range(20_001)}, "declares 20001 tensors"),
        ({"x": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}, "other data"),
        ({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 0]}}, "has shape"),
        ({"x": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, "has shape"),
        ({"x": {"dtype": "C64", "shape": [0], "data_offsets": [0, 0]}}, "dtype 'C64'"),
        ({"x": {"dtype": "F32", "shape": 3, "data_offsets": [0, 0]}}, "damaged"),
        ({"x": 1}, "damaged"),
        ([], "not a dictionary"),
    ],
)
def test_a_header_is_checked_before_data_is_read(tmp_path, header, message):
    with pytest.raises(ValueError, match=message):
        tensor_files.read_header(header_only(tmp_path, header))
    with pytest.raises(UserError, match="is damaged or holds no weights"):
        isr_jax.load(tmp_path / "a.safetensors")


def test_a_deep_or_endless_header_is_refused(tmp_path):
    file = tmp_path / "a.safetensors"
    text = b'{"a":' * 100_000
    file.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(ValueError, match=r"nested too deeply|Expecting"):
        tensor_files.read_header(file)
    file.write_bytes((2**60).to_bytes(8, "little") + b"{}")
    with pytest.raises(ValueError, match="not a safetensors file"):
        tensor_files.read_header(file)


def a_model():
    """Return the parameters of a pretrained model in float32, and the metadata of its file."""
    from safetensors import safe_open

    from isr_jax.pretrained import PRETRAINED

    with safe_open(PRETRAINED["compact-x2"], framework="numpy") as opened:
        names = list(opened.keys())
        arrays = {name: opened.get_tensor(name).astype(np.float32) for name in names}
        return arrays, opened.metadata()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda x: np.full_like(x, np.nan), "not finite"),
        (lambda x: np.full_like(x, np.inf), "not finite"),
        (lambda x: x.astype(np.int32), "arrays are not those of its generator"),
        (lambda x: x.astype(np.float64), "arrays are not those of its generator"),
    ],
)
def test_weights_are_finite_floats(tmp_path, damage, message):
    """In a file of ours; the others go through the same check."""
    arrays, metadata = a_model()
    name = next(name for name in arrays if name.endswith("kernel"))
    arrays[name] = damage(arrays[name])
    safetensors.save_file(arrays, tmp_path / "a.safetensors", metadata=metadata)
    with pytest.raises(UserError, match=rf"a\.safetensors is damaged.*{message}"):
        isr_jax.load(tmp_path / "a.safetensors")


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_pytorch_files_hold_what_they_declare(tmp_path):
    torch = pytest.importorskip("torch", reason="needs pip install 'isr-jax[torch]'")
    good = {"a": torch.arange(6.0).reshape(2, 3).t(), "n": torch.tensor(3), "s": "text"}
    good["self"] = good
    torch.save(good, tmp_path / "good.pth")
    arrays = read_tensors(tmp_path / "good.pth")
    np.testing.assert_array_equal(arrays["a"], [[0, 3], [1, 4], [2, 5]])
    assert arrays.keys() == {"a", "n"}
    with zipfile.ZipFile(tmp_path / "good.pth") as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "zip.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    bad = {
        "expanded": (torch.zeros(1).expand(2 * 10**9), r"tensor a of shape .* is larger"),
        "sparse": (torch.eye(3).to_sparse(), "tensor a is sparse_coo on cpu"),
        "quantized": (torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "quantized"),
        "meta": (torch.empty(3, device="meta"), "on meta"),
    }
    for name, (tensor, message) in bad.items():
        torch.save({"a": tensor}, tmp_path / f"{name}.pth")
        with pytest.raises(UserError, match=message):
            read_tensors(tmp_path / f"{name}.pth")
    with pytest.raises(UserError, match="entries are compressed"):
        read_tensors(tmp_path / "zip.pth")


def test_a_network_whose_output_overflows_is_an_error_for_that_image(tmp_path):
    arrays, metadata = a_model()
    huge = {name: x * 1e30 if name.endswith("kernel") else x for name, x in arrays.items()}
    safetensors.save_file(huge, tmp_path / "a.safetensors", metadata=metadata)
    with pytest.raises(UserError, match="the model's output is not finite"):
        isr_jax.load(tmp_path / "a.safetensors")(noise(9, 8, 3))


def test_names_that_are_not_utf_8_are_scored_and_written(tmp_path, capfd):
    from isr_jax import cli

    folder = tmp_path / "set" / "hr"
    folder.mkdir(parents=True)
    name = os.fsdecode(b"caf\xe9|.png")
    image = imagecodecs.png_encode(noise(24, 24, 3))
    (folder / name).write_bytes(image)
    files = [f"--{kind}={tmp_path / kind}" for kind in ("csv", "markdown", "json")]
    model = ["--model", "bicubic", "--scale", "2"]
    assert cli.main(["evaluate", *model, "--data", str(tmp_path / "set"), *files]) == 0
    assert b"caf\xe9|" in (tmp_path / "csv").read_bytes()
    assert r"caf\udce9\|" in (tmp_path / "markdown").read_text()
    assert json.loads((tmp_path / "json").read_text())["sets"][0]["images"][0]["name"] == name[:-4]
    assert "Traceback" not in capfd.readouterr().err


def test_ctrl_c_during_imports_is_one_line():
    """Sent before anything is imported but the signal's handler."""
    code = (
        "import os, runpy, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'ml_collections':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv = ['run.py']\n"
        "runpy.run_path('run.py', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 130
    (line,) = done.stderr.splitlines()
    assert line.startswith("run.py: interrupted; run the same command again")
