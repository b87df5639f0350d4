"""Probes of claims about folds and procedures: fold fingerprints, errors on seen rows, exchanged truths.

Probes that read single measurements are in ``of_noise.py``; detection rates are in docs/probes.md.

Ojala and Garriga (2010) JMLR 11:1833 (permutation tests).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pertstack._base.arrays import Array
from pertstack._base.errors import InputError
from pertstack._base.findings import Finding, Severity
from pertstack._stats.group_sums import GroupSums, resample
from pertstack.verdict.probes.of_noise import ALPHA, not_applicable

UNCLEAR = 0.1
"""A mark with a p-value between ALPHA and this is neither found nor missing."""


def fold_fingerprint(
    predictions: Array,
    truth: Array,
    folds: Array,
    *,
    groups: Array,
    rng: np.random.Generator,
    cell_lines: Array | None = None,
    permutations: int = 400,
    model: str = "",
) -> Finding:
    """Do the predictions carry the mark of the folds they claim?

    A model fitted without a fold has, in its level, the mean of the other folds: where a fold's truth is high, its
    out-of-fold predictions are a little low. The covariance of fold means of truth and prediction is therefore lower at
    the true folds than at folds made by shuffling whole groups. A mark that is seen supports the claim. One that is not
    seen is no accusation: a model fitted on all rows, or on other folds, lacks it, but so does one without a fitted
    level, and in the predictions of honest flexible models it drowns (42 to 80 % of them were accused once).

    Parameters
    ----------
    predictions, truth : (n, n_genes), treated scale.
    folds : (n,), as claimed.
    groups : (n,), each in one fold.
    rng : shuffles the groups.
    cell_lines : (n,), within which means are taken; None for one.
    permutations : how many shuffles.
    model : for the message.

    Raises
    ------
    InputError
        A group has samples in several folds.
    """
    lines = np.zeros(len(folds), dtype=object) if cell_lines is None else np.asarray(cell_lines)
    _, group = np.unique(np.asarray(groups).astype(str), return_inverse=True)
    names, fold = np.unique(np.asarray(folds), return_inverse=True)
    of_group = np.full(int(group.max()) + 1, -1)
    of_group[group] = fold
    if (of_group[group] != fold).any():
        raise InputError(
            "A group has samples in several folds; the mark of the folds is looked for between whole groups."
        )
    if len(names) < 2 or len(of_group) < 4 * len(names):
        return not_applicable(
            "fold_fingerprint", f"{len(of_group)} groups in {len(names)} folds are too few to shuffle", model
        )
    assignments = np.stack([of_group, *(rng.permutation(of_group) for _ in range(permutations))])
    covariance = np.zeros(len(assignments))
    for line in np.unique(lines):
        rows = lines == line
        covariance += _fold_covariance(
            predictions[rows], truth[rows], group[rows], assignments=assignments, n_folds=len(names)
        )
    shuffled = covariance[1:]
    spread = float(shuffled.std())
    if spread <= 1e-9 * float(np.abs(covariance).max()):
        why = "within cell lines, means of truth or prediction do not change when groups are shuffled over folds"
        return not_applicable("fold_fingerprint", why, model)
    z = float((covariance[0] - shuffled.mean()) / spread) if spread > 0 else 0.0
    p = float((1 + (shuffled <= covariance[0]).sum()) / (1 + permutations))
    numbers = {"z": z, "p": p, "groups": len(of_group), "folds": len(names)}
    if p <= UNCLEAR:
        clear = p <= ALPHA
        code = "fold_fingerprint_found" if clear else "fold_fingerprint_unclear"
        message = f"The predictions {'carry' if clear else 'may carry'} the mark of the claimed folds (z = {z:.1f})."
        return Finding("note", code, message, where=model, numbers=numbers)
    message = f"The mark of the claimed folds was not seen (z = {z:.1f}, p = {p:.2f})."
    return Finding("note", "fold_fingerprint_missing", message, where=model, numbers=numbers)


def oof_against_fit(
    oof_error: Array, fit_error: Array, base_error: Array, *, groups: Array, rng: np.random.Generator, model: str = ""
) -> Finding:
    """Is the error on rows claimed as out-of-fold as small as on rows the model was fitted on?

    ``share`` = (oof - fit) / (base - fit): 0 is "as good as on seen rows", 1 is "no better than the baseline". A share
    below 0.1 is a warning, no proof: a model with few parameters and many rows has it by right.

    Parameters
    ----------
    oof_error : (n,), error per sample of the predictions claimed as out-of-fold.
    fit_error : (n,), of the same model on rows it was fitted on.
    base_error : (n,), of a baseline without the perturbation.
    groups : (n,), resampled whole.
    rng : draws the groups.
    model : for the message.
    """
    errors = np.stack([np.asarray(e, dtype=np.float64) for e in (oof_error, fit_error, base_error)])
    if np.array_equal(errors[0], errors[1]):
        return Finding(
            "error",
            "oof_equals_fit",
            f"{model or 'The model'} has exactly the same error on every row claimed as out-of-fold as on the rows it "
            f"was fitted on: these are in-sample predictions.",
            where=model,
            numbers={"share": 0.0, "samples": errors.shape[1]},
        )
    sums = GroupSums.of(errors, groups)
    oof, fit, base = sums.means()
    drawn = resample(sums, 1000, rng).means
    learned = drawn[:, 2] - drawn[:, 1]
    numbers = {"oof": float(oof), "fit": float(fit), "base": float(base), "groups": int(sums.n_groups[0])}
    if np.nanquantile(learned, ALPHA) <= 0:
        return not_applicable(
            "oof_against_fit", "on its own fit rows the model is no better than the baseline", model, numbers=numbers
        )
    share = (drawn[:, 0] - drawn[:, 1]) / np.where(learned > 0, learned, np.nan)
    numbers |= {"share": float((oof - fit) / (base - fit)), "share_hi": float(np.nanquantile(share, 1 - ALPHA))}
    severity: Severity = "warning" if numbers["share_hi"] < 0.1 else "note"
    code = "oof_like_fit" if severity == "warning" else "oof_against_fit_passed"
    return Finding(
        severity,
        code,
        f"{model or 'The model'} loses {numbers['share']:.0%} of what it learned between rows it was fitted on and "
        f"rows claimed as out-of-fold (at most {numbers['share_hi']:.0%})."
        + (" That is rare for a flexible model: ask which rows it was fitted on." if severity == "warning" else ""),
        where=model,
        numbers=numbers,
    )


def permuted_truth(
    gain: Callable[[Array], float], strata: Array, *, rng: np.random.Generator, permutations: int = 20, name: str = ""
) -> Finding:
    """Does a procedure still "gain" when truths are exchanged between samples?

    Parameters
    ----------
    gain : function
        From an order (n,) of rows, to be applied to the truth, to the out-of-fold gain of the whole procedure, learned
        anew on the exchanged truth, over something that cannot know which truth is where: a baseline that never
        sees the perturbation, or the same answers on another exchange.
    strata : array, shape (n,)
        Truths are exchanged within a stratum only (cell line, fold), so that what all samples of it share stays.
    rng
        Draws the exchanges.
    permutations : int
        How many exchanges; under five nothing is said.
    name : str
        Of the procedure, for the message.

    With the link between sample and truth cut, an honest procedure has nothing to gain; one that is scored on rows it
    learned from gains as before.
    """
    strata = np.asarray(strata).astype(str)
    real = float(gain(np.arange(len(strata))))
    cut = np.array([gain(exchange(strata, rng)) for _ in range(permutations)])
    if len(cut) < 5 or not np.isfinite([real, *cut]).all():
        return not_applicable("permuted_truth", "fewer than 5 permutations or an undefined gain", name)
    error = float(cut.std(ddof=1) / np.sqrt(len(cut)))
    z = float(cut.mean() / error) if error > 0 else float(np.sign(cut.mean()) * np.inf if cut.mean() else 0.0)
    numbers = {
        "gain": real,
        "permuted_gain": float(cut.mean()),
        "z": min(z, 1e6),
        "permutations": len(cut),
        "p": float((1 + (cut >= real).sum()) / (1 + len(cut))),
    }
    if z > 3.0:
        return Finding(
            "error",
            "gain_survives_permutation",
            f"{name or 'The procedure'} gains {cut.mean():.4g} over the baseline although every truth belongs to "
            f"another sample (z = {z:.1f}; with the right truths {real:.4g}). It is scored on rows it learned from.",
            where=name,
            numbers=numbers,
        )
    return Finding(
        "note", "permuted_truth_passed", "With exchanged truths the gain is gone.", where=name, numbers=numbers
    )


def exchange(strata: Array, rng: np.random.Generator) -> Array:
    """An order (n,) of rows in which they change places within their stratum only."""
    order = np.arange(len(strata))
    for name in np.unique(strata):
        rows = np.flatnonzero(strata == name)
        order[rows] = rng.permutation(rows)
    return order


def _fold_covariance(predictions: Array, truth: Array, group: Array, *, assignments: Array, n_folds: int) -> Array:
    """(n_assignments,) sum over folds of size x inner product of the fold's mean truth and mean prediction, centred."""
    n_groups = assignments.shape[1]
    size = np.bincount(group, minlength=n_groups).astype(np.float64)
    order = np.argsort(group, kind="stable")
    present = np.flatnonzero(size)
    starts = np.concatenate([[0], np.cumsum(size[present])[:-1]]).astype(np.int64)
    p, y = (
        np.add.reduceat((a - a.mean(axis=0, dtype=np.float64))[order], starts, axis=0) for a in (predictions, truth)
    )
    inner = p @ y.T  # (n_present, n_present): all that is needed, whatever the number of genes
    total = np.zeros(len(assignments))
    for fold in range(n_folds):
        inside = (assignments[:, present] == fold).astype(np.float64)
        count = inside @ size[present]
        together = ((inside @ inner) * inside).sum(axis=1)
        total += np.divide(together, count, out=np.zeros_like(total), where=count > 0)
    return total
