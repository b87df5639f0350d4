"""Views of one set of scores: per cell line, with one cell line left out, scaled between floor and ceiling.

Tables only; who is compared with whom and how an interval is made is decided in ``judge.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.arrays import Array
from pertstack.design.metric_names import direction
from pertstack.verdict.gain.parts import Compare


def nan_mean(values: Array) -> float | None:
    """Mean over the defined values; None when there are none."""
    fine = np.isfinite(values)
    return float(values[fine].mean(dtype=np.float64)) if fine.any() else None


def per_cell_line(names: Sequence[str], values: Array, cell_lines: Array) -> pd.DataFrame:
    """Mean score by cell line and name.

    Parameters
    ----------
    names
        Of the rows of ``values``.
    values : (n_names, n)
        Scores of one metric, NaN where undefined.
    cell_lines : (n,)

    Returns
    -------
    frame with columns cell_line, name, value (None when no sample of the line is valid), n_valid, n
    """
    lines: list[dict[str, Any]] = []
    for line in sorted({str(x) for x in cell_lines}):
        here = cell_lines.astype(str) == line
        for name, row in zip(names, values[:, here], strict=True):
            lines.append(
                {
                    "cell_line": line,
                    "name": name,
                    "value": nan_mean(row),
                    "n_valid": int(np.isfinite(row).sum()),
                    "n": int(here.sum()),
                }
            )
    return pd.DataFrame(lines, columns=["cell_line", "name", "value", "n_valid", "n"])


def leave_cell_line_out(
    first: Array, second: Array, *, cell_lines: Array, groups: Array, compare: Compare
) -> pd.DataFrame:
    """The paired difference with each cell line left out in turn: does the gain hang on one of them?

    Columns left_out, difference, ci_lo, ci_hi, n. Empty when there are fewer than two cell lines.

    Parameters
    ----------
    first, second : (n,) scores per sample, NaN where undefined.
    cell_lines, groups : (n,) names.
    compare : (first, second, groups) -> paired difference with its interval.
    """
    known = sorted({str(x) for x in cell_lines})
    lines: list[dict[str, Any]] = []
    for line in known if len(known) > 1 else []:
        kept = cell_lines.astype(str) != line
        d = compare(first[kept], second[kept], groups[kept])
        lo, hi = d.ci or (None, None)
        lines.append({"left_out": line, "difference": d.value, "ci_lo": lo, "ci_hi": hi, "n": d.n})
    return pd.DataFrame(lines, columns=["left_out", "difference", "ci_lo", "ci_hi", "n"])


def scaled_scores(
    names: Sequence[str], values: Array, metric: str, *, no_drug: Sequence[str], replicate: str | None
) -> tuple[pd.DataFrame, str]:
    """s = (u - b) / (r - b): the share of the way from the best no-drug baseline b to the replicate predictor r.

    All three means are taken over the samples where the replicate predictor is defined, because replicates often exist
    for some samples only. Returns the table (name, value, floor, ceiling, scaled) and, when it is empty, the reason in
    words.

    Parameters
    ----------
    names : of the rows.
    values : (n_names, n) scores per sample, NaN where undefined.
    metric : says which way is better.
    no_drug : names of baselines that never see the perturbation; those not scored are passed over.
    replicate : name of the replicate predictor; None if there are no replicates.
    """
    empty = pd.DataFrame(columns=["name", "value", "floor", "ceiling", "scaled"])
    where = {name: i for i, name in enumerate(names)}
    floors = [n for n in no_drug if n in where]
    if replicate is None or replicate not in where:
        return (
            empty,
            "No replicates of the same perturbation, dose, time and cell line, so there is no ceiling to scale to.",
        )
    if not floors:
        return empty, "No baseline that never sees the perturbation was scored, so there is no floor to scale from."
    sign = direction(metric)
    here = np.isfinite(values[where[replicate]])
    means = {name: nan_mean(values[i, here]) for name, i in where.items()}
    known = [means[n] for n in floors if means[n] is not None]
    ceiling = means[replicate]
    if ceiling is None or not known:
        return empty, "The floor or the ceiling is undefined on every sample."
    floor = sign * max(sign * float(b) for b in known if b is not None)
    if sign * (ceiling - floor) <= 0:
        return empty, (
            f"The best baseline that never sees the perturbation ({floor:.3f}) reaches the replicate predictor "
            f"({ceiling:.3f}): the replicates are too few or too noisy to serve as a ceiling on this metric."
        )
    lines = [
        {"name": n, "value": u, "floor": floor, "ceiling": ceiling, "scaled": (u - floor) / (ceiling - floor)}
        for n, u in means.items()
        if u is not None
    ]
    return pd.DataFrame(lines, columns=list(empty.columns)), ""
