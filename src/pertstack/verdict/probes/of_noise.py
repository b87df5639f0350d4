"""Probes: did a model see rows that it claims not to have seen? Arrays in, one finding each, with its numbers.

A claim about fit rows is checked, not believed. ``too_good`` and ``replicate_noise`` need replicates and speak for
themselves; ``fold_fingerprint`` needs the claimed folds; ``oof_against_fit`` needs errors on rows the model was fitted
on; ``permuted_truth`` tests a whole procedure. How often each one notices a leak, and how often it cries wolf, is
measured in docs/probes.md. A probe that cannot run says so with a note that ends in ``_not_applicable``: that is not
"passed". Arrays of profiles are (n, n_genes) in the treated scale.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xxhash

from pertstack._base.arrays import Array
from pertstack._base.findings import Finding
from pertstack._stats.intervals import interval

ALPHA = 0.01
"""Error rate of a probe: they are many, and an accusation is grave."""
LEAST_EXTREME = 3
"""Fewer extreme pairs are no evidence: on real plates one pair in 235 stood out for models that saw nothing."""
LEAST_OF_BATCH = 10
"""Smaller batches have no mean worth taking out."""


def too_good(
    predictions: Array, truth: Array, conditions: Array, groups: Array, *, rng: np.random.Generator, model: str = ""
) -> Finding:
    """Is the error below the noise of replicates, which nobody can predict?

    Samples of one ``condition`` (same perturbation, dose, time, cell line and, where known, plate) differ by noise
    alone, so the expected squared error of an honest prediction is at least their variance. Only conditions with two
    or more samples are used. Groups are resampled whole.
    """
    rows, code, size = _replicated(conditions)
    if len(rows) == 0:
        return not_applicable("too_good", "no condition has two samples", model)
    y, p = np.asarray(truth[rows], dtype=np.float64), np.asarray(predictions[rows], dtype=np.float64)
    mean = np.stack([np.bincount(code, weights=column) for column in y.T], axis=1) / size[:, None]
    noise = ((y - mean[code]) ** 2).mean(axis=1) * (size / (size - 1))[code]  # (n,) expectation: the noise variance
    error = ((y - p) ** 2).mean(axis=1)
    found = interval(error - noise, np.asarray(groups)[rows], rng=rng, level=1 - 2 * ALPHA)
    numbers = {
        "error": float(error.mean()), "noise": float(noise.mean()), "difference": found.value, "hi": found.hi,
        "samples": len(rows), "groups": found.n_clusters,
    }  # fmt: skip
    if found.hi < 0:
        return Finding(
            "error", "too_good_to_be_true",
            f"{model or 'The model'} predicts single measurements with a mean squared error of {error.mean():.4g}, "
            f"below the {noise.mean():.4g} by which replicates of one condition vary. Noise cannot be predicted, so "
            "it has seen these rows or their replicates. Ask which rows it was fitted on.",
            where=model, numbers=numbers,
        )  # fmt: skip
    return Finding(
        "note", "too_good_passed", "The error is not below the noise of replicates.", where=model, numbers=numbers
    )


def replicate_noise(
    predictions: Array,
    truth: Array,
    control: Array,
    conditions: Array,
    *,
    rng: np.random.Generator,
    batches: Array | None = None,
    model: str = "",
    sample_ids: Array | None = None,
) -> Finding:
    """Does the model know in which direction two replicates differ?

    For pairs of samples of one condition, the difference of predictions is correlated over genes with the difference of
    truths, after taking out what an honest model may know: the mean of the batch (plate), and what the difference of
    the controls explains. Honest models give correlations around 0. Judged against pairs matched at random, on the mean
    and on the number of extreme pairs, so that a few memorised rows show as well.

    ``batches`` (n,): plates, where known; by default samples with the same control row are a batch, since a control
    that is the mean of a plate names the plate.
    """
    first, second = _pairs(conditions)
    if len(first) < 5:
        return not_applicable("replicate_noise", f"{len(first)} pairs of replicates, at least 5 are needed", model)
    batch = control_batches(control) if batches is None else np.asarray(batches).astype(str)
    y, p = (less_batch_mean(np.asarray(a, dtype=np.float64), batch) for a in (truth, predictions))
    y, p, c = (a[first] - a[second] for a in (y, p, np.asarray(control, dtype=np.float64)))
    p = _without(p, c)
    told_apart = np.linalg.norm(p, axis=1) > 1e-5 * (1 + np.linalg.norm(y, axis=1))
    if told_apart.sum() < 5:
        why = "predictions of replicates hardly differ beyond their controls, so they carry no noise of single samples"
        return not_applicable("replicate_noise", why, model)
    y, p = _unit(_without(y, c)[told_apart]), _unit(p[told_apart])
    r = np.einsum("ij,ij->i", y, p)
    null = np.concatenate([np.einsum("ij,ij->i", y, np.roll(p, s, axis=0)) for s in _shifts(len(p), rng)])
    null = np.concatenate([null, -null])
    spread = float(null.std())
    mean_z = float(r.mean() / (spread / np.sqrt(len(r)))) if spread > 0 else 0.0
    limit = float(np.quantile(null, 1 - ALPHA / 2 / len(r))) if len(null) * ALPHA / 2 >= len(r) else 4.5 * spread
    extreme = np.flatnonzero(r > max(limit, 4.0 * spread))
    numbers = {
        "pairs": len(r), "mean_correlation": float(r.mean()), "z": mean_z, "extreme_pairs": len(extreme),
        "null_spread": spread,
    }  # fmt: skip
    if mean_z > 2.58 or len(extreme) >= LEAST_EXTREME:
        names = np.arange(len(truth)) if sample_ids is None else np.asarray(sample_ids)
        at = np.flatnonzero(told_apart)[extreme]
        examples = tuple(f"{names[first[i]]} / {names[second[i]]}" for i in at[:10])
        return Finding(
            "error", "knows_replicate_noise",
            f"{model or 'The model'} predicts in which direction replicates of one condition differ (mean correlation "
            f"{r.mean():.3f}, z = {mean_z:.1f}, {len(extreme)} of {len(r)} pairs beyond "
            f"chance{': ' + '; '.join(examples[:3]) if examples else ''}). Nothing but having seen them tells. Ask "
            "which rows it was fitted on; if replicates are on different plates, compare within plates first.",
            max(1, len(extreme)), examples, model, numbers,
        )  # fmt: skip
    message = "Differences between replicates are not predicted beyond their controls."
    return Finding("note", "replicate_noise_passed", message, where=model, numbers=numbers)


def not_applicable(probe: str, why: str, where: str, numbers: dict[str, Any] | None = None) -> Finding:
    return Finding(
        "note", f"{probe}_not_applicable", f"Could not be tested: {why}.", where=where, numbers=numbers or {}
    )


def _replicated(conditions: Array) -> tuple[Array, Array, Array]:
    """Rows of conditions with several samples, their condition code 0.., and the size of each condition."""
    _, code, size = np.unique(np.asarray(conditions).astype(str), return_inverse=True, return_counts=True)
    rows = np.flatnonzero(size[code] > 1)
    _, again, kept = np.unique(code[rows], return_inverse=True, return_counts=True)
    return rows, again, kept


def control_batches(control: Array) -> Array:
    """A name per row, equal where controls are equal."""
    rows = np.ascontiguousarray(control)
    return np.array([xxhash.xxh3_128_hexdigest(row.data) for row in rows])


def less_batch_mean(rows: Array, batch: Array) -> Array:
    """Rows less the mean of their batch; batches under ``LEAST_OF_BATCH`` rows stay as they are."""
    left = rows.copy()
    names, code, size = np.unique(batch, return_inverse=True, return_counts=True)
    for i in range(len(names)):
        if size[i] >= LEAST_OF_BATCH:
            left[code == i] -= rows[code == i].mean(axis=0)
    return left


def _pairs(conditions: Array) -> tuple[Array, Array]:
    """Disjoint pairs of rows of the same condition, in order."""
    _, code = np.unique(np.asarray(conditions).astype(str), return_inverse=True)
    order = np.argsort(code, kind="stable")
    first, second, i = [], [], 0
    while i + 1 < len(order):
        same = code[order[i]] == code[order[i + 1]]
        if same:
            first.append(order[i])
            second.append(order[i + 1])
        i += 2 if same else 1
    return np.array(first, dtype=np.int64), np.array(second, dtype=np.int64)


def _shifts(n: int, rng: np.random.Generator) -> Array:
    return rng.permutation(np.arange(1, n))[:40]


def _without(rows: Array, other: Array) -> Array:
    """Rows less their mean over genes and what the same row of ``other`` explains."""
    rows = rows - rows.mean(axis=1, keepdims=True)
    other = other - other.mean(axis=1, keepdims=True)
    size = (other**2).sum(axis=1)
    slope = np.divide((rows * other).sum(axis=1), size, out=np.zeros_like(size), where=size > 0)
    left: Array = rows - slope[:, None] * other
    return left


def _unit(rows: Array) -> Array:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Array = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return unit
