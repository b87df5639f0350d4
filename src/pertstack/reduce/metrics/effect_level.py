"""Effect-level metrics: a perturbation with all its samples, genes weighed by the measured effect.

Within a cell line, profiles are means over the samples of a perturbation; the effect is tested by its samples against
those of all other perturbations. Each sample gets the value of its perturbation, so that these numbers can be resampled
by group like any other. The formulas are in ``effect_weights.py``.

Against ``others`` truth and prediction lose the mean of the other perturbations' means (leave one out: what peers write
``_pert``; those of the same fold, or the whole test: ``banks``), against ``pooled`` the mean control (``_ctrl``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.arrays import Float64
from pertstack._base.errors import InputError, first_few
from pertstack.design.metric_names import Metric, Reference
from pertstack.predictions.source import BlockSource
from pertstack.reduce.metrics import effect_weights as ew
from pertstack.reduce.metrics.banks import banks
from pertstack.reduce.read_tiles import iter_tiles, ordered_blocks, samples_of
from pertstack.reduce.references import References
from pertstack.reduce.tile import Combine

Flags = np.ndarray[tuple[int, int], np.dtype[np.bool_]]
_BESIDE = 3
"""Arrays of perturbations by genes that are held beside the means of predictions."""
_PIECE = 64  # perturbations that are tested and scored at once: their arrays stay small, however many there are
_MEASURES = {"mse": ew.weighted_mse, "pearson": ew.weighted_pearson, "cod": ew.weighted_cod}
_RECOVERY = {
    "de_direction": ew.direction_of_degs,
    "de_jaccard": ew.jaccard_of_degs,
    "de_auprc": ew.auprc_of_degs,
    "de_lfc_error": ew.lfc_error_of_degs,
}


def effect_level_values(
    source: BlockSource,
    combines: Mapping[str, Combine],
    references: References,
    metrics: Sequence[Metric],
    *,
    memory: int = 10**9,
    pool: ThreadPoolExecutor | None = None,
) -> Float64:
    """Values (n_names, n_metrics, n_samples), cell line by cell line.

    NaN: rows a name did not predict, lines with a single perturbation, perturbations without a significant gene (on
    metrics over significant genes) or measured once (``mse_all_corrected``).

    Parameters
    ----------
    source, combines, references, metrics, memory : as in ``set_level_values``.
    pool : not used: there is nothing to share out.
    """
    del pool  # a few matrix products: nothing to share out
    samples = samples_of(source)
    values = np.full((len(combines), len(metrics), len(samples)), np.nan)
    names = list(combines)
    targets = named_genes(samples["perturbation"], source.gene_names) if any(m.off_target for m in metrics) else {}
    for line, part in samples.groupby("cell_line", sort=True):
        here = (samples["cell_line"] == line).to_numpy()
        drugs = sorted(set(part["perturbation"]))
        step = max(1, memory // 2 // (8 * len(drugs) * len(source.gene_names)) - _BESIDE)
        for a in range(0, len(names), step):
            some = {name: combines[name] for name in names[a : a + step]}
            line_values = _Line(source, references, str(line), drugs=drugs, combines=some, memory=memory).scores(
                metrics, targets
            )
            values[a : a + step, :, here] = line_values
    return values


def named_genes(perturbations: Sequence[str] | pd.Series[str], gene_names: Any) -> dict[str, list[int]]:
    """Positions of the genes that a perturbation names (``A+B`` names two); {} entries for those that name none.

    Raises
    ------
    InputError
        No perturbation names a gene of the data: then there is nothing to leave out.
    """
    at = {str(g): i for i, g in enumerate(gene_names)}
    names = sorted({str(p) for p in perturbations})
    found = {p: [at[g.strip()] for g in p.split("+") if g.strip() in at] for p in names}
    if not any(found.values()):
        raise InputError(
            f"No perturbation names a gene of the data (perturbations such as {first_few(names)}; genes such as "
            f"{first_few(list(at))}), so no target genes can be left out. Leave out metrics that end in _offtarget, "
            "or name genetic perturbations by the genes of var."
        )
    return found


class _Line:
    """Means, variances and counts of the perturbations of one cell line, and means of some predictions."""

    def __init__(
        self,
        source: BlockSource,
        references: References,
        line: str,
        drugs: list[str],
        combines: Mapping[str, Combine],
        memory: int,
    ) -> None:
        self.drugs, self.genes, place = drugs, source.gene_names, {p: i for i, p in enumerate(drugs)}
        shape = (len(drugs), len(source.gene_names))
        self.n = np.zeros(len(drugs))
        first: Float64 | None = None
        total, square, control = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self.predicted_means = np.zeros((len(combines), *shape))
        counts = np.zeros((len(combines), len(drugs)))
        codes, predicted = [], []
        blocks = [b for b in ordered_blocks(source) if b.cell_line == line]
        in_fold = {fold: np.zeros(len(drugs)) for fold in dict.fromkeys(b.fold for b in blocks)}
        for tile, treated in iter_tiles(source, references, memory // 2, blocks=blocks):
            drug = np.array([place[p] for p in tile.obs["perturbation"]], dtype=np.int64)
            first = treated[0].astype(np.float64) if first is None else first  # shifted sums: no digits are lost
            shifted = treated.astype(np.float64) - first
            layers = [np.asarray(c(tile), dtype=np.float32) for c in combines.values()]
            finite = [np.asarray(np.isfinite(layer).all(axis=1)) for layer in layers]
            np.add.at(self.n, drug, 1)
            np.add.at(in_fold[tile.block.fold], drug, 1)
            for i, d in enumerate(drug):
                total[d] += shifted[i]
                square[d] += shifted[i] ** 2
                control[d] += tile.control[i]
                for j, layer in enumerate(layers):
                    if finite[j][i]:
                        self.predicted_means[j, d] += layer[i]
                        counts[j, d] += 1
            codes.append(drug)
            predicted.append(np.stack(finite) if finite else np.zeros((0, len(drug)), dtype=bool))
        assert first is not None
        n = self.n[:, None]
        with np.errstate(invalid="ignore"):
            self.predicted_means /= counts[..., None]
        self.total, self.square, self.first = total, square, first
        self.control, self.pooled = np.divide(control, n, out=control), references.pooled(line)
        self.in_fold = in_fold
        self.centroids = {fold: references.centroid(line, fold) for fold in in_fold}
        self.codes, self.predicted = np.concatenate(codes), np.concatenate(predicted, axis=1)
        self.bank = banks(np.stack(list(in_fold.values()), axis=1))
        self.total_of_all, self.square_of_all = total.sum(axis=0), square.sum(axis=0)
        self.mean_of_bank = {int(b): self._sum_of_means(self.bank == b) for b in np.unique(self.bank)}

    def _sum_of_means(self, here: Any) -> Float64:
        answer = np.zeros(len(self.first))
        for i in np.flatnonzero(here):
            answer += self.first + self.total[i] / self.n[i]
        return answer

    def scores(self, metrics: Sequence[Metric], targets: Mapping[str, list[int]]) -> Float64:
        """(n_names, n_metrics, n rows of the line)."""
        n_names, n_drugs = len(self.predicted_means), len(self.drugs)
        answer = np.full((n_names, len(metrics), len(self.codes)), np.nan)
        if n_drugs < 2:
            return answer
        values = np.full((n_names, len(metrics), n_drugs), np.nan)
        for a in range(0, n_drugs, _PIECE):
            some = slice(a, min(a + _PIECE, n_drugs))
            piece = _Piece(self, some, targets)
            for j, metric in enumerate(metrics):
                values[:, j, some] = piece.values(metric, self.predicted_means[:, some])
        for i, rows in enumerate(self.predicted):
            answer[i][:, rows] = values[i][:, self.codes[rows]]
        return answer


class _Piece:
    """Some perturbations of a cell line: their moments and the test of their effects."""

    def __init__(self, line: _Line, some: slice, targets: Mapping[str, list[int]]) -> None:
        self.line, self.some, self.n = line, some, line.n[some]
        n = self.n[:, None]
        total, square = line.total[some], line.square[some]
        self.mean = line.first + total / n
        self.variance = np.maximum(square - total**2 / n, 0.0) / np.maximum(n - 1, 1)
        self.off: Flags = np.zeros((len(total), len(line.first)), dtype=bool)
        for i, drug in enumerate(line.drugs[some]):
            self.off[i, targets.get(drug, [])] = True

    @cached_property
    def test(self) -> ew.EffectTest:
        """Every perturbation's samples against those of all others."""
        line = self.line
        n = line.n.sum() - self.n
        rest, squares = line.total_of_all - line.total[self.some], line.square_of_all - line.square[self.some]
        mean = rest / n[:, None]
        variance = np.maximum(squares / n[:, None] - mean**2, 0.0) * (n / np.maximum(n - 1, 1))[:, None]
        return ew.welch_test(
            self.mean, self.variance, self.n, other_mean=line.first + mean, other_variance=variance, other_n=n
        )

    def subtracted(self, reference: Reference) -> Float64:
        """(n, n_genes) what truth and prediction lose."""
        line = self.line
        if reference == "others":
            answer: Float64 = np.full(self.mean.shape, np.nan)  # stays so without others in the fold
            for code, total in line.mean_of_bank.items():
                here, size = line.bank[self.some] == code, int((line.bank == code).sum())
                if size > 1:
                    answer[here] = (total - self.mean[here]) / (size - 1)
            return answer
        if reference == "centroid":
            parts = [np.outer(n[self.some], line.centroids[fold]) for fold, n in line.in_fold.items()]
            return np.asarray(sum(parts) / self.n[:, None])
        return np.broadcast_to(line.control[self.some] if reference == "own" else line.pooled, self.mean.shape)

    def values(self, metric: Metric, predictions: Float64) -> Float64:
        """(n_names, n) of predictions (n_names, n, n_genes)."""
        less = self.subtracted(metric.reference)
        known = np.isfinite(less).all(axis=1)
        weights = None if metric.kind in _RECOVERY or metric.corrected else self._weights(metric)
        found = np.full(predictions.shape[:2], np.nan)
        for value, prediction in zip(found, predictions, strict=True):
            some = np.isfinite(prediction).all(axis=1) & known
            t, p = self.mean[some] - less[some], prediction[some] - less[some]
            if metric.kind in _RECOVERY:
                test = self.test
                part = ew.EffectTest(t, test.t[some], test.p[some], test.p_adjusted[some])
                value[some] = _RECOVERY[metric.kind](part, p)
            elif weights is None:
                value[some] = ew.corrected_mse(t, p, self.variance[some], self.n[some])
            else:
                value[some] = _MEASURES[metric.kind](t, p, weights[some])
        return found

    def _weights(self, metric: Metric) -> Float64:
        how = str(metric.weighting)
        n, n_genes = self.mean.shape
        if how.startswith("exp"):
            weights = ew.effect_weights(self.test.t, float(how[3:]))
        elif how == "degs":
            weights = ew.significant(self.test.p_adjusted)
        elif how.startswith("heg"):
            weights = ew.most_expressed(self.line.pooled, int(how[3:]), n)
        elif how == "all":
            weights = np.full((n, n_genes), 1.0 / n_genes)
        else:
            weights = ew.top_by_t(self.test.t, int(how[1:]))
        return ew.without(weights, self.off) if metric.off_target else weights
