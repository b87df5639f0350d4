"""Leak checks that need the metadata alone: groups, perturbations, replicates, plates, cell lines, fold sizes.

Compounds under several names are found by ``design/leaks/structures.py``.

A frame here is metadata in plan order with ``group`` and ``place`` (fold number, -1 for the held-out test).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from pertstack._base.errors import StackingError
from pertstack._base.findings import Finding, Severity
from pertstack._base.reading.tables import as_texts
from pertstack._base.shown import count_of
from pertstack.design.leaks.control_groups import across, affected, controls_across
from pertstack.design.plan.assign import LEAST_PER_FOLD
from pertstack.design.plan.groups import PARTS, STRUCTURE, group_ids, question, split_columns

TINY_GROUPS = 5
_CONDITION = ("perturbation", "cell_line", "log10_dose", "dose", "time_h", "time")


def metadata_findings(frame: pd.DataFrame, group_by: str, n_folds: int) -> list[Finding]:
    """All findings from the metadata.

    Parameters
    ----------
    frame : one row per sample, with metadata, group and place (fold, below 0 for the test).
    group_by : what is held out whole.
    n_folds : of the plan.
    """
    return [
        *_groups(frame, group_by),
        *_perturbations(frame, group_by),
        *_replicates(frame, group_by),
        *_plates(frame, group_by),
        *controls_across(frame),
        *_cell_lines(frame, group_by, n_folds),
        *_sizes(frame, n_folds),
    ]


def _groups(frame: pd.DataFrame, group_by: str) -> list[Finding]:
    """Whole groups must be in one place, and the plan's groups must be the ones the data give."""
    found: list[Finding] = []
    roles, folds = across(frame["group"], frame["place"])
    for code, values, where in (
        ("group_across_roles", roles, "in development and in the held-out test"),
        ("group_across_folds", folds, "in several folds"),
    ):
        if values:
            n = affected(frame["group"], values)
            found.append(
                Finding(
                    "error",
                    code,
                    f"{len(values):,} groups ({group_by}) with {n:,} samples are {where}: {', '.join(values[:10])}. "
                    f"The plan claims to answer '{question(group_by)}', but models have met these groups. Keep whole "
                    f"groups together, or state the grouping that was used: {_kept_whole(frame, group_by)}.",
                    count=len(values),
                    examples=tuple(values[:10]),
                    numbers={"groups": len(values), "samples": n},
                )
            )
    try:
        now = group_ids(frame, group_by)
    except StackingError:
        return found  # a table's own group column: nothing in the metadata to compare with
    moved = frame.index[(now != frame["group"]).to_numpy()]
    if len(moved):
        found.append(
            Finding(
                "error",
                "group_changed",
                f"{len(moved):,} samples have another {group_by} in the data than in the plan: "
                f"{', '.join(map(str, moved[:10]))}. The data or the plan changed since; make a new study.",
                count=len(moved),
                examples=tuple(map(str, moved[:10])),
                numbers={"samples": len(moved)},
            )
        )
    return found


def _kept_whole(frame: pd.DataFrame, group_by: str) -> str:
    """The groupings that this split does keep whole, as options with the question each one asks."""
    kept = []
    for other in ("perturbation", "cell_line", "perturbation+cell_line", "plate"):
        if other == group_by or not set(split_columns(other)) <= set(frame.columns):
            continue
        key = as_texts(frame[list(split_columns(other))]).agg("|".join, axis=1)
        if key.nunique() > 1 and not any(across(key, frame["place"])):
            kept.append(other)
    return "; or ".join(f"--group {other} ({question(other)})" for other in [*kept, "sample"])


def _expects(group_by: str) -> tuple[bool, bool]:
    """Whether a grouping promises new perturbations, and whether it promises new cell lines."""
    parts = split_columns(group_by)
    alone = len(parts) == 1
    return alone and parts[0] in ("perturbation", PARTS, STRUCTURE), alone and parts[0] == "cell_line"


def _perturbations(frame: pd.DataFrame, group_by: str) -> list[Finding]:
    """The same perturbation on both sides: what it means depends on the question."""
    if "perturbation" not in frame or group_by in ("perturbation", PARTS):
        return []
    roles, folds = across(frame["perturbation"], frame["place"])
    values = sorted({*roles, *folds})
    if not values:
        return []
    new_perturbations, new_lines = _expects(group_by)
    expected = new_lines or bool({"perturbation", PARTS} & set(split_columns(group_by)))
    severity: Severity = "note" if expected else "warning"
    held_out = frame["place"] < 0
    share = float(frame.loc[held_out, "perturbation"].astype(str).isin(roles).mean()) if held_out.any() else 0.0
    meaning = (
        "The grouping asks for this: scores speak of perturbations that models have met elsewhere."
        if expected
        else "A model that remembers a perturbation's mean profile is rewarded; scores do not speak of new ones. "
        "Group by perturbation for that."
    )
    if new_perturbations:
        meaning = "One name stands for several structures here; models may have met the name. Check the names."
    return [
        Finding(
            severity,
            "perturbation_across",
            f"{len(values):,} perturbations are in several folds or on both sides of the test ({len(roles):,} of them "
            f"in the test; {share:.0%} of the test samples): {', '.join(values[:10])}. {meaning}",
            count=len(values),
            examples=tuple(values[:10]),
            numbers={"perturbations": len(values), "in_test": len(roles), "test_share": share},
        )
    ]


def _replicates(frame: pd.DataFrame, group_by: str) -> list[Finding]:
    """The same condition (perturbation, cell line, dose, time) on both sides."""
    columns = [c for c in _CONDITION if c in frame]
    if not {"perturbation", "cell_line"} <= set(columns) or split_columns(group_by) in (("perturbation",), (PARTS,)):
        return []
    key = as_texts(frame[columns]).agg(" | ".join, axis=1)
    roles, folds = across(key, frame["place"])
    values = sorted({*roles, *folds})
    if not values:
        return []
    n = affected(key, values)
    return [
        Finding(
            "warning",
            "replicate_across",
            f"{len(values):,} conditions ({', '.join(columns)}) have replicates in several folds or on both sides of "
            f"the test, {n:,} samples in all: {'; '.join(values[:5])}. A model can answer from the replicate, so "
            "scores speak of repeated measurements, not of new conditions.",
            count=len(values),
            examples=tuple(values[:10]),
            numbers={"conditions": len(values), "samples": n, "in_test": len(roles)},
        )
    ]


def _plates(frame: pd.DataFrame, group_by: str) -> list[Finding]:
    """Plates with samples on both sides: plate effects are shared."""
    if "plate" not in frame or group_by == "plate":
        return []
    roles, folds = across(frame["plate"].astype(object), frame["place"])
    values = sorted({*roles, *folds})
    if not values:
        return []
    return [
        Finding(
            "note",
            "plate_across",
            f"{count_of(len(values), 'plate has', 'plates have')} samples in several folds or on both sides of the "
            "test. Effects of the plate are shared by all of them, so every model looks a little better than on a new "
            "plate. Group by plate to measure that.",
            count=len(values),
            examples=tuple(values[:10]),
            numbers={"plates": len(values), "in_test": len(roles)},
        )
    ]


def _cell_lines(frame: pd.DataFrame, group_by: str, n_folds: int) -> list[Finding]:
    """Cell lines without development rows, or with development rows in one fold only."""
    if "cell_line" not in frame:
        return []
    _, new_lines = _expects(group_by)
    table = frame[["cell_line", "place"]].astype({"cell_line": str}).drop_duplicates()
    development = table[table["place"] >= 0]
    only_test = sorted(set(table["cell_line"]) - set(development["cell_line"]))
    n_places = development.groupby("cell_line")["place"].nunique()
    one_fold = sorted(n_places.index[n_places == 1])
    some = sorted(n_places.index[(n_places > 1) & (n_places < n_folds)])
    severity: Severity = "note" if new_lines else "warning"
    unmet = "have no development sample: models meet them in the test first"
    once = "have development samples in one fold only: whoever predicts them there never met them"
    part = "are absent from a fold: that fold says nothing of them"
    words: dict[str, tuple[list[str], Severity, str]] = {
        "cell_line_only_in_test": (only_test, severity, unmet),
        "cell_line_in_one_fold": (one_fold, severity, once),
        "cell_line_absent_from_a_fold": (some, "note", part),
    }
    return [
        Finding(
            level,
            code,
            f"{len(v):,} cell lines {what}: {', '.join(v[:10])}.",
            count=len(v),
            examples=tuple(v[:10]),
            numbers={"cell_lines": len(v)},
        )
        for code, (v, level, what) in words.items()
        if v
    ]


def _sizes(frame: pd.DataFrame, n_folds: int) -> list[Finding]:
    """Folds and test with few groups or few samples."""
    found: list[Finding] = []
    groups = frame.groupby("place")["group"].nunique()
    samples = frame["place"].value_counts()
    names = {f: f"fold {f}" for f in range(n_folds)} | ({-1: "the held-out test"} if (frame["place"] < 0).any() else {})
    for place, name in names.items():
        n = int(groups.get(place, 0))
        severity: Severity = "error" if n < LEAST_PER_FOLD and place >= 0 else "warning"
        if n < TINY_GROUPS:
            found.append(
                Finding(
                    severity,
                    "tiny_fold" if place >= 0 else "tiny_test",
                    f"{name} has {n} groups. A score on so few says little about other groups, and its interval is a "
                    "rough guide. Use fewer folds, a larger test or a finer grouping.",
                    where=name,
                    numbers={"groups": n, "samples": int(samples.get(place, 0))},
                )
            )
    sizes = np.array([int(samples.get(f, 0)) for f in range(n_folds)])
    if sizes.min() < sizes.mean() / 3:
        found.append(
            Finding(
                "warning",
                "uneven_folds",
                f"Folds have {', '.join(map(str, sizes))} samples. Some group is much larger than others, so folds "
                "weigh unequally. Another seed before the first fit, or a finer grouping, evens them out.",
                numbers={"samples": sizes.tolist()},
            )
        )
    return found
