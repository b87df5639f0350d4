"""Groups ``parts``: combinations held out so that no fit has met their parts in another combination.

Combinations share parts, so folds of whole combinations still show a fit one part of what it predicts. A fit then
leaves out the rows that share a part with what it predicts (``study/development/fit_rows.py``);
``assign.linked_places`` puts combinations that share parts into one fold if it can, so that few rows are lost by
that.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from pertstack._base.findings import Finding
from pertstack.data.labels import perturbation_keys
from pertstack.design.plan.folds import FoldPlan
from pertstack.design.plan.groups import PARTS, apart
from pertstack.design.plan.known import sharing

FEW_LEFT = 0.5
"""A fold whose fits lose more than this share of their development rows is worth a warning."""


def apart_findings(plan: FoldPlan, obs: pd.DataFrame) -> list[Finding]:
    """How many rows each fit leaves out if parts are kept apart; else, if combinations share parts across folds,
    that they do and how to keep them apart."""
    frame = plan.table.set_index("sample_id")[["role", "fold"]]
    frame["perturbation"] = obs["perturbation"].reindex(frame.index).astype(str)
    places: list[int | None] = [*range(plan.n_folds), *([None] if (frame["role"] == "test").any() else [])]
    lost = {place: _lost(frame, place) for place in places}
    if apart(plan.group_by):
        return [_left_out(lost)]
    keys = perturbation_keys(frame["perturbation"])
    combined = frame["perturbation"].map(lambda n: len(keys[n]) > 1)
    n = int((combined & (frame["role"] != "support")).sum())
    crossing = sum(gone for _, gone in lost.values())
    if plan.group_by != "perturbation" or not n or not crossing:
        return []
    said = (
        f"{n:,} combinations share parts across folds, so fits meet parts of what they predict in other combinations. "
        f"If combinations of parts that no measured combination has will be predicted, ask that: `pertstack init ... "
        f"--group {PARTS}` (with `--support kind=single` if the parts alone are always known)."
    )
    return [Finding("warning", "parts_shared", said, n, numbers={"combinations": n, "rows_that_share": crossing})]


def _lost(frame: pd.DataFrame, place: int | None) -> tuple[int, int]:
    """Development rows outside a fold (all of them for the test), and those that share a part with its rows."""
    here = frame["role"] == "test" if place is None else (frame["fold"] == place).fillna(False).astype(bool)
    able = frame[(frame["role"] == "development") & ~here]
    near = sharing(able["perturbation"], frame.loc[here, "perturbation"])
    return len(able), int(able["perturbation"].isin(near).sum())


def _left_out(lost: Mapping[int | None, tuple[int, int]]) -> Finding:
    told = "; ".join(
        f"{'final fits' if k is None else f'fold {k}'} {gone:,} of {able:,}" for k, (able, gone) in lost.items()
    )
    worst = max((gone / able if able else 1.0) for able, gone in lost.values())
    text = f"Fits leave out development samples that share a part with what they predict: {told}."
    if worst > FEW_LEFT:
        text += (
            " So they learn from much less than there is, and scores are those of a smaller study. More folds leave "
            "out less: --folds 5; a smaller test leaves more to the final fits: --test 0.1."
        )
    numbers = {"final" if k is None else f"fold_{k}": [gone, able] for k, (able, gone) in lost.items()}
    return Finding("warning" if worst > FEW_LEFT else "note", "parts_kept_apart", text, len(lost), numbers=numbers)
