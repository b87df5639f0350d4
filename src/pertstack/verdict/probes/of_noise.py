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

from pertstack._base.arrays import Array
from pertstack._base.findings import Finding
from pertstack._stats.intervals import interval
from pertstack.verdict.probes.batches import (
    basis,
    comparable_pairs,
    control_batches,
    controls_tell_plates,
    cyclic_shifts,
    main_directions,
    replicate_pairs,
    replicated_rows,
    unit_rows,
    without_span,
)

ALPHA = 0.01
"""Error rate of a probe: they are many, and an accusation is grave."""
LEAST_EXTREME = 3
"""Fewer extreme pairs are no evidence: on real plates one pair in 235 stood out for models that saw nothing."""
PLATES_TOLD = "controls_tell_plates"
"""Key among the numbers of a finding: no plate is named, and the controls show that there are some."""


def too_good(
    predictions: Array, truth: Array, conditions: Array, *, groups: Array, rng: np.random.Generator, model: str = ""
) -> Finding:
    """Is the error below the noise of replicates, which cannot be predicted?

    Samples of one condition differ by noise alone, so the expected squared error of an honest prediction is at least
    their variance.

    Parameters
    ----------
    predictions, truth : (n, n_genes), treated scale.
    conditions : (n,), the same for the same perturbation, dose, time, cell line and, where known, plate; only those
        with two or more samples are used.
    groups : (n,), resampled whole.
    rng : draws the groups.
    model : for the message.
    """
    rows, code, size = replicated_rows(conditions)
    if len(rows) == 0:
        return not_applicable("too_good", "no condition has two samples", model)
    y, p = np.asarray(truth[rows], dtype=np.float64), np.asarray(predictions[rows], dtype=np.float64)
    mean = np.stack([np.bincount(code, weights=column) for column in y.T], axis=1) / size[:, None]
    noise = ((y - mean[code]) ** 2).mean(axis=1) * (size / (size - 1))[code]  # (n,) expectation: the noise variance
    error = ((y - p) ** 2).mean(axis=1)
    found = interval(error - noise, np.asarray(groups)[rows], rng=rng, level=1 - 2 * ALPHA)
    numbers = {
        "error": float(error.mean()),
        "noise": float(noise.mean()),
        "difference": found.value,
        "hi": known(found.hi),
        "samples": len(rows),
        "groups": found.n_clusters,
    }
    if found.hi < 0:
        return Finding(
            "error",
            "too_good_to_be_true",
            f"{model or 'The model'} predicts single measurements with a mean squared error of {error.mean():.4g}, "
            f"below the {noise.mean():.4g} by which replicates of one condition vary. Noise cannot be predicted, so "
            "it has seen these rows or their replicates. Ask which rows it was fitted on.",
            where=model,
            numbers=numbers,
        )
    return Finding(
        "note", "too_good_passed", "The error is not below the noise of replicates.", where=model, numbers=numbers
    )


def replicate_noise(
    predictions: Array,
    truth: Array,
    control: Array,
    *,
    conditions: Array,
    rng: np.random.Generator,
    batches: Array | None = None,
    model: str = "",
    sample_ids: Array | None = None,
) -> Finding:
    """Does the model know in which direction two replicates differ?

    For pairs of samples of one condition, the difference of predictions is correlated over genes with the difference of
    truths, after taking out what an honest model may know: the effects of batches (plates), and what the difference of
    the controls explains. Both are fitted to the differences within conditions, where the effects of perturbations have
    cancelled: the mean of a plate would hold the mean effect of its perturbations, which honest models predict. Honest
    models then give correlations around 0. Judged against pairs matched at random, on the mean and on the number of
    extreme pairs, so that a few memorised rows show as well.

    Parameters
    ----------
    predictions, truth, control : (n, n_genes), treated scale.
    conditions : (n,), by which replicates are known.
    rng : draws the random matches.
    batches : (n,) plates; None for samples with the same control row, since a control that is the mean of a plate names
        the plate.
    model : for the message.
    sample_ids : (n,), to name the pairs that are told apart; None for none.
    """
    named = batches is not None
    batch = np.asarray(batches).astype(str) if named else control_batches(control)
    first, second, kinds = comparable_pairs(*replicate_pairs(conditions, batch), batch, named=named)
    if len(first) < 5:
        return not_applicable("replicate_noise", f"{len(first)} pairs of replicates, at least 5 are needed", model)
    y, p, c = (np.asarray(a[first], dtype=np.float64) - a[second] for a in (truth, predictions, control))
    known = basis(np.hstack([kinds, main_directions(c)]))
    if len(first) - known.shape[1] < max(5, len(first) // 3):
        why = f"{len(first)} pairs of replicates are on too many plates to tell their noise from the plates' effects"
        return not_applicable("replicate_noise", why, model)
    y, p, c = (a - known @ (known.T @ a) for a in (y, p, c))
    if not named and controls_tell_plates(without_span(y, c), c, known, rng=rng):
        why = (
            "no plate is named, and replicates whose controls differ alike differ alike: an honest model may read such "
            "plates off the control. Name them in the data (column plate)"
        )
        return not_applicable("replicate_noise", why, model, numbers={PLATES_TOLD: True})
    p = without_span(p, c)
    told_apart = np.linalg.norm(p, axis=1) > 1e-5 * (1 + np.linalg.norm(y, axis=1))
    if told_apart.sum() < 5:
        why = "predictions of replicates hardly differ beyond their controls, so they carry no noise of single samples"
        return not_applicable("replicate_noise", why, model)
    y, p = unit_rows(without_span(y, c)[told_apart]), unit_rows(p[told_apart])
    r = np.einsum("ij,ij->i", y, p)
    null = np.concatenate([np.einsum("ij,ij->i", y, np.roll(p, s, axis=0)) for s in cyclic_shifts(len(p), rng)])
    null = np.concatenate([null, -null])
    spread = float(null.std())
    mean_z = float(r.mean() / (spread / np.sqrt(len(r)))) if spread > 0 else 0.0
    limit = float(np.quantile(null, 1 - ALPHA / 2 / len(r))) if len(null) * ALPHA / 2 >= len(r) else 4.5 * spread
    extreme = np.flatnonzero(r > max(limit, 4.0 * spread))
    numbers = {
        "pairs": len(r),
        "mean_correlation": float(r.mean()),
        "z": mean_z,
        "extreme_pairs": len(extreme),
        "null_spread": spread,
    }
    if mean_z > 2.58 or len(extreme) >= LEAST_EXTREME:
        names = np.arange(len(truth)) if sample_ids is None else np.asarray(sample_ids)
        at = np.flatnonzero(told_apart)[extreme]
        examples = tuple(f"{names[first[i]]} / {names[second[i]]}" for i in at[:10])
        return Finding(
            "error",
            "knows_replicate_noise",
            f"{model or 'The model'} predicts in which direction replicates of one condition differ (mean correlation "
            f"{r.mean():.3f}, z = {mean_z:.1f}, {len(extreme)} of {len(r)} pairs beyond "
            f"chance{': ' + '; '.join(examples[:3]) if examples else ''}). Only a model that "
            "saw these rows can predict this. Ask which rows it was fitted on; if replicates are on different plates, "
            "compare within plates first.",
            count=max(1, len(extreme)),
            examples=examples,
            where=model,
            numbers=numbers,
        )
    message = "Differences between replicates are not predicted beyond their controls."
    return Finding("note", "replicate_noise_passed", message, where=model, numbers=numbers)


def known(value: float) -> float | None:
    """A number for JSON: too few groups leave a bound open, which is None."""
    return value if np.isfinite(value) else None


def not_applicable(probe: str, why: str, where: str, *, numbers: dict[str, Any] | None = None) -> Finding:
    """A note that a probe could not be run, which differs from "passed".

    Parameters
    ----------
    probe : its name; the code of the finding begins with it.
    why : in words, without a full stop.
    where : the model.
    numbers : what is known all the same.
    """
    return Finding(
        "note", f"{probe}_not_applicable", f"Could not be tested: {why}.", where=where, numbers=numbers or {}
    )
