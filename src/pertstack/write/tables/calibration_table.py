"""Calibration of the metrics as a table and a picture: which can tell a replicate from a constant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.figure import Figure

from pertstack._base.colours import BLUE, GREEN, ORANGE, figure_style
from pertstack.design.metric_labels import metric_label
from pertstack.reduce.scoring.calibration import AUTO_ORDER, CHANCE, Calibration
from pertstack.verdict.words import interval, number

WIDTH = 9.2


def ordered(found: Iterable[Calibration]) -> list[Calibration]:
    """The declared order first, then the others as they come."""
    known = {c.metric: c for c in found}
    first = [known[m] for m in AUTO_ORDER if m in known]
    return [*first, *(c for m, c in known.items() if m not in AUTO_ORDER)]


def calibration_rows(found: Iterable[Calibration], primary: str) -> list[dict[str, Any]]:
    """One line per metric, as text."""
    return [
        {
            "metric": metric_label(c.metric),
            "name": c.metric,
            "primary": c.metric == primary,
            "n": f"{c.n:,}",
            "replicate": number(c.positive),
            "constant": number(c.negative),
            "drf": f"{number(c.drf, 2, sign=True)} {interval(c.drf_ci, 2, sign=True)}".strip(),
            "bds": f"{number(c.bds, 2)} {interval(c.bds_ci, 2)}".strip(),
            "said": _said(c),
        }
        for c in ordered(found)
    ]


def _said(c: Calibration) -> str:
    if not c.known:
        return "not calibrated"
    return "passes" if c.passes else "fails" if c.fails else "undecided"


def calibration_lines(found: Iterable[Calibration], primary: str) -> list[str]:
    """The table as plain text, and what decides."""
    rows = calibration_rows(found, primary)
    width = max(len(r["name"]) for r in rows)
    head = f"{'':2}{'metric':{width}}  {'replicate':>9}  {'constant':>9}  {'DRF':20}  {'BDS':18}"
    lines = [
        f"{'★' if r['primary'] else '':2}{r['name']:{width}}  {r['replicate']:>9}  {r['constant']:>9}  {r['drf']:20}  "
        f"{r['bds']:18}  {r['said']}"
        for r in rows
    ]
    most = max((r["n"] for r in rows), key=lambda n: int(n.replace(",", "")))
    return [
        head,
        *lines,
        f"{most} conditions measured again. BDS: share in which the replicate beats the constant; 0.5 is chance. "
        f"DRF: how far it comes from the constant to a perfect score. Fails: the constant is shown to win. "
        f"★ decides: {primary}.",
    ]


def calibration_figure(found: Sequence[Calibration], primary: str) -> Figure | None:
    """BDS of every metric with its interval; right of 0.5 the replicate wins. None if nothing is calibrated."""
    known = [c for c in ordered(found) if c.known][::-1]
    if not known:
        return None
    with figure_style():
        figure = Figure(figsize=(WIDTH, 0.9 + 0.26 * len(known)), layout="constrained")
        axes = figure.subplots()
        for y, c in enumerate(known):
            colour, marker = (GREEN, "o") if c.passes else (ORANGE, "x")
            if c.bds_ci is not None:
                axes.plot(c.bds_ci, [y, y], color=colour, lw=2.4, alpha=0.45, solid_capstyle="round")
            axes.plot(float(c.bds or 0.0), y, marker, color=colour, ms=6)
        axes.axvline(CHANCE, color=BLUE, lw=1, ls=(0, (2, 3)))
        axes.set_yticks(range(len(known)), [metric_label(c.metric) for c in known])
        for label, c in zip(axes.get_yticklabels(), known, strict=True):
            label.set_fontweight("bold" if c.metric == primary else "normal")
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("share of conditions in which the replicate beats the mean of the others (BDS)")
        axes.grid(axis="x")
    return figure
