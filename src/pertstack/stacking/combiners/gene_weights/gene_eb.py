"""Empirical Bayes per gene: weights are drawn around common ones, and how widely is learned from all genes (methods
F6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pertstack.stacking.combiner import Combiner, Family, Need
from pertstack.stacking.combiners.gene_weights.gene_ridge import global_centre
from pertstack.stacking.combiners.learned import linear
from pertstack.stacking.combiners.linear_weights import LinearWeights
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.sums import Array, Sums


@dataclass(frozen=True)
class Posterior:
    """Posterior mean weights (n_genes, M), their common mean (M,), spread (M, M), and rounds used."""

    weights: Array
    centre: Array
    spread: Array
    rounds: int
    converged: bool


def empirical_bayes(sums: Sums, share: float, *, rounds: int = 60, tolerance: float = 1e-5) -> Posterior:
    """EM for ``w_g ~ N(w0, Omega)``, ``t = X w_g + noise``, on centred sums (Lindley and Smith 1972; Efron and Morris
    1975).

    Per gene ``V = (G/s² + Omega^-1)^-1``, ``m = V (b/s² + Omega^-1 w0)``; then w0 = mean m, Omega = mean(V + (m -
    w0)(m - w0)'), s² = (RSS(m) + tr(G V)) / n.

    Parameters
    ----------
    sums : centred sums of the rows to learn from.
    share : float in (0, 1]
        Effective rows per row: replicates of a perturbation count once. Scales G, b and n alike.
    rounds : at most.
    tolerance : relative change of w0 under which the rounds end.
    """
    use = sums.complete & (sums.tt > 0)
    n_models = sums.n_models
    centre = global_centre(sums, shrink=True)
    spread = 0.1 * np.eye(n_models)
    weights = np.tile(centre, (sums.n_genes, 1))
    if not use.any():
        return Posterior(weights, centre, spread, rounds=0, converged=True)
    gram, cross = share * sums.xx[use], share * sums.xt[use]
    target, count = share * sums.tt[use], np.maximum(share * sums.count[use], 1.0)
    noise = target / count
    done, used = False, 0
    mean = weights[use]
    while not done and used < rounds:
        used += 1
        inverse = np.linalg.inv(spread)
        cover = np.linalg.inv(gram / noise[:, None, None] + inverse)
        mean = (cover @ (cross / noise[:, None] + inverse @ centre)[:, :, None])[:, :, 0]
        new_centre = mean.mean(axis=0)
        away = mean - new_centre
        spread = cover.mean(axis=0) + away.T @ away / len(mean) + 1e-10 * np.eye(n_models)
        fitted = (gram @ mean[:, :, None])[:, :, 0]
        rss = target - 2 * (mean * cross).sum(axis=1) + (mean * fitted).sum(axis=1)
        noise = np.maximum((rss + np.einsum("gmn,gnm->g", gram, cover)) / count, 1e-12 * target / count)
        done = bool(np.abs(new_centre - centre).max() < tolerance * max(1.0, float(np.abs(new_centre).max())))
        centre = new_centre
    weights = np.tile(centre, (sums.n_genes, 1))
    weights[use] = mean
    return Posterior(weights, centre, spread, rounds=used, converged=done)


def effective_share(evidence: Evidence) -> float:
    """Distinct (perturbation, cell line) pairs per row: replicates counted once, the cautious end of the design
    effect."""
    samples = evidence.reduction.samples
    pairs = samples[["perturbation", "cell_line"]].drop_duplicates()
    return len(pairs) / max(len(samples), 1)


@dataclass(frozen=True)
class GeneEb(Combiner):
    """Per-gene weights with the pull to common ones learned by empirical Bayes; replicates count once.

    Genes that some model does not predict use the common weights (then the gene's best available model if one is
    missing).
    """

    name: ClassVar[str] = "gene_eb"
    family: ClassVar[Family] = "gene"
    needs: ClassVar[frozenset[Need]] = frozenset({"gene_moments"})
    complexity: ClassVar[int] = 6

    def fit(self, evidence: Evidence) -> LinearWeights:
        sums = evidence.within
        share = effective_share(evidence)
        found = empirical_bayes(sums, share)
        intercept = np.where(sums.complete, sums.mean_t - (found.weights * sums.mean_x).sum(axis=1), 0.0)
        facts = {
            "centre": found.centre.tolist(),
            "spread": np.sqrt(np.diag(found.spread)).tolist(),
            "effective_rows_per_row": share,
            "rounds": found.rounds,
        }
        cautions = () if found.converged else (f"Empirical Bayes had not settled after {found.rounds} rounds.",)
        return linear(self.name, evidence, found.weights, intercept=intercept, facts=facts, cautions=cautions)
