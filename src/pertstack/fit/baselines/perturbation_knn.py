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

KAPPAS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)

Floats = np.ndarray[Any, np.dtype[np.float64]]


def similarity(left: Floats, right: Floats) -> Floats:
    """Tanimoto similarity (n_left, n_right) of feature rows, in [0, 1]; cosine cut at 0 if features can be negative.

    Tanimoto is ``x·y / (|x|² + |y|² - x·y)``: on bits the share of common bits. Two rows of zeros are not alike (0).
    """
    common = left @ right.T
    squares = (left**2).sum(axis=1)[:, None], (right**2).sum(axis=1)[None, :]
    bits = bool((left >= 0).all() and (right >= 0).all())
    norm = squares[0] + squares[1] - common if bits else np.sqrt(squares[0] * squares[1])
    alike: Floats = np.clip(np.divide(common, norm, out=np.zeros_like(common), where=norm > 0), 0.0, 1.0)
    return alike


def nearest_weights(alike: Floats, k: int) -> Floats:
    """Similarities (n, n_fitted) with all but the k largest of each row set to 0; ties go by name order."""
    nearest = np.argsort(-alike, axis=1, kind="stable")[:, :k]
    weights = np.zeros_like(alike)
    np.put_along_axis(weights, nearest, np.take_along_axis(alike, nearest, axis=1), axis=1)
    return weights


def choose_kappa(alike: Floats, effects: Floats, k: int) -> float:
    """The shrinkage of least squared error when each fitted perturbation is predicted from the others.

    One of ``KAPPAS``; infinity (no effect at all) when nothing is gained. Where two do equally well the stronger one.

    Parameters
    ----------
    alike : (P, P) similarity of perturbations; the diagonal is not looked at.
    effects : (P, n_genes), mean effects.
    k : neighbours.
    """
    others = alike.copy()
    np.fill_diagonal(others, 0.0)
    weights = nearest_weights(others, k)
    summed, total = weights @ effects, weights.sum(axis=1)
    along, square = (summed * effects).sum(axis=1), (summed**2).sum(axis=1)
    best, chosen = 0.0, float("inf")
    for kappa in KAPPAS[::-1]:
        factor = 1.0 / (kappa + total)
        change = float((square * factor**2 - 2 * along * factor).sum())  # of the squared error, against no effect
        if change < best:
            best, chosen = change, kappa
    return chosen


@dataclass
class PerturbationKNN(Baseline):
    """Starting point plus the Tanimoto-weighted mean effect of the k most similar fitted perturbations, shrunk.

    The effect is ``sum w e / (kappa + sum w)`` over the ``k`` nearest with similarity ``w`` and mean effect ``e``:
    little resemblance gives little effect, and a perturbation of unknown structure gets none (``on_missing="mask"``).
    ``kappa`` >= 0 is in units of similarity; None chooses it by predicting each fitted perturbation from the others.
    """

    name: ClassVar[str] = "perturbation_knn"
    needs: ClassVar[Needs] = Needs(
        features=("user", "structure", "genes", "targets"), uses_cell_line=True, predicts="delta"
    )
    k: int = 5
    kappa: float | None = None
    start: Start = "control"
    on_missing: MissingPolicy = "mask"
    start_: StartingPoint = field(init=False, repr=False)
    effects_: Floats = field(init=False, repr=False)
    features_: Floats = field(init=False, repr=False)
    kappa_: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_policy(self.on_missing)
        if self.k < 1 or (self.kappa is not None and self.kappa < 0):
            raise InputError(
                f"k is {self.k} and kappa {self.kappa}; k counts neighbours (1 or more), kappa is 0 or more."
            )

    def fit(self, rows: FitRows, *, rng: np.random.Generator) -> PerturbationKNN:
        features = features_of(rows.side, self.needs.features, self.name)
        known = refuse_missing(features, rows, self.on_missing, model=self.name)
        fitted = rows.take(known) if self.on_missing == "drop" else rows
        self.start_ = StartingPoint.fit(fitted, self.start)
        names, sums, counts = label_sums(self.start_.residual(fitted), fitted.perturbation)
        values, present = features.rows(names)
        self.features_ = values[present].astype(np.float64)
        self.effects_ = (sums / counts[:, None])[present]
        alike = similarity(self.features_, self.features_)
        self.kappa_ = choose_kappa(alike, self.effects_, self.k) if self.kappa is None else self.kappa
        return self

    def predict(self, rows: PredictRows) -> Float32:
        features = features_of(rows.side, self.needs.features, self.name)
        refuse_missing(features, rows, self.on_missing, model=self.name)
        names, index = np.unique(rows.perturbation.astype(str), return_inverse=True)
        values, known = features.rows(str(n) for n in names)
        alike = similarity(values.astype(np.float64), self.features_) * known[:, None]
        out = self.start_.predict(rows)
        out += self._effects(alike).astype(np.float32)[index]
        return out

    def _effects(self, alike: Floats) -> Floats:
        """Shrunk weighted mean effect (n, n_genes) from similarities (n, n_fitted)."""
        weights = nearest_weights(alike, self.k)
        total = self.kappa_ + weights.sum(axis=1, keepdims=True)
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
