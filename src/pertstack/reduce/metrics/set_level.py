"""Set-level metrics: does a prediction resemble its own perturbation's truth more than that of the others?

Profiles are means over the rows of a perturbation within a cell line (prediction and truth minus the reference).
Each sample gets the value of its perturbation, so that these numbers can be resampled by group like any other. The
others are those of the same fold, or the whole test (``banks``).

References: perturbation discrimination score of the Virtual Cell Challenge (Roohani et al. 2025), in its mid-rank
form; centroid accuracy of Systema (Vinas Torne et al. 2025).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.arrays import Float64
from pertstack._base.digests import keyed_hash64
from pertstack._base.machine.compiled import kernel
from pertstack.design.metric_names import Metric, Reference
from pertstack.predictions.source import BlockSource
from pertstack.reduce.metrics.banks import banks
from pertstack.reduce.metrics.effect_level import named_genes
from pertstack.reduce.metrics.nearest import Truths
from pertstack.reduce.read_tiles import iter_tiles, ordered_blocks, samples_of
from pertstack.reduce.references import References
from pertstack.reduce.tile import Combine, Tile

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
        the next names.
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
        each = 8 * len(where) * len(used) * len(source.gene_names)
        step = max(1, memory // 2 // each - 4)  # beside them the truth and copies for the distances
        for a in range(0, len(names), step):
            some = {name: combines[name] for name in names[a : a + step]}
            means = _LineMeans(source, references, line, where=where, combines=some, used=used, memory=memory)
            values[a : a + step, :, (samples["cell_line"] == line).to_numpy()] = means.scores(metrics, genes, pool)
    return values


class _LineMeans:
    """Mean profiles of the perturbations of one cell line: the truth and some predictions, against each reference."""

    def __init__(
        self,
        source: BlockSource,
        references: References,
        line: str,
        where: dict[str, int],
        combines: Mapping[str, Combine],
        used: Sequence[Reference],
        memory: int,
    ) -> None:
        blocks = [b for b in ordered_blocks(source) if b.cell_line == line]
        shape = (len(combines) + 1, len(used), len(where), len(source.gene_names))
        self.used, self.means, counts = used, np.zeros(shape), np.zeros(shape[:3])
        in_fold = {fold: np.zeros(len(where)) for fold in dict.fromkeys(b.fold for b in blocks)}  # rows of each
        self.folds = {k: references.centroid(line, k) for k in in_fold} if "centroid" in used else {}
        rows, predicted = [], []
        for tile, treated in iter_tiles(source, references, memory // 2, blocks=blocks):
            drug = np.array([where.get(p, -1) for p in tile.obs["perturbation"]])
            in_fold[tile.block.fold] += np.bincount(drug[drug >= 0], minlength=len(where))
            rows.append(drug)
            layers = [treated, *(np.asarray(c(tile), dtype=np.float32) for c in combines.values())]
            finite = np.empty((len(layers), tile.n), dtype=bool)
            profiles = [np.atleast_2d(_profile(tile, references, r)) for r in used]
            known = [np.broadcast_to(np.isfinite(p).all(axis=1), tile.n) for p in profiles]
            for i, layer in enumerate(layers):
                finite[i] = np.isfinite(layer.sum(axis=1, dtype=np.float64))
                for r, profile in enumerate(profiles):
                    to = np.where(finite[i] & known[r], drug, -1)
                    counts[i, r] += np.bincount(to[to >= 0], minlength=len(where))
                    add_differences(np.ascontiguousarray(layer), profile, to, self.means[i, r])
            predicted.append(finite[1:])
        self.rows, self.predicted = np.concatenate(rows), np.concatenate(predicted, axis=1)
        self.in_fold = np.stack(list(in_fold.values()), axis=1)  # (n_perturbations, n_folds)
        self.bank = banks(self.in_fold)
        with np.errstate(invalid="ignore"):
            self.means /= counts[..., None]

    def scores(self, metrics: Sequence[Metric], genes: Mapping[bool, Any], pool: ThreadPoolExecutor | None) -> Float64:
        """(n_names, n_metrics, n rows of the line); ``genes`` are those looked at with target genes and without."""
        answer = np.full((len(self.means) - 1, len(metrics), len(self.rows)), np.nan)
        for r, reference in enumerate(self.used):
            mine = [j for j, m in enumerate(metrics) if m.reference == reference]
            for off in sorted({metrics[j].off_target for j in mine}):
                some = [j for j in mine if metrics[j].off_target == off]
                got = self._ranks(r, [_DISTANCE[metrics[j].kind] for j in some], genes=genes[off], pool=pool)
                for i, predicted in enumerate(self.predicted):
                    ok = (self.rows >= 0) & predicted
                    answer[i, np.array(some)[:, None], np.flatnonzero(ok)] = got[i][:, self.rows[ok]]
        return answer

    def _ranks(self, r: int, kinds: Sequence[str], genes: Any, pool: ThreadPoolExecutor | None) -> Float64:
        """(n_names, n_kinds, n_perturbations) of all predictions against reference r, on the genes chosen."""
        truth = self.means[0, r][:, genes]
        got = np.full((len(self.means) - 1, len(kinds), len(truth)), np.nan)
        if self.used[r] == "centroid":
            for mine, bank, centroid in self._centroids():
                truths = Truths(truth[bank] - centroid[genes], kinds)
                for i, means in enumerate(self.means[1:, r]):
                    some = np.where(mine[bank][:, None], means[bank][:, genes] - centroid[genes], np.nan)
                    got[i][:, mine] = _mid_ranks(truths, some, pool)[:, mine[bank]]
            return got
        known = np.isfinite(truth).all(axis=1)  # some row has the reference
        for code in np.unique(self.bank):
            mine = known & (self.bank == code)
            truths = Truths(truth[mine], kinds)
            for i, means in enumerate(self.means[1:, r]):
                got[i][:, mine] = _mid_ranks(truths, means[mine][:, genes], pool)
        return got

    def _centroids(self) -> Iterator[tuple[Any, Any, Float64]]:
        """The centroid outside the own folds of some perturbations, which truth and prediction and all that these are
        told apart from lose alike: who they are, who the others are, the profile."""
        share = self.in_fold / self.in_fold.sum(axis=1, keepdims=True)
        kinds_of_share, which = np.unique(share, axis=0, return_inverse=True)
        for turn, weights in enumerate(kinds_of_share):
            mine = which.ravel() == turn
            yield mine, self.bank == self.bank[mine][0], weights @ np.stack(list(self.folds.values()))


@kernel
def add_differences(rows, profile, to, sums):  # type: ignore[no-untyped-def]
    """Rows (n, n_genes) less a profile, (n, n_genes) or (1, n_genes), added to the rows ``to`` of sums; -1 to none."""
    shared = profile.shape[0] == 1
    for i in np.argsort(to, kind="mergesort"):  # a row of sums stays in the cache for all that is added to it
        if to[i] >= 0:
            into, row, less = sums[to[i]], rows[i], profile[0 if shared else i]
            for g in range(rows.shape[1]):
                into[g] += row[g] - less[g]


def _profile(tile: Tile, references: References, reference: Reference) -> Any:
    if reference == "own":
        return tile.control.astype(np.float64)
    if reference == "matched":
        return references.plates.profiles(tile.obs, tile.block.cell_line, tile.control)
    if reference == "centroid":  # subtracted in ``_LineMeans._centred_ranks``: every perturbation has its own
        return np.zeros(len(tile.pooled))
    return tile.pooled


def _chosen(samples: pd.DataFrame, most: int) -> dict[str, dict[str, int]]:
    """Per cell line the perturbations that take part, with their places."""
    place = {}
    for line, part in samples.groupby("cell_line", sort=True):
        names = sorted(set(part["perturbation"]))
        if len(names) > most:
            names = sorted(sorted(names, key=lambda p: (keyed_hash64(str(p), b"set-level"), p))[:most])
        place[str(line)] = {p: i for i, p in enumerate(names)}
    return place
