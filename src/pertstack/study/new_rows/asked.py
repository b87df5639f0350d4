"""What a study knew of its scored rows and knows of rows to come: the two sides that ``design.plan.asked`` compares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.findings import Finding
from pertstack._base.reading import tables
from pertstack.data.labels import one_spelling, perturbation_keys
from pertstack.design.blocks import SUPPORT
from pertstack.design.plan.asked import Known, compare
from pertstack.design.plan.groups import apart
from pertstack.design.plan.known import fitted_of, known_levels, sharing, telling
from pertstack.predictions.sources.training_distance import COLUMN
from pertstack.study.folder import StudyFolder

LINE, DOSE, EFFECT = "cell line", "log10 dose", "effect of the parts alone"
DISTANCE = "distance to training"
MOST_COMPARED = 1000
"""Scored perturbations whose distance to training is taken: each is compared with all that were fitted."""
ASKED = "asked.json"
"""The table of both sides, beside the plan."""


def asked_findings(folder: StudyFolder, obs: pd.DataFrame, where: str) -> tuple[list[dict[str, str]], list[Finding]]:
    """Rows to be predicted against the rows scored out of fold: the table of ``design.plan.asked.compare`` and its
    warning.

    Parameters
    ----------
    folder : of the study.
    obs : rows to be predicted, as in a data file, with ``training_distance`` if it is known.
    where : what asks, for the message.
    """
    if not (folder.samples["role"] == "development").any() or not len(obs):
        return [], []
    return compare(*both_sides(folder, obs), where)


def both_sides(folder: StudyFolder, obs: pd.DataFrame) -> tuple[Known, Known]:
    """What was known of the rows scored out of fold, in plan order, and what is of the rows ``obs`` to be predicted."""
    samples = folder.samples
    scored = samples[samples["role"] == "development"]
    fitted, effects, by_parts = fitted_of(samples), _effects(folder, obs), apart(folder.plan.group_by)
    distance = folder.training_distance
    if distance is not None:
        near = pd.Series(np.nan, index=scored.index)
        names = np.unique(scored["perturbation"].astype(str))
        some = set(names[:: -(-len(names) // MOST_COMPARED)])
        part = scored[scored["perturbation"].astype(str).isin(some)]
        for fold in part["fold"].unique():
            rows = part[part["fold"] == fold]
            near[rows.index] = distance.of(rows["perturbation"], outside=(int(fold),))
        scored = scored.assign(**{COLUMN: near})
    lines = {
        int(k): set(map(str, rows["cell_line"]))
        for k, rows in samples[samples["role"] != "test"].groupby(samples["fold"].astype("Int64").fillna(SUPPORT))
    }
    mine = known_levels(scored["perturbation"], scored["fold"], fitted, apart=by_parts)
    theirs = known_levels(obs["perturbation"], [None] * len(obs), _finally(fitted, samples) if by_parts else fitted)
    views = telling(mine, theirs)
    return (
        _known(scored, {v: mine[v] for v in views}, lines, effects),
        _known(obs.assign(fold=None), {v: theirs[v] for v in views}, lines, effects),
    )


def _finally(fitted: Mapping[int, Sequence[str]], samples: pd.DataFrame) -> dict[int, list[str]]:
    """What final fits see if parts are kept apart: nothing that shares a part with the test, but for support."""
    test = samples.loc[samples["role"] == "test", "perturbation"]
    return {k: [n for n in names if k == SUPPORT or n not in sharing(names, test)] for k, names in fitted.items()}


def _known(
    obs: pd.DataFrame,
    levels: Mapping[str, Sequence[str]],
    lines: Mapping[int, set[str]],
    effects: Mapping[str, float],
) -> Known:
    folds, cell_lines = list(map(_whole, obs["fold"])), obs["cell_line"].astype(str)
    there = {f: set().union(*(v for k, v in lines.items() if k != f)) for f in set(folds)}
    of_line = ["seen" if x in there[f] else "unseen" for x, f in zip(cell_lines, folds, strict=True)]
    numbers: dict[str, Any] = {
        view: obs[column].to_numpy(dtype=np.float64)
        for view, column in ((DISTANCE, COLUMN), (DOSE, "log10_dose"))
        if column in obs
    }
    if effects:
        keys = perturbation_keys(obs["perturbation"])
        numbers[EFFECT] = [_mean(effects, keys[str(p)]) for p in obs["perturbation"]]
    return Known(
        {**levels, LINE: of_line}, numbers, [f"{p}\0{x}" for p, x in zip(obs["perturbation"], cell_lines, strict=True)]
    )


def _whole(fold: Any) -> int | None:
    return None if pd.isna(fold) else int(fold)


def _mean(effects: Mapping[str, float], parts: Sequence[str]) -> float:
    known = [effects[p] for p in parts if p in effects]
    return float(np.mean(known)) if len(parts) > 1 and known else float("nan")


def _effects(folder: StudyFolder, obs: pd.DataFrame) -> dict[str, float]:
    """RMS change of every part of a combination that was measured alone, from rows that may be fitted on."""
    samples = folder.samples[folder.samples["role"] != "test"]
    keys = perturbation_keys([*samples["perturbation"], *obs["perturbation"]])
    joined = [*obs["perturbation"], *samples.loc[samples["role"] == "development", "perturbation"]]
    asked = {part for p in joined if len(keys[str(p)]) > 1 for part in keys[str(p)]}
    found: dict[str, list[float]] = {}
    for block in [b for b in folder.store.blocks() if b.role != "test"] if asked else []:
        names = folder.store.obs(block)["perturbation"]
        pooled = folder.references.pooled(block.cell_line)
        for i, name in enumerate(names):
            key = keys[str(name)]
            if len(key) == 1 and key[0] in asked:
                change = folder.store.read(block, "treated", start=i, stop=i + 1)[0] - pooled
                found.setdefault(key[0], []).append(float(np.sqrt(np.mean(np.square(change, dtype=np.float64)))))
    return {part: float(np.mean(values)) for part, values in found.items()}


def read_asked(path: Path, samples: pd.DataFrame) -> pd.DataFrame:
    """Rows to be predicted from a table with a column ``perturbation`` (and ``cell_line``, if there are several).

    Raises
    ------
    InputError
        A column is missing, or the table has no row.
    """
    table = tables.without_row_numbers(tables.read_table(path))
    lines = samples["cell_line"].unique()
    if "cell_line" not in table and len(lines) == 1:
        table = table.assign(cell_line=lines[0])
    lacking = [c for c in ("perturbation", "cell_line") if c not in table]
    if lacking or not len(table):
        raise InputError(
            f"--for {path}: {'no column ' + first_few(lacking) if lacking else 'no row'} (it has columns "
            f"{first_few(table.columns, 20)}). Name what will be predicted, a line each, in columns perturbation and "
            "cell_line, or give the file that `pertstack predict` will read."
        )
    return like_study(table[["perturbation", "cell_line"]].astype(str), samples["perturbation"])


def like_study(obs: pd.DataFrame, names: Iterable[object]) -> pd.DataFrame:
    """The rows with perturbations spelled as in the study."""
    mine = obs["perturbation"].astype(str)
    return obs.assign(perturbation=mine.replace(one_spelling(mine.unique(), like=pd.unique(pd.Series(list(names))))))
