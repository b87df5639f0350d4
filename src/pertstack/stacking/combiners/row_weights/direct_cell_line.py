"""Top-gene direct per cell line: weights of largest R2 Top-k in each line, pulled to those of all lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pertstack.design.metric_names import parse_metric
from pertstack.stacking.combiner import Combiner, Family, Need
from pertstack.stacking.combiners.global_weights.direct import direct_starts, maximise_top_gene, scale_of
from pertstack.stacking.combiners.learned import linear
from pertstack.stacking.combiners.linear_weights import LinearWeights
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.solvers.top_gene import TopGeneSums, top_gene_sums, usable_models
from pertstack.stacking.sums import Array, Mask, Sums, merge_sums

PULLS = (float("inf"), 1000.0, 300.0, 100.0, 30.0, 0.0)
"""Samples that the weights of all lines count for; infinite: every line uses them."""


@dataclass(frozen=True)
class Ends:
    """Weights of all lines, (M,), and each line's own optimum with its number of samples; sums of |w| are one."""

    common: Array
    own: dict[str, tuple[Array, int]]

    def weights(self, line: str, pull: float) -> Array:
        """``(n own + pull common) / (n + pull)``: the pull counts as that many samples of all lines (methods F6)."""
        if line not in self.own or not np.isfinite(pull):
            return self.common
        own, n = self.own[line]
        return self.common if n + pull == 0 else np.asarray((n * own + pull * self.common) / (n + pull))


def _both_ends(top: TopGeneSums, lines: dict[str, TopGeneSums], squared: Sums, usable: Mask) -> Ends:
    """Optimum of the metric over all samples and in each cell line; the common weights are a start for every line."""
    starts = direct_starts(squared) * usable
    starts = starts[starts.sum(axis=1) > 0]
    common, _ = maximise_top_gene(top, starts, signed=False)
    starts = np.vstack([common, starts])
    return Ends(common, {line: (maximise_top_gene(s, starts, signed=False)[0], s.n) for line, s in lines.items()})


@dataclass(frozen=True)
class DirectCellLine(Combiner):
    """Non-negative weights of largest mean R2 Top-k per cell line, averaged with the weights of all lines.

    How much the common weights count is chosen by leaving folds out; one least-squares scale for all genes is set
    per line. A cell line never seen gets the common weights; missing models fall back to the gene's best available.
    """

    name: ClassVar[str] = "direct_cell_line"
    family: ClassVar[Family] = "condition"
    needs: ClassVar[frozenset[Need]] = frozenset({"gene_moments", "slices"})
    complexity: ClassVar[int] = 6
    default: ClassVar[bool] = False
    k: int | None = None  # top genes; default that of the primary metric, else 20
    pull: float | None = None  # None: chosen by leaving folds out

    def fit(self, evidence: Evidence) -> LinearWeights:
        k = min(self.k or parse_metric(evidence.primary).top or 20, len(evidence.gene_names))
        slices = evidence.reduction.slices[evidence.reference]
        usable = usable_models(slices, k)
        usable = usable if usable.any() else np.ones_like(usable)
        pull = self._pull(evidence, k, usable) if self.pull is None else self.pull
        ends = _both_ends(*_sums(evidence, k, None), evidence.sums, usable)
        by_line = {}
        for line in evidence.line_sums:
            weights = ends.weights(line, pull)
            by_line[line] = (scale_of(evidence.line_sums[line], weights) * weights, np.zeros(()))
        common = scale_of(evidence.sums, ends.common) * ends.common
        facts = {"k": k, "pull": pull if np.isfinite(pull) else None, "common": ends.common.tolist()}
        tried = len(evidence.folds) > 1 and len(evidence.cell_lines) > 1
        cautions = () if tried else ("Too few folds or cell lines to choose: all lines use the common weights.",)
        return linear(self.name, evidence, common, by_cell_line=by_line, facts=facts, cautions=cautions)

    def _pull(self, evidence: Evidence, k: int, usable: Mask) -> float:
        """The pull with the best metric on folds left out, the largest among equals."""
        if len(evidence.folds) < 2 or len(evidence.cell_lines) < 2:
            return PULLS[0]
        fold = evidence.reduction.samples["fold"].to_numpy(dtype=np.int64)
        value = np.zeros(len(PULLS))
        for left in evidence.folds:
            squared = merge_sums([s for (_, j), s in evidence.line_fold_sums.items() if j != left])
            ends = _both_ends(*_sums(evidence, k, fold != left), squared, usable)
            _, held = _sums(evidence, k, fold == left)
            for line, sums in held.items():
                value += [sums.n * sums.value(ends.weights(line, pull)) for pull in PULLS]
        return float(PULLS[int(np.argmax(value))])


def _sums(evidence: Evidence, k: int, rows: Mask | None) -> tuple[TopGeneSums, dict[str, TopGeneSums]]:
    """Top-gene sums of the chosen rows together and of each cell line that has some."""
    slices, lines = evidence.reduction.slices[evidence.reference], evidence.reduction.samples["cell_line"].to_numpy()
    chosen = np.ones(len(lines), dtype=bool) if rows is None else rows
    each = {
        line: sums
        for line in evidence.cell_lines
        if (sums := top_gene_sums(slices, evidence.reference, k, rows=chosen & (lines == line))).n
    }
    return top_gene_sums(slices, evidence.reference, k, rows=chosen), each
