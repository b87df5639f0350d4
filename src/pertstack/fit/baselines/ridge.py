"""Ridge from features, dose, time and cell line to the effect on every gene; one penalty for all genes, by GCV.

The penalty is chosen with one observation per perturbation. Chosen on rows it would be far too weak: replicates, doses
and cell lines of a perturbation share its features, so a row left out is predicted from its siblings, a new
perturbation is not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pertstack._base.errors import InputError
from pertstack.data.rows import FitRows, Float32, PredictRows
from pertstack.data.side.side import PerturbationFeatures
from pertstack.fit.base import Needs
from pertstack.fit.baselines.groups import PIECE, Made, Values, sums_by_index
from pertstack.fit.baselines.model import Baseline
from pertstack.fit.baselines.start import Start, StartingPoint
from pertstack.fit.encoders import Index, MissingPolicy, RowEncoder, check_policy, features_of, refuse_missing

Floats = np.ndarray[Any, np.dtype[np.float64]]
GRID = np.logspace(-4, 6, 41)  # penalties tried, in units of the mean eigenvalue


def label_means(values: Values, index: Index, n: int) -> tuple[Floats, Floats]:
    """Mean of the values over each label, (n, n_columns) float64, and counts (n,).

    Parameters
    ----------
    values : (n_rows, n_columns).
    index : (n_rows,) positions of labels.
    n : labels; each has at least one row.
    """
    sums, counts = sums_by_index(values, index, n)
    sums /= counts[:, None]
    return sums, counts


def _means_of_labels(values: Values, index: Index, n: int) -> tuple[Made, Floats]:
    """Means of labels that are made when asked for, and counts (n,); parameters as for ``label_means``."""
    order, counts = np.argsort(index, kind="stable"), np.bincount(index, minlength=n)
    starts = np.concatenate([[0], np.cumsum(counts)])

    def means(labels: Any) -> Floats:
        wanted = np.arange(n)[labels]
        rows = np.concatenate([order[starts[k] : starts[k + 1]] for k in wanted])
        mine = np.repeat(np.arange(len(wanted)), counts[wanted])
        return label_means(Made((len(rows), values.shape[1]), lambda some: values[rows[some]]), mine, len(wanted))[0]

    return Made((n, values.shape[1]), means), counts.astype(np.float64)


def gcv_penalty(eigenvalues: Floats, projected: Floats, total: float, *, n: int) -> float:
    """The penalty of least generalised cross-validation over a fixed grid, one for all columns of the target.

    Parameters
    ----------
    eigenvalues : (r,), of the design's scatter; their mean is the grid's unit.
    projected : (r, n_targets), the target in the design's left singular vectors.
    total : the target's sum of squares.
    n : observations, one of which the centring has used up.

    References
    ----------
    Golub, Heath, Wahba (1979), "Generalized cross-validation ...", Technometrics 21, 215-223.
    """
    unit = float(eigenvalues.mean()) if len(eigenvalues) and eigenvalues.mean() > 0 else 1.0
    power = (projected**2).sum(axis=1)
    best, chosen = np.inf, float(GRID[-1] * unit)
    for penalty in GRID[::-1] * unit:
        keep = eigenvalues / (eigenvalues + penalty)
        rss = total - float(((1.0 - (1.0 - keep) ** 2) * power).sum())
        freedom = 1.0 - (keep.sum() + 1.0) / n
        if freedom <= 0:
            continue
        score = max(rss, 0.0) / freedom**2
        if score < best * (1 - 1e-12):
            best, chosen = score, float(penalty)
    return chosen


@dataclass(frozen=True)
class _Decomposition:
    """Centred design and target in singular vectors, by way of the smaller side (kernel form when n < p)."""

    mean_design: Floats
    mean_target: Floats
    squares: Floats  # (r,) squared singular values
    right: Floats  # (p, r)
    projected: Floats  # (r, n_targets)
    total: float  # sum of squares of the centred target

    @classmethod
    def of(cls, design: Values, target: Values, weights: Floats) -> _Decomposition:
        kernel_form = design.shape[0] < design.shape[1]
        whole = len(weights) if kernel_form else PIECE
        pieces = [slice(a, a + whole) for a in range(0, len(weights), whole)]
        mean_design, mean_target = (_weighted_mean(a, weights, pieces) for a in (design, target))
        scatter: Floats | float = 0.0
        cross: Floats | float = 0.0
        total = 0.0
        for some in pieces:  # of the smaller side: all rows at once when there are fewer of them than columns
            root = np.sqrt(weights[some])[:, None]
            x, y = (design[some] - mean_design) * root, (target[some] - mean_target) * root
            scatter = scatter + (x @ x.T if kernel_form else x.T @ x)
            cross = cross + x.T @ y
            total += float((y**2).sum())
        squares, vectors = np.linalg.eigh(scatter)
        kept = squares > max(float(squares.max(initial=0.0)) * 1e-10, 1e-12)
        squares, vectors = squares[kept], vectors[:, kept]
        right = x.T @ vectors / np.sqrt(squares) if kernel_form else vectors
        projected = (right / np.sqrt(squares)).T @ cross
        return cls(mean_design, mean_target, squares, right=right, projected=projected, total=total)


def _weighted_mean(values: Values, weights: Floats, pieces: list[slice]) -> Floats:
    total: Floats = np.zeros(values.shape[1])
    for some in pieces:
        total += (values[some] * weights[some, None]).sum(axis=0)
    mean: Floats = total / weights.sum()
    return mean


def choose_penalty(design: Values, target: Values) -> float:
    """GCV penalty for rows that are independent observations: here one row per perturbation."""
    n = design.shape[0]
    parts = _Decomposition.of(design, target, np.ones(n))
    return gcv_penalty(parts.squares, parts.projected, parts.total, n=n)


def solve_ridge(design: Values, target: Values, weights: Floats, *, penalty: float) -> tuple[Floats, Floats]:
    """Coefficients (p, n_targets) and intercept (n_targets,).

    Minimises ``sum_i w_i |t_i - b - W' d_i|² + penalty * |W|²``.

    Parameters
    ----------
    design : (n, p).
    target : (n, n_targets).
    weights : (n,). Rows that share a design row may be given as their mean with their count as weight: the solution is
        the same (tested).
    penalty : > 0, in units of the design squared.
    """
    parts = _Decomposition.of(design, target, weights)
    shrunk = np.sqrt(parts.squares) / (parts.squares + penalty)
    coefficients = parts.right @ (shrunk[:, None] * parts.projected)
    return coefficients, parts.mean_target - parts.mean_design @ coefficients


@dataclass
class Ridge(Baseline):
    """Starting point plus ridge on perturbation features, log dose, time and cell line; penalty by GCV.

    ``penalty`` None chooses it by generalised cross-validation over distinct conditions; a number is taken as it is, in
    units of the mean eigenvalue of the design. Unknown features count as average and are marked by a column
    (``on_missing="mask"``).
    """

    name: ClassVar[str] = "ridge"
    needs: ClassVar[Needs] = Needs(
        features=("user", "structure", "genes", "targets"), uses_cell_line=True, predicts="delta"
    )
    penalty: float | None = None
    start: Start = "control"
    on_missing: MissingPolicy = "mask"
    start_: StartingPoint = field(init=False, repr=False)
    encoder_: RowEncoder = field(init=False, repr=False)
    coefficients_: Floats = field(init=False, repr=False)
    intercept_: Floats = field(init=False, repr=False)
    penalty_: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_policy(self.on_missing)
        if self.penalty is not None and self.penalty <= 0:
            raise InputError(f"penalty is {self.penalty}; give a number above 0, or None to choose it by GCV.")

    def _features(self, rows: PredictRows) -> PerturbationFeatures:
        return features_of(rows.side, self.needs.features, self.name)

    def fit(self, rows: FitRows, *, rng: np.random.Generator) -> Ridge:
        known = refuse_missing(self._features(rows), rows, self.on_missing, model=self.name)
        fitted = rows.take(known) if self.on_missing == "drop" else rows
        self.start_ = StartingPoint.fit(fitted, self.start)
        self.encoder_ = RowEncoder.fit(fitted, self._features(fitted))
        first, condition = self.encoder_.conditions(fitted)
        design = Made(
            (len(first), self.encoder_.n_columns),
            lambda some: self.encoder_.encode_table(fitted.obs.iloc[first[some]], fitted.side),
        )
        means, counts = _means_of_labels(self.start_.residual(fitted), condition, len(first))
        names, who = np.unique(fitted.perturbation[first].astype(str), return_inverse=True)
        self.penalty_ = self.penalty or choose_penalty(
            label_means(design, who, len(names))[0], label_means(means, who, len(names))[0]
        )
        weights = counts / np.bincount(who, weights=counts)[who]
        self.coefficients_, self.intercept_ = solve_ridge(design, means, weights, penalty=self.penalty_)
        return self

    def predict(self, rows: PredictRows) -> Float32:
        refuse_missing(self._features(rows), rows, self.on_missing, model=self.name)
        out = self.start_.predict(rows)
        design, index = self.encoder_.encode_distinct(rows)
        out += (design @ self.coefficients_ + self.intercept_).astype(np.float32)[index]
        return out


@dataclass
class RidgeTreated(Ridge):
    """As ridge, added to the cell line's mean treated profile instead of the control."""

    name: ClassVar[str] = "ridge_treated"
    needs: ClassVar[Needs] = Needs(
        features=("user", "structure", "genes", "targets"), uses_cell_line=True, uses_control=False
    )
    start: Start = "mean_treated"
