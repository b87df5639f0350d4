"""Doses and times in words, turned into micromolar and hours. An unknown unit is an error, never a guess.

``"500 nM"`` is 0.5 micromolar, ``"10 uM"`` is 10: a number without its unit is not a dose. Which column holds what is
the business of ``data/readers/columns/columns.py``.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.arrays import Float64
from pertstack._base.errors import InputError, first_few

_NUMBER = re.compile(r"^\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*?)\s*$")
_MISSING = {"", "nan", "none", "na", "n/a", "null", "-666", "-666.0", "-666 -666", "<na>"}
_MOLAR = {"m": 1e6, "mm": 1e3, "um": 1.0, "nm": 1e-3, "pm": 1e-6, "fm": 1e-9}
_MOLAR_WORDS = {"molar": 1e6, "millimolar": 1e3, "micromolar": 1.0, "nanomolar": 1e-3, "picomolar": 1e-6}
_MOLAR_WORDS |= {"mol/l": 1e6, "mmol/l": 1e3, "umol/l": 1.0, "nmol/l": 1e-3, "pmol/l": 1e-6}
_OTHER = {
    "mg/ml",
    "ug/ml",
    "ng/ml",
    "pg/ml",
    "ng/ul",
    "ug/ul",
    "g/l",
    "mg/l",
    "ug/l",
    "ng/l",
    "ul",
    "ml",
    "nl",
    "%",
    "% v/v",
    "% w/v",
    "u/ml",
    "iu/ml",
    "moi",
    "ng",
    "ug",
    "mg",
    "l",
    "gy",
    "ng/well",
    "ul/well",
    "x",
}
_HOURS = {
    "h": 1.0,
    "hr": 1.0,
    "hrs": 1.0,
    "hour": 1.0,
    "hours": 1.0,
    "min": 1 / 60,
    "mins": 1 / 60,
    "minute": 1 / 60,
    "minutes": 1 / 60,
    "s": 1 / 3600,
    "sec": 1 / 3600,
    "d": 24.0,
    "day": 24.0,
    "days": 24.0,
    "week": 168.0,
    "weeks": 168.0,
}


_IN_NAMES = {"dose": {*_MOLAR, *_MOLAR_WORDS, *(u for u in _OTHER if "/" in u)}, "time": set(_HOURS)}
_BEHIND = re.compile(r"^(.*[^\s_.\-(\[])[\s_.\-]*[\s_.\-(\[]([^\s_.\-()\[\]]+)[)\]]?\s*$")


def unit_in_name(name: object, what: str) -> tuple[str, str]:
    """The name of a column of doses or times without the unit behind it, and that unit, "" if there is none.

    >>> unit_in_name("Dose (nM)", "dose"), unit_in_name("time_min", "time"), unit_in_name("dose", "dose")
    (('Dose', 'nM'), ('time', 'min'), ('dose', ''))
    """
    found = _BEHIND.match(str(name))
    if found is None or found[2] == "m" or _plain_unit(found[2]) not in _IN_NAMES[what]:
        return str(name), ""
    return found[1], found[2]


def _plain_unit(unit: object) -> str:
    return str(unit).strip().replace("µ", "u").replace("μ", "u").casefold()


def micromolar_per(unit: str) -> float | None:
    """Micromolar in one ``unit``; None for units that are known but not molar (mass, volume, percent, MOI).

    ``M`` stands for molar and ``mM`` for millimolar; case decides nothing else (``um``, ``uM`` and ``µM`` are the
    same).

    Raises
    ------
    InputError
        The unit is not known at all.

    >>> micromolar_per("nM"), micromolar_per("ug/mL")
    (0.001, None)
    """
    plain = _plain_unit(unit)
    if plain in _MOLAR:
        return _MOLAR[plain]
    if plain in _MOLAR_WORDS:
        return _MOLAR_WORDS[plain]
    if plain in _OTHER:
        return None
    raise InputError(
        f"The dose unit {unit!r} is not known, so doses cannot be put on one scale. Use M, mM, uM, nM or pM "
        f"(a unit for every row with --map dose_unit=const:uM), or go on without doses with --map dose=none."
    )


def hours_per(unit: str) -> float:
    """Hours in one ``unit`` of time.

    >>> hours_per("days")
    24.0
    """
    plain = str(unit).strip().casefold().rstrip(".")
    if plain not in _HOURS:
        raise InputError(
            f"The time unit {unit!r} is not known. Use h, min or days "
            f"(a unit for every row with --map time_unit=const:h), or go on without times with --map time=none."
        )
    return _HOURS[plain]


def split_quantities(values: pd.Series[Any], what: str) -> tuple[Float64, np.ndarray[Any, np.dtype[Any]]]:
    """Numbers (n,) float64, NaN where missing, and the unit written behind each (n,), "" if there is none.

    Missing are empty texts, NaN, "none" and LINCS's -666. Raises InputError for text that is no quantity.
    """
    categories, inverse = np.unique(values.astype(object).map(_plain).to_numpy(dtype=object), return_inverse=True)
    numbers, units, bad = np.full(len(categories), np.nan), np.full(len(categories), "", dtype=object), []
    for i, text in enumerate(categories):
        if text.casefold() in _MISSING:
            continue
        found = _NUMBER.match(text)
        if found is None or found[2][:1] in (",", ":"):  # thousands, a decimal comma, a time of the day
            bad.append(text)
            continue
        numbers[i], units[i] = float(found[1]), found[2]
    if bad:
        raise InputError(
            f"{len(bad):,} values of {what} are not a number, or a number and a unit: {first_few(bad)}. Write "
            f"{'24 h' if what == 'time' else '10 uM'!r} or a plain number with a unit column, leave the cell empty "
            f"where it is unknown, or use --map {what}=none."
        )
    return numbers[inverse], units[inverse]


def _plain(value: object) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)) or value is pd.NA:
        return ""
    return str(value).strip()


def to_unit(
    numbers: Float64,
    own_units: np.ndarray[Any, np.dtype[Any]],
    column_units: np.ndarray[Any, np.dtype[Any]],
) -> np.ndarray[Any, np.dtype[Any]]:
    """The unit of each value, (n,): the one behind the number, else that of the unit column; "" for missing numbers.

    Parameters
    ----------
    numbers : (n,), NaN where missing.
    own_units : (n,) texts behind the numbers, "" if there are none.
    column_units : (n,) texts of the unit column.
    """
    units = np.where(own_units == "", column_units, own_units)
    units = np.array(["" if str(u).casefold() in _MISSING else str(u) for u in units], dtype=object)
    units[np.isnan(numbers)] = ""
    return units
