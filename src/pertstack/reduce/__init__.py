"""One pass over the predictions: gene moments, sample moments, top-gene slices, scores, diversity."""

from __future__ import annotations

from pertstack.design.metric_names import REFERENCES, Reference
from pertstack.reduce.diversity import Diversity
from pertstack.reduce.metrics import (
    DEFAULT_PANEL,
    FULL_PANEL,
    Metric,
    metric_names,
    parse_metric,
    parse_metrics,
    score_rows,
)
from pertstack.reduce.read_tiles import iter_tiles, read_tile, samples_of
from pertstack.reduce.references import References
from pertstack.reduce.scoring.mixtures import no_change, single
from pertstack.reduce.scoring.score import NO_CHANGE, score
from pertstack.reduce.scoring.score_table import Score, ScoreTable
from pertstack.reduce.sums.moments import GeneMoments
from pertstack.reduce.sums.one_pass import gene_moments, reduce_blocks
from pertstack.reduce.sums.reduction import Reduction
from pertstack.reduce.sums.sample_moments import SampleMoments
from pertstack.reduce.sums.slices import TopSlices
from pertstack.reduce.tile import Combine, Tile

__all__ = [
    "DEFAULT_PANEL",
    "FULL_PANEL",
    "NO_CHANGE",
    "REFERENCES",
    "Combine",
    "Diversity",
    "GeneMoments",
    "Metric",
    "Reduction",
    "Reference",
    "References",
    "SampleMoments",
    "Score",
    "ScoreTable",
    "Tile",
    "TopSlices",
    "gene_moments",
    "iter_tiles",
    "metric_names",
    "no_change",
    "parse_metric",
    "parse_metrics",
    "read_tile",
    "reduce_blocks",
    "samples_of",
    "score",
    "score_rows",
    "single",
]
