"""Intervals of crossed random effects: closed forms, coverage, and what must not move them."""

import numpy as np
import pytest
import scipy.stats

from isr_jax.loss_study.comparison import compare, crossed_interval
from isr_jax.loss_study.results import best_by_mean_rank


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def one_metric(*candidates):
    return np.stack(candidates)[..., None]


def t_interval(values):
    """SciPy's of a mean."""
    return scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)


@pytest.mark.parametrize("shape", [(1, 60), (5, 1)], ids=["one seed", "one image"])
def test_of_one_seed_or_image_it_is_the_t_interval_of_the_other_factor(rng, shape):
    values = rng.normal(size=shape)
    found, expected = crossed_interval(values), t_interval(values.ravel())
    np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-9)


def test_where_one_factor_decides_it_is_the_t_interval_of_its_means(rng):
    """Seeds alone: five values, 4 degrees of freedom, however many images; and the other way."""
    by_seed, by_image = 0.3 * rng.normal(size=(5, 1)), 0.2 * rng.normal(size=(1, 14))
    for effects in (by_seed, by_image):
        found = crossed_interval(np.broadcast_to(effects, (5, 14)))
        np.testing.assert_allclose([found.low, found.high], t_interval(effects.ravel()), atol=1e-9)


def test_the_variance_is_that_of_the_mean_squares(rng):
    """By hand: (MS of seeds + MS of images - MS of the rest) / (S I), Satterthwaite's freedom."""
    values = rng.normal(size=(4, 6)) + 2 * rng.normal(size=(4, 1)) + 2 * rng.normal(size=(1, 6))
    a = 6 * np.var(values.mean(axis=1), ddof=1)
    b = 4 * np.var(values.mean(axis=0), ddof=1)
    total = np.var(values, ddof=0) * 24
    e = (total - 3 * a - 5 * b) / 15
    assert min(a, b) > e > 0
    df = (a + b - e) ** 2 / (a**2 / 3 + b**2 / 5 + e**2 / 15)
    half = scipy.stats.t.ppf(0.975, df) * np.sqrt((a + b - e) / 24)
    found = crossed_interval(values)
    np.testing.assert_allclose(found.mean, values.mean(), atol=1e-9)
    np.testing.assert_allclose((found.high - found.low) / 2, half, rtol=1e-9)


@pytest.mark.parametrize(
    "seed_sd, image_sd, rest_sd",
    [(1, 0, 0.1), (0, 1, 0.1), (0, 0, 1), (1, 1, 1), (0.3, 1, 1), (1, 0.2, 2), (0.2, 0.2, 1)],
)
def test_five_seeds_and_fourteen_images_are_enough_for_95_percent(rng, seed_sd, image_sd, rest_sd):
    """Of 4,000 studies with known variances, whose true mean is 0; it is chance within 0.007.

    Where neither factor has much variance of its own, more intervals hold the truth than promised.
    """
    many = 4000
    values = (
        seed_sd * rng.normal(size=(many, 5, 1))
        + image_sd * rng.normal(size=(many, 1, 14))
        + rest_sd * rng.normal(size=(many, 5, 14))
    )
    found = crossed_interval(values)
    covered = np.mean((found.low <= 0) & (found.high >= 0))
    assert 0.94 <= covered <= 0.99


def test_resampling_both_factors_would_hold_the_truth_too_rarely(rng):
    """Why the intervals are not a bootstrap's: five seeds decide, and it covers 80% or so."""
    covered, resamples = [], 300
    for _ in range(300):
        values = rng.normal(size=(5, 1)) + 0.1 * rng.normal(size=(5, 14))
        seeds = rng.multinomial(5, np.full(5, 1 / 5), resamples) / 5
        images = rng.multinomial(14, np.full(14, 1 / 14), resamples) / 14
        means = np.einsum("rs,si,ri->r", seeds, values, images)
        low, high = np.quantile(means, [0.025, 0.975])
        covered.append(low <= 0 <= high)
    assert np.mean(covered) < 0.9


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
    assert found.mean_rank.tolist() == [3, 1.5, 1.5]
    assert found.ahead.tolist() == [
        [False, False, False],
        [True, False, False],
        [True, False, False],
    ]


def test_a_split_decision_ties_overall():
    """The best by one metric is the worst by the other; a third metric decides."""
    a, b = np.zeros((2, 2, 5, 2))
    a[..., 0], b[..., 1] = 1, 1
    found = compare(np.stack([a, b]), np.zeros((5, 2)))
    assert found.rank.tolist() == [[1, 2], [2, 1]]
    assert not found.ahead.any()
    third = np.stack([np.concatenate([x, x[..., :1]], axis=-1) for x in (a, b)])
    assert compare(third, np.zeros((5, 3))).ahead.tolist() == [[False, True], [False, False]]


def test_candidates_are_compared_by_the_seeds_that_both_finished(rng):
    a, b = rng.normal(size=(2, 4, 6))
    full = compare(one_metric(a[:3], b[:3]), np.zeros((6, 1)))
    b[3] = np.nan
    found = compare(one_metric(a, b), np.zeros((6, 1)))
    for some, all_of_them in zip(found.difference, full.difference, strict=True):
        np.testing.assert_allclose(some[0, 1], all_of_them[0, 1], atol=1e-9)
    np.testing.assert_allclose(found.gain.mean[:, 0], [a.mean(), b[:3].mean()], atol=1e-9)
    # Without a common seed nothing is known of the difference.
    a[:3] = np.nan
    found = compare(one_metric(a, b), np.zeros((6, 1)))
    assert found.tied.all() and not found.ahead.any()


def test_the_best_mean_rank_knows_which_metrics_are_better_low():
    names = ["psnr", "ssim", "lpips"]
    scores = np.array([[30.0, 0.9, 0.1], [31.0, 0.8, 0.2], [29.0, 0.7, 0.3]])
    assert best_by_mean_rank(scores, names) == 0
    # Of equal mean ranks, the one of most PSNR.
    assert best_by_mean_rank(np.array([[30.0, 0.9], [31.0, 0.8]]), names[:2]) == 1
