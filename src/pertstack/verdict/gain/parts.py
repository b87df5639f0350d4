"""The parts a gain is taken into: paired differences by view and stratum, and what all of them together are read as.

Facts only: how they are found is in ``decompose.py``, how they are read, in ``in_words.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd

from pertstack._base.arrays import Array
from pertstack._stats.estimate import Difference

Reading = Literal["win", "plate", "control_noise", "artefact", "mixed", "within_noise", "no_gain", "harm", "none"]
"""What the parts say together, in one word; told in words by ``gain_in_words.MEANINGS``."""


Compare = Callable[[Array, Array, Array], Difference]
"""From per-sample scores of two competitors (n,) with NaN and the groups (n,) to their paired difference."""


@dataclass(frozen=True, slots=True)
class Part:
    """One line of the decomposition. ``sign`` is +1 / -1 when the interval shows a gain / a loss, else 0.

    Without a vote it is 0, whatever the interval shows.
    """

    view: str  # "own", "pooled", "matched", "plate", "centroid", "rmse", or a stratum such as "effect quartile"
    level: str  # "" for the whole, else "Q1", "A375", "seen"
    metric: str
    difference: Difference
    better: int = 1  # +1: more is better
    hollow: bool = False  # a correlation that is still not above 0: to be less wrong is no gain
    votes: bool = True  # False where a constant beats a replicate on this metric

    @property
    def sign(self) -> int:
        return self.shown if self.votes else 0

    @property
    def shown(self) -> int:
        """The sign, with a vote or without one."""
        ci = self.difference.ci
        if ci is None:
            return 0
        lo, hi = sorted(self.better * bound for bound in ci)
        return (0 if self.hollow else 1) if lo > 0 else -1 if hi < 0 else 0

    @property
    def gain(self) -> float | None:
        """The difference with its sign turned so that more is better."""
        return None if self.difference.value is None else self.better * self.difference.value


@dataclass(frozen=True)
class Decomposition:
    """The gain of one combiner over the best single model, taken apart."""

    name: str
    best_single: str
    primary: str
    parts: tuple[Part, ...]
    reading: Reading
    headline: str
    one_control: bool = False  # own and pooled control are the same here: nothing can be taken apart by them

    def part(self, view: str, level: str = "") -> Part | None:
        """One line, or None when it could not be computed."""
        return next((p for p in self.parts if (p.view, p.level) == (view, level)), None)

    @property
    def caution(self) -> str | None:
        """The mark a leaderboard row carries, if any."""
        marks: Mapping[str, str] = {
            "artefact": "artefact: gains on own control, loses without the shared control",
            "control_noise": "most of the gain on own control is control noise",
            "mixed": "the measures disagree: some gain, others lose",
            "plate": "the gain is not seen within plates",
        }
        return marks.get(self.reading)

    def to_frame(self) -> pd.DataFrame:
        """One line per part."""
        return pd.DataFrame(
            [
                {
                    "view": p.view,
                    "level": p.level,
                    "metric": p.metric,
                    "difference": p.difference.value,
                    "ci_lo": p.difference.ci[0] if p.difference.ci else None,
                    "ci_hi": p.difference.ci[1] if p.difference.ci else None,
                    "p": p.difference.p,
                    "n": p.difference.n,
                    "n_groups": p.difference.n_groups,
                    "sign": p.sign,
                    "votes": p.votes,
                }
                for p in self.parts
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        parts = [asdict(p) | {"sign": p.sign, "gain": p.gain} for p in self.parts]
        return {
            "name": self.name,
            "best_single": self.best_single,
            "primary": self.primary,
            "reading": self.reading,
            "headline": self.headline,
            "one_control": self.one_control,
            "parts": parts,
        }
