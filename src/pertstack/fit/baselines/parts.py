"""What anyone would try first for a combination: answers put together from the effects of its parts.

A part's effect is its mean change if it was measured alone; if it was not, what least squares finds in the
combinations (``additive``). Ahlmann-Eltze, Huber and Anders (2025, Nat Methods): such answers are hard to beat.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from pertstack._base.errors import InputError
from pertstack.data.rows import FitRows, Float32, PredictRows
from pertstack.fit.base import Needs
from pertstack.fit.baselines.additive import additive_effects
from pertstack.fit.baselines.groups import Floats, deltas, label_sums
from pertstack.fit.baselines.model import Baseline
from pertstack.fit.encoders import features_of

KAPPA = 0.1
"""Pseudo-samples that pull the effect of a gene never measured alone to that of an average gene."""


@dataclass
class Parts(Baseline):
    """Effects of single genes; how those of a combination go together is for subclasses."""

    name: ClassVar[str]
    needs: ClassVar[Needs] = Needs(features=("genes",), predicts="delta")
    effects_: Floats = field(init=False, repr=False)  # (n_genes_perturbed + 1, n_genes); the last: an average gene

    def fit(self, rows: FitRows, *, rng: np.random.Generator) -> Parts:
        features = features_of(rows.side, self.needs.features, self.name)
        names, sums, counts = label_sums(deltas(rows), rows.perturbation)
        values, known = features.rows(names)
        if not known.any():
            raise InputError(f"{self.name}: the perturbed genes of every fit row are unknown; nothing can be learned.")
        genes, delta, counts = values[known] != 0, (sums / counts[:, None])[known], counts[known]
        self.effects_ = additive_effects(delta, genes.astype(np.float64), counts, kappa=KAPPA)
        for gene in np.flatnonzero(genes[genes.sum(axis=1) == 1].any(axis=0)):
            alone = (genes.sum(axis=1) == 1) & genes[:, gene]
            self.effects_[gene] = np.average(delta[alone], axis=0, weights=counts[alone])
        several = genes.sum(axis=1) > 1
        self.learn([self.effects_[np.flatnonzero(g)] for g in genes[several]], delta[several], counts[several])
        return self

    def learn(self, parts: list[Floats], delta: Floats, counts: Floats) -> None:
        """What there is to learn from measured combinations; nothing by default.

        Parameters
        ----------
        parts : one array (n_parts, n_genes) per combination, the effects of its parts.
        delta : (C, n_genes), the measured changes of the same combinations.
        counts : (C,), their samples.
        """

    def together(self, parts: Floats) -> Floats:
        """(n_genes,) effect of a combination from those of its parts, (n_parts, n_genes)."""
        raise NotImplementedError

    def predict(self, rows: PredictRows) -> Float32:
        features = features_of(rows.side, self.needs.features, self.name)
        names, index = np.unique(rows.perturbation.astype(str), return_inverse=True)
        values, known = features.rows(str(n) for n in names)
        change = np.empty((len(names), rows.control.shape[1]))
        for i in range(len(names)):
            genes = np.flatnonzero(values[i] != 0) if known[i] else np.array([len(self.effects_) - 1])
            genes = genes if len(genes) else np.array([len(self.effects_) - 1])
            change[i] = self.effects_[genes[0]] if len(genes) == 1 else self.together(self.effects_[genes])
        out: Float32 = np.array(rows.control, dtype=np.float32)
        out += change.astype(np.float32)[index]
        return out


@dataclass
class MeanOfParts(Parts):
    """Control plus the mean of the effects of the perturbed genes."""

    name: ClassVar[str] = "mean_of_parts"

    def together(self, parts: Floats) -> Floats:
        mean: Floats = parts.mean(axis=0)
        return mean


@dataclass
class LargerChange(Parts):
    """Control plus, gene by gene, the larger of the changes that the perturbed genes make alone."""

    name: ClassVar[str] = "larger_change"

    def together(self, parts: Floats) -> Floats:
        larger: Floats = np.take_along_axis(parts, np.abs(parts).argmax(axis=0)[None], axis=0)[0]
        return larger


@dataclass
class ScaledSum(Parts):
    """Control plus the sum of the effects of the perturbed genes, scaled as measured combinations are.

    One scale per gene by least squares over the combinations fitted, pulled to the scale of all genes together:
    ``(x'y + r s) / (x'x + r)`` with x the sum, s the common scale, r ``pull`` times the mean x'x. Without any fitted
    combination the scale is 1. ``pull`` >= 0; large: one scale for all genes.
    """

    name: ClassVar[str] = "scaled_sum"
    pull: float = 1.0
    scale_: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.pull < 0:
            raise InputError(f"pull is {self.pull}; it weighs the common scale and is not below 0.")

    def learn(self, parts: list[Floats], delta: Floats, counts: Floats) -> None:
        self.scale_ = np.ones(self.effects_.shape[1])
        if not parts:
            return
        x, w = np.stack([p.sum(axis=0) for p in parts]), counts[:, None]
        xx, xy = (w * x * x).sum(axis=0), (w * x * delta).sum(axis=0)
        if xx.sum() <= 0:
            return
        common, ridge = xy.sum() / xx.sum(), self.pull * xx.mean()
        self.scale_ = np.divide(xy + ridge * common, xx + ridge, out=np.full_like(xx, common), where=xx + ridge > 0)

    def together(self, parts: Floats) -> Floats:
        scaled: Floats = self.scale_ * parts.sum(axis=0)
        return scaled
