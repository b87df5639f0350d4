"""Metrics: names, formulas, loops. Exact definitions and edge cases: ``docs/metrics.md``."""

from __future__ import annotations

from pertstack.design.metric_names import (
    DEFAULT_PANEL,
    FULL_PANEL,
    SET_LEVEL,
    Metric,
    metric_names,
    parse_metric,
    parse_metrics,
)
from pertstack.reduce.metrics.definitions import SMALLEST_STD, from_sums
from pertstack.reduce.metrics.rows import TruthRows, score_rows

__all__ = [
    "DEFAULT_PANEL",
    "FULL_PANEL",
    "SET_LEVEL",
    "SMALLEST_STD",
    "Metric",
    "TruthRows",
    "from_sums",
    "metric_names",
    "parse_metric",
    "parse_metrics",
    "score_rows",
]
