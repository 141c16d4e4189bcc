import dataclasses
import io
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from isr_jax.data.examples import Decoded
from isr_jax.data.sources import open_source
from isr_jax.data.stream import open_stream
from isr_jax.errors import UserError
from tests.helpers.crops import SYMMETRIES, check_crops, located_photos

SIZES = [(24, 40), (16, 16), (32, 20), (200, 256), (20, 20)]
OPTIONS = {"crop": 16, "batch": 3, "seed": 0}


@pytest.fixture
def photos():
    return located_photos(SIZES, scale=4)


@pytest.fixture
def source(tmp_path, photos):
    return write(tmp_path, photos)


def write(folder, photos):
    for photo in photos:
        Image.fromarray(photo.hr).save(folder / photo.name)
    return open_source(f"folder:{folder}", "train", scale=4)


@pytest.fixture
def stream(request):
    """Opens streams, and closes them at the test's end."""

    def open_(source, *, warn=pytest.fail, **options):
        stream = open_stream(source, **(OPTIONS | options), warn=warn)
        request.addfinalizer(stream.close)
        return stream

    return open_


def take(stream, n):
    return [next(stream) for _ in range(n)]


def check_equal(batches, expected):
    assert len(batches) == len(expected)
    for a, b in zip(batches, expected, strict=True):
        assert a.keys() == b.keys() == {"lr", "hr"}
        for name in ("lr", "hr"):
            np.testing.assert_array_equal(a[name], b[name])


def places_of(batches, photos):
    return [
        place
        for batch in batches
        for place in check_crops(batch["lr"], batch["hr"], photos, scale=4)
    ]


def test_crops_are_aligned_pieces_of_images_and_their_bicubic(source, photos, stream):
    batches = take(stream(source), 10)
    for batch in batches:
        assert batch["lr"].shape == (3, 4, 4, 3) and batch["hr"].shape == (3, 16, 16, 3)
        assert batch["lr"].dtype == batch["hr"].dtype == np.uint8
    assert len(set(places_of(batches, photos))) > 20


def test_an_epoch_visits_every_image_once_in_a_new_order(source, photos, stream):
    images = [place[0] for place in places_of(take(stream(source), 20), photos)]
    epochs = [tuple(images[i : i + 5]) for i in range(0, 60, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len(set(epochs)) > 6


def test_every_position_and_symmetry_is_equally_likely(tmp_path, stream):
    photos = located_photos([(20, 24)], scale=4)
    (batch,) = take(stream(write(tmp_path, photos), batch=480), 1)
    counts = Counter(places_of([batch], photos))
    expected = {(0, y, x, s): 480 / 6 / 8 for y in (0, 4) for x in (0, 4, 8) for s in SYMMETRIES}
    assert counts.keys() == expected.keys()
    chi = sum((counts[place] - mean) ** 2 / mean for place, mean in expected.items())
    assert abs(chi - 47) < 5 * np.sqrt(2 * 47)


def test_a_seed_is_a_stream(source, stream):
    first = take(stream(source), 4)
    check_equal(take(stream(source), 4), first)
    other = take(stream(source, seed=1), 4)
    assert any((a["hr"] != b["hr"]).any() for a, b in zip(other, first, strict=True))


def test_resumes_exactly(source, stream):
    whole = take(stream(source), 12)
    interrupted = stream(source)
    check_equal(take(interrupted, 5), whole[:5])
    state = json.loads(json.dumps(interrupted.get_state()))
    check_equal(take(interrupted, 2), whole[5:7])
    for resumed in (stream(source), interrupted):
        resumed.set_state(state)
        assert resumed.get_state() == state
        check_equal(take(resumed, 7), whole[5:])


@pytest.mark.slow
def test_workers_change_nothing_and_resume_exactly(source, stream):
    whole = take(stream(source), 9)
    alone, working = stream(source), stream(source, workers=2)
    take(alone, 3)
    working.set_state(alone.get_state())
    check_equal(take(working, 4), whole[3:7])
    alone.set_state(working.get_state())
    check_equal(take(alone, 2), whole[7:])


def test_an_unusable_image_gives_its_turn_to_the_next(tmp_path, photos, stream):
    write(tmp_path, photos)
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:-40])
    Image.fromarray(photos[4].hr[:15]).save(tmp_path / "4.png")
    source, lines = open_source(f"folder:{tmp_path}", "train", scale=4), []
    batches = take(stream(source, warn=lines.append), 20)
    images = Counter(place[0] for place in places_of(batches, photos))
    assert images == {0: 24, 2: 24, 3: 12}
    assert sorted(line[:15] for line in lines) == ["replaced 1.png:", "replaced 4.png:"]
    check_equal(take(stream(source, warn=lines.append), 20), batches)


def test_stops_at_once_if_no_image_is_usable(source, stream):
    with pytest.raises(UserError, match=r"none of its 5 images can be used \(first, 0\.png: 40x24"):
        stream(source, crop=256)


@dataclasses.dataclass(frozen=True)
class OwnLr:
    """A source whose LR images are not the bicubic of its HR images."""

    name: str = "own"
    scale: int = 4
    faults: tuple = ()

    def __len__(self):
        return 1

    def area(self, i):
        return 1600

    def load(self, i):
        (photo,) = located_photos([(40, 40)], scale=4)
        return Decoded(photo.name, photo.hr, 255 - photo.lr)

    def paired(self, i):
        return True

    def fingerprint(self):
        return "1 image"


def test_a_sources_own_lr_images_are_used(stream):
    (photo,) = located_photos([(40, 40)], scale=4)
    batches = take(stream(OwnLr()), 5)
    places_of(batches, [photo._replace(lr=255 - photo.lr)])


def test_a_whole_image_may_be_the_crop(tmp_path, stream):
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    (tmp_path / "a.png").write_bytes(out.getvalue())
    source = open_source(f"folder:{tmp_path}", "train", scale=4)
    batch = next(stream(source))
    for crop in batch["hr"]:
        assert sorted(crop.reshape(-1)) == sorted(image.reshape(-1))
