"""NIQE against a plain version of its algorithm, recorded scores, and an installed pyiqa."""

import zipfile

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from scipy.special import gamma
from skimage import data

from isr_jax.errors import UserError
from isr_jax.perceptual import weight_files as weights
from isr_jax.perceptual.niqe import FORMS, Pristine, at_hand, load_niqe, load_pristine, niqe
from isr_jax.protocols import luma_uint8
from isr_jax.resize import resize_float64

# A made-up model, near enough to photographs that every feature counts.
SPREAD = np.linspace(0.02, 0.2, 36)
MODEL = Pristine(
    np.tile(np.linspace(0.4, 1.6, 18), 2),
    np.diag(SPREAD) + 0.01 * np.outer(SPREAD, SPREAD[::-1]) + 0.01 * np.outer(SPREAD[::-1], SPREAD),
)


def fitted(values):
    """Shape and both scales of an asymmetric generalised Gaussian, by trying every shape."""
    shapes = 0.2 + np.arange(9801) / 1000
    table = gamma(2 / shapes) ** 2 / gamma(1 / shapes) / gamma(3 / shapes)
    left = np.sqrt(np.mean(values[values < 0] ** 2))
    right = np.sqrt(np.mean(values[values > 0] ** 2))
    skew = left / right
    ratio = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = shapes[np.argmin((table - ratio) ** 2)]
    spread = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * spread, right * spread


def plain(luma, model, *, single=False):
    """The algorithm of Mittal et al. 2013, a block and a window's pixel at a time."""
    exponents = np.arange(-3, 4) ** 2 / (2 * (7 / 6) ** 2)
    window = np.exp(-(exponents[:, None] + exponents))
    window /= window.sum()
    if single:
        window = window.astype(np.float32).astype(np.float64)
    rows, columns = (side // 96 for side in luma.shape)
    image = luma[: rows * 96, : columns * 96].astype(np.float64)
    scales = []
    for size in (96, 48):
        h, w = image.shape
        padded = np.pad(image, 3, mode="edge")
        shifted = [(window[i, j], padded[i : i + h, j : j + w]) for i in range(7) for j in range(7)]
        mean = sum(weight * x for weight, x in shifted)
        variance = sum(weight * x**2 for weight, x in shifted) - mean**2
        normal = (image - mean) / (np.sqrt(np.abs(variance)) + 1)
        features = []
        for top, at in np.ndindex(rows, columns):
            block = normal[top * size :, at * size :][:size, :size]
            shape, left, right = fitted(block)
            found = [shape, (left + right) / 2]
            for down, across in ((0, 1), (1, 0), (1, 1), (1, -1)):
                shape, left, right = fitted(block * np.roll(np.roll(block, down, 0), across, 1))
                found += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left, right]
            features.append(found)
        scales.append(features)
        # MATLAB mirrors the border.
        image = resize_float64(np.pad(image, 4, mode="symmetric"), scale=0.5)[2:-2, 2:-2]
    features = np.concatenate(scales, axis=1)
    middle = (model.covariance + np.cov(features.T)) / 2
    difference = model.mean - features.mean(axis=0)
    return np.sqrt(difference @ np.linalg.solve(middle, difference))


def test_niqe_equals_the_plain_algorithm():
    """Of an image that ends within a block, of several rows of blocks, without flat areas."""
    image = data.coins()[:210, :310]
    assert niqe(image, MODEL) == pytest.approx(plain(image, MODEL), rel=1e-9)
    expected = plain(image, MODEL, single=True)
    assert niqe(image, MODEL, form="pyiqa") == pytest.approx(expected, rel=1e-7)
    assert abs(expected - plain(image, MODEL)) > 1e-6


# By pyiqa 0.1.16 with MODEL.
RECORDED = {"astronaut": 27.318402, "camera": 26.609521, "coffee": 25.712546}


@pytest.mark.parametrize("name", RECORDED)
def test_pyiqas_scores_are_met(name):
    """Photographs with flat areas too, where the score depends on pyiqa's single precision."""
    score = niqe(getattr(data, name)()[:288], MODEL, form="pyiqa")
    assert score == pytest.approx(RECORDED[name], abs=1e-4)


@pytest.mark.parametrize("name", RECORDED)
def test_pyiqa_gives_the_same(name, tmp_path):
    torch = pytest.importorskip("torch", reason="compares with pyiqa")
    arch = pytest.importorskip("pyiqa.archs.niqe_arch", reason="compares with pyiqa")
    savemat(tmp_path / "m.mat", {"mu_prisparam": MODEL.mean, "cov_prisparam": MODEL.covariance})
    image = getattr(data, name)()[:288]
    planes = np.atleast_3d(image).transpose(2, 0, 1)[None].astype(np.float32) / 255
    expected = arch.NIQE(pretrained_model_path=tmp_path / "m.mat")(torch.from_numpy(planes))
    assert niqe(image, MODEL, form="pyiqa") == pytest.approx(float(expected), abs=1e-4)
    assert RECORDED[name] == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.skipif(not at_hand(), reason="needs the published parameters")
def test_published_score_of_baboon(isr_data):
    """BasicSR's documentation: MATLAB R2021a gives 5.72957338 for its luma."""
    with Image.open(isr_data / "benchmarks/Set14/x2/hr/001.png") as image:
        luma = luma_uint8(np.array(image))
    assert load_niqe("matlab")(luma) == pytest.approx(5.72957338, abs=1e-6)


def test_colour_is_that_of_the_form():
    """MATLAB's rgb2gray has the weights of NTSC's inverse matrix, and rounds a half up."""
    rng = np.random.default_rng(0)
    rgb = data.astronaut()[:200, :200] // 2 + rng.integers(0, 99, (200, 200, 3), np.uint8)
    # Single precision and double round a half of pyiqa's weights differently: leave none.
    rgb[..., 2] += (rgb @ [299, 587, 114] % 1000 == 500).astype(np.uint8)
    inverse = np.linalg.inv([[1, 0.956, 0.621], [1, -0.272, -0.647], [1, -1.106, 1.703]])
    gray = np.floor(rgb @ inverse[0] + 0.5).astype(np.uint8)
    assert niqe(rgb, MODEL) == niqe(gray, MODEL)
    other = np.round(rgb @ [0.299, 0.587, 0.114]).astype(np.uint8)
    assert np.any(gray != other)
    assert niqe(rgb, MODEL, form="pyiqa") == niqe(other, MODEL, form="pyiqa")
    for form in ("matlab", "pyiqa"):
        assert niqe(np.stack([gray] * 3, -1), MODEL, form=form) == niqe(gray, MODEL, form=form)
        assert niqe(gray[..., None], MODEL, form=form) == niqe(gray, MODEL, form=form)


@pytest.mark.parametrize("form", ["matlab", "pyiqa"])
def test_borders_and_incomplete_blocks_do_not_count(form):
    image = data.camera()[:200, :210]
    expected = niqe(image[4:196, 4:196], MODEL, form=form)
    assert niqe(image, MODEL, form=form, crop=4) == expected
    assert niqe(image[4:-4, 4:], MODEL, form=form) == expected
    assert niqe(image, MODEL, form=form) != expected


@pytest.mark.parametrize("form", ["matlab", "pyiqa"])
@pytest.mark.parametrize("value", [0, 1, 90, 255])
def test_flat_colour_has_no_score(form, value):
    assert np.isnan(niqe(np.full((192, 200), value, np.uint8), MODEL, form=form))


def test_rounding_decides_nothing_in_flat_areas():
    """In the authors' form; sums of rounded weights would put some values beside their mean."""
    for value in range(256):
        flat = np.full((20, 20), float(value))
        np.testing.assert_array_equal(FORMS["matlab"].blur(flat), flat)


def test_flat_blocks_leave_the_others_their_score():
    """As in the authors' code: they are left out of the covariance, and of what they lack."""
    image = data.camera()[:192, :384].copy()
    image[:96, :96] = 90
    for form in ("matlab", "pyiqa"):
        assert np.isfinite(niqe(image, MODEL, form=form))


@pytest.mark.parametrize(
    ("shape", "form", "crop", "message"),
    [
        ((95, 300), "matlab", 0, r"as by matlab needs 2 block\(s\) of 96x96 pixels; .* are 95x300"),
        ((96, 191), "matlab", 0, "needs 2 block"),
        ((100, 100, 3), "pyiqa", 3, "as by pyiqa needs 1 block.* are 94x94"),
        ((200, 200, 4), "pyiqa", 0, "4 channels"),
        ((200, 200), "pyiqa", 100, "leaves no image"),
        ((200, 200), "pyiqas", 0, "unknown NIQE form 'pyiqas'.*did you mean pyiqa"),
    ],
)
def test_what_cannot_be_scored_is_refused(shape, form, crop, message):
    with pytest.raises(UserError, match=message):
        niqe(np.zeros(shape, np.uint8), MODEL, form=form, crop=crop)


def test_one_block_has_no_covariance():
    """pyiqa takes it as zero."""
    image = data.camera()[100:196, 200:296]
    nearly = niqe(image, MODEL._replace(covariance=2 * MODEL.covariance), form="pyiqa")
    assert niqe(image, MODEL, form="pyiqa") == pytest.approx(np.sqrt(2) * nearly, rel=1e-9)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, on a machine without pyiqa's."""
    monkeypatch.setenv("ISR_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setitem(weights.FILES, "niqe_basicsr", weights.FILES["niqe"])
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def written(file, mean=MODEL.mean, covariance=MODEL.covariance):
    """A file of parameters, with the names of its publisher."""
    if file.suffix == ".mat":
        savemat(file, {"mu_prisparam": mean, "cov_prisparam": covariance}, do_compression=True)
    else:
        np.savez(file, mu_pris_param=mean, cov_pris_param=covariance, gaussian_window=np.eye(7))
    return file


@pytest.mark.parametrize("name", ["mine.mat", "mine.npz"])
def test_both_kinds_of_files_are_read_exactly(tmp_path, name):
    model = load_pristine(path=written(tmp_path / name, mean=MODEL.mean[None]))
    np.testing.assert_array_equal(model.mean, MODEL.mean)
    np.testing.assert_array_equal(model.covariance, MODEL.covariance)
    measure = load_niqe("pyiqa", folder=tmp_path / name)
    image = data.camera()[:200, :200]
    assert measure(image, crop=2) == niqe(image, MODEL, form="pyiqa", crop=2)


def test_parameters_are_looked_up_by_either_name(cache, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("ISR_WEIGHTS", str(cache))
    for name in ("niqe_pris_params.npz", "niqe_modelparameters.mat"):
        folder = tmp_path / name[:8]
        folder.mkdir()
        written(folder / name, mean=MODEL.mean + len(name))
        np.testing.assert_array_equal(load_pristine(path=folder).mean, MODEL.mean + len(name))


def test_missing_parameters_are_named_with_where_to_get_them(cache, monkeypatch):
    file = weights.FILES["niqe"]._replace(url="http://127.0.0.1:9/modelparameters.mat")
    for key in ("niqe", "niqe_basicsr"):
        monkeypatch.setitem(weights.FILES, key, file)
    assert not at_hand()
    with pytest.raises(UserError) as caught:
        load_niqe("matlab")
    text = str(caught.value)
    assert "niqe_modelparameters.mat is not in" in text
    assert f"put it into {cache}" in text
    assert file.url in text


def test_a_cached_file_that_is_another_is_refused(cache):
    written(cache / "niqe_modelparameters.mat")
    with pytest.raises(UserError, match="its sha256 is"):
        load_pristine()


@pytest.mark.parametrize("suffix", [".mat", ".npz"])
def test_other_parameters_are_refused(tmp_path, suffix):
    file = tmp_path / f"other{suffix}"
    written(file, mean=np.zeros(35))
    with pytest.raises(UserError, match=r"they have \[1, 35\]|they have \[35\]"):
        load_pristine(path=file)
    written(file, covariance=np.full((36, 36), np.nan))
    with pytest.raises(UserError, match="not finite"):
        load_pristine(path=file)
    written(file, covariance=np.zeros((1000, 1000)))
    with pytest.raises(UserError, match=f"{file.name} is damaged|these are not NIQE's parameters"):
        load_pristine(path=file)
    written(file, covariance=np.random.default_rng(0).normal(size=(500, 500)))
    with pytest.raises(UserError, match="at most 262144 are read"):
        load_pristine(path=file)


def test_damaged_and_hostile_parameters_are_refused(tmp_path):
    whole = {suffix: written(tmp_path / f"a{suffix}").read_bytes() for suffix in (".mat", ".npz")}
    for suffix, content in whole.items():
        for cut in (0, 10, 200, len(content) // 2, len(content) - 9):
            (tmp_path / f"cut{suffix}").write_bytes(content[:cut])
            with pytest.raises(UserError, match=r"is damaged or holds no weights|are not NIQE's"):
                load_pristine(path=tmp_path / f"cut{suffix}")
    objects = tmp_path / "objects.npz"
    np.savez(objects, mu_pris_param=np.array([print], object), cov_pris_param=MODEL.covariance)
    with pytest.raises(UserError, match="damaged"):
        load_pristine(path=objects)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mu_pris_param.npy", bytes(2**27))
    with pytest.raises(UserError, match="take 134217728 bytes"):
        load_pristine(path=tmp_path / "bomb.npz")
