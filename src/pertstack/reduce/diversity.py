"""Diversity: how differently the base models predict, and how differently they err. Everything comes from moments.

Combining pays only if models err differently; this room says so in numbers. What follows from it (pruning, ties
between near-copies) is handled by ``stack/``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pertstack._base.arrays import Float64
from pertstack._base.errors import InputError
from pertstack.reduce.ambiguity import Ambiguity, EffectiveNumber, ambiguity, effective_number
from pertstack.reduce.sums.moments import GeneMoments
from pertstack.reduce.sums.reduction import Reduction
from pertstack.reduce.sums.sample_moments import SampleMoments

REDUNDANT = 0.95


@dataclass(frozen=True, eq=False)
class Correlations:
    """Correlations between models over samples, pooled over genes after centring each gene, (M, M). NaN for a
    constant model.
    """

    predictions: Float64  # of predicted deltas
    errors: Float64  # of y - delta
    n_rows: int

    def to_json(self) -> dict[str, Any]:
        return {"predictions": _rows(self.predictions), "errors": _rows(self.errors), "n_rows": self.n_rows}


@dataclass(frozen=True)
class SampleFinding:
    """One sample that stands out, with the number by which it does."""

    sample_id: str
    cell_line: str
    perturbation: str
    value: float


@dataclass(frozen=True, eq=False)
class Diversity:
    """What the moments say about how models differ."""

    models: tuple[str, ...]
    overall: Correlations
    per_cell_line: dict[str, Correlations]
    clusters: tuple[tuple[str, ...], ...]  # near-copies: chains of prediction correlations above ``threshold``
    threshold: float
    ambiguity: Ambiguity  # of the plain mean
    effective: EffectiveNumber  # of the plain mean
    disagreement: tuple[SampleFinding, ...]  # rms spread between models over genes, largest first
    shared_failures: tuple[SampleFinding, ...]  # best correlation any model reaches, smallest first
    share_failed: float  # share of samples where no model reaches a correlation above 0 against the pooled control
    n_genes: int  # genes all models predict, on which the numbers are based

    @classmethod
    def of(cls, reduction: Reduction, *, threshold: float = REDUNDANT, n_examples: int = 20) -> Diversity:
        """Diversity of the models of a reduction.

        Only genes that every model predicts take part, and rows that every model predicted. With one model,
        correlations are 1 and nothing disagrees.

        Parameters
        ----------
        reduction : of the rows.
        threshold : correlation of predictions from which models are redundant.
        n_examples : samples that are listed as most disputed, and as failed by all.

        Raises
        ------
        InputError
            There is no gene that all models predict.
        """
        moments = reduction.moments()
        genes = moments.available.all(axis=1) & (moments.count > 0)
        if not genes.any():
            raise InputError(
                "No gene is predicted by all models on common rows, so they cannot be compared with each other."
            )
        overall = correlations(moments, genes)
        lines = sorted({b.cell_line for b in reduction.blocks})
        per_line = {}
        for line in lines:
            part = reduction.select(cell_lines=[line]).moments()
            if part.count.max() >= 2:
                per_line[line] = correlations(part, genes & part.available.all(axis=1))
        weights = np.full(reduction.n_models, 1.0 / reduction.n_models)
        spread, best = _per_sample(reduction.sample)
        known = np.isfinite(best)
        return cls(
            reduction.models,
            overall,
            per_line,
            clusters=_redundancy_clusters(reduction.models, overall.predictions, threshold),
            threshold=threshold,
            ambiguity=ambiguity(moments, weights, genes),
            effective=effective_number(weights, overall.errors),
            disagreement=_extremes(reduction, -spread, spread, n_examples),
            shared_failures=_extremes(reduction, best, best, n_examples),
            share_failed=float((best[known] <= 0).mean()) if known.any() else float("nan"),
            n_genes=int(genes.sum()),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON for ``results/diversity.json``; what is undefined is null."""
        return {
            "format": 1,
            "models": list(self.models),
            "n_genes": self.n_genes,
            "correlation": self.overall.to_json(),
            "correlation_per_cell_line": {line: c.to_json() for line, c in self.per_cell_line.items()},
            "redundancy": {"threshold": self.threshold, "clusters": [list(c) for c in self.clusters]},
            "ambiguity": self.ambiguity.to_json(),
            "effective_number": self.effective.to_json(),
            "highest_disagreement": [vars(s) for s in self.disagreement],
            "shared_failures": [vars(s) for s in self.shared_failures],
            "share_failed_by_all": _number(self.share_failed),
        }


def correlations(moments: GeneMoments, genes: Any) -> Correlations:
    """Correlations of deltas and of errors from gene moments, over the chosen genes.

    Scatter is summed over genes, so a gene counts by its spread, and differences in the mean of a gene count not at
    all.
    """
    scatter = moments.scatter[genes].sum(axis=0)  # (D, D)
    m = moments.n_models
    xx, xy, yy = scatter[:m, :m], scatter[:m, m], scatter[m, m]
    errors = xx - xy[:, None] - xy[None, :] + yy
    return Correlations(_correlation(xx), _correlation(errors), int(moments.count[genes].max(initial=0)))


def _redundancy_clusters(
    models: Sequence[str], correlation: Float64, threshold: float = REDUNDANT
) -> tuple[tuple[str, ...], ...]:
    """Groups of two or more models linked by correlations above the threshold, models in their order.

    >>> _redundancy_clusters(["a", "b", "c"], np.array([[1, 0.2, 0.99], [0.2, 1, 0.1], [0.99, 0.1, 1]]))
    (('a', 'c'),)
    """
    group = list(range(len(models)))
    for i in range(len(models)):
        for j in range(i):
            if correlation[i, j] > threshold and group[i] != group[j]:
                old, new = max(group[i], group[j]), min(group[i], group[j])
                group = [new if g == old else g for g in group]
    members = [tuple(m for m, g in zip(models, group, strict=True) if g == first) for first in sorted(set(group))]
    return tuple(c for c in members if len(c) > 1)


def _correlation(scatter: Float64) -> Float64:
    spread = np.sqrt(np.maximum(np.diag(scatter), 0.0))
    varies = spread > 1e-10 * max(float(spread.max(initial=0.0)), 1e-300)
    scale = spread[:, None] * spread[None, :]
    both = varies[:, None] & varies[None, :]
    r: Float64 = np.clip(np.divide(scatter, scale, out=np.full(scatter.shape, np.nan), where=both), -1.0, 1.0)
    np.fill_diagonal(r, np.where(varies, 1.0, np.nan))
    return r


def _per_sample(sample: SampleMoments) -> tuple[Float64, Float64]:
    """Spread between models (rms over genes), and the best pooled correlation of any model, (n,) each; NaN where a
    model is missing.
    """
    m = sample.n_models
    i, j = np.triu_indices(sample.mean.shape[1])
    raw = sample.triangle + sample.n_genes * sample.mean[:, i] * sample.mean[:, j]
    inside = (i < m) & (j < m)
    own = raw[:, inside & (i == j)].sum(axis=1) / m
    centre = raw[:, inside] @ np.where(i == j, 1.0, 2.0)[inside] / m**2
    spread = np.sqrt(np.maximum(own - centre, 0.0) / sample.n_genes)
    each = np.stack([sample.pearson(w, "pooled") for w in np.eye(m)])
    return spread, each.max(axis=0)


def _extremes(reduction: Reduction, by: Float64, value: Float64, n: int) -> tuple[SampleFinding, ...]:
    """The n samples of smallest ``by`` that are defined, ties in plan order."""
    order = np.argsort(np.where(np.isnan(by), np.inf, by), kind="stable")[:n]
    rows = [r for r in order if np.isfinite(by[r])]
    part = reduction.samples.iloc[rows]
    return tuple(
        SampleFinding(str(s), str(c), str(p), float(value[r]))
        for s, c, p, r in zip(part["sample_id"], part["cell_line"], part["perturbation"], rows, strict=True)
    )


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _rows(matrix: Float64) -> list[list[float | None]]:
    return [[_number(v) for v in row] for row in matrix]
