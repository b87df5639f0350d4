"""Splits as tables: names of perturbations, samples or cells, and the part or the fold of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.reading.tables import as_texts, read_table
from pertstack.data.labels import is_control_name, look_up
from pertstack.data.readers.columns.aliases import alias_of, plain_name
from pertstack.design.plan.foreign_split import WORDS, ForeignSplit, in_folds, k_folds, one_cut
from pertstack.design.plan.placing import kind_of, known_names, strange_findings

FOLDS = {"fold", "folds", "foldid", "cvfold", "kfold", "cv"}
"""What a column of numbered folds is called."""
_EXPECTED = (
    "expected a column of names (perturbations, samples or cells), and one that says train, val or test for each, or a "
    "column fold with 0, 1, 2, ... (and test)"
)


def table_split(path: Path, obs: pd.DataFrame, cells: pd.Series[Any] | None) -> ForeignSplit | None:
    """A table of names and parts, with a header or without; None if it is a table of our own.

    Parameters
    ----------
    path : text, parquet or feather.
    obs : canonical metadata, index = sample ids.
    cells : sample id by name of the cell; None if samples are not made of cells.

    Raises
    ------
    InputError
        It does not say a part or a fold for each name, or puts one name in two.
    """
    body = _texts(path)
    head = list(body.columns)
    if "sample_id" in head and {"role", "fold"}.intersection(head):
        return None
    parts = [h for h in head if _all_parts(body[h])]
    if len(parts) > 1:
        raise InputError(f"{path} has {len(parts)} columns that say train or test: {first_few(parts)}. Keep one.")
    numbered = [h for h in head if plain_name(h) in FOLDS]
    said = [*parts, *numbered]
    others = [h for h in head if h not in said]
    known = known_names(obs, cells)
    hits = {h: max(int(body[h].isin(k).sum()) for k in known.values()) for h in others}
    if not parts and any(body[h].isin(known["sample"]).any() for h in others):
        return None  # our own, with ids under another name
    if not said:
        shown = "; ".join(f"{h!r} ({first_few(body[h].unique(), 3)})" for h in head[:6])
        raise InputError(f"{path} is no split that is known here: {_EXPECTED}. Its columns: {shown}.")
    if not others:
        raise InputError(f"{path} has no column of names beside {said[0]!r}: {_EXPECTED}.")
    if len(numbered) > 1:
        raise InputError(f"{path} has {len(numbered)} columns of folds: {first_few(numbered)}. Keep one.")
    name = max(hits, key=lambda h: hits[h])
    names, places = body[name], body[said[0]]
    if parts and (empty := names[places == ""].tolist()):
        raise InputError(
            f"{path}: {len(empty):,} rows have nothing in {said[0]!r}: {first_few(empty)}. Say train, val or test for "
            f"each, or leave the rows out."
        )
    fold = body[numbered[0]] if numbered else places
    table = pd.DataFrame({"name": names, "part": places, "fold": fold})
    line = alias_of([h for h in others if h != name], "cell_line")
    told = line is not None and bool(set(body[line]) & set(obs["cell_line"].astype(str)))
    if told and kind_of(names, obs, cells) == "perturbation":
        return _by_pair(path, table.assign(line=body[line]), obs, both=bool(parts and numbered))
    if parts and numbered:
        return _parts_and_folds(path, table, obs, cells)
    return _split(path, pd.Series(places.to_numpy(), index=names.to_numpy()), obs, cells)


def _by_pair(path: Path, table: pd.DataFrame, obs: pd.DataFrame, *, both: bool) -> ForeignSplit:
    """A split that says the place of each perturbation in each cell line: a row stands for the samples of its pair."""
    own = look_up(table["name"].unique(), obs["perturbation"].astype(str))
    samples: dict[tuple[str, str], list[str]] = {}
    for sample, p, line in zip(obs.index, obs["perturbation"].astype(str), obs["cell_line"].astype(str), strict=True):
        samples.setdefault((p, line), []).append(str(sample))
    keys = [(own.get(name, name), line) for name, line in zip(table["name"], table["line"], strict=True)]
    rows = table.assign(name=pd.Series([samples.get(k, []) for k in keys], index=table.index, dtype=object))
    rows = rows[rows["name"].map(len) > 0].explode("name", ignore_index=True)
    if rows.empty:
        raise InputError(
            f"{path}: none of its pairs of perturbation and cell line ({first_few([' / '.join(k) for k in keys], 3)}) "
            f"is in the data ({first_few([' / '.join(k) for k in samples], 3)}). Check that split and data belong "
            f"together."
        )
    if both:
        split = _parts_and_folds(path, rows, obs, None)
    else:
        split = _split(path, pd.Series(rows["part"].to_numpy(), index=rows["name"].to_numpy()), obs, None)
    strange = [" / ".join(k) for k in dict.fromkeys(keys) if k not in samples and not is_control_name(k[0])]
    place = split.table.set_index("sample_id").iloc[:, 0].astype(str)
    apart = place.groupby(obs["perturbation"].astype(str).reindex(place.index)).nunique() > 1
    return replace(
        split,
        group_by="perturbation+cell_line" if apart.any() else split.group_by,
        findings=(*strange_findings(path, strange, "pair"), *split.findings),
    )


def _parts_and_folds(path: Path, table: pd.DataFrame, obs: pd.DataFrame, cells: pd.Series[Any] | None) -> ForeignSplit:
    """A split of ``name``, ``part`` and ``fold``: a fold for each name in training, or parts for each fold."""
    role = table["part"].str.casefold().map(WORDS)
    both = role.groupby(table["name"]).nunique() > 1
    if both.any():  # trained on in one fold and tested in another, if every fold says both
        lacking = role.groupby(table["fold"]).nunique() < 2
        if lacking.any():
            names = both.index[both].tolist()
            raise InputError(
                f"{path}: {len(names):,} names are in training and in the test: {first_few(names)}, "
                f"as in parts for each fold, and fold {first_few(list(lacking.index[lacking]))} has only one of them. "
                f"Keep each name on one side, or say train and test in every fold."
            )
        folds: dict[str, dict[str, list[str]]] = {}
        for part, fold, name in zip(table["part"], table["fold"], table["name"], strict=True):
            folds.setdefault(f"fold {fold}", {}).setdefault(part, []).append(name)
        by = kind_of(dict.fromkeys(table["name"]), obs, cells)
        return k_folds(path, folds, obs, cells=cells, by=by)
    if lost := table.loc[(table["fold"] == "") & (role != "test"), "name"].tolist():
        raise InputError(
            f"{path}: {len(lost):,} rows are in training and in no fold: {first_few(lost)}. Number the fold of each, "
            f"or leave the column of folds out: then folds are drawn here."
        )
    places = table["fold"].where(role != "test", "test")  # a test row may have a number too
    return _split(path, pd.Series(places.to_numpy(), index=table["name"].to_numpy()), obs, cells)


def says_parts(path: Path) -> bool:
    """Whether a table says train and test for what it names."""
    body = _texts(path)
    parts = [{WORDS.get(v) for v in body[h].str.casefold()} for h in body.columns if _all_parts(body[h])]
    return any(found >= {"development", "test"} for found in parts)


def _texts(path: Path) -> pd.DataFrame:
    """A table as texts without blanks around them, names of rows among its columns."""
    body = read_table(path, blanks=False)
    if not isinstance(body.index, pd.RangeIndex):
        body = body.reset_index(names=[str(n or "name") for n in body.index.names])
    body = pd.DataFrame({str(c).strip(): as_texts(body[c]).str.strip().fillna("") for c in body.columns})
    head = list(body.columns)
    if not any(h.casefold() in WORDS for h in head):
        return body
    numbered = [f"column {i + 1}" for i in range(len(head))]  # there is no header: it is a row like the others
    return pd.DataFrame([head, *body.to_numpy().tolist()], columns=numbered)


def places_split(
    path: Path, places: Mapping[str, str], obs: pd.DataFrame, cells: pd.Series[Any] | None
) -> ForeignSplit:
    """A split that says the part or the fold of each name.

    Parameters
    ----------
    path, obs, cells : as in ``table_split``.
    places : name -> part or fold.

    Raises
    ------
    InputError
        A place is neither a part nor a fold.
    """
    return _split(path, pd.Series(dict(places), dtype=object), obs, cells)


def _split(path: Path, places: pd.Series[Any], obs: pd.DataFrame, cells: pd.Series[Any] | None) -> ForeignSplit:
    """The split of places by name; names may repeat, with one place."""
    roles: dict[str, set[str]] = {}
    if set(places.str.casefold()) <= set(WORDS):
        for name, part in places.items():
            roles.setdefault(str(name), set()).add(WORDS[part.casefold()])
        return one_cut(path, roles, obs, cells=cells, by=kind_of(roles, obs, cells))
    number = pd.to_numeric(places, errors="coerce")
    test = (places == "") | places.str.casefold().map(lambda w: WORDS.get(w) == "test")
    odd = places[~test & ~(number % 1 == 0)].unique()
    if len(odd):
        raise InputError(f"{path}: {first_few(odd)} is neither a part of a split nor a fold; {_EXPECTED}.")
    order = sorted(number[~test].unique())
    at: dict[str, int | None] = {}
    for name, value, held_out in zip(map(str, places.index), number, test, strict=True):
        place = None if held_out else order.index(value)
        if at.setdefault(name, place) != place:
            raise InputError(f"{path}: {name!r} is in two folds. Keep each name in one.")
    return in_folds(
        path, at, [f"{int(k)} = fold {i}" for i, k in enumerate(order)], obs, cells=cells, by=kind_of(at, obs, cells)
    )


def _all_parts(column: pd.Series[Any]) -> bool:
    """Whether a column says nothing but parts of a split; some rows may be empty."""
    found = set(column.str.casefold()) - {""}
    return bool(found) and found <= set(WORDS)
