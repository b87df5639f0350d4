"""Figures of the verdict. Each returns a matplotlib ``Figure`` in the light palette, readable without colour.

Numbers come ready from ``verdict/``; how a figure gets into the page is handled by ``_base/colours.py`` and
``report.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pertstack._base.colours import BLUE, GREEN, GRID, INK, KIND_STYLE, MUTED, ORANGE, figure_style
from pertstack.design.metric_labels import metric_label
from pertstack.verdict.boards.board import Leaderboard
from pertstack.verdict.boards.rows import LeaderboardRow
from pertstack.verdict.gain.parts import Decomposition, Part
from pertstack.verdict.words import number

WIDTH = 9.2


def leaderboard_figure(board: Leaderboard) -> Figure:
    """Every row with its interval: the canonical own-control number left, the deciding one right when they differ."""
    rows, metrics = board.ranked()[::-1], board.shown_metrics()
    with figure_style():
        figure = Figure(figsize=(WIDTH, 0.9 + 0.3 * len(rows)), layout="constrained")
        panels = np.atleast_1d(np.asarray(figure.subplots(1, max(1, len(metrics)), sharey=True)))
        for axes, metric in zip(panels, metrics, strict=False):
            for y, row in enumerate(rows):
                _dot(axes, y, row, metric, chosen=row.name == board.ships)
            best = next((r for r in rows if r.name == board.best_single), None)
            cell = best.score(metric) if best else None
            if cell is not None and cell.value is not None:
                axes.axvline(cell.value, color=BLUE, lw=1, ls=(0, (2, 3)))
            axes.set_title(metric_label(metric))
            axes.grid(axis="x")
        panels[0].set_yticks(range(len(rows)), [r.name for r in rows])
        panels[0].set_ylim(-0.6, len(rows) - 0.4)
        for label, row in zip(panels[0].get_yticklabels(), rows, strict=True):
            label.set_fontweight("bold" if row.name == board.ships else "normal")
        _legend(figure, sorted({r.kind for r in rows}, key=list(KIND_STYLE).index))
    return figure


def _dot(axes: Axes, y: float, row: LeaderboardRow, metric: str, *, chosen: bool) -> None:
    cell, (colour, marker) = row.score(metric), KIND_STYLE[row.kind]
    if cell is None or cell.value is None or cell.n_valid == 0:
        return
    if cell.ci is not None:
        axes.plot(cell.ci, [y, y], color=colour, lw=2.4, alpha=0.45, solid_capstyle="round")
    axes.plot(cell.value, y, marker, color=colour, ms=8 if chosen else 5.5)


def _legend(figure: Figure, kinds: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    words = {"base": "base model", "ceiling": "ceiling (sees the truth)"}
    styles = [(*KIND_STYLE[kind], words.get(kind, kind)) for kind in kinds]
    handles = [Line2D([], [], color=colour, marker=m, lw=0, ms=6, label=label) for colour, m, label in styles]
    handles.append(Line2D([], [], color=BLUE, lw=1, ls=(0, (2, 3)), label="best single model"))
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), handletextpad=0.5, columnspacing=1.4)


def gain_figure(decompositions: Sequence[Decomposition]) -> Figure:
    """Gain over the best single model under each view, several combiners side by side; right of zero is better."""
    views = [
        v for v in ("own", "pooled", "matched", "plate", "centroid", "rmse") if any(d.part(v) for d in decompositions)
    ]
    with figure_style():
        figure = Figure(figsize=(WIDTH, 1.3 + 0.32 * len(decompositions)), layout="constrained")
        panels = np.atleast_1d(np.asarray(figure.subplots(1, max(1, len(views)), sharey=True)))
        for axes, view in zip(panels, views, strict=False):
            for y, found in enumerate(reversed(decompositions)):
                part = found.part(view)
                if part is not None:
                    _gain(axes, y, part)
            metric = next(p.metric for d in decompositions if (p := d.part(view)) is not None)
            axes.set_title(metric_label(metric).replace(", ", ",\n"), fontsize=9)
            axes.axvline(0, color=MUTED, lw=1)
            axes.grid(axis="x")
            axes.locator_params(axis="x", nbins=4 if len(views) < 4 else 2)
            axes.tick_params(axis="x", labelsize=8)
        panels[0].set_yticks(range(len(decompositions)), [d.name for d in reversed(decompositions)])
        panels[0].set_ylim(-0.6, len(decompositions) - 0.4)
    return figure


def _gain(axes: Axes, y: float, part: Part) -> None:
    """Filled for a shown gain, crossed for a shown loss, open for within noise."""
    if part.gain is None:
        return
    colour, marker = {1: (GREEN, "o"), -1: (ORANGE, "X"), 0: (MUTED, "o")}[part.sign]
    if part.difference.ci is not None:
        axes.plot(
            [part.better * b for b in part.difference.ci],
            [y, y],
            color=colour,
            lw=2.2,
            alpha=0.5,
            solid_capstyle="round",
        )
    axes.plot(part.gain, y, marker, color=colour, ms=7, mfc="none" if part.sign == 0 else colour, mew=1.4)


def strata_figure(found: Decomposition) -> Figure | None:
    """The chosen combiner's gain by effect-size quartile, cell line, seen / unseen; None when there are no strata."""
    parts = [p for p in found.parts if p.level]
    if not parts:
        return None
    views = list(dict.fromkeys(p.view for p in parts))
    counts = [sum(p.view == v for p in parts) for v in views]
    with figure_style():
        figure = Figure(figsize=(WIDTH, 0.7 + 0.27 * len(parts) + 0.35 * len(views)), layout="constrained")
        panels = np.atleast_1d(
            np.asarray(figure.subplots(len(views), 1, sharex=True, gridspec_kw={"height_ratios": counts}))
        )
        for axes, view in zip(panels, views, strict=True):
            here = [p for p in parts if p.view == view][::-1]
            for y, part in enumerate(here):
                _gain(axes, y, part)
            axes.set_yticks(range(len(here)), [f"{p.level}  (n {p.difference.n:,})" for p in here])
            axes.set_ylim(-0.6, len(here) - 0.4)
            axes.set_title({"effect quartile": "by size of the measured effect (Q1 weakest)"}.get(view, f"by {view}"))
            axes.axvline(0, color=MUTED, lw=1)
            axes.grid(axis="x")
        panels[-1].set_xlabel(f"gain over {found.best_single}, {metric_label(found.primary)}")
    return figure


def heat_figure(tables: Mapping[str, pd.DataFrame], *, digits: int = 2, symmetric: bool = True) -> Figure:
    """Numbers as shaded squares (blue above zero, orange below, deeper is larger), one panel per table.

    Parameters
    ----------
    tables : title -> numbers; rows and columns are named.
    digits : after the point.
    symmetric : correlations, shaded by value itself; otherwise by value over the largest in the table.
    """
    with figure_style():
        rows, columns = (max(t.shape[axis] for t in tables.values()) for axis in (0, 1))
        beside = columns <= 7  # wider tables are placed below each other, so that numbers stay apart
        across, down = (len(tables), 1) if beside else (1, len(tables))
        size = (across * (1.9 + 0.46 * columns), down * (1.3 + 0.31 * rows))
        figure = Figure(figsize=size, layout="constrained")
        panels = np.atleast_1d(np.asarray(figure.subplots(down, across)))
        for axes, (title, table) in zip(panels, tables.items(), strict=True):
            _heat(axes, table, digits, symmetric)
            axes.set_title(title)
    return figure


def _heat(axes: Axes, table: pd.DataFrame, digits: int, symmetric: bool) -> None:
    from matplotlib.patches import Rectangle

    values = table.to_numpy(dtype=float)
    finite = np.abs(values[np.isfinite(values)])
    top = 1.0 if symmetric else float(finite.max(initial=0.0)) or 1.0
    for (i, j), value in np.ndenumerate(values):
        if not np.isfinite(value):
            continue
        depth = min(1.0, abs(value) / top) ** 1.5
        axes.add_patch(
            Rectangle((j - 0.5, i - 0.5), 0.96, 0.92, fc=BLUE if value >= 0 else ORANGE, alpha=0.62 * depth, lw=0)
        )
        axes.text(j, i, number(value, digits), ha="center", va="center", fontsize=8, color=INK)
    axes.set_xlim(-0.55, values.shape[1] - 0.45)
    axes.set_ylim(values.shape[0] - 0.45, -0.55)
    axes.set_xticks(
        range(values.shape[1]),
        [str(c) for c in table.columns],
        rotation=40,
        ha="right",
        rotation_mode="anchor",
        color=INK,
    )
    axes.set_yticks(range(values.shape[0]), [str(i) for i in table.index])
    axes.spines["bottom"].set_visible(False)


def cell_line_figure(table: pd.DataFrame, names: Sequence[str], metric: str) -> Figure:
    """Mean score by cell line of a few names.

    Parameters
    ----------
    table : columns cell_line, name, value, n.
    names : up to three: the best single model, the chosen combiner, the plain mean; those not in the table are passed
        over.
    metric : for the axis.
    """
    styles = [(BLUE, "o", BLUE), (ORANGE, "D", ORANGE), (MUTED, "s", "none")]
    lines = list(dict.fromkeys(table["cell_line"]))[::-1]
    with figure_style():
        figure = Figure(figsize=(WIDTH, 0.95 + 0.26 * len(lines)), layout="constrained")
        axes = figure.subplots()
        wide = table.pivot(index="cell_line", columns="name", values="value").astype(float)
        known = [n for n in names if n in wide]
        for y, line in enumerate(lines):
            axes.plot([wide.loc[line, known].min(), wide.loc[line, known].max()], [y, y], color=GRID, lw=3)
        for name, (colour, marker, fill) in zip(known, styles, strict=False):
            axes.plot(
                wide.loc[lines, name], range(len(lines)), marker, color=colour, mfc=fill, ms=6.5, label=name, lw=0
            )
        n = table.drop_duplicates("cell_line").set_index("cell_line")["n"]
        axes.set_yticks(range(len(lines)), [f"{line}  (n {n[line]:,})" for line in lines])
        axes.set_ylim(-0.6, len(lines) - 0.4)
        axes.set_xlabel(metric_label(metric))
        axes.grid(axis="x")
        figure.legend(loc="outside lower left", ncols=4, handletextpad=0.4)
    return figure


def coverage_figure(table: pd.DataFrame, nominal: float) -> Figure:
    """Share of measured values inside the prediction intervals, by cell line, against what was promised."""
    with figure_style():
        figure = Figure(figsize=(WIDTH * 0.7, 0.9 + 0.26 * len(table)), layout="constrained")
        axes = figure.subplots()
        y = np.arange(len(table))[::-1]
        axes.plot(table["coverage"], y, "o", color=BLUE, ms=6.5)
        axes.axvline(nominal, color=MUTED, lw=1, ls=(0, (2, 3)))
        axes.set_yticks(y, [str(x) for x in table["cell_line"]])
        axes.set_xlabel(f"share of measured values inside {nominal:.0%} intervals (dashed: promised)")
        axes.grid(axis="x")
    return figure


def slopes_figure(slopes: Mapping[str, float]) -> Figure:
    """Slope of the measured on each model's predicted change; the dashed line is a well calibrated model."""
    ordered = sorted(slopes.items(), key=lambda x: (x[1], x[0]))
    with figure_style():
        figure = Figure(figsize=(WIDTH * 0.7, 0.9 + 0.26 * len(ordered)), layout="constrained")
        axes = figure.subplots()
        axes.plot([v for _, v in ordered], range(len(ordered)), "o", color=BLUE, ms=6.5)
        axes.axvline(1, color=MUTED, lw=1, ls=(0, (2, 3)))
        axes.set_yticks(range(len(ordered)), [m for m, _ in ordered])
        axes.set_xlabel("slope (dashed: well calibrated)")
        axes.grid(axis="x")
    return figure
