"""The stack step in the terminal: every name's out-of-fold means, the chosen one marked, why the others are not."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from pertstack.reduce.metrics.names import parse_metric
from pertstack.reduce.score_table import ScoreTable
from pertstack.stack.choose import Choice
from pertstack.verdict.words import metric_label, number

SHOWN = ("r2_top20@own", "r2_top20@pooled", "pearson_all@centroid", "rmse_all@own")


def oof_table(oof: ScoreTable, choice: Choice) -> Table:
    """Names by nested out-of-fold score on the deciding metric, best first."""
    shown = [m for m in dict.fromkeys([choice.primary, *SHOWN]) if m in oof.metrics]
    sign = 1.0 if parse_metric(choice.primary).higher_is_better else -1.0
    table = Table(title="Out-of-fold scores (weights learned without the scored fold)", title_justify="left")
    for column in ("", "name", *(metric_label(m) for m in shown), "n valid / n", ""):
        table.add_column(column, justify="left" if column in ("", "name") else "right")
    for name in sorted(oof.names, key=lambda n: (-sign * oof.mean(n, choice.primary).value, n)):
        main = oof.mean(name, choice.primary)
        chosen = name == choice.chosen or (choice.chosen == "best_single" and name == choice.best_single)
        remark = "ships" if chosen else "ceiling" if name == "oracle" else "harms" if name in choice.marked else ""
        table.add_row(
            "▸" if chosen else "", Text(name, style="bold" if chosen else ""),
            *(number(oof.mean(name, m).value) for m in shown), f"{main.n_valid:,} / {main.n:,}", remark,
        )  # fmt: skip
    return table
