"""Low-rank bilinear model: gene embedding times a small matrix times perturbation embedding.

Ahlmann-Eltze, Huber, Anders (2025), "Deep-learning-based gene perturbation effect prediction does not yet outperform
simple linear baselines", Nat Methods: no deep model of their comparison beat it or the mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pertstack._base.errors import InputError
from pertstack.data.rows import FitRows, Float32, PredictRows
from pertstack.data.side.side import PerturbationFeatures
from pertstack.fit.base import Needs
from pertstack.fit.baselines.groups import label_sums
from pertstack.fit.baselines.model import Baseline
from pertstack.fit.baselines.start import Start, StartingPoint
from pertstack.fit.encoders import MissingPolicy, check_policy, features_of, refuse_missing

Floats = np.ndarray[Any, np.dtype[np.float64]]


def principal_axes(values: Floats, rank: int) -> Floats:
    """The first principal axes (n_columns, K) of the centred rows, orthonormal, sign fixed by their largest entry."""
    from scipy.linalg import eigh  # slow to import

    centred = values - values.mean(axis=0)
    n, p = centred.shape
    size = min(n, p)
    gram = centred @ centred.T if n < p else centred.T @ centred
    squares, vectors = eigh(gram, subset_by_index=(max(0, size - rank), size - 1))
    kept = (squares > max(np.trace(gram) * 1e-10, 1e-12))[::-1]
    squares, vectors = squares[::-1][kept], vectors[:, ::-1][:, kept]
    axes: Floats = centred.T @ vectors / np.sqrt(squares) if n < p else vectors
    if axes.shape[1]:
        largest = np.abs(axes).argmax(axis=0)
        axes = axes * np.sign(axes[largest, np.arange(axes.shape[1])])
    return axes


def gene_scores(effects: Floats, rank: int) -> Floats:
    """Gene embedding A (n_genes, K): principal component scores of the genes, whose "samples" are the perturbations.

    Scores, not unit vectors: the paper's lambda is meant for embeddings on the scale of the effects.
    """
    across = effects.T - effects.mean(axis=1)
    return np.asarray(across @ principal_axes(effects.T, rank), dtype=np.float64)


def bilinear_middle(effects: Floats, genes: Floats, perturbations: Floats, *, strength: float) -> Floats:
    """``W = (A'A + λI)⁻¹ A' Y B' (BB' + λI)⁻¹``, shape (K, L): least squares of ``Y = A W B`` with a penalty on both
    sides.

    Parameters
    ----------
    effects : Y, given as rows (C, G); its row mean removed beforehand.
    genes : A, (G, K), embedding of genes.
    perturbations : B', (C, L), embedding of perturbations.
    strength : λ >= 0.
    """
    left = genes.T @ genes + strength * np.eye(genes.shape[1])
    right = perturbations.T @ perturbations + strength * np.eye(perturbations.shape[1])
    middle = np.linalg.solve(left, genes.T @ effects.T @ perturbations)
    return np.linalg.solve(right, middle.T).T


@dataclass
class LowRank(Baseline):
    """Starting point plus ``A W B``: A = gene scores of the effects' PCA, B = embedding of the perturbation (K = 10).

    B holds the principal components of the features of the fitted perturbations; for perturbed genes that are also
    measured (features of kind ``genes``) it holds their rows of A, as in the paper. A perturbation of unknown features
    gets the starting point alone. ``strength`` is the paper's λ.
    """

    name: ClassVar[str] = "low_rank"
    needs: ClassVar[Needs] = Needs(
        features=("user", "structure", "genes", "targets"), uses_cell_line=True, predicts="delta"
    )
    rank: int = 10
    strength: float = 0.1
    start: Start = "control"
    on_missing: MissingPolicy = "mask"
    start_: StartingPoint = field(init=False, repr=False)
    mean_: Floats = field(init=False, repr=False)
    axes_: Floats = field(init=False, repr=False)
    effect_axes_: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_policy(self.on_missing)
        if self.rank < 1 or self.strength <= 0:
            raise InputError(f"rank is {self.rank} and strength {self.strength}; rank is 1 or more, strength above 0.")

    def fit(self, rows: FitRows, *, rng: np.random.Generator) -> LowRank:
        features = features_of(rows.side, self.needs.features, self.name)
        known = refuse_missing(features, rows, self.on_missing, model=self.name)
        fitted = rows.take(known) if self.on_missing == "drop" else rows
        self.start_ = StartingPoint.fit(fitted, self.start)
        names, sums, counts = label_sums(self.start_.residual(fitted), fitted.perturbation)
        effects = sums / counts[:, None]
        effects -= effects.mean(axis=0)
        values, present = self._values(features, names)
        if not present.any():
            raise InputError(
                f"{self.name}: {features.kind} features are missing for every fit row; nothing to learn from."
            )
        genes = gene_scores(effects, self.rank)
        self.mean_, self.axes_ = self._embedding(features, rows, values[present], genes)
        embedded = (values[present] - self.mean_) @ self.axes_
        self.effect_axes_ = (genes @ bilinear_middle(effects[present], genes, embedded, strength=self.strength)).T
        return self

    def _values(self, features: PerturbationFeatures, names: list[str]) -> tuple[Floats, Any]:
        values, known = features.rows(names)
        return values.astype(np.float64), known

    def _embedding(
        self, features: PerturbationFeatures, rows: FitRows, values: Floats, genes: Floats
    ) -> tuple[Floats, Floats]:
        """Centre (n_features,) and axes (n_features, L) that turn features into the perturbation embedding."""
        position = {str(gene): i for i, gene in enumerate(rows.gene_names)}
        measured = np.array([position.get(column, -1) for column in features.columns])
        if features.kind == "genes" and (measured >= 0).any():
            return np.zeros(values.shape[1]), np.where((measured >= 0)[:, None], genes[measured], 0.0)
        return values.mean(axis=0), principal_axes(values, self.rank)

    def predict(self, rows: PredictRows) -> Float32:
        features = features_of(rows.side, self.needs.features, self.name)
        refuse_missing(features, rows, self.on_missing, model=self.name)
        names, index = np.unique(rows.perturbation.astype(str), return_inverse=True)
        values, known = self._values(features, [str(n) for n in names])
        effects = ((values - self.mean_) @ self.axes_ @ self.effect_axes_) * known[:, None]
        out = self.start_.predict(rows)
        out += effects.astype(np.float32)[index]
        return out


@dataclass
class LowRankTreated(LowRank):
    """As low_rank, added to the cell line's mean treated profile instead of the control."""

    name: ClassVar[str] = "low_rank_treated"
    needs: ClassVar[Needs] = Needs(
        features=("user", "structure", "genes", "targets"), uses_cell_line=True, uses_control=False
    )
    start: Start = "mean_treated"
