"""Greedy selection with replacement: models are added one at a time, the same one as often as it helps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pertstack._base.errors import InputError
from pertstack.stacking.combiner import Combiner, Family, Need
from pertstack.stacking.combiners.global_weights.simplex import global_error_gram
from pertstack.stacking.combiners.learned import linear
from pertstack.stacking.combiners.linear_weights import LinearWeights
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.sums import Array


def greedy_counts(error_gram: Array, rounds: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """How often each model is taken, (M,) integers (Caruana et al. 2004, with replacement, from the best model on).

    Each round adds the model with which the mean of all taken so far has the least squared error, read off the error
    gram: with counts c of r models that is ``(c'Ec + 2 (Ec)_m + E_mm) / (r + 1)²``; ties go to the first. The best
    prefix is kept, the shortest among equals.
    """
    n_models = error_gram.shape[0]
    own = np.diag(error_gram)
    counts = np.zeros(n_models, dtype=np.int64)
    cross, form = np.zeros(n_models), 0.0
    best, least = counts.copy(), np.inf
    for taken in range(1, rounds + 1):
        score = (form + 2 * cross + own) / taken**2
        model = int(np.argmin(score))
        form += 2 * cross[model] + own[model]
        cross = cross + error_gram[:, model]
        counts[model] += 1
        if score[model] < least * (1 - 1e-12):
            best, least = counts.copy(), float(score[model])
    return best


def bagged_greedy(error_gram: Array, rounds: int, bags: int, *, share: float, rng: np.random.Generator) -> Array:
    """Mean weights over bags, (M,), each greedy over a random share of the models (Caruana et al. 2006).

    Parameters
    ----------
    error_gram : (M, M) sums of products of errors, delta units squared.
    rounds : how many models are added, with replacement.
    bags : 1 takes all models and draws nothing.
    share : of the models in a bag, in (0, 1]; at least one.
    rng : draws the bags.
    """
    n_models = error_gram.shape[0]
    if bags == 1:
        counts = greedy_counts(error_gram, rounds)
        return np.asarray(counts / counts.sum())
    size = max(1, round(share * n_models))
    total = np.zeros(n_models)
    for _ in range(bags):
        at = np.sort(rng.choice(n_models, size=size, replace=False))
        counts = greedy_counts(error_gram[np.ix_(at, at)], rounds)
        total[at] += counts / counts.sum()
    return np.asarray(total / bags)


@dataclass(frozen=True)
class GreedyMse(Combiner):
    """Greedy selection on squared error over all genes; non-negative weights of sum one, renormalised if models
    lack."""

    name: ClassVar[str] = "greedy_mse"
    family: ClassVar[Family] = "global"
    needs: ClassVar[frozenset[Need]] = frozenset({"gene_moments"})
    complexity: ClassVar[int] = 2
    rounds: int = 50
    bags: int = 1
    share: float = 0.5

    def fit(self, evidence: Evidence) -> LinearWeights:
        if self.rounds < 1 or self.bags < 1 or not 0 < self.share <= 1:
            raise InputError(
                f"rounds is {self.rounds}, bags {self.bags}, share {self.share}; greedy selection needs at least one "
                f"round and one bag, and a share of the models above 0 and up to 1."
            )
        rng = np.random.default_rng(evidence.seed)
        gram = global_error_gram(evidence.sums)
        weights = bagged_greedy(gram, self.rounds, self.bags, share=self.share, rng=rng)
        return linear(self.name, evidence, weights, facts={"rounds": self.rounds, "bags": self.bags})
