"""The stack step in the terminal: every name's out-of-fold means, the chosen one marked, why the others are not."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from pertstack._base.shown import count_of
from pertstack.design.metric_labels import metric_label
from pertstack.design.metric_names import parse_metric
from pertstack.reduce.scoring.score_table import ScoreTable
from pertstack.stacking.choice import Choice
from pertstack.verdict.words import number

SHOWN = ("r2_top20@own", "r2_top20@pooled", "pearson_all@centroid", "rmse_all@own")


FIRST = 10
"""Rows shown at first."""
BORDERS, PER_METRIC = 11, 17
"""Columns that lines, mark and margins of the table take, and that a metric takes with its title over two lines."""


def oof_table(oof: ScoreTable, choice: Choice, *, every: bool = False, width: int = 80) -> Group:
    """Names by nested out-of-fold score on the deciding metric: the best ten and what was chosen. Names are never cut.

    Parameters
    ----------
    oof : scores of development rows.
    choice : what ships, and why others do not.
    every : all names.
    width : of the terminal; as many metrics are shown as fit, the deciding one always; a remark may be cut.
    """
    sign = 1.0 if parse_metric(choice.primary).higher_is_better else -1.0
    ranked = sorted(oof.names, key=lambda n: (-sign * oof.mean(n, choice.primary).value, n))
    kept = [n for i, n in enumerate(ranked) if every or i < FIRST or n in (choice.chosen, choice.best_single)]
    room = width - max(map(len, kept)) - BORDERS
    remarks = {n: _cut(_remark(n, choice), room - PER_METRIC) for n in kept}
    free = room - max(map(len, remarks.values()))
    shown = [m for m in dict.fromkeys([choice.primary, *SHOWN]) if m in oof.metrics][: max(1, free // PER_METRIC)]
    table = Table(title="Out-of-fold scores (weights learned without the scored fold)", title_justify="left")
    table.add_column("")
    table.add_column("name", no_wrap=True)
    for metric in shown:
        table.add_column(metric_label(metric), justify="right", max_width=PER_METRIC - 3)
    table.add_column("", no_wrap=True)
    for name in kept:
        chosen = remarks[name] == "ships"
        table.add_row(
            "▸" if chosen else "",
            Text(name, style="bold" if chosen else ""),
            *(number(oof.mean(name, m).value) for m in shown),
            remarks[name],
        )
    left = len(ranked) - len(kept)
    more = [Text(f"{count_of(left, 'more row')}: --all", style="dim")] if left else []
    return Group(table, *more)


def _remark(name: str, choice: Choice) -> str:
    """ships, ceiling, or why a row may not ship: it loses on some view, or its score cannot be believed."""
    if name == choice.chosen or (choice.chosen == "best_single" and name == choice.best_single):
        return "ships"
    if name == "oracle":
        return "ceiling"
    if name not in choice.marked:
        return ""
    why = choice.marked[name]
    if "loses" not in why:
        return "barred"
    first, *rest = (said.split()[0] for said in why.rsplit(" on ", 1)[-1].split("; "))  # numbers are in the report
    return f"loses on {metric_label(first)}" + (f"; {len(rest)} more" if rest else "")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: max(0, most - 1)] + "…"


def barred_in_words(choice: Choice) -> str | None:
    """One line if flexible combinations were barred and one of them leads: what it would take to let them ship."""
    barred = [n for n, why in choice.marked.items() if "loses" not in why]
    if not barred:
        return None
    return (
        f"{len(barred)} combinations with many weights are barred, because some model has no nested predictions "
        f"(`pertstack status` names it; docs: how to bring nested predictions): {', '.join(barred[:4])}"
        + (f" and {len(barred) - 4} more." if len(barred) > 4 else ".")
    )
