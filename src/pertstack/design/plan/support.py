"""Support rows: always fitted on, never scored. Which rows they are, and when a plan should have some.

Where combinations are held out, the single perturbations will all be known at the time of use. A plan that scores them
as well withholds a part of them in every fold: the question asked is then another one than that of deployment.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pertstack._base.errors import InputError, first_few, unknown_name
from pertstack._base.findings import Finding
from pertstack._base.reading.tables import as_texts
from pertstack.data.labels import perturbation_keys
from pertstack.design.plan.folds import FoldPlan

KIND = "kind"
_KINDS = {1: "single", 2: "double", 3: "triple"}
_YES, _NO = {"true", "1", "1.0", "yes", "support"}, {"false", "0", "0.0", "no", "", "nan", "none", "<na>"}


def support_rows(obs: pd.DataFrame, wanted: Sequence[str]) -> pd.Series[bool]:
    """Which samples are support, (n,) by sample id.

    Parameters
    ----------
    obs : metadata, index = sample ids.
    wanted : each ``column=value,value`` (``kind=single``: without a column ``kind`` single and double are recognised
        by the names, ``A+ctrl`` and ``A+B``), a yes-or-no column, a file with a name a line, or names separated by
        commas; names are perturbations or sample ids. A row is support when any of them says so.

    Raises
    ------
    InputError, UnknownNameError
        A column, value or name that is not there; nothing or everything would be support.
    """
    answer = pd.Series(False, index=obs.index)
    for text in wanted:
        answer |= _one(obs, text.strip())
    if not answer.any() or answer.all():
        raise InputError(
            f"--support {' --support '.join(wanted)} makes {'every' if answer.all() else 'no'} sample support, so "
            f"{'nothing is left to score' if answer.all() else 'it says nothing'}. Support is a part of the samples: "
            "always fitted on, never scored."
        )
    return answer


def _one(obs: pd.DataFrame, text: str) -> pd.Series[bool]:
    column, equals, values = text.partition("=")
    if equals:
        return _by_value(obs, column.strip(), [v.strip() for v in values.split(",") if v.strip()])
    if text in obs.columns:
        said = as_texts(obs[text]).str.strip().str.casefold()
        odd = sorted(set(said) - _YES - _NO)
        if odd:
            raise InputError(
                f"--support {text}: the column holds {first_few(odd)}, which is neither yes nor no. Name the values "
                f"that are support: --support {text}={odd[0]}."
            )
        return said.isin(_YES)
    if Path(text).is_file():
        names = [line.strip() for line in Path(text).read_text(encoding="utf-8").splitlines() if line.strip()]
    else:
        names = [name.strip() for name in text.split(",") if name.strip()]
    drugs, ids = obs["perturbation"].astype(str), pd.Series(obs.index.astype(str), index=obs.index)
    for name in names:
        if not (drugs == name).any() and not (ids == name).any():
            raise unknown_name("perturbation, sample or column for --support", name, {*drugs, *map(str, obs.columns)})
    return drugs.isin(names) | ids.isin(names)


def _by_value(obs: pd.DataFrame, column: str, values: Sequence[str]) -> pd.Series[bool]:
    if column in obs.columns:
        there = as_texts(obs[column])
    elif column == KIND:
        parts = perturbation_keys(obs["perturbation"])
        there = obs["perturbation"].map(lambda p: _KINDS.get(len(parts[str(p)]), "combination"))
    else:
        raise unknown_name("column for --support", column, [*map(str, obs.columns), KIND])
    for value in values:
        if value not in set(there):
            raise unknown_name(f"value of {column} for --support", value, sorted(set(there))[:50])
    return there.isin(values)


def propose_support(plan: FoldPlan, obs: pd.DataFrame) -> list[Finding]:
    """Where combinations and their parts are scored as one: how many parts of a scored combination the fits have seen,
    as planned and with the parts as support; nothing if that makes no difference."""
    frame = obs.reindex(pd.Index(plan.table["sample_id"]))
    frame = frame.assign(role=plan.table["role"].to_numpy(), fold=plan.table["fold"].to_numpy())
    parts = frame["perturbation"].astype(str).map(perturbation_keys(frame["perturbation"]))
    scored = frame["role"] != "support"
    single, combined = parts.map(len) == 1, (parts.map(len) > 1) & scored
    part_of = {g for names in parts[combined] for g in names}
    alone = single & scored & parts.map(lambda names: bool(names) and names[0] in part_of)
    if not combined.any() or not alone.any():
        return []
    every = {names[0] for names in parts[single]}
    fit = frame["role"] != "test"

    def known(rows: pd.Series[bool], outside: bool) -> float:
        hits, total = 0, 0
        for fold in frame.loc[rows, "fold"].unique() if outside else [None]:
            mine = rows & (frame["fold"] == fold).fillna(False) if outside else rows
            seen = fit & ~(frame["fold"] == fold).fillna(False) if outside else fit
            there = {names[0] for names in parts[single & seen]}
            asked = [g for names in parts[mine] for g in names]
            hits, total = hits + sum(g in there for g in asked), total + len(asked)
        return hits / total if total else float("nan")

    development, test = combined & (frame["role"] == "development"), combined & (frame["role"] == "test")
    oof, final = known(development, True), known(test, False)
    ever = sum(g in every for names in parts[combined] for g in names) / sum(map(len, parts[combined]))
    if not (oof < ever or final < ever):
        return []
    n = int(frame.loc[combined, "perturbation"].nunique()), int(frame.loc[alone, "perturbation"].nunique())
    final_said = f", for the test {final:.0%}" if test.any() else ""
    return [
        Finding(
            "warning",
            "parts_scored_with_combinations",
            f"{n[0]:,} combinations are scored together with {n[1]:,} of their parts measured alone. Out of fold "
            f"{oof:.0%} of a combination's parts are among the fit rows{final_said}. If combinations of known parts "
            f"will be predicted, make the parts support: `pertstack init ... --support kind=single` fits on them "
            f"always and scores combinations alone, with {ever:.0%} of the parts known.",
            n[0],
            numbers={
                "combinations": n[0],
                "parts": n[1],
                "known_out_of_fold": oof,
                "known_as_support": ever,
                "known_for_the_test": final if test.any() else None,
            },
        )
    ]
