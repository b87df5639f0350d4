"""One line of the leaderboard: a competitor's scores with intervals, and its differences to the best single model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pertstack._stats.estimate import Difference
from pertstack.design.metric_names import find_metric

Kind = Literal["base", "combiner", "reference", "ceiling"]
Split = Literal["oof", "test"]
KINDS: tuple[Kind, ...] = ("base", "combiner", "reference", "ceiling")


@dataclass(frozen=True, slots=True)
class ScoreCell:
    """A mean score with its interval. ``value`` and ``ci`` are None if the score is undefined or has no interval."""

    value: float | None
    ci: tuple[float, float] | None
    n_valid: int
    n: int


@dataclass(frozen=True, slots=True)
class LeaderboardRow:
    """One competitor on one split. A ceiling (oracle, replicates) is shown but can never be chosen."""

    name: str
    kind: Kind
    split: Split
    scores: Mapping[str, ScoreCell]  # metric or metric@reference -> score
    versus_best_single: Mapping[str, Difference] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()

    def score(self, metric: str) -> ScoreCell | None:
        """The score under any spelling of the metric; None when it was not computed."""
        found = find_metric(self.scores, metric)
        return None if found is None else self.scores[found]

    def versus(self, metric: str) -> Difference | None:
        """The comparison under any spelling of the metric; None for the best single itself and if none was made."""
        found = find_metric(self.versus_best_single, metric)
        return None if found is None else self.versus_best_single[found]


def row_to_dict(row: LeaderboardRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": row.kind,
        "split": row.split,
        "cautions": list(row.cautions),
        "scores": {
            m: {"value": c.value, "ci": list(c.ci) if c.ci else None, "n_valid": c.n_valid, "n": c.n}
            for m, c in row.scores.items()
        },
        "versus_best_single": {
            m: {"difference": c.value, "ci": list(c.ci) if c.ci else None, "p": c.p}
            for m, c in row.versus_best_single.items()
        },
    }


def row_from_dict(value: Mapping[str, Any]) -> LeaderboardRow:
    def pair(ci: list[float] | None) -> tuple[float, float] | None:
        return None if ci is None else (ci[0], ci[1])

    return LeaderboardRow(
        value["name"],
        value["kind"],
        value["split"],
        scores={m: ScoreCell(c["value"], pair(c["ci"]), c["n_valid"], c["n"]) for m, c in value["scores"].items()},
        versus_best_single={
            m: Difference(c["difference"], pair(c["ci"]), c["p"]) for m, c in value["versus_best_single"].items()
        },
        cautions=tuple(value["cautions"]),
    )
