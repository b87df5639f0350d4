"""What a gain is made of: how much of it survives when the shared control or the easy samples are taken away.

A sample's own control sits on both sides of the canonical metric, so a combiner can gain there by predicting control
noise. The same paired difference is therefore taken on every reference, on RMSE and on strata, and read into one plain
sentence, in ``in_words.py``. How an interval is made is handled by ``intervals.py``: a ``Compare`` is handed
in.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from pertstack._base.arrays import Array
from pertstack._stats.estimate import Difference
from pertstack.design.metric_names import direction, find_metric, split_metric
from pertstack.verdict.gain.in_words import headline, read
from pertstack.verdict.gain.parts import Compare, Decomposition, Part


def decompose(
    name: str,
    best_single: str,
    scores: Mapping[str, tuple[Array, Array]],
    *,
    primary: str,
    groups: Array,
    compare: Compare,
    strata: Mapping[str, Sequence[str | None]] | None = None,
    primary_difference: Difference | None = None,
    no_vote: Collection[str] = (),
) -> Decomposition:
    """Take the gain of ``name`` over ``best_single`` apart.

    Parameters
    ----------
    name, best_single : str
        What is judged, and against what; for words.
    scores : mapping of metric to (scores of name, scores of best_single), each (n,) with NaN where undefined
        Looked through for the primary metric under own / pooled / centroid, ``pearson_all@centroid`` and RMSE.
    primary : str
        The deciding metric, such as ``r2_top20@pooled``; must be among ``scores``.
    groups : (n,)
        Group (usually perturbation) of every sample; whole groups are resampled by ``compare``.
    compare : function
        (first, second, groups) -> paired difference with its interval.
    strata : mapping of view to a level per sample, or None per sample where it does not apply
        Such as effect quartiles, cell lines, seen / unseen perturbations; compared on the primary metric.
    primary_difference : Difference, optional
        Used for the primary metric as a whole in place of ``compare``: there the interval holds against every base
        model that may be the best, which a pair of rows cannot say.
    no_vote : collection of str
        Metrics that show neither a gain nor a loss (``reduce.scoring.calibration.without_vote``).

    Limit cases: a combiner that is the best single model, or scores the same everywhere, reads ``none``; a stratum with
    no sample valid for both has a difference of None; if the samples of a cell line share one control, own and
    pooled are one view and the sentence says so.
    """
    parts = []
    for view, metric in panel_metrics(scores, primary).items():
        if view == "plate" and not np.isfinite(scores[metric][0] - scores[metric][1]).any():
            continue  # no plate held enough perturbations
        given = primary_difference if metric == primary else None
        difference = compare(*scores[metric], groups) if given is None else given
        parts.append(
            Part(
                view,
                "",
                metric,
                difference=difference,
                better=direction(metric),
                hollow=_hollow(metric, scores[metric][0]),
                votes=metric not in no_vote,
            )
        )
    first, second = scores[primary]
    for view, levels in (strata or {}).items():
        labels = np.asarray(levels, dtype=object)
        for level in _ordered(x for x in labels if x is not None):
            here = labels == level
            difference = compare(first[here], second[here], groups[here])
            parts.append(Part(view, level, primary, difference=difference, better=direction(primary)))
    whole = Decomposition(
        name,
        best_single,
        primary,
        parts=tuple(parts),
        reading="none",
        headline="",
        one_control=_one_control(scores, primary),
    )
    if name == best_single:
        return replace(whole, headline=f"{name} is the best single model itself: there is no combination to judge.")
    if all(np.array_equal(*pair, equal_nan=True) and np.isfinite(pair[0]).any() for pair in scores.values()):
        return replace(whole, headline=f"{name} scores as {best_single} on every sample: it is that model alone.")
    reading = read(whole)
    return replace(whole, reading=reading, headline=headline(whole, reading))


def _hollow(metric: str, values: Array) -> bool:
    """Whether a signed correlation agrees with the truth no better than chance would: its mean is not above 0."""
    defined = values[~np.isnan(values)]
    return metric.startswith("pearson") and len(defined) > 0 and float(defined.mean()) <= 0


def _one_control(scores: Mapping[str, tuple[Array, Array]], primary: str) -> bool:
    """Whether own and pooled control give the same scores: one control per cell line, such as its mean vehicle well."""
    stem = split_metric(primary)[0]
    found = [find_metric(scores, f"{stem}@{reference}") for reference in ("own", "pooled")]
    if None in found:
        return False
    own, pooled = (scores[m] for m in found if m is not None)
    return all(np.allclose(a, b, rtol=0, atol=1e-5, equal_nan=True) for a, b in zip(own, pooled, strict=True))


def panel_metrics(known: Iterable[str], primary: str) -> dict[str, str]:
    """The metric of each view: own, pooled, matched, plate, centroid, rmse. Views not computed are left out."""
    listed, (metric, reference) = list(known), split_metric(primary)
    wanted = {
        "own": [f"{metric}@own"],
        "pooled": [f"{metric}@pooled"],
        "matched": [f"{metric}@matched"],
        "plate": ["pearson_all@plate"],
        "centroid": ["pearson_all@centroid", f"{metric}@centroid"],
        "rmse": ["rmse_all", "rmse_all@pooled", "rmse_top20"],
    }
    if reference not in wanted:
        wanted = {reference: [primary], **wanted}
    found = {view: [m for w in names if (m := find_metric(listed, w))] for view, names in wanted.items()}
    return {view: names[0] for view, names in found.items() if names}


def _ordered(levels: Iterable[str]) -> list[str]:
    return sorted({str(x) for x in levels if not (isinstance(x, float) and math.isnan(x))})


def effect_quartiles(effect_size: Array) -> list[str | None]:
    """Q1 (weakest) to Q4 (strongest) by effect size (n,); None if it is NaN or fewer than 8 samples are known.

    Cut at the quartiles of the known values; equal values stay together.
    """
    known = np.isfinite(effect_size)
    if known.sum() < 8:
        return [None] * len(effect_size)
    cuts = np.quantile(effect_size[known], [0.25, 0.5, 0.75])
    which = np.searchsorted(cuts, effect_size, side="left")
    return [f"Q{w + 1}" if k else None for w, k in zip(which, known, strict=True)]
