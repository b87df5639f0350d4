"""Additive gene effects: a double perturbation does what its two single ones do together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pertstack._base.errors import InputError
from pertstack.data.rows import FitRows, Float32, PredictRows
from pertstack.fit.base import Needs
from pertstack.fit.baselines.groups import deltas, label_sums
from pertstack.fit.baselines.model import Baseline
from pertstack.fit.encoders import features_of

Floats = np.ndarray[Any, np.dtype[np.float64]]


def additive_effects(delta: Floats, genes: Floats, counts: Floats, *, kappa: float) -> Floats:
    """Effect per perturbed gene, (P + 1, n_genes), by weighted least squares; the last row answers for genes never
    perturbed.

    Parameters
    ----------
    delta : (C, n_genes), mean delta of each combination.
    genes : (C, P), 1 where a combination perturbs a gene.
    counts : (C,), samples of each combination: its weight.
    kappa : pseudo-samples per gene that pull its effect to the average gene's effect (delta summed over the rows /
        perturbed genes summed over the rows).
    """
    hits = (genes * counts[:, None]).sum()
    average = (delta * counts[:, None]).sum(axis=0) / max(hits, 1.0)
    weighted = genes * counts[:, None]
    system = genes.T @ weighted + kappa * np.eye(genes.shape[1])
    own = np.linalg.solve(system, weighted.T @ (delta - genes.sum(axis=1)[:, None] * average))
    return np.vstack([own + average, average])


@dataclass
class Additive(Baseline):
    """Control plus the sum of the effects of the perturbed genes; effects from singles and doubles together.

    The additive model of combinatorial screens (Ahlmann-Eltze, Huber, Anders 2025, Nat Methods): with both singles
    fitted and ``kappa`` near 0, delta(A+B) = delta(A) + delta(B). A gene never fitted counts as an average gene; a
    perturbation whose genes are unknown as one average gene. ``kappa`` > 0 in samples.
    """

    name: ClassVar[str] = "additive"
    needs: ClassVar[Needs] = Needs(features=("genes",), predicts="delta")
    kappa: float = 0.1
    effects_: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.kappa <= 0:
            raise InputError(f"kappa is {self.kappa}; it counts pseudo-samples per gene and must be above 0.")

    def fit(self, rows: FitRows, *, rng: np.random.Generator) -> Additive:
        features = features_of(rows.side, self.needs.features, self.name)
        names, sums, counts = label_sums(deltas(rows), rows.perturbation)
        values, known = features.rows(names)
        if not known.any():
            raise InputError(
                "additive: the perturbed genes of every fit row are unknown; there is nothing to learn from."
            )
        genes = (values[known] != 0).astype(np.float64)
        self.effects_ = additive_effects((sums / counts[:, None])[known], genes, counts[known], kappa=self.kappa)
        return self

    def predict(self, rows: PredictRows) -> Float32:
        features = features_of(rows.side, self.needs.features, self.name)
        names, index = np.unique(rows.perturbation.astype(str), return_inverse=True)
        values, known = features.rows(str(n) for n in names)
        genes = np.where(known[:, None], values != 0, False).astype(np.float64)
        design = np.concatenate([genes, (~known).astype(np.float64)[:, None]], axis=1)
        out: Float32 = np.array(rows.control, dtype=np.float32)
        out += (design @ self.effects_).astype(np.float32)[index]
        return out
