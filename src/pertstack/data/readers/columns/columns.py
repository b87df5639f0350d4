"""Metadata columns as files have them, brought to one spelling.

Canonical columns: perturbation, cell_line (both needed); smiles, dose, dose_unit, log10_dose (micromolar), time_h,
plate, replicate, control_id (where known: a column that is empty throughout is left out). Every other column of the
source is kept as it is. What was taken for what is noted as a finding, so that a wrong guess can be seen and mended
with ``--map``.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few, unknown_name
from pertstack._base.findings import Finding
from pertstack._base.reading.tables import plain_texts
from pertstack.data.labels import visible
from pertstack.data.readers.columns.aliases import ALIASES, DURATIONS, alias_names, alias_of, is_alias, plain_name
from pertstack.data.readers.columns.doses import add_dose, add_log10_dose, add_time, one_column, storable, text_of
from pertstack.data.readers.columns.odd_columns import plain_columns

NEEDED = ("perturbation", "cell_line")
_CONTEXT = ("plate", "replicate", "control_id")
LEAST_ROWS = 20
"""Rows below which a column may hold another cell line in every row."""
MOST_UNIQUE = 0.9
"""Values per row above which a column holds ids, neither cell lines nor plates."""
_NO_NAME = {"nan", "-666", "<na>", "null", "n/a", "nat"}
_ODD_NAME = {"none", "na"}


def canonical_obs(
    obs: pd.DataFrame, mapping: Mapping[str, str] | None = None, *, where: str = "the data"
) -> tuple[pd.DataFrame, list[Finding]]:
    """Metadata with canonical columns, and notes of what was taken for what.

    Parameters
    ----------
    obs
        One row per sample; the index holds sample ids unless ``mapping`` names a ``sample_id`` column.
    mapping
        Canonical name -> source column, ``const:VALUE`` (one value for all rows) or ``none`` (do not use this).
    where
        The file, for messages.

    Raises
    ------
    InputError
        Perturbation or cell line cannot be found or is empty in some rows; a unit is not known; a mapped column does
        not exist.
    """
    obs, notes = plain_columns(obs, where)
    sources = _sources(obs, dict(mapping or {}), where)
    out = pd.DataFrame(index=_sample_ids(obs, sources))
    for name in NEEDED:
        out[name] = _needed_text(obs, sources, name, where)
        notes += _odd_names(out[name], name, where)
    if "smiles" in sources:
        out["smiles"] = text_of(one_column(obs, sources["smiles"]))
    notes += add_dose(out, obs, sources)
    if "log10_dose" not in out and (mapping or {}).get("dose") != "none":
        notes += add_log10_dose(out, obs, sources, where=where)
    notes += add_time(out, obs, sources)
    for name in _CONTEXT:
        if name in sources:
            out[name] = text_of(one_column(obs, sources[name]))
    for name in ("smiles", *_CONTEXT):
        if name in out and out[name].isna().all():
            out = out.drop(columns=name)
    canonical = {*NEEDED, "smiles", "dose", "dose_unit", "log10_dose", "time_h", *_CONTEXT}
    for column in obs.columns:
        if str(column) not in out.columns and str(column) not in canonical:
            out[str(column)] = storable(obs[column])
    return plain_texts(out), notes + _notes(sources, where)


def _sources(obs: pd.DataFrame, mapping: dict[str, str], where: str) -> dict[str, str]:
    """Canonical name -> source column or ``const:VALUE``; names that are not there or not wanted are absent."""
    wanted = {"time" if name == "time_h" else name: source for name, source in mapping.items() if name != "gene"}
    known = {"sample_id", *ALIASES}
    for name, source in wanted.items():
        if name not in known:
            raise unknown_name("canonical column", name, known)
        if source not in obs.columns and source != "none" and not source.startswith("const:"):
            near = get_close_matches(source, [str(c) for c in obs.columns], n=3, cutoff=0.5)
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise InputError(
                f"--map {name}={source}: {where} has no column {source!r}.{hint} Its columns: "
                f"{first_few(obs.columns, 40)}. "
                f"(Write const:VALUE for one value in every row, or none to do without.)"
            )
    found = {name: alias_of([c for c in obs.columns if _may_be(obs[c], name)], name) for name in ALIASES}
    if (first := found["perturbation"]) is not None and "perturbation" not in wanted:
        found["perturbation"] = _telling(obs, first)
    sources = {name: source for name, source in found.items() if source is not None and name not in wanted}
    return sources | {name: source for name, source in wanted.items() if source != "none"}


def _telling(obs: pd.DataFrame, first: str) -> str:
    """The first column by a name of perturbations, unless another says which one each row had.

    The first says only whether there was one (two values), or it is a condition (stimuli, media) under which each of
    more perturbations was done.
    """
    others = [c for c in obs.columns if c != first and plain_name(c) in alias_names("perturbation")]
    few = _distinct(obs[first]) if others else 0
    telling = [c for c in others if _distinct(obs[c]) > 2 and (few <= 2 or _done_under(obs, c, first))]
    return (alias_of(telling, "perturbation") or first) if telling else first


def _done_under(obs: pd.DataFrame, column: str, condition: str) -> bool:
    """Whether a column has more values than another, and most of them in several of the other's."""
    few, many = _distinct(obs[condition]), _distinct(obs[column])
    if condition == "perturbation" or many <= few:
        return False
    both = np.unique(_codes(obs[condition]) * np.int64(many + 1) + _codes(obs[column]))
    return len(both) > 1.5 * many


def _codes(column: pd.Series[Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(n_rows,) a number for every value, -1 if there is none."""
    try:
        return np.asarray(pd.factorize(column)[0], dtype=np.int64)
    except TypeError:  # lists in cells
        return np.asarray(pd.factorize(column.map(str))[0], dtype=np.int64)


def _distinct(column: pd.Series[Any]) -> int:
    return int(_codes(column).max(initial=-1)) + 1


def _may_be(column: pd.Series[Any], name: str) -> bool:
    """Whether a column may be the canonical one: a different value in (nearly) every row is an id, neither a cell line
    nor a plate, and ``1+1`` (GEARS' ``dose_val``) counts genes and is no dose."""
    if not is_alias(column.name, name):
        return False
    if name == "dose" and not pd.api.types.is_numeric_dtype(column):
        return not any("+" in str(v).strip("+") and "e+" not in str(v).casefold() for v in column.unique())
    if name == "time" and plain_name(column.name) in DURATIONS:  # ``day`` may also name days: Monday, d7
        return bool(pd.to_numeric(pd.Series(column.unique()).astype(str), errors="coerce").notna().all())
    if name not in ("cell_line", "plate") or column.name == name or len(column) < LEAST_ROWS:
        return True
    return column.astype(str).nunique() <= MOST_UNIQUE * len(column)


def with_named_index(obs: pd.DataFrame) -> pd.DataFrame:
    """The table with its index as a column too, if that says the perturbation of rows and no column does."""
    name = str(obs.index.name)
    if plain_name(name) not in alias_names("perturbation") or obs.index.is_unique or name in obs.columns:
        return obs
    return obs.assign(**{name: obs.index.astype(str)})


def source_column(obs: pd.DataFrame, mapping: Mapping[str, str] | None, name: str) -> str | None:
    """The column of the source that is taken for a canonical one; None if there is none, or it is a constant.

    Parameters
    ----------
    obs : table as the file has it.
    mapping : canonical column -> column of ``obs``; goes before the usual names.
    name : canonical: "perturbation", "cell_line", "plate", ...
    """
    source = _sources(obs, dict(mapping or {}), "the data").get(name)
    return None if source is None or source.startswith("const:") else source


def sample_ids(obs: pd.DataFrame, mapping: Mapping[str, str] | None = None) -> np.ndarray[Any, np.dtype[Any]]:
    """The id of every row, as text."""
    return np.asarray(_sample_ids(obs, _sources(obs, dict(mapping or {}), "the data")), dtype=object)


def canonical_text(
    obs: pd.DataFrame, mapping: Mapping[str, str] | None, name: str, *, where: str = "the data"
) -> np.ndarray[Any, np.dtype[Any]] | None:
    """One canonical column of text (n_rows,), None in empty cells; None if the table has no such column.

    Parameters
    ----------
    obs : table as the file has it.
    mapping : canonical column -> column of ``obs``, ``const:VALUE`` or ``none``.
    name : canonical.
    where : the file, for messages.

    Raises
    ------
    InputError
        A column that every sample needs is not found or is empty in some rows.
    """
    sources = _sources(obs, dict(mapping or {}), where)
    if name in NEEDED:
        return _needed_text(obs, sources, name, where)
    if name not in sources:
        return None
    values = text_of(one_column(obs, sources[name]))
    return None if all(v is None for v in values) else values


def _sample_ids(obs: pd.DataFrame, sources: Mapping[str, str]) -> pd.Index[Any]:
    ids = obs[sources["sample_id"]] if "sample_id" in sources else obs.index
    return pd.Index([str(i) for i in ids], name="sample_id", dtype=object)


def _needed_text(
    obs: pd.DataFrame, sources: Mapping[str, str], name: str, where: str
) -> np.ndarray[Any, np.dtype[Any]]:
    if name not in sources:
        near = get_close_matches(name, [str(c) for c in obs.columns], n=3, cutoff=0.4)
        hint = f" Perhaps {' or '.join(map(repr, near))}?" if near else ""
        other = f", or --map {name}=const:NAME when all samples share one" if name == "cell_line" else ""
        if not len(obs.columns):
            raise InputError(
                f"{where} has no columns that say anything of its rows. Give a table that does, by their ids, with "
                f"--metadata FILE (columns sample_id, perturbation, cell_line)."
            )
        raise InputError(
            f"{where} has no column that says the {name.replace('_', ' ')} of each sample.{hint} "
            f"Its columns: {first_few(obs.columns, 40)}. Name it with --map {name}=COLUMN{other}."
        )
    source = sources[name]
    values = one_column(obs, source).astype(object)
    plain = [None if v is None or v is pd.NA or v != v else visible(str(v).strip()) for v in values]
    empty = [str(i) for i, v in zip(obs.index, plain, strict=True) if not v or v.casefold() in _NO_NAME]
    if empty:
        texts = sorted({v for v in plain if v and v.casefold() in _NO_NAME})
        says = f" (a missing name written as {first_few(texts)})" if texts else ""
        raise InputError(
            f"{where}: column {source!r} ({name}) is empty{says} for {len(empty):,} of {len(obs):,} samples: "
            f"{first_few(empty)}. "
            f"Every sample needs one, because folds and scores are made by it. Fill them in or remove these samples."
        )
    return np.array(plain, dtype=object)


def _odd_names(names: pd.Series[Any], name: str, where: str) -> list[Finding]:
    """A warning if a name may be a missing one written as text."""
    odd = names[names.str.casefold().isin(_ODD_NAME)]
    if odd.empty:
        return []
    what = name.replace("_", " ")
    return [
        Finding(
            "warning",
            "name_may_be_missing",
            f"{len(odd):,} samples have a {what} called {first_few(sorted(set(odd)))}. If it stands for a missing "
            f"name, different {what}s are taken for one: leave these samples out.",
            count=len(odd),
            examples=tuple(str(i) for i in odd.index[:10]),
            where=where,
        )
    ]


def _notes(sources: Mapping[str, str], where: str) -> list[Finding]:
    renamed = [
        f"{name} = {source}"
        for name, source in sources.items()
        if name != source and (name, source) != ("time", "time_h")
    ]
    if not renamed:
        return []
    return [
        Finding(
            "note",
            "columns_taken",
            f"Columns of {where} were taken as: {', '.join(renamed)}. Change it with --map NAME=COLUMN.",
            count=len(renamed),
            examples=tuple(renamed[:10]),
            numbers={"sources": dict(sources)},
        )
    ]
