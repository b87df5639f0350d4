"""Weights per group of genes, pulled towards those of all genes: between one answer for all and one for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from pertstack._base.errors import InputError, MissingFileError, first_few, unknown_name
from pertstack._base.files import require_plain
from pertstack.stacking.combiner import Combiner, Family, Need
from pertstack.stacking.combiners.gene_weights.gene_ridge import fit_per_gene_at
from pertstack.stacking.combiners.global_weights.ridge import DEFAULT_STRENGTH, global_ridge
from pertstack.stacking.combiners.learned import linear
from pertstack.stacking.combiners.linear_weights import LinearWeights
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.solvers.ridge_path import STRENGTHS, ridge_path
from pertstack.stacking.sums import Array, Sums, one_gene, stack_sums

By = Literal["variance", "level", "cluster", "gmt"]
Labels = np.ndarray[Any, np.dtype[np.int64]]


def read_gmt(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Gene sets of a GMT file: name, description, genes, separated by tabs, one set a line, in the file's order."""
    path = Path(path)
    require_plain(path, InputError)
    if not path.exists():
        raise MissingFileError(f"{path} does not exist; gene groups by 'gmt' need a GMT file of gene sets.")
    sets: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split("\t")
        if not line.strip():
            continue
        if len(fields) < 3:
            raise InputError(f"{path}, line {number}: a GMT line is name, description and genes, separated by tabs.")
        sets[fields[0]] = tuple(g for g in fields[2:] if g)
    return sets


def by_quantile(values: Array, n_groups: int) -> Labels:
    """Group 0 (lowest) to n_groups - 1 by rank; equal sizes up to one, ties by gene order."""
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return np.asarray(ranks * n_groups // max(len(values), 1), dtype=np.int64)


def by_sets(gene_names: Sequence[str], sets: dict[str, tuple[str, ...]]) -> Labels:
    """The first set that holds the gene; genes in no set form the last group."""
    first: dict[str, int] = {}
    for number, genes in enumerate(sets.values()):
        for gene in genes:
            first.setdefault(gene, number)
    found = np.array([first.get(g, len(sets)) for g in gene_names], dtype=np.int64)
    if (found == len(sets)).all():
        raise InputError(
            f"None of the study's {len(found):,} genes is in the gene sets (study: {first_few(gene_names, 3)}; sets: "
            f"{first_few(first, 3)}). Use gene sets with the same kind of gene names."
        )
    return np.unique(found, return_inverse=True)[1].astype(np.int64)


def by_clusters(sums: Sums, n_groups: int, seed: int) -> Labels:
    """Group of every gene, (n_genes,), by k-means (Lloyd 1982) on shrunken weights: genes on which the same models do
    well stand together.

    Parameters
    ----------
    sums : centred sums of the rows to learn from.
    n_groups : at most this many; fewer if fewer genes differ.
    seed : of the starts of k-means, four of which are tried.
    """
    from sklearn.cluster import KMeans  # here, because importing it takes longer than all the rest

    weights = fit_per_gene_at(sums, DEFAULT_STRENGTH)
    spread = weights.std(axis=0)
    scaled = (weights - weights.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    distinct = len(np.unique(scaled, axis=0))
    found = KMeans(n_clusters=min(n_groups, distinct), n_init=4, random_state=seed).fit_predict(scaled)
    return np.asarray(found, dtype=np.int64)


@dataclass(frozen=True)
class GeneGroups(Combiner):
    """One set of weights per group of genes, pulled to the global ones; strength by leaving folds out.

    ``by``: "variance" (quantiles of the truth's mean square), "level" (quantiles of the pooled control), "cluster"
    (k-means of weights) or "gmt" (a file of gene sets). Groups are formed anew on each training part. Missing models
    fall back to the gene's best available one.
    """

    name: ClassVar[str] = "gene_groups"
    family: ClassVar[Family] = "gene"
    needs: ClassVar[frozenset[Need]] = frozenset({"gene_moments"})
    complexity: ClassVar[int] = 5
    needs_nested: ClassVar[bool] = False
    by: By = "variance"
    n_groups: int = 5
    gmt: str | None = None

    def fit(self, evidence: Evidence) -> LinearWeights:
        if self.n_groups < 1:
            raise InputError(f"n_groups is {self.n_groups}; give at least 1.")
        cautions: tuple[str, ...] = ()
        strength = DEFAULT_STRENGTH
        if evidence.inner_splits:
            error = np.zeros(len(STRENGTHS))
            for learn, held in evidence.inner_splits:
                labels = self.labels(evidence, learn)
                weights, _ = _solve(learn, labels, STRENGTHS)
                grouped = _grouped(held, labels)
                error += grouped.squared_error(weights, np.zeros(weights.shape[:2])).sum(axis=0)
            strength = float(STRENGTHS[len(STRENGTHS) - 1 - int(np.argmin(error[::-1]))])
        else:
            cautions = (f"One fold and one cell line only: penalty strength set to {strength}, not chosen.",)
        labels = self.labels(evidence, evidence.sums)
        weights, centre = _solve(evidence.sums, labels, np.array([strength]))
        spread = np.where((evidence.sums.count > 0)[:, None], weights[labels, 0], centre)
        facts = {"strength": strength, "by": self.by, "sizes": np.bincount(labels).tolist()}
        return linear(self.name, evidence, spread, facts=facts, cautions=cautions)

    def labels(self, evidence: Evidence, sums: Sums) -> Labels:
        """Group of each gene, (n_genes,), from the training part alone."""
        n_groups = min(self.n_groups, sums.n_genes)
        if self.by == "variance":
            return by_quantile(sums.raw_target() / np.maximum(sums.count, 1.0), n_groups)
        if self.by == "level":
            return by_quantile(_levels(evidence), n_groups)
        if self.by == "cluster":
            return by_clusters(sums, n_groups, evidence.seed)
        if self.by == "gmt":
            if self.gmt is None:
                raise InputError("Gene groups by 'gmt' need a file: set gmt to the path of a GMT file.")
            return by_sets(evidence.gene_names, read_gmt(self.gmt))
        raise unknown_name("way to group genes", self.by, ("variance", "level", "cluster", "gmt"))


def _levels(evidence: Evidence) -> Array:
    if evidence.references is None:
        raise InputError(
            "Grouping genes by expression level needs the references (mean controls): hand references= to fit_nested, "
            "or group by 'variance'."
        )
    return np.asarray(np.mean([evidence.references.pooled(line) for line in evidence.cell_lines], axis=0))


def _grouped(sums: Sums, labels: Labels) -> Sums:
    return stack_sums([_one_group(sums, labels == group) for group in range(int(labels.max()) + 1)])


def _one_group(sums: Sums, members: Any) -> Sums:
    complete = members & sums.complete
    return one_gene(sums, complete if complete.any() else members)


def _solve(sums: Sums, labels: Labels, strengths: Array) -> tuple[Array, Array]:
    """Weights (n_groups, n_strengths, M) and the global weights they are pulled to."""
    centre = global_ridge(sums, [], "equal")[0]
    return ridge_path(_grouped(sums, labels), strengths, toward=centre).weights, centre
