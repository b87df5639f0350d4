"""Greedy selection on the metric itself: models are added one at a time by the mean R2 Top-k of what is then there.

Everything is read off the quadratic forms of the top-gene slices, so a round costs the same for any number of genes
and no prediction is read. Greedy selection on squared error is in ``stacking/combiners/global_weights/greedy.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pertstack._base.errors import InputError
from pertstack.design.metric_names import parse_metric
from pertstack.stacking.combiner import Combiner, Family, Need
from pertstack.stacking.combiners.learned import linear
from pertstack.stacking.combiners.linear_weights import LinearWeights
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.solvers.top_gene import TopGeneSums, top_gene_sums, usable_models
from pertstack.stacking.sums import Array, Mask

Counts = np.ndarray[tuple[int], np.dtype[np.int64]]
_LEAST_GAIN = 1e-12


def greedy_r2_counts(sums: TopGeneSums, rounds: int, *, start: int = 1, models: Mask | None = None) -> Counts:
    """How often each model is taken, (M,) integers, by greedy ascent of the mean of r |r| over samples.

    Sorted start: models are put in the order of their own value, and of the first ``start`` prefixes the one whose
    mean scores highest is taken. Then each round adds, with replacement, the model with which the mean scores highest.
    The best state met is returned, the earliest among equals; ties between models go to the first. Caruana et al.
    (2004, ICML; 2006, ICDM), methods F9.

    With counts c the sums ``b'c`` and ``c'Ac`` of every sample grow by a column each, so a round is O(n M).

    Parameters
    ----------
    sums : quadratic forms of n samples.
    rounds : models taken in all, at least 1.
    start : longest prefix looked at, 1 for the best single model.
    models : bool array, shape (M,); those that may be taken (default: all).
    """
    n_models = sums.b.shape[1]
    allowed = np.ones(n_models, dtype=bool) if models is None else models
    own = np.einsum("nmm->nm", sums.a)
    single = np.where(allowed, sums.mean_of(sums.b, own), -np.inf)
    order = [int(m) for m in np.argsort(-single, kind="stable") if allowed[m]]
    counts = np.zeros(n_models, dtype=np.int64)
    best, most = counts.copy(), float("-inf")
    for size in range(1, min(start, rounds, len(order)) + 1):
        counts[order[size - 1]] += 1
        value = sums.value(counts.astype(np.float64))
        if value > most + _LEAST_GAIN:
            best, most = counts.copy(), value
    counts = best.copy()
    weights = counts.astype(np.float64)
    top, cross = sums.b @ weights, sums.a @ weights  # (n,), (n, M)
    form = cross @ weights
    for _ in range(int(counts.sum()), rounds):
        values = sums.mean_of(top[:, None] + sums.b, form[:, None] + 2 * cross + own)
        model = int(np.argmax(np.where(allowed, values, -np.inf)))
        form = form + 2 * cross[:, model] + own[:, model]
        top, cross = top + sums.b[:, model], cross + sums.a[:, :, model]
        counts[model] += 1
        if values[model] > most + _LEAST_GAIN:
            best, most = counts.copy(), float(values[model])
    return np.asarray(best)


def bagged_greedy_r2(
    sums: TopGeneSums, rounds: int, *, start: int, usable: Mask, bags: int, share: float, rng: np.random.Generator
) -> Array:
    """Weights of sum one, (M,); with several bags their mean, each bag greedy over a random share of the usable models.

    Parameters
    ----------
    sums : quadratic forms of R2 Top-k of the samples to learn from.
    rounds : how many models are added, with replacement.
    start : column of the model that every bag starts from.
    usable : (M,), False for models that may not be added.
    bags : 1 takes all usable models and draws nothing.
    share : of the usable models in a bag, in (0, 1]; at least one.
    rng : draws the bags.
    """
    if bags == 1:
        counts = greedy_r2_counts(sums, rounds, start=start, models=usable)
        return np.asarray(counts / counts.sum())
    there = np.flatnonzero(usable)
    size = max(1, round(share * there.size))
    total = np.zeros(usable.size)
    for _ in range(bags):
        chosen = np.zeros_like(usable)
        chosen[rng.choice(there, size=size, replace=False)] = True
        counts = greedy_r2_counts(sums, rounds, start=start, models=chosen)
        total += counts / counts.sum()
    return np.asarray(total / bags)


@dataclass(frozen=True)
class GreedyR2(Combiner):
    """Greedy selection on mean R2 Top-k against the evidence's reference; non-negative weights of sum one.

    Learned from samples that every usable model predicts (usable: at least half of the samples' top genes); if
    models are missing, the weights of the others are renormalised.
    """

    name: ClassVar[str] = "greedy_r2"
    family: ClassVar[Family] = "global"
    needs: ClassVar[frozenset[Need]] = frozenset({"slices"})
    complexity: ClassVar[int] = 3
    k: int | None = None  # top genes; default that of the primary metric, else 20
    rounds: int = 50
    start: int = 5
    bags: int = 1
    share: float = 0.5

    def fit(self, evidence: Evidence) -> LinearWeights:
        if min(self.rounds, self.start, self.bags) < 1 or not 0 < self.share <= 1:
            raise InputError(
                f"rounds is {self.rounds}, start {self.start}, bags {self.bags}, share {self.share}; greedy selection "
                f"needs at least one of each, and a share of the models above 0 and up to 1."
            )
        k = min(self.k or parse_metric(evidence.primary).top or 20, len(evidence.gene_names))
        slices = evidence.reduction.slices[evidence.reference]
        usable = usable_models(slices, k)
        usable = usable if usable.any() else np.ones_like(usable)
        sums = top_gene_sums(slices, evidence.reference, k)
        weights = bagged_greedy_r2(
            sums,
            self.rounds,
            start=self.start,
            usable=usable,
            bags=self.bags,
            share=self.share,
            rng=np.random.default_rng(evidence.seed),
        )
        left_out = [m for m, good in zip(evidence.models, usable, strict=True) if not good]
        cautions = (
            (f"{', '.join(left_out)} predict the top genes of less than half of the samples and get no weight.",)
            if left_out
            else ()
        )
        facts = {
            "value_in_sample": sums.value(weights),
            "k": k,
            "rounds": self.rounds,
            "start": self.start,
            "bags": self.bags,
            "samples": sums.n,
        }
        return linear(self.name, evidence, weights, facts=facts, cautions=cautions)
