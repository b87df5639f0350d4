"""Numbers, intervals and what is resampled, in words; metrics are worded by ``design/metric_labels.py``."""

from __future__ import annotations

import math
import re

from pertstack._base.shown import count_of


def number(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """A number for people, with a real minus sign; a dash if there is none.

    Parameters
    ----------
    value : None, NaN and infinite give the dash.
    digits : after the point.
    sign : a plus sign before positive numbers.

    Examples
    --------
    >>> number(0.01234), number(-0.5, sign=True), number(None)
    ('0.012', '−0.500', '—')
    """
    if value is None or not math.isfinite(value):
        return "—"
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if float(text) == 0:
        text = f"{0:.{digits}f}"
    return text.replace("-", "−")


def interval(bounds: tuple[float, float] | None, digits: int = 3, *, sign: bool = False) -> str:
    """An interval for people: ``[0.010, 0.020]``; empty if there is none.

    A bound that is not zero is never printed as zero: as many digits are shown as it takes, up to six.

    Parameters
    ----------
    bounds : (lo, hi); None for no interval.
    digits : after the point, at least.
    sign : a plus sign before positive bounds.

    Examples
    --------
    >>> interval((0.00042, 0.0105)), interval((-0.00042, 0.0105)), interval((-0.003, 0.0))
    ('[0.0004, 0.0105]', '[−0.0004, 0.0105]', '[−0.003, 0.000]')
    """
    if bounds is None:
        return ""
    nearest = min(abs(bounds[0]), abs(bounds[1]))
    while nearest >= 1e-6 and digits < 6 and float(f"{nearest:.{digits}f}") == 0:
        digits += 1
    return f"[{number(bounds[0], digits, sign=sign)}, {number(bounds[1], digits, sign=sign)}]"


def few_words(n: int, *, plural: bool = False) -> str:
    """What few groups leave of an interval; a single one tells nothing about others.

    Parameters
    ----------
    n : groups.
    plural : speak of intervals.

    Examples
    --------
    >>> few_words(1), few_words(7, plural=True)
    ('there is no interval', 'the intervals are a rough guide')
    """
    if n < 2:
        return "there is no interval"
    return "the intervals are a rough guide" if plural else "the interval is a rough guide"


def unit_words(unit: str) -> str:
    """What is resampled, as a noun.

    Examples
    --------
    >>> unit_words("cell_line"), unit_words("perturbation+cell_line"), unit_words("parts")
    ('cell line', 'pair of perturbation and cell line', 'combination of parts')
    """
    parts = [re.sub(r"\bparts$", "combination of parts", part.replace("_", " ")) for part in unit.split("+")]
    return parts[0] if len(parts) == 1 else f"pair of {' and '.join(parts)}"


def count_units(n: int, unit: str) -> str:
    """A count of what is resampled.

    Examples
    --------
    >>> count_units(11, "cell_line"), count_units(2, "perturbation+cell_line"), count_units(3, "held-out parts")
    ('11 cell lines', '2 pairs of perturbation and cell line', '3 held-out combinations of parts')
    """
    one = unit_words(unit)
    head, of, rest = one.partition(" of ")
    return count_of(n, one, f"{head if head.endswith('s') else head + 's'}{of}{rest}")
