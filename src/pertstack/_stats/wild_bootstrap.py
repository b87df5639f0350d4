"""Wild cluster bootstrap for the mean of few groups: residuals of whole groups are multiplied by random weights.

The null is imposed: residuals are taken around the value under test, and each draw is studentised with its own
cluster-robust error (Cameron, Gelbach and Miller 2008, Rev. Econ. Stat. 90:414; MacKinnon and Webb 2018, Econometrics
J. 21:114). Rademacher weights are signs: with all patterns and groups of one size it is the sign-flip test of
``sign_flips.py``. Webb's six weights (Webb 2023, Canadian J. Economics 56:839) give six to the power of the number
of groups different draws, for when 2^C signs are too few.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from pertstack._base.arrays import Array
from pertstack._base.errors import unknown_name

WildWeights = Literal["rademacher", "webb"]
_DOUBLINGS = 40
_SAME = 1e-9


def wild_weights(kind: WildWeights, n_groups: int, resamples: int, *, rng: np.random.Generator) -> Array:
    """(n_draws, n_groups) weights of mean 0 and variance 1; all 2^C sign patterns if they are no more than draws.

    Parameters
    ----------
    kind : "rademacher" (signs) or "webb" (six points, for few groups).
    n_groups : columns.
    resamples : rows, unless all sign patterns are fewer.
    rng : draws the weights; unused for all sign patterns.

    Raises
    ------
    UnknownNameError
        No such kind.

    Examples
    --------
    >>> wild_weights("rademacher", 2, 100, rng=np.random.default_rng(0)).tolist()
    [[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]]
    """
    if kind not in get_args(WildWeights):
        raise unknown_name("kind of wild weights", kind, get_args(WildWeights))
    if kind == "webb":
        six = np.sqrt(np.array([0.5, 1.0, 1.5]))
        return rng.choice(np.concatenate([-six, six]), size=(resamples, n_groups))
    if 2**n_groups <= resamples:
        return 1.0 - 2.0 * ((np.arange(2**n_groups)[:, None] >> np.arange(n_groups)) & 1)
    return rng.choice(np.array([-1.0, 1.0]), size=(resamples, n_groups))


def wild_p(total: Array, count: Array, weights: Array, at: float = 0.0) -> float:
    """Two-sided p-value of mean == ``at``: the share of draws whose |t| is at least the one seen.

    Parameters
    ----------
    total, count : array, shape (C,)
        Sum and number of valid values by group; groups without any are left out.
    weights : array, shape (n_draws, C)
        From ``wild_weights``.
    at : float
        The mean that is tested.
    """
    some = count > 0
    residual, size, v = total[some] - at * count[some], count[some], weights[:, some]
    seen = abs(float(_t(residual[None], size)[0]))
    return float(np.mean(np.abs(_t(v * residual, size)) >= seen - _SAME * (1 + seen)))


def wild_interval(total: Array, count: Array, weights: Array, level: float) -> tuple[float, float]:
    """All values that ``wild_p`` does not reject at ``1 - level``; infinite ends if every value stands.

    Parameters
    ----------
    total : (n_groups,) sums of the values of each group.
    count : (n_groups,) how many values.
    weights : (n_draws, n_groups) from ``wild_weights``.
    level : of the interval.
    """
    n = float(count.sum())
    value = float(total.sum()) / n
    step = float(np.sqrt(((total - value * count) ** 2).sum())) / n
    if step <= 1e-12 * (1 + abs(value)):
        return value, value
    ends = [_end(total, count, weights, level=level, near=value, step=way * step) for way in (-1, 1)]
    return ends[0], ends[1]


def _end(total: Array, count: Array, weights: Array, level: float, near: float, step: float) -> float:
    """Where rejection begins on one side, by doubling the step and then halving the gap."""
    limit = 1 - level + _SAME
    for _ in range(_DOUBLINGS):
        far = near + step
        if wild_p(total, count, weights, far) <= limit:
            break
        near, step = far, 2 * step
    else:
        return float(np.copysign(np.inf, step))
    for _ in range(_DOUBLINGS):
        middle = (near + far) / 2
        if wild_p(total, count, weights, middle) <= limit:
            far = middle
        else:
            near = middle
    return float(near)


def _t(residual: Array, count: Array) -> Array:
    """(n_draws,) mean over its cluster-robust standard error; infinite without spread, 0 where the mean is 0 too."""
    n_groups = len(count)
    mean = residual.sum(axis=1) / count.sum()
    rest = residual - mean[:, None] * count
    error = np.sqrt(n_groups / max(1, n_groups - 1) * (rest**2).sum(axis=1)) / count.sum()
    flat = np.where(np.abs(mean) <= 1e-300, 0.0, np.copysign(np.inf, mean))
    ratio: Array = np.divide(mean, error, out=flat, where=error > 1e-12 * np.abs(mean))
    return ratio
