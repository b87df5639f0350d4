"""Per-sample metrics of predictions against the truth of some rows; the choice of top genes and the ranks of the
truth are paid once for all predictions, and one loop serves all of them and all references.
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
from pertstack.reduce.metrics.kernels import (
    MEAN_P,
    MEAN_T,
    N_SIGN,
    N_SUMS,
    S_ABS,
    S_PP,
    S_SQ,
    S_TP,
    S_TT,
    N,
    error_sums,
    sign_counts,
    top_sums,
    truth_sums,
    whole_sums,
)
from pertstack.reduce.metrics.ranks import mean_ranks, spearman_with
from pertstack.reduce.top_kernels import top_genes

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Spread = Callable[[Callable[[int, int], Any]], None]
"""Runs a loop over all rows in pieces [start, stop)."""
ROWS = 16  # rows a thread takes at a time
_FAINT = 1e-5
"""Share of the squares it came from below which a prediction's variance is summed again gene by gene: a difference of
larger sums has lost too many digits. A prediction that says nothing against a reference is constant exactly."""


class TruthRows:
    """Truth of some rows with its references, its top genes found once.

    Parameters
    ----------
    treated : float32, shape (n, n_genes)
    references : reference name -> float32, shape (n, n_genes), or (1, n_genes) if it is one profile for all rows
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
        self.n, self.pool = len(treated), pool
        self.unknown: dict[Reference, Mask] = {}
        for name in [r for r in references if r == "matched"]:  # the others are known for every row
            self.unknown[name] = np.asarray(~np.isfinite(references[name]).all(axis=1))
            references = {**references, name: np.where(self.unknown[name][:, None], np.float32(0), references[name])}
        self.parts = []
        for landmark in sorted({m.landmark for m in self.metrics} | {False}):
            assert not landmark or landmarks is not None
            genes = landmarks if landmark else None
            mine = [m for m in self.metrics if m.landmark == landmark]
            self.parts.append(_Genes(treated, references, mine, genes))
            self._rows(self.parts[-1].prepare)

    def score(self, prediction: Float32) -> tuple[Float64, Mask]:
        """Values (n_metrics, n) and the rows (n,) that were predicted: those without any NaN or inf. NaN elsewhere."""
        values, predicted = self.score_all(np.ascontiguousarray(prediction, dtype=np.float32)[None])
        return values[0], predicted[0]

    def score_all(
        self, given: Float32, made: Float32 | None = None, *, make: Callable[[int, int], Any] | None = None
    ) -> tuple[Float64, Mask]:
        """The same for many names at once: values (names, n_metrics, n) and predicted (names, n).

        Parameters
        ----------
        given, made : float32 (names, n, n_genes); names of ``given`` come first
        make : fills rows [start, stop) of ``made`` just before they are looked at
        """
        made = given[:0] if made is None else made
        values = np.full((len(given) + len(made), len(self.metrics), self.n), np.nan)
        predicted: Mask = np.zeros((len(values), self.n), dtype=bool)
        for part in self.parts:  # all genes first
            mine = [j for j, m in enumerate(self.metrics) if m.landmark == (part.genes is not None)]
            values[:, mine], finite = part.score(part.columns(given), part.columns(made), self._rows, make=make)
            if part.genes is None:
                predicted, make = finite, None
        for j, metric in enumerate(self.metrics):
            if metric.reference in self.unknown:
                values[:, j, self.unknown[metric.reference]] = np.nan
        values.swapaxes(1, 2)[~predicted] = np.nan
        return values, predicted

    def _rows(self, work: Callable[[int, int], Any]) -> None:
        """Run a loop over all rows, in pieces, on the pool if there is one."""
        pieces = list(_pieces(self.n))
        if self.pool is None:
            for a, b in pieces:
                work(a, b)
            return
        for done in [self.pool.submit(work, a, b) for a, b in pieces]:
            done.result()


class _Genes:
    """All genes, or the landmarks alone: the truth's top genes, ranks and sums against every reference."""

    def __init__(
        self, treated: Float32, references: dict[Reference, Float32], metrics: Sequence[Metric], genes: Mask | None
    ) -> None:
        self.metrics, self.genes = tuple(metrics), genes
        self.treated = self.columns(treated)
        used = {m.reference for m in metrics}
        found = {r: self.columns(v) for r, v in references.items() if r in used}
        n, n_genes = self.treated.shape
        self.by_row = {r: v for r, v in found.items() if len(v) == n and n != 1}
        self.shared = {r: v for r, v in found.items() if r not in self.by_row}
        self.references = {**self.by_row, **self.shared}
        rows, profiles = list(self.by_row.values()), list(self.shared.values())
        # one array by row is only seen from another side; several are copied
        self.rows = rows[0][None] if len(rows) == 1 else np.stack(rows) if rows else np.zeros((0, n, n_genes), "f4")
        self.profiles = np.concatenate(profiles) if profiles else np.zeros((0, n_genes), dtype=np.float32)
        self.mean, self.square = np.zeros((2, len(self.references), n))
        self.ks = {r: self._ks([m for m in metrics if m.reference == r]) for r in self.references}
        self.top = {r: np.zeros((n, int(ks[-1])), dtype=np.int32) for r, ks in self.ks.items() if len(ks)}
        ranked = {m.reference for m in metrics if m.kind == "spearman"}
        self.ranks = {r: np.zeros((n, n_genes), dtype=np.float32) for r in self.references if r in ranked}

    def columns(self, values: Float32) -> Float32:
        chosen = values if self.genes is None else values[..., self.genes]
        return np.ascontiguousarray(chosen, dtype=np.float32)

    def _ks(self, metrics: Sequence[Metric]) -> Any:
        """Sizes of the sets of top genes, ascending; top-k with fewer than k genes uses all of them."""
        return np.array(sorted({self._k(m) for m in metrics if m.top is not None}), dtype=np.int64)

    def _k(self, metric: Metric) -> int:
        assert metric.top is not None
        return min(metric.top, int(self.treated.shape[1]))

    def prepare(self, start: int, stop: int) -> None:
        """What depends on the truth alone, for rows [start, stop)."""
        for r, (name, reference) in enumerate(self.references.items()):
            truth_sums(self.treated, reference, start, stop, self.mean[r], self.square[r])
            if name in self.top:
                top_genes(self.treated, reference, start, stop, self.top[name])
            if name in self.ranks:
                mean_ranks(self.treated, reference, start, stop, self.ranks[name])

    def score(
        self, given: Float32, made: Float32, spread: Spread, *, make: Callable[[int, int], Any] | None
    ) -> tuple[Float64, Mask]:
        """Values (names, n_metrics, n) of the part's metrics, and where a prediction is finite (names, n)."""
        n_names, n = len(given) + len(made), len(self.treated)
        errors = np.zeros((n_names, n, 3 + len(self.references)))
        top = {r: np.zeros((n_names, n, len(self.ks[r]), N_SUMS)) for r in self.top}
        spearman = {r: np.zeros((n_names, n)) for r in self.ranks}
        signs = {m.reference: np.zeros((n_names, n)) for m in self.metrics if (m.kind, m.top) == ("sign_acc", None)}
        named = (*given, *made)

        def work(start: int, stop: int) -> None:
            if make is not None:
                make(start, stop)
            error_sums(given, made, self.treated, self.rows, self.profiles, self.mean, start, stop, errors)
            for r, genes in self.top.items():
                here = (given, made, self.treated, self.references[r], genes, self.ks[r])
                top_sums(*here, start, stop, top[r])
            for r, counts in signs.items():
                sign_counts(given, made, self.treated, self.references[r], start, stop, counts)
            for r, ranks in self.ranks.items():
                for c, prediction in enumerate(named):
                    spearman_with(ranks, prediction, self.references[r], start, stop, spearman[r][c])

        spread(work)
        answer = np.full((n_names, len(self.metrics), n), np.nan)
        for at, r in enumerate(self.references):
            mine = [(j, m) for j, m in enumerate(self.metrics) if m.reference == r]
            if any(m.top is None for _, m in mine):
                whole = self._from_errors(named, errors, at, signs.get(r))
            for j, metric in mine:
                sums: Any = whole if metric.top is None else top[r][:, :, list(self.ks[r]).index(self._k(metric))]
                ranks = spearman[r].ravel() if metric.kind == "spearman" else None
                answer[:, j] = from_sums(metric, sums.reshape(-1, N_SUMS), ranks).reshape(n_names, n)
        return answer, np.isfinite(errors[..., 1])

    def _from_errors(self, named: Sequence[Float32], errors: Float64, at: int, signs: Float64 | None) -> Float64:
        """Sums (names, n, 9) over all genes against a reference; N_SIGN if ``signs`` (names, n) are given.

        From the sums of errors wherever a variance keeps its digits, else gene by gene.
        """
        n_genes, truth = self.treated.shape[1], self.square[at]
        mean, raw, cross = errors[..., 0] / n_genes, errors[..., 1], errors[..., 3 + at]
        sums = np.zeros((*raw.shape, N_SUMS))
        sums[..., N], sums[..., S_SQ], sums[..., S_ABS] = n_genes, raw, errors[..., 2]
        if signs is not None:
            sums[..., N_SIGN] = signs
        sums[..., MEAN_T], sums[..., MEAN_P] = self.mean[at], self.mean[at] + mean
        sums[..., S_TT], sums[..., S_TP] = truth, truth + cross
        with np.errstate(invalid="ignore"):  # infinite where a prediction is
            sums[..., S_PP] = truth + 2 * cross + raw - n_genes * mean**2
        reference = list(self.references.values())[at]
        for c, lost in enumerate(sums[..., S_PP] <= _FAINT * (truth + raw)):
            if lost.any():
                rows, found = np.flatnonzero(lost), np.zeros((int(lost.sum()), N_SUMS))
                whole_sums(named[c], self.treated, reference, rows, found)
                sums[c, rows] = found
        return sums


def _pieces(n: int) -> Iterator[tuple[int, int]]:
    """A few rows at a time, so that what is made and sorted of them stays small."""
    return ((a, min(n, a + ROWS)) for a in range(0, n, ROWS))


def score_rows(
    prediction: Any,
    treated: Any,
    references: dict[Reference, Any],
    *,
    metrics: Sequence[Metric],
    landmarks: Mask | None = None,
) -> tuple[Float64, Mask]:
    """Per-sample metrics of one prediction: values (n_metrics, n), predicted (n,). Everything is rounded to float32
    first, the precision of the store.

    Parameters
    ----------
    prediction, treated : (n, n_genes), treated scale.
    references : each reference used -> (n, n_genes) or (n_genes,).
    metrics : per-sample ones.
    landmarks : (n_genes,) mask, for metrics over landmark genes.
    """
    ready: dict[Reference, Float32] = {r: np.atleast_2d(np.asarray(v, dtype=np.float32)) for r, v in references.items()}
    truth = TruthRows(np.asarray(treated, dtype=np.float32), ready, metrics, landmarks)
    return truth.score(np.asarray(prediction, dtype=np.float32))
