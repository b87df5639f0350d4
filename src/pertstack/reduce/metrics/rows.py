"""Per-sample metrics of one prediction against the truth of some rows; the choice of top genes and the ranks of the
truth are paid once for all predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from pertstack._base.arrays import Float64
from pertstack.data.rows import Float32
from pertstack.design.metric_names import Metric, Reference
from pertstack.reduce.metrics.definitions import from_sums
from pertstack.reduce.metrics.kernels import N_SUMS, gene_set_sums, mean_ranks, spearman_of_ranks
from pertstack.reduce.top_kernels import top_genes

Mask = np.ndarray[Any, np.dtype[np.bool_]]
_ROWS = 32  # rows a thread takes at a time


class TruthRows:
    """Truth of some rows with its references, its top genes found once.

    Parameters
    ----------
    treated : float32, shape (n, n_genes)
    references : reference name -> float32, shape (n, n_genes), or (1, n_genes) where it is one profile for all rows
        A row that is not finite has no such reference, and every metric against it is NaN there.
    metrics : per-sample metrics that will be asked for
    landmarks : bool, shape (n_genes,), or None
        Genes that were measured rather than inferred; needed by ``_landmark`` metrics.
    """

    def __init__(
        self,
        treated: Float32,
        references: dict[Reference, Float32],
        metrics: Sequence[Metric],
        landmarks: Mask | None = None,
        pool: ThreadPoolExecutor | None = None,
    ) -> None:
        self.metrics = tuple(metrics)
        self.n, self.pool, self.landmarks = len(treated), pool, landmarks
        self.sets: dict[tuple[Reference, bool], _GeneSets] = {}
        self.unknown: dict[Reference, Mask] = {}
        for name in [r for r in references if r == "matched"]:  # the others are known for every row
            self.unknown[name] = np.asarray(~np.isfinite(references[name]).all(axis=1))
            references = {**references, name: np.where(self.unknown[name][:, None], np.float32(0), references[name])}
        for key in dict.fromkeys((m.reference, m.landmark) for m in self.metrics):
            mine = [m for m in self.metrics if (m.reference, m.landmark) == key]
            truth, reference = self._columns(treated, key[1]), self._columns(references[key[0]], key[1])
            self.sets[key] = _GeneSets(truth, reference, mine)
            self._rows(self.sets[key].prepare)

    def score(self, prediction: Float32) -> tuple[Float64, Mask]:
        """Values (n_metrics, n) and the rows (n,) that were predicted: those without any NaN or inf. NaN elsewhere."""
        predicted: Mask = np.asarray(np.isfinite(prediction).all(axis=1))
        values = np.full((len(self.metrics), self.n), np.nan)
        for key, sets in self.sets.items():
            columns = self._columns(prediction, key[1])
            sums, spearman = sets.sums(columns, self._rows)
            for j, metric in enumerate(self.metrics):
                if (metric.reference, metric.landmark) == key:
                    values[j] = from_sums(metric, sums[:, sets.place(metric)], spearman)
                    if key[0] in self.unknown:
                        values[j, self.unknown[key[0]]] = np.nan
        values[:, ~predicted] = np.nan
        return values, predicted

    def _columns(self, values: Float32, landmark: bool) -> Float32:
        if landmark:
            assert self.landmarks is not None
            values = values[:, self.landmarks]
        return np.ascontiguousarray(values, dtype=np.float32)

    def _rows(self, work: Callable[[int, int], Any]) -> None:
        """Run a loop over all rows, in pieces on the pool where there is one."""
        if self.pool is None or self.n <= _ROWS:
            work(0, self.n)
            return
        for done in [self.pool.submit(work, a, min(self.n, a + _ROWS)) for a in range(0, self.n, _ROWS)]:
            done.result()


class _GeneSets:
    """Top genes, ranks and all genes of one truth against one reference."""

    def __init__(self, treated: Float32, reference: Float32, metrics: Sequence[Metric]) -> None:
        self.treated, self.reference = treated, reference
        n_genes = treated.shape[1]
        self.spearman = any(m.kind == "spearman" for m in metrics)
        self.with_all = any(m.top is None for m in metrics)
        self.ks = np.array(sorted({min(m.top, n_genes) for m in metrics if m.top is not None}), dtype=np.int64)
        self.top = np.zeros((len(treated), int(self.ks[-1]) if len(self.ks) else 0), dtype=np.int32)

        self.ranks = np.zeros((len(treated) if self.spearman else 0, n_genes), dtype=np.float32)

    def prepare(self, start: int, stop: int) -> None:
        """What depends on the truth alone, for rows [start, stop)."""
        if self.top.shape[1]:
            top_genes(self.treated, self.reference, start, stop, self.top)
        if self.spearman:
            for a, b in _pieces(start, stop):
                self.ranks[a:b] = self._ranked(self.treated, a, b)

    def place(self, metric: Metric) -> int:
        """Which gene set a metric uses; top-k with fewer than k genes uses all of them."""
        if metric.top is None:
            return len(self.ks)
        return int(np.searchsorted(self.ks, min(metric.top, self.treated.shape[1])))

    def sums(
        self, prediction: Float32, rows: Callable[[Callable[[int, int], Any]], None]
    ) -> tuple[Float64, Float64 | None]:
        out = np.zeros((len(prediction), len(self.ks) + 1, N_SUMS))
        args = (prediction, self.treated, self.reference)
        rows(lambda a, b: gene_set_sums(*args, self.top, self.ks, self.with_all, a, b, out))
        if not self.spearman:
            return out, None
        rank = np.zeros(len(prediction))
        rows(lambda a, b: self._spearman(prediction, a, b, rank))
        return out, rank

    def _spearman(self, prediction: Float32, start: int, stop: int, out: Float64) -> None:
        for a, b in _pieces(start, stop):
            spearman_of_ranks(self.ranks[a:b], self._ranked(prediction, a, b), out[a:b])

    def _ranked(self, profiles: Float32, start: int, stop: int) -> Float32:
        """Mean ranks of profile - reference, float32 (exact); numpy's sort is several times faster than numba's."""
        reference = self.reference if len(self.reference) == 1 else self.reference[start:stop]
        delta = profiles[start:stop].astype(np.float64) - reference
        ranks = np.empty(delta.shape, dtype=np.float32)
        mean_ranks(delta, np.argsort(delta, axis=1), ranks)
        return ranks


def _pieces(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """A few rows at a time, so that what is sorted stays small."""
    return ((a, min(stop, a + _ROWS)) for a in range(start, stop, _ROWS))


def score_rows(
    prediction: Any,
    treated: Any,
    references: dict[Reference, Any],
    metrics: Sequence[Metric],
    *,
    landmarks: Mask | None = None,
) -> tuple[Float64, Mask]:
    """Per-sample metrics of one prediction (n, n_genes), treated scale: values (n_metrics, n), predicted (n,).

    ``references`` maps each reference used to an array (n, n_genes) or (n_genes,). Everything is rounded to float32
    first, the precision of the store.
    """
    ready: dict[Reference, Float32] = {r: np.atleast_2d(np.asarray(v, dtype=np.float32)) for r, v in references.items()}
    truth = TruthRows(np.asarray(treated, dtype=np.float32), ready, metrics, landmarks)
    return truth.score(np.asarray(prediction, dtype=np.float32))
