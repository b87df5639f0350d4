"""Nearest perturbations by structure: a new compound acts like the known compounds it resembles."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pertstack._base.errors import InputError
from pertstack.data.rows import FitRows, Float32, PredictRows
from pertstack.fit.base import Needs
from pertstack.fit.baselines.groups import label_sums
from pertstack.fit.baselines.model import Baseline
from pertstack.fit.baselines.start import Start, StartingPoint
from pertstack.fit.encoders import MissingPolicy, check_policy, features_of, refuse_missing

Floats = np.ndarray[Any, np.dtype[np.float64]]


def similarity(left: Floats, right: Floats) -> Floats:
    """Tanimoto similarity (n_left, n_right) of feature rows, in [0, 1]; cosine cut at 0 where features can be negative.

    Tanimoto is ``x·y / (|x|² + |y|² - x·y)``: on bits the share of common bits. Two rows of zeros are not alike (0).
    """
    common = left @ right.T
    squares = (left**2).sum(axis=1)[:, None], (right**2).sum(axis=1)[None, :]
    bits = bool((left >= 0).all() and (right >= 0).all())
    norm = squares[0] + squares[1] - common if bits else np.sqrt(squares[0] * squares[1])
    alike: Floats = np.clip(np.divide(common, norm, out=np.zeros_like(common), where=norm > 0), 0.0, 1.0)
    return alike


@dataclass
class PerturbationKNN(Baseline):
    """Starting point plus the Tanimoto-weighted mean effect of the k most similar fitted perturbations, shrunk.

    The effect is ``sum w e / (kappa + sum w)`` over the ``k`` nearest with similarity ``w`` and mean effect ``e``:
    little resemblance gives little effect, and a perturbation of unknown structure gets none (``on_missing="mask"``).
    """

    name: ClassVar[str] = "perturbation_knn"
    needs: ClassVar[Needs] = Needs(
        features=("user", "structure", "genes", "targets"), uses_cell_line=True, predicts="delta"
    )
    k: int = 5
    kappa: float = 0.5
    start: Start = "control"
    on_missing: MissingPolicy = "mask"
    start_: StartingPoint = field(init=False, repr=False)
    effects_: Floats = field(init=False, repr=False)
    features_: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_policy(self.on_missing)
        if self.k < 1 or self.kappa < 0:
            raise InputError(
                f"k is {self.k} and kappa {self.kappa}; k counts neighbours (1 or more), kappa is 0 or more."
            )

    def fit(self, rows: FitRows, *, rng: np.random.Generator) -> PerturbationKNN:
        features = features_of(rows.side, self.needs.features, self.name)
        known = refuse_missing(features, rows, self.on_missing, self.name)
        fitted = rows.take(known) if self.on_missing == "drop" else rows
        self.start_ = StartingPoint.fit(fitted, self.start)
        names, sums, counts = label_sums(self.start_.residual(fitted), fitted.perturbation)
        values, present = features.rows(names)
        self.features_ = values[present].astype(np.float64)
        self.effects_ = (sums / counts[:, None])[present]
        return self

    def predict(self, rows: PredictRows) -> Float32:
        features = features_of(rows.side, self.needs.features, self.name)
        refuse_missing(features, rows, self.on_missing, self.name)
        names, index = np.unique(rows.perturbation.astype(str), return_inverse=True)
        values, known = features.rows(str(n) for n in names)
        alike = similarity(values.astype(np.float64), self.features_) * known[:, None]
        out = self.start_.predict(rows)
        out += self._effects(alike).astype(np.float32)[index]
        return out

    def _effects(self, alike: Floats) -> Floats:
        """Shrunk weighted mean effect (n, n_genes) from similarities (n, n_fitted); ties go by name order."""
        nearest = np.argsort(-alike, axis=1, kind="stable")[:, : self.k]
        weights = np.zeros_like(alike)
        np.put_along_axis(weights, nearest, np.take_along_axis(alike, nearest, axis=1), axis=1)
        total = self.kappa + weights.sum(axis=1, keepdims=True)
        share = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
        effects: Floats = share @ self.effects_
        return effects


@dataclass
class PerturbationKNNTreated(PerturbationKNN):
    """As perturbation_knn, added to the cell line's mean treated profile instead of the control."""

    name: ClassVar[str] = "perturbation_knn_treated"
    needs: ClassVar[Needs] = Needs(
        features=("user", "structure", "genes", "targets"), uses_cell_line=True, uses_control=False
    )
    start: Start = "mean_treated"
