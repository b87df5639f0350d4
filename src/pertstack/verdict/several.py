"""All competitors at once: who cannot be told from the best, which gains stand when all are tested, what having chosen
among many is worth, and whether the gain hangs on one cell line.

Facts for ``leaderboard.json`` (``several``), the report and the terminal. The statistics are in ``_stats/multiple.py``,
reached through ``Resampling``; everything is on the deciding metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd

from pertstack._base.arrays import Array
from pertstack._base.shown import count_of
from pertstack._stats.estimate import Estimate
from pertstack._stats.multiple import ConfidenceSet
from pertstack.verdict.known import known_in_words
from pertstack.verdict.views import nan_mean
from pertstack.verdict.words import interval, number


class SeveralResampling(Protocol):
    """Inference about many rows at once; ``resampling.GroupResampling``."""

    def confidence_set(self, values: Array, groups: Array, sign: int) -> ConfidenceSet | None:
        """Which rows cannot be told from the best; None with fewer than two groups.

        Parameters
        ----------
        values : (n_names, n) scores per sample, NaN where undefined.
        groups : (n,), resampled whole.
        sign : 1 where more is better, -1 for errors.
        """
        ...

    def simultaneous(self, differences: Array, groups: Array) -> list[Estimate]:
        """Simultaneous intervals of several paired differences (n_names, n)."""
        ...

    def best_of(self, values: Array, groups: Array, sign: int) -> Estimate | None:
        """What the best of the rows scores on groups that did not choose it; None with fewer than two groups.

        Parameters
        ----------
        values, groups, sign : as in ``confidence_set``.
        """
        ...


@dataclass(frozen=True)
class Scores:
    """Values (n_names, n) of the deciding metric with the kind of every name and the group of every sample."""

    names: Sequence[str]
    kinds: Mapping[str, str]
    values: Array
    groups: Array
    sign: int  # 1 when more is better

    def only(self, kinds: tuple[str, ...]) -> Scores:
        """Names of some kinds with a defined mean."""
        rows = [i for i, n in enumerate(self.names) if self.kinds[n] in kinds and np.isfinite(self.values[i]).any()]
        return Scores([self.names[i] for i in rows], self.kinds, self.values[rows], groups=self.groups, sign=self.sign)

    def scored(self) -> Scores:
        """Without the samples on which no name has a score: groups that were not scored are not counted."""
        some = np.isfinite(self.values).any(axis=0)
        return Scores(self.names, self.kinds, self.values[:, some], groups=self.groups[some], sign=self.sign)


def several(
    read: Scores,
    tried: Scores,
    tried_split: str,
    *,
    best_single: str,
    left_out: pd.DataFrame,
    resampling: SeveralResampling,
) -> dict[str, Any]:
    """Plain facts, each None (or empty) where it cannot be had.

    Parameters
    ----------
    read : Scores
        The split the verdict is read on.
    tried : Scores
        The rows the combination was chosen on: out of fold if there are any.
    tried_split : str
        Which these are, "oof" or "test".
    best_single : str
        The best base model, against which gains are tested together.
    left_out : frame
        From ``views.leave_cell_line_out``.
    resampling
        Draws whole groups.
    """
    return {
        "confidence_set": _confidence_set(read.only(("base", "combiner", "reference")).scored(), resampling),
        "simultaneous": _simultaneous(read.scored(), best_single, resampling),
        "best_of": _best_of(tried.only(("combiner", "reference")).scored(), tried_split, resampling),
        "leave_cell_line_out": [
            {
                "left_out": r["left_out"],
                "difference": _known(r["difference"]),
                "n": int(r["n"]),
                "ci": None if _known(r["ci_lo"]) is None else [float(r["ci_lo"]), float(r["ci_hi"])],
            }
            for r in left_out.to_dict("records")
        ],
    }


def _known(value: Any) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


def _confidence_set(scores: Scores, resampling: SeveralResampling) -> dict[str, Any] | None:
    found = resampling.confidence_set(scores.values, scores.groups, scores.sign) if len(scores.names) > 1 else None
    if found is None:
        return None
    order = sorted(range(len(scores.names)), key=lambda i: (-found.p[i], scores.names[i]))
    rows = [{"name": scores.names[i], "p": float(found.p[i]), "included": bool(found.included[i])} for i in order]
    return {"level": found.level, "n_groups": found.n_clusters, "rows": rows}


def _simultaneous(scores: Scores, best_single: str, resampling: SeveralResampling) -> dict[str, Any] | None:
    """Every combiner and reference against the named best single model, all at once."""
    against = scores.values[list(scores.names).index(best_single)]
    compared = scores.only(("combiner", "reference"))
    differences = compared.values - against
    some = np.isfinite(differences).any(axis=1)
    if not some.any():
        return None
    found = resampling.simultaneous(differences[some], scores.groups)
    names = [n for n, kept in zip(compared.names, some, strict=True) if kept]
    ranked = sorted(zip(names, found, strict=True), key=lambda x: (-scores.sign * x[1].value, x[0]))
    rows = [{"name": n, "difference": e.value, "ci": None if e.ci is None else list(e.ci), "p": e.p} for n, e in ranked]
    return {"against": best_single, "level": found[0].level, "more_is_better": scores.sign == 1, "rows": rows}


def _best_of(scores: Scores, split: str, resampling: SeveralResampling) -> dict[str, Any] | None:
    found = resampling.best_of(scores.values, scores.groups, scores.sign) if len(scores.names) > 1 else None
    if found is None:
        return None
    means = [float(scores.sign * (nan_mean(row) or 0.0)) for row in scores.values]
    top = int(np.argmax(means))
    seen = scores.sign * means[top]
    return {
        "split": split,
        "n_candidates": len(scores.names),
        "best": scores.names[top],
        "seen": seen,
        "value": found.value,
        "ci": None if found.ci is None else list(found.ci),
        "optimism": scores.sign * (seen - found.value),
    }


NOT_CHOSEN = " The test may not choose: what was not named out of fold is a candidate for the next study."


def several_in_words(facts: Mapping[str, Any], chosen: str | None = None) -> list[str]:
    """A few lines for people, on everything in ``several`` that could be had; ``chosen`` was named out of fold."""
    lines = []
    found = facts.get("confidence_set")
    if found:
        kept = [r["name"] for r in found["rows"] if r["included"]]
        lines.append(
            f"Cannot be told from the best ({100 * found['level']:.0f} % confidence set, {len(kept)} of "
            f"{len(found['rows'])}): {_listed(kept)}."
        )
    found = facts.get("simultaneous")
    if found:
        gains = gains_shown(found)
        losses = len(_significant(found)) - len(gains)
        lines.append(
            f"Asked of all {len(found['rows'])} combinations and references at once, which takes stronger evidence "
            f"than asking of one named beforehand, a gain over {found['against']} is shown for "
            + (_listed(gains) if gains else "none")
            + (f", a loss for {losses:,}." if losses else ".")
            + (NOT_CHOSEN if chosen is not None and set(gains) - {chosen} else "")
        )
    found = facts.get("best_of")
    if found:
        where = "out of fold" if found["split"] == "oof" else "on the test"
        lines.append(
            f"Best of {found['n_candidates']} tried {where}: {found['best']} at {number(found['seen'])}; corrected "
            f"for selection {number(found['value'])} {interval(_pair(found['ci']))} (BBC-CV)."
        )
    known = [r for r in facts.get("leave_cell_line_out", ()) if r["difference"] is not None]
    if known:
        low, high = min(known, key=lambda r: r["difference"]), max(known, key=lambda r: r["difference"])
        if number(low["difference"]) != number(high["difference"]):
            lines.append(
                f"Difference with each of {count_of(len(known), 'cell line')} left out: "
                f"{number(low['difference'], sign=True)} (without {low['left_out']}) to "
                f"{number(high['difference'], sign=True)} (without {high['left_out']})."
            )
    return lines + known_in_words(facts.get("known_at_fit"))


def gains_shown(found: Mapping[str, Any]) -> list[str]:
    """Names whose gain stands when all are tested at once, of the facts under ``simultaneous``."""
    return [r["name"] for r in _significant(found) if (r["difference"] > 0) == found["more_is_better"]]


def _significant(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [r for r in found["rows"] if r["p"] is not None and r["p"] <= 1 - found["level"]]


def _listed(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _pair(ci: Sequence[float] | None) -> tuple[float, float] | None:
    return None if ci is None else (ci[0], ci[1])
