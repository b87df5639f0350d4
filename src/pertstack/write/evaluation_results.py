"""Scores of one model as ``evaluation_results.json``, the form in which cell-eval2 publishes its own (schema 1).

The suite is named pertstack and metrics keep our names: readers of the form can show both, and take neither for the
other's.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.version import __version__
from pertstack.design.metric_labels import metric_label
from pertstack.design.metric_names import parse_metric
from pertstack.reduce.scoring.score_table import ScoreTable

AXIS = "perturbation"
STATISTICS = {
    "count": ("Count", "Number of perturbations, those without a value included.", "sum"),
    "null_count": ("Null count", "Number of perturbations on which the metric is not defined.", "sum"),
    "mean": ("Mean", "Mean over perturbations on which the metric is defined.", "mean"),
    "std": ("Standard deviation", "Sample standard deviation over perturbations; null for fewer than two.", "none"),
    "min": ("Minimum", "Smallest value of a perturbation.", "none"),
    "max": ("Maximum", "Largest value of a perturbation.", "none"),
    "median": ("Median", "Median over perturbations.", "none"),
}


def evaluation_results(table: ScoreTable, model: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The document of one model: a value per metric and perturbation, the mean over its samples.

    A board averages over samples instead, so its numbers differ if perturbations have different numbers of samples.

    Parameters
    ----------
    table : scores.
    model : name in the table.
    settings : plain JSON: how it was scored.
    """
    names = table.samples["perturbation"].astype(str).to_numpy()
    labels = sorted(set(names))
    metrics = {}
    for metric in table.metrics:
        by_name = pd.Series(table.values(model, metric)).groupby(names).mean().reindex(labels)
        metrics[_slug(metric)] = {
            "version": 1,
            "headline": {
                "statistic": "mean",
                "direction": "higher" if parse_metric(metric).higher_is_better else "lower",
            },
            "display_name": metric_label(metric),
            "description": f"{metric_label(metric)}: {metric} of pertstack, see its page of metrics.",
            "facets": {"reference": metric.partition("@")[2]},
            "statistics": _statistics(by_name.to_numpy(dtype=float)),
            "axis": AXIS,
            "values": [_plain(v) for v in by_name],
        }
    declared = {
        n: {"display_name": title, "description": text, "combine": how} for n, (title, text, how) in STATISTICS.items()
    }
    return {
        "schema_version": 1,
        "suite": {
            "name": "pertstack",
            "version": __version__,
            "commit": None,
            "settings": {"model": model, **settings},
        },
        "statistics": declared,
        "axes": {
            AXIS: {"display_name": "Perturbation", "description": "What was done to the cells.", "labels": labels}
        },
        "facets": {
            "reference": {
                "display_name": "Reference",
                "description": "What is subtracted from truth and prediction before they are compared.",
            }
        },
        "metrics": metrics,
    }


def _statistics(values: Any) -> dict[str, float | int | None]:
    there = pd.Series(values[np.isfinite(values)])
    found: dict[str, float | int | None] = {"count": len(values), "null_count": len(values) - len(there)}
    of = {"mean": there.mean(), "std": there.std(), "min": there.min(), "max": there.max(), "median": there.median()}
    return found | {name: _plain(value) for name, value in of.items()}


def _plain(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _slug(metric: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", metric.casefold()).strip("_")
