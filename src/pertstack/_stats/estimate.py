"""What every kind of inference shares: the estimate it returns, studentised resamples, the symmetric bootstrap-t.

Hall (1988) Annals of Statistics 16:927.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from pertstack._base.arrays import Array
from pertstack._base.errors import InputError, unknown_name
from pertstack._stats.group_sums import Draws

Method = Literal["auto", "bootstrap_t", "percentile", "bca", "sign_flips", "wild_rademacher", "wild_webb"]
FEW = 12
"""Up to this many groups signs are flipped exactly; above, groups are resampled."""
ROUGH = 20
RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A mean or a difference of means with its interval. Unknown ends are infinite; ``ci`` is None then."""

    value: float  # NaN where nothing is defined
    lo: float
    hi: float
    p: float | None  # two-sided, of the value being 0; None if it makes no sense or cannot be had
    n_clusters: int
    n: int  # valid samples
    method: str
    level: float = 0.95
    cautions: tuple[str, ...] = ()

    @property
    def ci(self) -> tuple[float, float] | None:
        """(lo, hi) when both ends are known."""
        return (self.lo, self.hi) if np.isfinite([self.lo, self.hi]).all() else None


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired mean difference as it is reported, in units of the metric: what is not known is None, never infinite."""

    value: float | None
    ci: tuple[float, float] | None = None
    p: float | None = None
    n: int = 0  # samples on which both are defined
    n_groups: int = 0


def check_choices(level: float, resamples: int, method: str) -> None:
    """Refuse choices of inference that give no interval.

    Parameters
    ----------
    level : of a two-sided interval; between 0.5 and 1, both exclusive.
    resamples : at least 100.
    method : one of ``Method``.

    Raises
    ------
    InputError
        The level or the number of resamples is out of range.
    UnknownNameError
        No such method.
    """
    if not 0.5 < level < 1:
        raise InputError(f"The level of an interval is {level}; give one between 0.5 and 1, such as 0.95.")
    if resamples < 100:
        raise InputError(f"{resamples} resamples are too few for the ends of an interval; take 1,000 or more.")
    if method not in get_args(Method):
        raise unknown_name("method of inference", method, get_args(Method))


def cautions_of(n_groups: int, lo: float, hi: float) -> tuple[str, ...]:
    """What to say of an interval from so few groups; nothing from ``ROUGH`` on.

    Parameters
    ----------
    n_groups : groups with a defined sample.
    lo, hi : ends of the interval; infinite or NaN if there is none.
    """
    if n_groups <= 1:
        return ("one group: an interval is not possible",) if n_groups else ("no defined sample",)
    if not np.isfinite([lo, hi]).all():
        return (f"{n_groups} groups, or the few of them that differ, are too few for an interval at this level",)
    return (f"{n_groups} groups: the interval is a rough guide",) if n_groups < ROUGH else ()


def studentised(draws: Draws, value: Array) -> Array:
    """(resamples, n_rows) (mean - value) / error of each resample; 0 / 0 is 0, otherwise no spread is infinite."""
    shift = draws.means - value
    t = np.divide(shift, draws.errors, out=np.copysign(np.inf, shift), where=draws.errors > 0)
    still = np.abs(shift) <= 1e-12 * (1 + np.abs(value))
    filled: Array = np.where(still, 0.0, t)
    return filled


def quantile_of(values: Array, level: float) -> float:
    """A quantile of values that may be infinite, between which there is nothing to interpolate."""
    if np.isfinite(values).all():
        return float(np.quantile(values, level))
    return float(np.quantile(values, level, method="higher"))


def bootstrap_t(value: float, error: float, t: Array, level: float) -> tuple[float, float, float]:
    """Symmetric studentised interval and two-sided p-value: (lo, hi, p).

    Parameters
    ----------
    value : the estimate.
    error : its standard error; 0 gives an interval of no width.
    t : (resamples,) studentised deviations of the resamples; NaN are left out.
    level : of the interval.
    """
    known = np.abs(t[~np.isnan(t)])
    if error == 0 or known.size == 0:
        return value, value, 1.0 if value == 0 else 1 / (len(t) + 1)
    wide = error * quantile_of(known, level)
    p = (1 + int((known >= abs(value) / error).sum())) / (1 + known.size)
    return value - wide, value + wide, p
