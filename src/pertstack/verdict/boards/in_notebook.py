"""What results with a leaderboard have in common as the last line of a cell: text, table, frame, picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pertstack.verdict.boards.board import Form, Leaderboard
    from pertstack.verdict.boards.rows import Split


class ShowsBoard:
    """Shown as its leaderboard. Who inherits says which one that is."""

    def _board(self) -> Leaderboard:
        raise NotImplementedError

    def __repr__(self) -> str:
        return repr(self._board())

    def _repr_html_(self) -> str:
        return self._board()._repr_html_()

    def to_frame(self, split: Split | None = None, *, form: Form = "tidy") -> pd.DataFrame:
        """Every score with its interval as a data frame; see ``Leaderboard.to_frame``.

        Parameters
        ----------
        split : "test" or "oof"; None for the test once it was opened.
        form : "tidy", "wide" or "long".
        """
        return self._board().to_frame(split, form=form)

    def plot_differences(self, split: Split | None = None, *, every: bool = False) -> Figure:
        """Differences to the best single model with their intervals; see ``Leaderboard.plot_differences``.

        Parameters
        ----------
        split : "test" or "oof"; None for the test once it was opened.
        every : every row instead of the best ten.
        """
        return self._board().plot_differences(split, every=every)
