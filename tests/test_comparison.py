"""The paired bootstrap against closed forms and SciPy's, and what must not move it."""

import numpy as np
import pytest
import scipy.stats

from isr_jax.loss_study.comparison import compare
from isr_jax.loss_study.results import best_by_mean_rank


@pytest.fixture(scope="module")
def rng():
    return np.random.default_rng(1)


def one_metric(*candidates):
    return np.stack(candidates)[..., None]


def test_one_seed_gives_scipy_s_paired_interval(rng):
    a, b = rng.normal(size=(2, 1, 60))
    a += 0.5
    found = compare(one_metric(a, b), np.zeros((60, 1)))
    expected = scipy.stats.bootstrap(
        (a[0] - b[0],), np.mean, n_resamples=20_000, method="percentile", rng=rng
    ).confidence_interval
    np.testing.assert_allclose(found.difference.mean[0, 1, 0], np.mean(a - b), atol=1e-9)
    np.testing.assert_allclose(found.difference.low[0, 1, 0], expected.low, atol=0.02)
    np.testing.assert_allclose(found.difference.high[0, 1, 0], expected.high, atol=0.02)


def test_seeds_and_images_both_widen_an_interval(rng):
    """Scores a_s + b_i: a resample's mean has the variance var(a) / S + var(b) / I."""
    seeds, images = 40, 50
    by_seed, by_image = 0.3 * rng.normal(size=(seeds, 1)), 0.2 * rng.normal(size=(1, images))
    found = compare(one_metric(by_seed + by_image), np.zeros((images, 1)), resamples=20_000)
    deviation = np.sqrt(by_seed.var() / seeds + by_image.var() / images)
    width = found.gain.high[0, 0] - found.gain.low[0, 0]
    np.testing.assert_allclose(width, 2 * 1.96 * deviation, rtol=0.03)


def test_what_all_candidates_share_leaves_the_differences_alone(rng):
    """Hard images and lucky seeds: a small but constant lead is seen through them."""
    a = rng.normal(scale=0.001, size=(3, 14))
    b = rng.normal(scale=0.001, size=(3, 14)) - 0.01
    alone = compare(one_metric(a, b), np.zeros((14, 1)))
    common = 5 * rng.normal(size=(3, 1)) + 5 * rng.normal(size=(1, 14))
    found = compare(one_metric(a + common, b + common), np.zeros((14, 1)))
    for plain, noisy in zip(alone.difference, found.difference, strict=True):
        np.testing.assert_allclose(plain, noisy, atol=1e-9)
    assert not found.tied[0, 1, 0]
    assert found.rank[:, 0].tolist() == [1, 2]
    # What is not shared, a baseline without seeds, shows.
    assert found.gain.high[0, 0] - found.gain.low[0, 0] > 1


def test_equal_scores_tie_and_share_a_rank(rng):
    a = rng.normal(size=(2, 6, 3))
    worse = a - [0.1, 0.2, 0.3]
    found = compare(np.stack([worse, a, a]), np.zeros((6, 3)))
    np.testing.assert_array_equal(found.tied[1, 2], True)
    np.testing.assert_array_equal(found.difference.high[1, 2], 0)
    assert found.rank.tolist() == [[3, 3, 3], [1, 1, 1], [1, 1, 1]]
    assert found.mean_rank.mean.tolist() == [3, 1.5, 1.5]
    assert found.overall_tied.tolist() == [
        [True, False, False],
        [False, True, True],
        [False, True, True],
    ]


def test_noise_alone_ties(rng):
    """Where images alone differ by chance, 95% of the intervals of a difference hold 0."""
    shape = np.zeros((2, 12, 30, 1))
    ties = [
        compare(shape + rng.normal(size=(2, 1, 30, 1)), np.zeros((30, 1)), resamples=300).tied
        for _ in range(200)
    ]
    assert 0.89 <= np.mean([tied[0, 1, 0] for tied in ties]) <= 0.99


def test_a_split_decision_ties_overall():
    """The best by one metric is the worst by the other."""
    a, b = np.zeros((2, 2, 5, 2))
    a[..., 0], b[..., 1] = 1, 1
    found = compare(np.stack([a, b]), np.zeros((5, 2)))
    assert found.rank.tolist() == [[1, 2], [2, 1]]
    assert found.overall_tied[0, 1]


def test_the_same_seed_gives_the_same_intervals(rng):
    scores, base = rng.normal(size=(3, 2, 5, 2)), rng.normal(size=(5, 2))
    first, second = compare(scores, base), compare(scores, base)
    np.testing.assert_array_equal(first.difference.low, second.difference.low)
    other = compare(scores, base, seed=1)
    assert not np.array_equal(first.difference.low, other.difference.low)


def test_the_best_mean_rank_knows_which_metrics_are_better_low():
    names = ["psnr", "ssim", "lpips"]
    scores = np.array([[30.0, 0.9, 0.1], [31.0, 0.8, 0.2], [29.0, 0.7, 0.3]])
    assert best_by_mean_rank(scores, names) == 0
    # Of equal mean ranks, the one of most PSNR.
    assert best_by_mean_rank(np.array([[30.0, 0.9], [31.0, 0.8]]), names[:2]) == 1
