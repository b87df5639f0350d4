"""The leaderboard as data frames: tidy, wide, and with every column of ``leaderboard.csv``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from pertstack.design.metric_names import split_metric

if TYPE_CHECKING:
    from pertstack.verdict.boards.board import Leaderboard
    from pertstack.verdict.boards.rows import LeaderboardRow, Split

LONG = [
    "name",
    "kind",
    "split",
    "metric",
    "reference",
    "value",
    "ci_lo",
    "ci_hi",
    "n_valid",
    "n",
    "difference",
    "difference_lo",
    "difference_hi",
    "p",
    "cautions",
]
TIDY = {
    "name": "name",
    "metric": "metric",
    "reference": "reference",
    "value": "value",
    "ci_lo": "low",
    "ci_hi": "high",
    "kind": "kind",
    "split": "split",
    "difference": "difference",
    "difference_lo": "difference_low",
    "difference_hi": "difference_high",
    "n_valid": "n_valid",
    "n": "n",
}
"""Column of the long table -> column of the tidy one, in its order."""
_NUMBERS = ["value", "low", "high", "difference", "difference_low", "difference_high"]


def tidy(board: Leaderboard, split: Split | None = None) -> pd.DataFrame:
    """One line per name and metric of a split, best name first; undefined numbers are NaN."""
    lines = [line for row in board.ranked(split) for line in _lines(row)]
    frame = pd.DataFrame(lines, columns=LONG)[list(TIDY)].rename(columns=TIDY)
    return frame.astype(dict.fromkeys(_NUMBERS, "float64"))


def long(board: Leaderboard, split: Split | None = None) -> pd.DataFrame:
    """The table of ``leaderboard.csv``: every number of both splits, or of one."""
    splits: tuple[Split, ...] = ("test", "oof")
    rows = [r for s in splits if split in (None, s) for r in board.ranked(s)]
    return pd.DataFrame([line for r in rows for line in _lines(r)], columns=LONG)


def wide(board: Leaderboard, split: Split | None = None) -> pd.DataFrame:
    """One line per name of a split, ranked; one column per metric, the interval of the deciding one beside them."""
    lines = []
    for row in board.ranked(split):
        cell, versus = row.score(board.primary), row.versus(board.primary)
        lines.append(
            {"name": row.name, "kind": row.kind, "chosen": row.name == board.chosen}
            | {m: c.value for m, c in row.scores.items()}
            | {
                f"{board.primary} lo": cell.ci[0] if cell and cell.ci else None,
                f"{board.primary} hi": cell.ci[1] if cell and cell.ci else None,
                "gain over best single": versus.value if versus else None,
                "cautions": "; ".join(row.cautions),
            }
        )
    return pd.DataFrame(lines).set_index("name") if lines else pd.DataFrame()


def _lines(row: LeaderboardRow) -> list[dict[str, Any]]:
    lines = []
    for name, cell in row.scores.items():
        metric, reference = split_metric(name)
        lo, hi = cell.ci or (None, None)
        versus = row.versus(name)
        d_lo, d_hi = (versus.ci if versus and versus.ci else None) or (None, None)
        lines.append(
            {
                "name": row.name,
                "kind": row.kind,
                "split": row.split,
                "metric": metric,
                "reference": reference,
                "value": cell.value,
                "ci_lo": lo,
                "ci_hi": hi,
                "n_valid": cell.n_valid,
                "n": cell.n,
                "difference": versus.value if versus else None,
                "difference_lo": d_lo,
                "difference_hi": d_hi,
                "p": versus.p if versus else None,
                "cautions": "; ".join(row.cautions),
            }
        )
    return lines
