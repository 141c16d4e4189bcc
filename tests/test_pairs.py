"""Benchmark folders: every layout, names that do and do not pair, sizes, and what messages say."""

import re

import numpy as np
import pytest
from PIL import Image

from isr_jax.data.pairs import find_sets, load_pair, pair_folders
from isr_jax.errors import UserError
from isr_jax.resize import resize_uint8

RNG = np.random.default_rng(0)


def write(path, h, w, channels=3):
    """A photograph-like PNG; returns its pixels."""
    shape = (h, w, channels) if channels > 1 else (h, w)
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def summary(sets):
    return [(found.name, found.scale, [pair.name for pair in found.pairs]) for found in sets]


@pytest.mark.parametrize(
    "hr, lr",
    [
        ("x{scale}/hr/{name}.png", "x{scale}/lr/{name}.png"),
        ("HR/{name}.png", "LR_bicubic/X{scale}/{name}x{scale}.png"),
        ("GTmod12/{name}.png", "LRbicx{scale}/{name}.png"),
        ("DIV2K_valid_HR/{name}.png", "DIV2K_valid_LR_bicubic/X{scale}/{name}x{scale}.png"),
        ("HR/{name}.png", "LR/X{scale}/{name}.png"),
        ("hr/{name}.png", "lr/x{scale}/{name}_x{scale}.png"),
        ("Hr/{name}.png", "lr_bicubic/X{scale}/{name}.png"),
    ],
)
def test_layouts_on_disk(tmp_path, hr, lr):
    for scale in (4, 2):
        for name in ("img10", "img9"):
            write(tmp_path / "Set5" / hr.format(scale=scale, name=name), 24, 36)
            small = tmp_path / "Set5" / lr.format(scale=scale, name=name)
            write(small, 24 // scale, 36 // scale)
    names = ["img9", "img10"]
    expected = [("Set5", 2, names), ("Set5", 4, names)]
    assert summary(find_sets(tmp_path)) == expected
    assert summary(find_sets(tmp_path / "Set5", scales=[4])) == expected[1:]
    for found in find_sets(tmp_path):
        for pair in found.pairs:
            small, large = load_pair(pair, scale=found.scale)
            np.testing.assert_array_equal(large, Image.open(pair.hr))
            np.testing.assert_array_equal(small, Image.open(pair.lr))
            assert pair.lr.as_posix().endswith(lr.format(scale=found.scale, name=pair.name))


@pytest.mark.parametrize("folder", ["lr", "LR", "LR/X2", "x2"])
@pytest.mark.parametrize(
    "hr, lr",
    [
        ("fox", "fox_LR"),
        ("fox", "foxx2"),
        ("fox", "fox_x2"),
        ("fox", "x2_fox"),
        ("fox", "FOX-X2"),
        ("Fox", "fox_lr_x2"),
        ("fox_HR", "fox_LR"),
        ("img_001_SRF_2_HR", "img_001_SRF_2_LR"),
        ("fox2", "fox2x2"),
        ("foxx2", "foxx2"),
    ],
)
def test_common_names_pair(tmp_path, folder, hr, lr):
    sides = ("x2/hr", "x2/lr") if folder == "x2" else ("HR" if "LR" in folder else "hr", folder)
    write(tmp_path / sides[0] / f"{hr}.png", 24, 36)
    write(tmp_path / sides[1] / f"{lr}.png", 12, 18)
    ((_, scale, (pair,), faults),) = find_sets(tmp_path, scales=[2])
    assert (scale, pair.name, pair.lr.stem, faults) == (2, hr, lr, ())


def test_a_name_with_a_mark_pairs_with_itself_first(tmp_path):
    for name in ("fox", "fox_x2", "Fox"):
        write(tmp_path / "hr" / f"{name}.png", 24, 36)
    for name in ("fox", "fox_x2", "Fox_x2"):
        write(tmp_path / "lr" / f"{name}.png", 12, 18)
    (found,) = find_sets(tmp_path)
    pairs = {(pair.name, pair.lr.stem) for pair in found.pairs}
    assert pairs == {("fox", "fox"), ("fox_x2", "fox_x2"), ("Fox", "Fox_x2")}
    write(tmp_path / "lr" / "fox_lr.png", 12, 18)
    (found,) = find_sets(tmp_path)
    assert {pair.name for pair in found.pairs} == {"fox_x2", "Fox"}
    assert "fox.png: several files have its name" in found.faults[0]


@pytest.mark.parametrize("folder", ["lr", "LR", "Lr"])
@pytest.mark.parametrize("names", [[], ["other"]])
def test_lr_images_that_pair_with_nothing_are_not_replaced(tmp_path, folder, names):
    """Black ones, under other names, once scored what the bicubic of HR scores."""
    write(tmp_path / "hr" / "a.png", 24, 36)
    (tmp_path / folder).mkdir()
    for name in names:
        write(tmp_path / folder / f"{name}.png", 12, 18)
    with pytest.raises(
        UserError, match=r"hr has a counterpart \(first, .*a\.png.*rename"
    ) as caught:
        find_sets(tmp_path, scales=[2])
    assert str(tmp_path / folder) in str(caught.value)


@pytest.mark.parametrize(
    "hr, lr",
    [
        ("hr", "LR_x2"),
        ("HR", "LRx2"),
        ("HR", "LR_bicubic"),
        ("HR", "LR_bicubic/2x"),
        ("HR", "lr2"),
        ("GTmod12", "LRbic/x2"),
        ("DIV2K_valid_HR", "DIV2K_valid_LR_unknown/X2"),
        ("x2/hr", "x2/lr_2"),
    ],
)
def test_folders_of_lr_images_that_are_not_read_are_named(tmp_path, hr, lr):
    write(tmp_path / "Set5" / hr / "a.png", 24, 36)
    write(tmp_path / "Set5" / lr / "a.png", 12, 18)
    with pytest.raises(UserError, match=lr.removeprefix("x2/").split("/")[0] + " is not where LR"):
        find_sets(tmp_path, scales=[2])


def test_a_plain_folder_tells_its_scale_by_its_sizes(tmp_path):
    write(tmp_path / "hr" / "a.png", 30, 33)
    write(tmp_path / "lr" / "a.png", 10, 11)
    assert summary(find_sets(tmp_path)) == [(tmp_path.name, 3, ["a"])]
    with pytest.raises(UserError, match="no set at scale 2; it has 3"):
        find_sets(tmp_path, scales=[2])


def test_a_folder_named_by_its_scale_is_called_by_the_one_above(tmp_path):
    write(tmp_path / "Set5" / "x4" / "hr" / "a.png", 8, 8)
    write(tmp_path / "Set5" / "x4" / "lr" / "a.png", 2, 2)
    assert summary(find_sets(tmp_path / "Set5" / "x4")) == [("Set5", 4, ["a"])]


def test_without_lr_images_the_exact_bicubic_makes_them(tmp_path):
    hr = write(tmp_path / "hr" / "a.png", 31, 29)
    with pytest.raises(UserError, match="give the scale"):
        find_sets(tmp_path)
    two, three = find_sets(tmp_path, scales=[3, 2])
    assert (two.scale, three.scale) == (2, 3)
    small, large = load_pair(three.pairs[0], scale=3)
    np.testing.assert_array_equal(large, hr[:30, :27])
    np.testing.assert_array_equal(small, resize_uint8(hr[:30, :27], scale=1 / 3))


def test_sets_are_in_natural_order_and_hidden_folders_are_not_looked_at(tmp_path):
    for name in ("Set14", "Set5", "faces/deep/Set1", ".trash/Set9"):
        write(tmp_path / name / "hr" / "a.png", 8, 8)
        write(tmp_path / name / "hr" / "._a.png", 8, 8)
    expected = [("Set5", 2, ["a"]), ("Set14", 2, ["a"]), ("faces/deep/Set1", 2, ["a"])]
    assert summary(find_sets(tmp_path, scales=[2])) == expected


def test_sets_that_are_links_are_called_by_their_links(tmp_path):
    write(tmp_path / "store" / "8f3a" / "hr" / "a.png", 8, 8)
    tree = tmp_path / "sets"
    (tree / "more").mkdir(parents=True)
    for link, target in {
        "Set5": tmp_path / "store" / "8f3a",
        "more/Set9": tmp_path / "store" / "8f3a",
        "more/loop": tree,
        "again": tree / "more",
    }.items():
        (tree / link).symlink_to(target)
    names = [found.name for found in find_sets(tree, scales=[2])]
    assert names in (["Set5", "again/Set9"], ["Set5", "more/Set9"])
    assert [found.name for found in find_sets(tree / "Set5", scales=[2])] == ["Set5"]
    (tmp_path / "Set7").symlink_to(tmp_path / "store")
    assert [found.name for found in find_sets(tmp_path / "Set7", scales=[2])] == ["8f3a"]
    write(tmp_path / "store" / "x2" / "hr" / "a.png", 8, 8)
    assert find_sets(tmp_path / "Set7" / "x2")[0].name == "Set7"


@pytest.mark.parametrize("orientation", [3, 5, 6, 8])
def test_hr_is_upright_before_its_size_is_judged(tmp_path, orientation):
    """As a camera stores it, on its side, beside an LR image that another program made upright."""
    upright = np.array(Image.fromarray(write(tmp_path / "hr" / "a.png", 24, 48)))
    inverse = {3: 2, 5: 0, 6: 1, 8: -1}[orientation]  # quarter turns, or a transposition
    stored = upright.swapaxes(0, 1) if orientation == 5 else np.rot90(upright, inverse)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "hr" / "a.png", exif=exif)
    write(tmp_path / "lr" / "a.png", 12, 24)
    (found,) = find_sets(tmp_path)
    assert found.scale == 2
    small, large = load_pair(found.pairs[0], scale=2)
    assert small.shape == (12, 24, 3)
    np.testing.assert_array_equal(large, upright)


def test_unpaired_files_are_named_and_the_others_stay(tmp_path):
    for name in ("a", "b", "c"):
        write(tmp_path / "hr" / f"{name}.png", 8, 8)
    for name in ("a", "c", "d"):
        write(tmp_path / "lr" / f"{name}.png", 4, 4)
    write(tmp_path / "hr" / "c.bmp", 8, 8)
    (found,) = find_sets(tmp_path)
    assert [pair.name for pair in found.pairs] == ["a"]
    no_lr, twice, no_hr = found.faults
    assert "b.png" in no_lr
    assert "c.bmp" in twice
    assert "several" in twice
    assert "d.png" in no_hr


@pytest.mark.parametrize(
    "hr, lr, message",
    [(["a"], ["b"], "no image of .*hr has a counterpart"), ([], ["b"], "hr holds no PNG")],
)
def test_a_set_without_a_pair_is_one_line(tmp_path, hr, lr, message):
    for folder, names in (("hr", hr), ("lr", lr)):
        (tmp_path / "x2" / folder).mkdir(parents=True)
        for name in names:
            write(tmp_path / "x2" / folder / f"{name}.png", 8, 8)
    (found,) = find_sets(tmp_path)
    assert found.pairs == ()
    (line,) = found.faults
    assert re.search(message, line)


def test_what_is_no_benchmark_is_said(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        find_sets(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no benchmark set: put HR images into hr/"):
        find_sets(tmp_path)


def test_images_in_subfolders_are_said(tmp_path):
    """But not those of the LR folder, which may lie in that of HR."""
    for place, side in {"a": 8, "lr/a": 4, "more/b": 8}.items():
        file = tmp_path / f"{place}.png"
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (side, side)).save(file)
    found = pair_folders(tmp_path, tmp_path / "lr", scale=2)
    assert [pair.hr.name for pair in found.pairs] == ["a.png"]
    said = "images in subfolders are not paired; name this folder"
    assert found.faults == (f"{tmp_path / 'more'}: {said}",)


def test_odd_sizes_are_cut(tmp_path):
    """HR 321x481 at x4: LR of 80x120 (cut) and of 81x121 (MATLAB's, rounded up) are both right."""
    for name, h, w in (("cut", 80, 120), ("up", 81, 121)):
        write(tmp_path / "hr" / f"{name}.png", 321, 481)
        write(tmp_path / "lr" / f"{name}.png", h, w)
    for pair in find_sets(tmp_path)[0].pairs:
        small, large = load_pair(pair, scale=4)
        assert small.shape == (80, 120, 3)
        assert large.shape == (320, 480, 3)


def test_gray_stays_gray_only_where_both_files_are(tmp_path):
    for name, channels in (("gray", (1, 1)), ("mixed", (1, 3))):
        write(tmp_path / "hr" / f"{name}.png", 8, 12, channels[0])
        write(tmp_path / "lr" / f"{name}.png", 4, 6, channels[1])
    gray, mixed = (load_pair(pair, scale=2) for pair in find_sets(tmp_path)[0].pairs)
    assert [x.shape for x in gray] == [(4, 6), (8, 12)]
    assert [x.shape for x in mixed] == [(4, 6, 3), (8, 12, 3)]


@pytest.mark.parametrize(
    "lr_size, message",
    [
        ((4, 5), "LR image is 5x4 and its HR image 12x8, where a scale of 2 has LR of 6x4: cut"),
        (None, "a.png"),
    ],
)
def test_bad_pairs_name_the_file(tmp_path, lr_size, message):
    write(tmp_path / "x2" / "hr" / "a.png", 8, 12)
    if lr_size:
        write(tmp_path / "x2" / "lr" / "a.png", *lr_size)
    else:
        (tmp_path / "x2" / "lr").mkdir()
        (tmp_path / "x2" / "lr" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    (found,) = find_sets(tmp_path)
    with pytest.raises(UserError, match=message):
        load_pair(found.pairs[0], scale=2)


def test_too_small_for_the_scale(tmp_path):
    write(tmp_path / "hr" / "a.png", 3, 12)
    (found,) = find_sets(tmp_path, scales=[4])
    with pytest.raises(UserError, match=r"a\.png: smaller than 4x4"):
        load_pair(found.pairs[0], scale=4)
