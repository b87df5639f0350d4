"""Set-level metrics: does a prediction resemble its own perturbation's truth more than that of the others?

Profiles are means over the rows of a perturbation within a cell line (prediction and truth minus the reference).
Each sample gets the value of its perturbation, so that these numbers can be resampled by group like any other. The
others are those of the same fold, or the whole test (``banks``).

References: perturbation discrimination score of the Virtual Cell Challenge (Roohani et al. 2025), in its mid-rank
form; centroid accuracy of Systema (Vinas Torne et al. 2025).
"""

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
from pertstack.reduce.metrics.line_means import LineMeans, mixtures_of_line, turns
from pertstack.reduce.metrics.nearest import Truths
from pertstack.reduce.read_tiles import ordered_blocks, samples_of
from pertstack.reduce.references import References
from pertstack.reduce.tile import Combine

MOST_PERTURBATIONS = 4000
"""Beyond this many in one cell line, distances to all others take too long (they grow with the square)."""
_ROWS = 64
_DISTANCE = {"pds_l1": "l1", "pds_cosine": "cosine", "centroid_accuracy": "l2"}


def discrimination(truth: Any, prediction: Any, distance: str = "l1") -> Float64:
    """Mid-rank discrimination of each profile among all, (n,).

    For profile i: 1 - (closer + (equal - 1) / 2) / (n - 1), where ``closer`` counts true profiles strictly nearer to
    prediction i than its own truth, and ``equal`` those just as near, itself included. 1 is perfect, 0.5 is chance.

    Parameters
    ----------
    truth, prediction : arrays, shape (n, n_genes)
        Row i of both is the same perturbation. A prediction with NaN answers NaN; n = 1 answers NaN.
    distance : "l1", "l2" or "cosine"
        A zero vector has cosine distance 1 to everything.
    """
    t, p = (np.ascontiguousarray(v, dtype=np.float64) for v in (truth, prediction))
    answer: Float64 = _mid_ranks(Truths(t, [distance]), p, None)[0]
    return answer


def _mid_ranks(truths: Truths, p: Float64, pool: ThreadPoolExecutor | None) -> Float64:
    """Discrimination for each distance, (n_distances, n)."""
    n = len(p)
    answer: Float64 = np.full((len(truths.distances), n), np.nan)
    known = np.flatnonzero(np.isfinite(p).all(axis=1))
    if n < 2 or not len(known):
        return answer

    def ranked(rows: Any) -> None:
        closer, equal = truths.nearer(p[rows], rows)
        answer[:, rows] = 1.0 - (closer + (equal - 1) / 2) / (n - 1)

    pieces = [known[a : a + _ROWS] for a in range(0, len(known), _ROWS)]
    if pool is None:
        for rows in pieces:
            ranked(rows)
    else:
        for done in [pool.submit(ranked, rows) for rows in pieces]:
            done.result()
    return answer


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
                got[i][:, mine] = _mid_ranks(truths, some, pool)[:, mine[bank]]
        return got
    known = np.isfinite(truth).all(axis=1)  # some row has the reference
    banks_of = [known & (means.bank == code) for code in np.unique(means.bank)]
    truths_of = [Truths(truth[mine], kinds) for mine in banks_of]
    for i, name in enumerate(means.names):
        found = means.of(name, reference)
        for mine, truths in zip(banks_of, truths_of, strict=True):
            got[i][:, mine] = _mid_ranks(truths, found[mine][:, genes], pool)
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
