"""DRF and BDS against plain loops; intervals that cover; the gate."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pertstack.reduce.scoring.calibration import (
    Calibration,
    bound_discrimination,
    calibrate,
    dynamic_range_fraction,
    first_that_passes,
    mean_interval,
    share_interval,
    without_vote,
)


def loop(positive, negative, perfect, higher):
    """Both numbers, one condition at a time."""
    drf, won = [], []
    for p, n in zip(positive, negative, strict=True):
        if (n > perfect) if higher else (n < perfect):
            drf.append(np.nan)
        else:
            step, room = (p - n, perfect - n) if higher else (n - p, n - perfect)
            drf.append(min(1.0, max(-1.0, step / (room + 1e-6))))
        won.append(float(p > n if higher else p < n))
    return np.array(drf), np.array(won)


@pytest.mark.parametrize(("higher", "perfect"), [(True, 1.0), (False, 0.0)])
def test_fraction_and_wins_match_a_loop(higher, perfect):
    rng = np.random.default_rng(4)
    positive, negative = rng.normal(0.4, 0.5, 200), rng.normal(0.3, 0.5, 200)
    negative[:3] = positive[:3]
    drf, won = loop(positive, negative, perfect, higher)
    np.testing.assert_array_equal(dynamic_range_fraction(positive, negative, perfect, higher=higher), drf)
    np.testing.assert_array_equal(bound_discrimination(positive, negative, higher=higher), won)
    assert np.isnan(drf).any() and (won[:3] == 0).all()


def test_samples_of_a_condition_are_averaged_and_groups_counted():
    positive = np.array([0.9, 0.7, 0.2, np.nan, 0.5])
    negative = np.array([0.5, 0.5, 0.4, 0.4, np.nan])
    found = calibrate("r2_top20@pooled", positive, negative, conditions=list("aabbc"), groups=["g", "g", "h", "h", "i"])
    assert (found.n, found.n_groups) == (2, 2)
    assert found.positive == pytest.approx((0.8 + 0.2) / 2) and found.negative == pytest.approx(0.45)
    assert found.bds == 0.5 and found.drf == pytest.approx((0.3 / 0.5 - 0.2 / 0.6) / 2, abs=1e-5)


def test_errors_are_better_when_small():
    found = calibrate("rmse_all@own", np.full(6, 0.5), np.full(6, 1.0), conditions=range(6), groups=range(6))
    assert found.bds == 1.0 and found.drf == pytest.approx(0.5, abs=1e-5) and found.passes


def test_nothing_to_calibrate_with_is_said_and_passes_nothing():
    found = calibrate("r2_top20@own", np.full(4, np.nan), np.full(4, 0.3), conditions=range(4), groups=range(4))
    assert (found.n, found.drf, found.bds, found.known, found.passes) == (0, None, None, False, False)
    assert Calibration.from_json(found.to_json()) == found


def test_one_group_has_no_interval_and_does_not_pass():
    found = calibrate("pearson_all@own", np.full(5, 0.9), np.full(5, 0.1), conditions=range(5), groups=["a"] * 5)
    assert found.bds == 1.0 and found.bds_ci is None and not found.passes


def test_all_won_by_few_groups_is_not_certain():
    """Exact: five groups that all win are 0.025 ** (1 / 5) = 0.48, six are 0.54."""
    share, (low, high) = share_interval(np.ones(15), np.repeat(range(5), 3))
    assert (share, high) == (1.0, 1.0) and low == pytest.approx(stats.beta.ppf(0.025, 5, 1)) and low < 0.5
    assert share_interval(np.ones(6), range(6))[1][0] > 0.5
    assert share_interval(np.zeros(6), range(6))[1][1] < 0.5


def test_mean_interval_is_the_t_interval_of_group_means_where_groups_are_equal():
    values = np.random.default_rng(2).normal(0.3, 1, 12)
    mean, (low, high) = mean_interval(np.repeat(values, 3), np.repeat(np.arange(12), 3))
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean == pytest.approx(values.mean()) and (low, high) == pytest.approx((expected.low, expected.high))


def test_share_interval_covers_with_and_without_groups_that_agree():
    """600 worlds; twenty groups of five conditions that share most of their luck: 95 % cover at least 92 %."""
    rng = np.random.default_rng(8)
    covered = 0
    for _ in range(600):
        luck = rng.normal(0, 1, 20).repeat(5) + rng.normal(0, 0.5, 100)
        low, high = share_interval((luck > -0.5).astype(float), np.repeat(np.arange(20), 5))[1]
        covered += low <= stats.norm.cdf(0.5 / np.hypot(1, 0.5)) <= high
    assert covered / 600 > 0.92


def test_the_first_metric_of_the_order_that_passes():
    def made(metric, good):
        n = np.zeros(40)
        return calibrate(metric, n + (0.5 if good else -0.5), n, conditions=range(40), groups=range(40))

    found = {m: made(m, good) for m, good in (("r2_top20@pooled", False), ("pearson_all@centroid", True))}
    order = ("r2_top20@pooled", "pearson_top20@pooled", "pearson_all@centroid")
    assert first_that_passes(order, found) == "pearson_all@centroid"
    assert first_that_passes(order[:1], found) is None


def known(metric, *, passes):
    """A calibration that passes or shows the opposite."""
    share, ci = (0.9, (0.8, 0.95)) if passes else (0.2, (0.1, 0.3))
    return Calibration(metric, 40, 20, 0.5, 0.4, 0.1 if passes else -0.1, (0.0, 0.2), share, ci)


def test_metrics_that_fail_have_no_vote_unless_noise_cancels_in_them():
    """Errors over all genes and correlation within plates always vote; errors over chosen genes do not."""
    fail = ("r2_top20@own", "r2_top20@pooled", "rmse_all@own", "rmse_top20@own", "mse_all_corrected", "mse_exp2")
    found = {m: known(m, passes=False) for m in (*fail, "mae_all@own", "pearson_all@plate")}
    found |= {m: known(m, passes=True) for m in ("pearson_all@centroid", "pearson_all@own")}
    silent = without_vote(found, "pearson_all@centroid")
    assert set(silent) == {"r2_top20@own", "r2_top20@pooled", "rmse_top20@own", "mse_exp2"}


def test_all_vote_where_the_primary_fails_or_nothing_was_measured_twice():
    unknown = calibrate("r2_top20@own", np.full(4, np.nan), np.full(4, 0.3), conditions=range(4), groups=range(4))
    found = {"pearson_all@centroid": known("pearson_all@centroid", passes=False), "r2_top20@own": unknown}
    assert without_vote(found, "pearson_all@centroid") == {} == without_vote(found, "cosine_all@own")
    passing = {**found, "pearson_all@centroid": known("pearson_all@centroid", passes=True)}
    assert without_vote(passing, "pearson_all@centroid") == {}, "what could not be asked votes as before"
    unsure = Calibration("r2_top20@own", 64, 20, 0.5, 0.45, 0.03, (-0.1, 0.2), 0.45, (0.4, 0.6))
    assert without_vote({**passing, "r2_top20@own": unsure}, "pearson_all@centroid") == {}, "neither is shown"
