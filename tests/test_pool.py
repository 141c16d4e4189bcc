import functools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from isr_jax.data.examples import ImagePair
from isr_jax.data.pool import PAGES, Pool, Table, make_parts, make_pool, sample
from isr_jax.errors import UserError
from isr_jax.images import to_uint8
from tests.helpers.crops import SYMMETRIES, check_crops, located_photos

SIZES = [(24, 40), (16, 16), (32, 20), (200, 256)]
AXIS = "batch"


def make_sample(**options):
    return jax.jit(functools.partial(sample, **options))


def check_equal(a, b):
    for name in ("lr", "hr"):
        np.testing.assert_array_equal(a[name], b[name])


@pytest.fixture(scope="module")
def pool():
    return make_pool(located_photos(SIZES, scale=4))


@pytest.mark.parametrize(("scale", "crop"), [(2, 12), (3, 12), (4, 16)])
def test_crops_are_aligned_pieces_of_images_and_their_bicubic(scale, crop):
    sizes = [(h - h % scale, w - w % scale) for h, w in SIZES]
    photos = located_photos(sizes, scale=scale)
    batch = make_sample(batch=64, crop=crop, scale=scale)(jax.random.key(1), make_pool(photos))
    assert batch["lr"].shape == (64, crop // scale, crop // scale, 3)
    assert batch["hr"].shape == (64, crop, crop, 3)
    assert batch["lr"].dtype == batch["hr"].dtype == jnp.float32
    assert batch["hr"].min() >= 0 and batch["hr"].max() <= 1
    check_crops(to_uint8(batch["lr"]), to_uint8(batch["hr"]), photos, scale=scale)


def test_every_image_position_and_symmetry_is_equally_likely():
    photos = located_photos(SIZES[:3], scale=4)
    n = 6000
    batch = make_sample(batch=n, crop=16, scale=4)(jax.random.key(0), make_pool(photos))
    places = check_crops(to_uint8(batch["lr"]), to_uint8(batch["hr"]), photos, scale=4)
    expected = {
        (i, y, x, s): n / len(photos) / len(SYMMETRIES) / (((h - 12) // 4) * ((w - 12) // 4))
        for i, (h, w) in enumerate(SIZES[:3])
        for y in range(0, h - 15, 4)
        for x in range(0, w - 15, 4)
        for s in SYMMETRIES
    }
    counts = Counter(places)
    assert counts.keys() <= expected.keys()
    # The chi-squared statistic of d cells has mean d - 1 and standard deviation sqrt(2 (d - 1)).
    chi = sum((counts[place] - mean) ** 2 / mean for place, mean in expected.items())
    freedom = len(expected) - 1
    assert abs(chi - freedom) < 5 * np.sqrt(2 * freedom)
    for i, (h, w) in enumerate(SIZES[:3]):
        for corner in ((0, 0), (0, w - 16), (h - 16, 0), (h - 16, w - 16)):
            assert any(place[:3] == (i, *corner) for place in places)


def test_a_key_is_a_batch(pool):
    draw = make_sample(batch=8, crop=16, scale=4)
    check_equal(draw(jax.random.key(3), pool), draw(jax.random.key(3), pool))
    assert (draw(jax.random.key(3), pool)["hr"] != draw(jax.random.key(4), pool)["hr"]).any()


def test_is_the_same_under_jit(pool):
    options = {"batch": 8, "crop": 16, "scale": 4}
    key = jax.random.key(5)
    check_equal(sample(key, pool, **options), make_sample(**options)(key, pool))


class TestSplitOverDevices:
    """What four devices draw together is what one device draws alone."""

    @pytest.fixture
    def whole(self, pool):
        return make_sample(batch=16, crop=16, scale=4)(jax.random.key(7), pool)

    def test_by_hand(self, pool, whole):
        draw = make_sample(batch=4, crop=16, scale=4)
        parts = [draw(jax.random.key(7), pool, first=first) for first in (0, 4, 8, 12)]
        check_equal(jax.tree.map(lambda *x: np.concatenate(x), *parts), whole)

    @pytest.mark.parametrize("check_vma", [True, False])
    def test_under_shard_map(self, pool, whole, check_vma):
        mesh = Mesh(np.array(jax.devices()), (AXIS,))

        def draw(key, pool):
            first = jax.lax.axis_index(AXIS) * 4
            return sample(key, pool, batch=4, crop=16, scale=4, first=first)

        plain, split = PartitionSpec(), PartitionSpec(AXIS)
        mapped = jax.shard_map(
            draw, mesh=mesh, in_specs=(plain, plain), out_specs=split, check_vma=check_vma
        )
        check_equal(jax.jit(mapped)(jax.random.key(7), pool), whole)

    def test_under_pmap(self, pool, whole):
        draw = functools.partial(sample, batch=4, crop=16, scale=4)
        mapped = jax.pmap(
            lambda key, pool, first: draw(key, pool, first=first), in_axes=(None, None, 0)
        )
        drawn = mapped(jax.random.key(7), pool, jnp.arange(0, 16, 4))
        check_equal(jax.tree.map(lambda x: x.reshape(16, *x.shape[2:]), drawn), whole)

    def test_under_jit_with_a_sharding_constraint(self, pool, whole):
        mesh = Mesh(np.array(jax.devices()), (AXIS,))
        split = NamedSharding(mesh, PartitionSpec(AXIS))

        def draw(key, pool):
            drawn = sample(key, pool, batch=16, crop=16, scale=4)
            return jax.lax.with_sharding_constraint(drawn, split)

        resident = jax.device_put(pool, NamedSharding(mesh, PartitionSpec()))
        drawn = jax.jit(draw)(jax.random.key(7), resident)
        assert drawn["hr"].sharding.is_equivalent_to(split, 4)
        check_equal(drawn, whole)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_sharded_pool_has_the_batches_of_a_whole_one(pool, count):
    """Each device has some of the images, and some devices more bytes than others, or none."""
    photos = located_photos(SIZES, scale=4)
    number = np.arange(len(SIZES), dtype=np.int32)
    part = np.array([0, count - 1, 0, 0], np.int32)
    empty = np.zeros(0)
    table = Table(np.array(SIZES, np.int32), part, number, empty.astype(np.float32), empty > 0)
    devices = jax.devices()[:count]
    pieces = [
        make_parts(
            {i: photo for i, photo in enumerate(photos) if part[i] in mine},
            table,
            scale=4,
            parts=count,
            mine=mine,
            deep=False,
            page_length=2**17,
        )
        for mine in ([0], [*range(1, count)])
        if mine
    ]
    pages = {name: np.concatenate([getattr(p, name) for p in pieces]) for name in PAGES}
    assert len(pages["hr"]) == count * len(pieces[0].hr)
    split, whole = PartitionSpec(AXIS), PartitionSpec()
    mesh = Mesh(np.array(devices), (AXIS,))
    specs = Pool(*(split if name in PAGES else whole for name in Pool._fields))
    draw = jax.shard_map(
        functools.partial(sample, batch=32, crop=16, scale=4, axis_name=AXIS),
        mesh=mesh,
        in_specs=(whole, specs),
        out_specs=split,
    )
    sharded = pieces[0]._replace(**pages)
    drawn = jax.jit(draw)(jax.random.key(2), Pool(*map(jnp.asarray, sharded)))
    expected = make_sample(batch=32, crop=16, scale=4)(jax.random.key(2), pool)
    check_equal(drawn, expected)


@pytest.mark.parametrize("page_length", [1, 2**17, 2**18])
def test_pages_make_no_difference(pool, page_length):
    paged = make_pool(located_photos(SIZES, scale=4), page_length=page_length)
    largest = max(3 * h * w for h, w in SIZES)
    assert paged.hr.shape[1] <= max(page_length, largest)
    assert (paged.hr.shape[0] > 1) == (page_length < sum(3 * h * w for h, w in SIZES))
    draw = make_sample(batch=32, crop=16, scale=4)
    check_equal(draw(jax.random.key(2), paged), draw(jax.random.key(2), pool))


def test_an_image_beyond_int32_is_refused():
    huge = np.broadcast_to(np.uint8(0), (2**15, 2**15, 3))
    with pytest.raises(UserError, match="2 GiB"):
        make_pool([ImagePair("huge.png", huge, huge)])


def test_rows_are_gathered_whole(pool):
    """One slice per row: gathering single bytes would take many times as long."""
    draw = make_sample(batch=2, crop=16, scale=4)
    text = draw.lower(jax.random.key(0), pool).as_text()
    assert "slice_sizes = array<i64: 1, 48>" in text
    assert "slice_sizes = array<i64: 1, 12>" in text
