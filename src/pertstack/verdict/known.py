"""What ships by what its fits knew of a row, out of fold and on the test: is the question asked that of use?

Within a level the rows ask the same of the fits; what is left between out of fold and test is how fits on a part of the
rows differ from the final ones, and chance. Facts for ``leaderboard.json`` (``several``), the report and the terminal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pertstack.design.metric_labels import metric_label
from pertstack.design.plan.known import SEEN, telling
from pertstack.verdict.views import nan_mean
from pertstack.verdict.words import interval, number

if TYPE_CHECKING:
    from pertstack.verdict.boards.rows import Split
    from pertstack.verdict.reading import Reading
    from pertstack.verdict.setting import Setting


def known_at_fit(readings: Mapping[Split, Reading], setting: Setting, name: str) -> dict[str, Any] | None:
    """Scores of one name on the deciding metric by view and level; None if all rows were known alike.

    ``rows``: view, level, and for ``oof`` and ``test`` n, value, ci (None without rows); ``gap``: test less out of
    fold, with an interval from both (their groups are disjoint, so half-widths add as squares).

    Parameters
    ----------
    readings : "oof", and "test" once opened.
    setting : what was fitted; without it the answer is None.
    name : what ships.
    """
    if setting.fitted is None:
        return None
    levels = {s: setting.known_levels(r.table.samples) for s, r in readings.items()}
    rows: list[dict[str, Any]] = []
    for view in telling(*levels.values()):
        there = {s: np.asarray(found[view]) for s, found in levels.items()}
        known = sorted({str(x) for found in there.values() for x in found})
        for level in known if len(known) > 1 else []:
            parts = {s: _part(readings[s], name, found == level) for s, found in there.items()}
            facts = {s: parts.get(s) for s in ("oof", "test")}
            rows.append({"view": view, "level": level, **facts, "gap": _gap(facts["oof"], facts["test"])})
    return {"name": name, "metric": setting.primary, "rows": rows} if rows else None


def _part(reading: Reading, name: str, here: Any) -> dict[str, Any] | None:
    if name not in reading.at or not here.any():
        return None
    values = reading.values[reading.at[name], here]
    ci = reading.resampling.intervals(values[None], reading.groups[here])[0]
    return {"n": int(here.sum()), "value": nan_mean(values), "ci": None if ci is None else list(ci)}


def _gap(oof: Mapping[str, Any] | None, test: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if oof is None or test is None or oof["value"] is None or test["value"] is None:
        return None
    gap, cis = test["value"] - oof["value"], [part["ci"] for part in (oof, test)]
    if None in cis:
        return {"difference": gap, "ci": None}
    half = math.hypot(*((hi - lo) / 2 for lo, hi in cis))
    return {"difference": gap, "ci": [gap - half, gap + half]}


def known_in_words(facts: Mapping[str, Any] | None) -> list[str]:
    """A line per view; of seen and unseen perturbations only if the two sides differ in them."""
    if not facts:
        return []
    lines, metric = [], metric_label(facts["metric"])
    for view in dict.fromkeys(r["view"] for r in facts["rows"]):
        rows = [r for r in facts["rows"] if r["view"] == view]
        if view == SEEN and all(r["oof"] and r["test"] for r in rows):
            continue
        told = "; ".join(f"{r['level']}: {_told(r)}" for r in rows)
        lines.append(f"{facts['name']} by {view} ({metric}): {told}.")
    return lines


def _told(row: Mapping[str, Any]) -> str:
    said = [
        f"{where} {number(row[split]['value'])} (n {row[split]['n']:,})"
        for split, where in (("oof", "out of fold"), ("test", "test"))
        if row[split]
    ]
    gap = row["gap"]
    if gap is not None:
        ci: Sequence[float] | None = gap["ci"]
        pair = None if ci is None else (ci[0], ci[1])
        said.append(f"difference {number(gap['difference'], sign=True)} {interval(pair, sign=True)}".strip())
    return ", ".join(said)
