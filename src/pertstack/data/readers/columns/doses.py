"""Doses and times of a sample table, in log10 micromolar and hours; the cells of a column as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.findings import Finding
from pertstack.data.labels import visible
from pertstack.data.readers.columns.aliases import DURATIONS, LOG_DOSE, plain_name
from pertstack.data.readers.columns.units import hours_per, micromolar_per, split_quantities, to_unit, unit_in_name

Float64 = np.ndarray[Any, np.dtype[np.float64]]
Texts = np.ndarray[Any, np.dtype[Any]]
EMPTY = {"", "nan", "none", "na", "<na>", "-666", "null"}
_UNIT_IN_NAME = {"doseum": "uM", "timeh": "h"}  # plain names, if nothing stands before the unit
LONG_H = 1000
"""Hours beyond which a time without a unit is hardly one in hours."""


def one_column(obs: pd.DataFrame, source: str) -> pd.Series[Any]:
    """A column, or the constant that ``const:VALUE`` names in every row."""
    if source.startswith("const:"):
        return pd.Series([source.removeprefix("const:")] * len(obs), index=obs.index, dtype=object)
    return obs[source]


def _nothing(obs: pd.DataFrame) -> Texts:
    return np.full(len(obs), None, dtype=object)


def text_of(values: pd.Series[Any]) -> np.ndarray[Any, np.dtype[Any]]:
    """Texts as an object array, None if empty."""
    plain = [None if v is None or v is pd.NA or v != v else visible(str(v).strip()) for v in values.astype(object)]
    return np.array([None if v is None or v.casefold() in EMPTY else v for v in plain], dtype=object)


def add_dose(out: pd.DataFrame, obs: pd.DataFrame, sources: Mapping[str, str]) -> list[Finding]:
    """Add the columns dose, dose_unit and log10_dose (log10 micromolar, NaN where unknown); nothing when there are no
    doses.

    Parameters
    ----------
    out : the canonical table, changed in place.
    obs : table as the file has it, same rows.
    sources : canonical column -> column of ``obs``.

    Raises
    ------
    InputError
        A dose is negative, or its unit is not known.
    """
    if "dose" not in sources:
        return []
    numbers, own = split_quantities(one_column(obs, sources["dose"]), "dose")
    numbers[numbers == -666] = np.nan
    if np.isnan(numbers).all():
        return []
    if (numbers < 0).any():
        bad = [str(i) for i in obs.index[numbers < 0]]
        source = sources["dose"]
        raise InputError(
            f"{len(bad):,} samples have a negative dose in {source!r}: {first_few(bad)}. Correct them, or say --map "
            f"dose=none; if they are log10 of the dose, --map dose=none,log10_dose={source} (in micromolar, or in the "
            f"unit of --map dose_unit)."
        )
    units, notes = _dose_units(obs, sources, numbers, own)
    scale = {u: micromolar_per(u) for u in sorted(set(units) - {""})}
    factor = np.array([scale.get(u) or np.nan for u in units], dtype=np.float64)
    if not scale:
        factor[:] = 1.0  # no unit anywhere: log10 of the number as it is
    scaled = numbers * factor
    out["dose"], out["dose_unit"] = numbers, np.array([u or None for u in units], dtype=object)
    out["log10_dose"] = np.log10(scaled, out=np.full(len(obs), np.nan), where=scaled > 0)
    other = np.isin(units, [u for u, f in scale.items() if f is None])
    if not other.any():
        return notes
    return [
        *notes,
        Finding(
            "warning",
            "dose_not_molar",
            f"{int(other.sum()):,} samples have doses in {first_few(sorted(set(units[other])))}, which cannot be put "
            f"on a molar scale; their log10_dose is unknown (NaN).",
            count=int(other.sum()),
            examples=tuple(str(i) for i in obs.index[other][:10]),
        ),
    ]


def add_log10_dose(out: pd.DataFrame, obs: pd.DataFrame, sources: Mapping[str, str], *, where: str) -> list[Finding]:
    """Add the column log10_dose (log10 micromolar) from one of decimal logarithms; a warning where a column may hold
    logarithms of another base.

    Parameters
    ----------
    out : the canonical table, changed in place.
    obs : table as the file has it, same rows.
    sources : canonical column -> column of ``obs``.
    where : the file, for messages.

    Raises
    ------
    InputError
        A unit is not known.
    """
    if "log10_dose" not in sources:
        maybe = [c for c in map(str, obs.columns) if LOG_DOSE.search(c) and obs[c].nunique() > 1]
        text = (
            f"{where}: {first_few(maybe)} may hold logarithms of doses, and their base is not known, so no dose is. If "
            f"they are log10 of micromolar, say --map log10_dose={maybe[0] if maybe else ''}; else write a column dose."
        )
        return [Finding("warning", "dose_as_logarithm", text, len(maybe), where=where)] if maybe else []
    values = one_column(obs, sources["log10_dose"]).replace(-np.inf, np.nan)  # of no dose
    numbers, own = split_quantities(values, "log10_dose")
    numbers[numbers == -666] = np.nan
    column = text_of(one_column(obs, sources["dose_unit"])) if "dose_unit" in sources else _nothing(obs)
    implied = unit_in_name(sources["log10_dose"], "dose")[1] or "uM"
    units = to_unit(numbers, own, np.array([implied if u is None else u for u in column], dtype=object))
    factor = np.array([np.nan if u == "" else micromolar_per(u) or np.nan for u in units], dtype=np.float64)
    out["log10_dose"] = numbers + np.log10(factor)
    return []


def _dose_units(
    obs: pd.DataFrame, sources: Mapping[str, str], numbers: Float64, own: Texts
) -> tuple[Texts, list[Finding]]:
    """The unit of every dose, "" if none is needed (missing, zero) or none is given anywhere; a warning then.

    Raises
    ------
    InputError
        Some doses have a unit and some have none, or the number, the unit column and the column's name name two.
    """
    implied = _implied(sources["dose"], "dose")
    column = text_of(one_column(obs, sources["dose_unit"])) if "dose_unit" in sources else _nothing(obs)
    units = to_unit(numbers, own, np.array([implied if u is None else u for u in column], dtype=object))
    _refuse_two_units(obs, numbers, [own, column, np.full(len(obs), implied, dtype=object)], "dose")
    without = (units == "") & (numbers > 0)
    if not without.any():
        return units, []
    example = f"{numbers[without][0]:g} for {str(obs.index[without][0])!r}"
    if (units != "").any():
        raise InputError(
            f"{int(without.sum()):,} samples have a dose without a unit, such as {example}, and "
            f"{int((units != '').sum()):,} have one ({first_few(sorted(set(units) - {''}))}): 10 uM and 10 nM are not "
            f"the same. Name the unit column with --map dose_unit=COLUMN, give one unit with --map dose_unit=const:uM, "
            f"or do without doses: --map dose=none."
        )
    return units, [
        Finding(
            "warning",
            "dose_without_unit",
            f"No dose has a unit, so the numbers of {sources['dose']!r} are taken as they are, such as {example}: "
            f"doses of "
            f"this file can be compared with each other, but not with those of other files. Say the unit with --map "
            f"dose_unit=const:uM.",
            count=int(without.sum()),
            examples=tuple(str(i) for i in obs.index[without][:10]),
        )
    ]


def _implied(source: str, what: str) -> str:
    """The unit in the name of a column."""
    by_unit = plain_name(source) if what == "time" and plain_name(source) in DURATIONS else ""
    return unit_in_name(source, what)[1] or _UNIT_IN_NAME.get(plain_name(source), by_unit)


def _refuse_two_units(obs: pd.DataFrame, numbers: Float64, said: list[Texts], what: str) -> None:
    """Refuse an amount whose unit is given twice and not the same, such as 10 uM in a row whose unit column says nM."""
    per: Callable[[str], float | None] = micromolar_per if what == "dose" else hours_per
    table = pd.DataFrame(dict(enumerate(said)))[numbers > 0].reset_index(drop=True)
    for at in table.drop_duplicates().index:
        i = int(np.flatnonzero(numbers > 0)[at])
        units = {str(u[i]) for u in said if u[i]}
        if len(units) > 1 and len({(per(u), per(u) or u.casefold()) for u in units}) > 1:
            raise InputError(
                f"The {what} of {str(obs.index[i])!r}, {numbers[i]:g}, is given in two units: "
                f"{first_few(sorted(units))} (behind the number, in the unit column, or in the column's name). Correct "
                f"it, drop the unit column with --map {what}_unit=none, or do without {what}s: --map {what}=none."
            )


def add_time(out: pd.DataFrame, obs: pd.DataFrame, sources: Mapping[str, str]) -> list[Finding]:
    """Add the column time_h, hours, NaN where unknown; a number without any unit is hours, as in LINCS.

    Parameters
    ----------
    out : the canonical table, changed in place.
    obs : table as the file has it, same rows.
    sources : canonical column -> column of ``obs``.

    Raises
    ------
    InputError
        The unit of a time is not known, or given twice.
    """
    if "time" not in sources:
        return []
    numbers, own = split_quantities(one_column(obs, sources["time"]), "time")
    numbers[numbers == -666] = np.nan
    if np.isnan(numbers).all():
        return []
    implied = _implied(sources["time"], "time")
    column = text_of(one_column(obs, sources["time_unit"])) if "time_unit" in sources else _nothing(obs)
    _refuse_two_units(obs, numbers, [own, column, np.full(len(obs), implied, dtype=object)], "time")
    units = to_unit(numbers, own, np.array([implied if u is None else u for u in column], dtype=object))
    factor = {"": 1.0} | {u: hours_per(u) for u in sorted(set(units) - {""})}
    out["time_h"] = numbers * np.array([factor[u] for u in units], dtype=np.float64)
    long = (units == "") & (numbers > LONG_H)
    if not long.any():
        return []
    text = (
        f"Times in {sources['time']!r} have no unit and are taken as hours; {int(long.sum()):,} samples then were "
        f"treated for more than {LONG_H:,} hours, such as {str(obs.index[long][0])!r} for {numbers[long][0]:g}. If "
        f"these are minutes, say --map time_unit=const:min."
    )
    return [Finding("warning", "time_without_unit", text, int(long.sum()))]


def storable(values: pd.Series[Any]) -> np.ndarray[Any, np.dtype[Any]]:
    """A column of the source as one type, as parquet needs it: numbers and dates as they are, the rest as text."""
    if pd.api.types.is_numeric_dtype(values) or pd.api.types.is_datetime64_any_dtype(values):
        return np.asarray(values.to_numpy())
    return np.array(
        [None if v is None or v is pd.NA or v != v else str(v) for v in values.astype(object)], dtype=object
    )
