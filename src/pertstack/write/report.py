"""One self-contained ``report.html``: no network, light and dark, prints well. Words first, then figures, then tables.

Everything shown comes from a ``ReportInput``; the layout is in ``templates/``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from pertstack._base.colours import to_svg
from pertstack._base.files import write_atomic
from pertstack._base.shown import shown
from pertstack.design.metric_labels import metric_label
from pertstack.verdict.boards.board import Leaderboard
from pertstack.verdict.boards.text import first_names
from pertstack.verdict.gain.in_words import MEANINGS
from pertstack.verdict.gain.parts import Decomposition
from pertstack.verdict.words import interval, number
from pertstack.write import advice, figures
from pertstack.write.explain import explain
from pertstack.write.forest import forest
from pertstack.write.report_input import CITATIONS, ReportInput, question_of
from pertstack.write.tables.board_table import main_table
from pertstack.write.tables.calibration_table import calibration_figure, calibration_rows
from pertstack.write.tables.probe_table import probe_table
from pertstack.write.tables.together_table import together_table


def report(content: ReportInput, path: Path | str) -> Path:
    """Write the report; readers see the old one or the new one. Same input, same bytes."""
    write_atomic(Path(path), render(content).encode())
    return Path(path)


def render(content: ReportInput, *, template: str = "report.html.j2", **more: Any) -> str:
    """The report as HTML text; another template extends it and may ask for ``more``."""
    environment = Environment(
        loader=PackageLoader("pertstack.write"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_harmless,
    )
    environment.filters["num"] = number
    environment.filters["label"] = metric_label
    board = content.verdict.leaderboard
    return environment.get_template(template).render(
        c=content,
        board=board,
        verdict=content.verdict,
        question=question_of(content.group_by),
        tiles=_tiles(content),
        main=main_table(content),
        every=_every_metric(content),
        figures=_figures(content),
        citations=CITATIONS,
        looks=[e for e in content.ledger or () if "look" in str(e.get("kind", ""))],
        facts=_facts,
        strata=_strata_lines(content.verdict.decomposition),
        probes=probe_table(content.probes or ()),
        advice=advice,
        together=together_table(board.several, board.chosen),
        first=first_names(board),
        decision=content.verdict.decision,
        light_words=content.verdict.decision.light_words,
        forest=forest(board),
        words=explain(_first_met(content)),
        calibration=calibration_rows(content.calibration or (), board.primary),
        negatives=negative_weights(content.weights or {}, board.chosen),
        level=_level(board),
        still=sorted({r.name for r in board.rows if r.kind == "base"} - set(content.slopes or ())),
        **more,
    )


def _harmless(value: Any) -> Any:
    """Texts of the study as they may be shown; our own markup (figures, templates) as it is."""
    return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _first_met(content: ReportInput) -> list[str]:
    """Metrics in the order in which the page shows them, the deciding one first."""
    board = content.verdict.leaderboard
    return list(dict.fromkeys([board.primary, *main_table(content)["metrics"]]))


def _level(board: Leaderboard) -> str:
    return f"{100 * float(board.interval.get('level', 0.95)):.0f} %"


def negative_weights(weights: Mapping[str, Mapping[str, float]], chosen: str | None) -> str:
    """What negative weights mean, with those that are there: the chosen combination's first."""
    below = {name: {m: w for m, w in found.items() if w < -0.005} for name, found in weights.items()}
    name = chosen if below.get(chosen or "") else next((n for n, found in below.items() if found), None)
    if name is None:
        return "No model is subtracted: every weight is zero or above."
    said = ", ".join(f"{m} {number(w, 2, sign=True)}" for m, w in sorted(below[name].items(), key=lambda x: x[1]))
    return (
        f"A negative weight subtracts a model ({name}: {said}). It does not mean that the model is bad or that genes "
        f"go the other way: two models that share an error are combined by taking one and removing what they share. "
        f"Such weights count on the models behaving as they did here."
    )


def _with_level(level: str, bounds: str) -> str:
    return f"{level} {bounds}" if bounds else "no interval: too few groups"


def _tiles(content: ReportInput) -> list[tuple[str, str, str]]:
    """The three numbers a reader wants first: caption, number, what it is."""
    board, tiles = content.verdict.leaderboard, []
    metric, level = board.primary, f"{100 * float(board.interval.get('level', 0.95)):.0f} %"
    best = "best model" if board.evaluated else "best single model"
    for caption, name in ((best, board.best_single), ("shipped", board.ships)):
        row = next((r for r in board.ranked() if r.name == name), None)
        cell = row.score(metric) if row else None
        if row is not None and cell is not None:
            small = f"{metric_label(metric)}; {_with_level(level, interval(cell.ci))}; n {cell.n_valid:,} / {cell.n:,}"
            shown_name = _shown_name(content, row.name) if caption == "shipped" else row.name
            tiles.append((f"{caption}: {shown_name}", number(cell.value), small))
    found = content.verdict.decomposition
    part = found.part(board.reference) if found is not None else None
    if found is not None and part is not None and found.reading != "none":
        tiles.append(
            (
                "gain over best single" if board.ships == board.chosen else f"{board.chosen}, not shipped: gain",
                number(part.difference.value, sign=True),
                f"{_with_level(level, interval(part.difference.ci, sign=True))}; {_meaning_of(content)}",
            )
        )
    return tiles


def _meaning_of(content: ReportInput) -> str:
    """The reading of the gain in words; in a study that should not be trusted, that."""
    found = content.verdict.decomposition
    assert found is not None
    return "not to be trusted: see above" if content.verdict.decision.action == "distrust" else MEANINGS[found.reading]


def _shown_name(content: ReportInput, name: str) -> str:
    """What ships, a base model with "alone"; the base model behind the reference ``best_single``, if it is named."""
    board = content.verdict.leaderboard
    if name == board.ships and any(r.name == name and r.kind == "base" for r in board.rows):
        return f"{name} alone"
    alone = next((str(r["name"]) for r in content.ladder or () if r.get("outcome") == "ships alone"), None)
    return f"{alone} alone" if name == "best_single" and alone else name


def _every_metric(content: ReportInput) -> list[dict[str, Any]]:
    """All metrics of both splits, values only, for the fold-out tables."""
    board, tables = content.verdict.leaderboard, []
    for split, words in (("test", "Held-out test"), ("oof", "Out-of-fold rows")):
        rows = board.ranked("test" if split == "test" else "oof")
        words = "These samples" if board.evaluated else words
        if rows:
            metrics = list(dict.fromkeys(m for r in rows for m in r.scores))
            lines = [(metric_label(m), [(c.value if (c := r.score(m)) else None) for r in rows]) for m in metrics]
            tables.append({"title": words, "names": [r.name for r in rows], "lines": lines})
    return tables


def _facts(value: Any) -> str:
    """A value of the plan or ledger on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_facts(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "all"
    if isinstance(value, str) and len(value) > 40 and all(x in "0123456789abcdef" for x in value):
        return value[:12] + "…"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _strata_lines(found: Decomposition | None) -> list[dict[str, str]]:
    if found is None:
        return []
    return [
        {
            "view": p.view if p.level else "whole",
            "level": p.level or metric_label(p.metric),
            "gain": number(p.gain, sign=True),
            "ci": interval(p.difference.ci and (min(x := [p.better * b for b in p.difference.ci]), max(x)), sign=True),
            "n": f"{p.difference.n:,}",
            "groups": f"{p.difference.n_groups:,}",
            "said": "no vote: a constant beats a replicate on this metric"
            if not p.votes
            else {1: "gain shown", -1: "loss shown", 0: "within noise"}[p.sign],
        }
        for p in found.parts
    ]


def _figures(content: ReportInput) -> dict[str, Markup]:
    """Every figure that can be drawn, as inline SVG with an alt text."""
    drawn: dict[str, tuple[Figure, str]] = {}
    verdict, board = content.verdict, content.verdict.leaderboard
    drawn["board"] = (figures.leaderboard_figure(board), "Scores with intervals: " + _alt_rows(content))
    marked = _for_gain_figure(content)
    if marked:
        drawn["gain"] = (
            figures.gain_figure(marked),
            "Gain over the best single model by view: " + "; ".join(map(_alt_gain, marked)),
        )
    if verdict.decomposition is not None and verdict.decomposition.reading != "none":
        strata = figures.strata_figure(verdict.decomposition)
        if strata is not None:
            drawn["strata"] = (strata, "Gain by stratum; the same numbers are in the table below.")
    both = {"predictions": content.prediction_correlation, "errors": content.error_correlation}
    correlation = {title: frame for title, frame in both.items() if frame is not None and len(frame) > 1}
    if correlation:
        drawn["correlation"] = (
            figures.heat_figure(correlation),
            "Correlation between base models: " + ", ".join(correlation),
        )
    if content.weights:
        table = pd.DataFrame(content.weights).T
        drawn["weights"] = (figures.heat_figure({"": table}, symmetric=False), "Weights of combiners on base models.")
    if verdict.per_cell_line["cell_line"].nunique() > 1:
        names = [n for n in dict.fromkeys((board.best_single, board.chosen, content.mean_name)) if n]
        drawn["lines"] = (
            figures.cell_line_figure(verdict.per_cell_line, names, board.primary),
            "Scores by cell line of " + ", ".join(names),
        )
    if content.slopes:
        drawn["slopes"] = (
            figures.slopes_figure(content.slopes),
            "Calibration slopes: " + ", ".join(f"{m} {number(v, 2)}" for m, v in content.slopes.items()),
        )
    picture = calibration_figure(content.calibration or (), board.primary)
    if picture is not None:
        drawn["calibration"] = (picture, "Share of conditions in which a replicate beats a constant, by metric.")
    if content.coverage is not None and len(content.coverage):
        drawn["coverage"] = (
            figures.coverage_figure(content.coverage, content.nominal_coverage),
            "Coverage of prediction intervals by cell line.",
        )
    return {name: Markup(to_svg(figure, name=name, alt=alt)) for name, (figure, alt) in drawn.items()}


def _alt_gain(found: Decomposition) -> str:
    return f"{found.name} " + ", ".join(f"{p.view} {number(p.gain, sign=True)}" for p in found.parts if not p.level)


def _alt_rows(content: ReportInput) -> str:
    board = content.verdict.leaderboard
    cells = [(r.name, r.score(board.primary)) for r in board.ranked()]
    return ", ".join(f"{name} {number(c.value)}" for name, c in cells if c is not None)


def _for_gain_figure(content: ReportInput, limit: int = 8) -> list[Decomposition]:
    """The chosen combiner first, then the others in the order of the board, then the plain mean."""
    board, found = content.verdict.leaderboard, content.verdict.decompositions
    names = [board.chosen] if board.chosen in found else []
    names += [r.name for r in board.ranked() if r.kind == "combiner" and r.name in found and r.name not in names]
    names += [n for n in (content.mean_name,) if n in found and n not in names]
    return [found[n] for n in names[:limit] if n is not None and found[n].reading != "none"]
