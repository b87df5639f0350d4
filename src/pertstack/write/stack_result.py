"""What stacking found, of a study or of arrays: scores, fits, the choice, and how they show in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from pertstack._stats.shared_parts import Parts
from pertstack.reduce.scoring.score_table import ScoreTable
from pertstack.stacking.choice import Choice, choice_in_words
from pertstack.stacking.nested import NestedFits
from pertstack.verdict.boards.board import Form, Leaderboard
from pertstack.verdict.boards.in_notebook import ShowsBoard
from pertstack.verdict.boards.out_of_fold import oof_board
from pertstack.verdict.boards.rows import Split
from pertstack.write.tables.oof_table import SHOWN

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False, kw_only=True)
class StackResult(ShowsBoard):
    """Nested scores, weights, the choice and its reasons.

    In a notebook: the choice, the best rows of the out-of-fold leaderboard with intervals, ``to_frame()``,
    ``plot_differences()``, ``plot_weights()``, ``plot_calibration()``.
    """

    scores: ScoreTable
    """Out of fold, of every base model and combiner, a score per sample."""
    nested: NestedFits
    choice: Choice
    slopes: Mapping[str, float] = field(default_factory=dict)
    """Of the measured on every model's predicted change, out of fold; 1 is well calibrated."""
    accused: Mapping[str, str] = field(default_factory=dict)
    """Models left out because a probe shows that they saw the rows they predict: model -> what it shows."""
    accepted: tuple[str, ...] = ()
    """Models that a probe accuses and that take part because ``accept_accused`` names them."""
    unit: str = "perturbation"
    """What is held out and resampled whole."""
    parts: Parts | None = None
    """Of groups that are combinations and share some, so that their scores go together."""
    looks: int = 0
    """At the held-out test so far; arrays have none."""

    @property
    def chosen(self) -> str:
        """Name of the combiner that passed no-harm; ``best_single`` when none did."""
        return self.choice.chosen

    @property
    def headline(self) -> str:
        """The choice in one sentence, after what was left out for a leak or taken in despite one."""
        return choice_in_words(self.choice, accused=self.accused, accepted=self.accepted)

    @property
    def weights(self) -> dict[str, dict[str, Any]]:
        """Weights of every combiner's final fit, as plain JSON."""
        return {name: self.nested.final[name].weights() for name in self.nested.names}

    @cached_property
    def _short(self) -> Leaderboard:
        return self._leaderboard(SHOWN)

    def _board(self) -> Leaderboard:
        return self._short

    def _leaderboard(self, metrics: Sequence[str] | None = None) -> Leaderboard:
        return oof_board(
            self.scores,
            self.nested,
            self.choice,
            headline=self.headline,
            unit=self.unit,
            parts=self.parts,
            looks=self.looks,
            metrics=metrics,
        )

    def to_frame(self, split: Split | None = None, *, form: Form = "tidy") -> pd.DataFrame:
        """Every out-of-fold score with its interval; see ``Leaderboard.to_frame``.

        Parameters
        ----------
        split : "test" or "oof"; None for the test once it was opened.
        form : "tidy", "wide" or "long".
        """
        return self._leaderboard().to_frame(split, form=form)

    def plot_weights(self, combiner: str | None = None) -> Figure:
        """Weights on base models, of one combination or of all, as a matplotlib figure.

        Parameters
        ----------
        combiner : name of a combination; None for all.
        """
        from pertstack.write.stack_pictures import weights_picture

        return weights_picture(self.weights, combiner)

    def plot_calibration(self) -> Figure:
        """Slope of the measured on every model's predicted change, as a matplotlib figure; 1 is well calibrated."""
        from pertstack.write.stack_pictures import calibration_picture

        return calibration_picture(self.slopes)
