"""One straight line per gene from control to treated: drug-blind, and near the top of the founding study's table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pertstack._base.errors import InputError
from pertstack.data.rows import FitRows, Float32, PredictRows
from pertstack.fit.base import Needs
from pertstack.fit.baselines.groups import PIECE
from pertstack.fit.baselines.model import Baseline

Floats = np.ndarray[Any, np.dtype[np.float64]]
FLAT = 1e-10  # variance of a gene's control below which it has no slope (MERGE models/base_model.py:136-175)


def per_gene_lines(control: Float32, treated: Float32, ridge: float) -> tuple[Floats, Floats]:
    """Slope a and intercept b, both (n_genes,), of ``treated = a * control + b`` per gene.

    Minimises ``sum (treated - a control - b)² + ridge * var(control) * (a - 1)²`` per gene. A gene whose control varies
    by less than 1e-10 gets a = 0 and b = its mean treated.

    Parameters
    ----------
    control, treated : (n, n_genes), the same samples.
    ridge : pseudo-samples that say "no change".
    """
    n = len(control)
    mean_control, mean_treated = control.mean(axis=0, dtype=np.float64), treated.mean(axis=0, dtype=np.float64)
    scatter, cross = np.zeros_like(mean_control), np.zeros_like(mean_control)
    for start in range(0, n, 1024):
        x = control[start : start + 1024] - mean_control
        scatter += (x * x).sum(axis=0)
        cross += (x * (treated[start : start + 1024] - mean_treated)).sum(axis=0)
    variance = scatter / n
    sloped = variance >= FLAT
    pull = ridge * variance
    slope = np.divide(cross + pull, scatter + pull, out=np.zeros_like(cross), where=sloped)
    return slope, mean_treated - slope * mean_control


@dataclass
class PerGeneLinear(Baseline):
    """A straight line per gene from control to treated (least squares; ``ridge`` pulls the slope to 1).

    ``ridge`` >= 0 counts pseudo-samples on "no change" slope; 0 is ordinary least squares as in the founding study.
    """

    name: ClassVar[str] = "per_gene_linear"
    needs: ClassVar[Needs] = Needs(uses_perturbation=False)
    ridge: float = 0.0
    slope_: Floats = field(init=False, repr=False)
    intercept_: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.ridge < 0:
            raise InputError(f"ridge is {self.ridge}; it counts pseudo-samples, so give 0 or more.")

    def fit(self, rows: FitRows, *, rng: np.random.Generator) -> PerGeneLinear:
        self.slope_, self.intercept_ = per_gene_lines(rows.control, rows.treated, self.ridge)
        return self

    def predict(self, rows: PredictRows) -> Float32:
        out = np.empty(rows.control.shape, dtype=np.float32)
        for a in range(0, rows.n_samples, PIECE):
            out[a : a + PIECE] = rows.control[a : a + PIECE] * self.slope_ + self.intercept_
        return out
