"""What a perturbation's effect is added to: the control, the cell line's mean treated, or a straight line per gene.

models.md gives ridge, kNN and low-rank for delta, that is on top of the control. Where controls are paired at random
the control carries noise that has nothing to do with the sample, and the same regressions on top of the mean treated
profile err less; so both exist, as separate models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pertstack._base.errors import InputError
from pertstack.data.rows import FitRows, Float32, PredictRows
from pertstack.fit.baselines.groups import GroupMeans, Made, Values
from pertstack.fit.baselines.per_gene_linear import Floats, per_gene_lines

Start = Literal["control", "mean_treated", "per_gene_line"]
STARTS: tuple[Start, ...] = ("control", "mean_treated", "per_gene_line")


@dataclass(frozen=True)
class StartingPoint:
    """``slope * control + level of the cell line``: what is predicted before the perturbation is looked at.

    ``control``: slope 1, level = mean delta of the cell line. ``mean_treated``: slope 0, level = mean treated of the
    cell line. ``per_gene_line``: slope per gene by least squares, level = the cell line's mean residual. Unseen cell
    line: overall level.
    """

    slope: Floats  # (n_genes,)
    levels: GroupMeans

    @classmethod
    def fit(cls, rows: FitRows, start: Start) -> StartingPoint:
        if start not in STARTS:
            raise InputError(f"start is {start!r}; the choices are {', '.join(STARTS)}.")
        if start == "per_gene_line":
            slope = per_gene_lines(rows.control, rows.treated, 0.0)[0]
        else:
            slope = np.full(rows.n_genes, 1.0 if start == "control" else 0.0)
        return cls(slope, GroupMeans.of(_without_slope(rows, slope), rows.cell_line))

    def residual(self, rows: FitRows) -> Made:
        """What is left for the perturbation to explain, (n_samples, n_genes), when rows of it are asked for."""
        flat, lines = _without_slope(rows, self.slope), rows.cell_line
        return Made(rows.treated.shape, lambda some: flat[some] - self.levels.rows(lines[some]))

    def predict(self, rows: PredictRows) -> Float32:
        """The starting point of every row, (n_samples, n_genes), as a fresh array to which the effect is added."""
        out = self.levels.rows(rows.cell_line)
        if self.slope.any():
            out += rows.control * self.slope.astype(np.float32)
        return out


def _without_slope(rows: FitRows, slope: Floats) -> Values:
    steep = slope.astype(np.float32)
    if not slope.any():
        return rows.treated
    return Made(rows.treated.shape, lambda some: rows.treated[some] - rows.control[some] * steep)
