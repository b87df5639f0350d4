"""Values of set-level metrics: mean profiles of every name, by cell line, told apart by ``metrics/set_level.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.arrays import Float64
from pertstack._base.digests import keyed_hash64
from pertstack.design.metric_names import Metric, Reference
from pertstack.predictions.source import BlockSource
from pertstack.reduce.metrics.effect_level import named_genes
from pertstack.reduce.metrics.nearest import Truths
from pertstack.reduce.metrics.set_level import mid_ranks
from pertstack.reduce.read_tiles import ordered_blocks, samples_of
from pertstack.reduce.references import References
from pertstack.reduce.scoring.line_means import LineMeans, mixtures_of_line, turns
from pertstack.reduce.tile import Combine

MOST_PERTURBATIONS = 4000
"""Beyond this many in one cell line, distances to all others take too long (they grow with the square)."""
_DISTANCE = {"pds_l1": "l1", "pds_cosine": "cosine", "centroid_accuracy": "l2"}


def set_level_values(
    source: BlockSource,
    combines: Mapping[str, Combine],
    references: References,
    metrics: Sequence[Metric],
    *,
    memory: int = 10**9,
    most: int = MOST_PERTURBATIONS,
    pool: ThreadPoolExecutor | None = None,
) -> Float64:
    """Values (n_names, n_metrics, n_samples) of set-level metrics, cell line by cell line.

    NaN: samples of perturbations that do not take part, rows a name did not predict, cell lines with a single
    perturbation.

    Parameters
    ----------
    source : rows with their truth.
    combines : name -> from a tile to one prediction.
    references : of the development rows.
    metrics : set-level ones.
    memory : bytes. Where the mean profiles of all names at once would not fit into half of it, rows are read again for
        the next reference, and the next names.
    most : perturbations per cell line that take part, chosen by a hash of their names (the same in every run).
    pool : threads that share the work; None for none.
    """
    samples = samples_of(source)
    place = _chosen(samples, most)
    values = np.full((len(combines), len(metrics), len(samples)), np.nan)
    names = list(combines)
    used: list[Reference] = sorted({m.reference for m in metrics})
    genes: dict[bool, Any] = {False: slice(None)}
    if any(m.off_target for m in metrics):
        named = named_genes(samples["perturbation"], source.gene_names)
        genes[True] = np.setdiff1d(np.arange(len(source.gene_names)), [g for some in named.values() for g in some])
    for line, where in place.items():
        here = np.flatnonzero((samples["cell_line"] == line).to_numpy())
        blocks = [b for b in ordered_blocks(source) if b.cell_line == line]
        mixing = mixtures_of_line(source, references, blocks, combines)
        each = 8 * len(where) * len(source.gene_names)
        for some_used, some in turns(used, names, mixing, n_models=len(source.models), room=memory // 2 // each):
            means = LineMeans(
                source,
                references,
                blocks,
                where=where,
                combines={name: combines[name] for name in some},
                mixing=mixing,
                used=some_used,
                memory=memory,
            )
            mine = [j for j, m in enumerate(metrics) if m.reference in some_used]
            found = _scores(means, [metrics[j] for j in mine], genes, pool)
            at = np.array([names.index(name) for name in some])
            values[np.ix_(at, np.array(mine), here)] = found
    return values


def _scores(
    means: LineMeans, metrics: Sequence[Metric], genes: Mapping[bool, Any], pool: ThreadPoolExecutor | None
) -> Float64:
    """(n_names, n_metrics, n rows of the line); ``genes`` are those looked at with target genes and without."""
    answer = np.full((len(means.names), len(metrics), len(means.rows)), np.nan)
    for reference in means.used:
        mine = [j for j, m in enumerate(metrics) if m.reference == reference]
        for off in sorted({metrics[j].off_target for j in mine}):
            some = [j for j in mine if metrics[j].off_target == off]
            got = _ranks(means, reference, [_DISTANCE[metrics[j].kind] for j in some], genes=genes[off], pool=pool)
            for i, predicted in enumerate(means.predicted):
                ok = (means.rows >= 0) & predicted
                answer[i, np.array(some)[:, None], np.flatnonzero(ok)] = got[i][:, means.rows[ok]]
    return answer


def _ranks(
    means: LineMeans, reference: Reference, kinds: Sequence[str], genes: Any, pool: ThreadPoolExecutor | None
) -> Float64:
    """(n_names, n_kinds, n_perturbations) of all predictions against a reference, on the genes chosen."""
    truth = means.truth(reference)[:, genes]
    got = np.full((len(means.names), len(kinds), len(truth)), np.nan)
    if reference == "centroid":
        for mine, bank, centroid in means.centroids():
            truths = Truths(truth[bank] - centroid[genes], kinds)
            for i, name in enumerate(means.names):
                found = means.of(name, reference)[bank][:, genes] - centroid[genes]
                some = np.where(mine[bank][:, None], found, np.nan)
                got[i][:, mine] = mid_ranks(truths, some, pool)[:, mine[bank]]
        return got
    known = np.isfinite(truth).all(axis=1)  # some row has the reference
    banks_of = [known & (means.bank == code) for code in np.unique(means.bank)]
    truths_of = [Truths(truth[mine], kinds) for mine in banks_of]
    for i, name in enumerate(means.names):
        found = means.of(name, reference)
        for mine, truths in zip(banks_of, truths_of, strict=True):
            got[i][:, mine] = mid_ranks(truths, found[mine][:, genes], pool)
    return got


def _chosen(samples: pd.DataFrame, most: int) -> dict[str, dict[str, int]]:
    """Per cell line the perturbations that take part, with their places."""
    place = {}
    for line, part in samples.groupby("cell_line", sort=True):
        names = sorted(set(part["perturbation"]))
        if len(names) > most:
            names = sorted(sorted(names, key=lambda p: (keyed_hash64(str(p), b"set-level"), p))[:most])
        place[str(line)] = {p: i for i, p in enumerate(names)}
    return place
