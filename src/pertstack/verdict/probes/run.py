"""The probes of one model, on rows it claims not to have seen; and what they accuse a model of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pertstack._base.arrays import Array
from pertstack._base.errors import InputError, unknown_name
from pertstack._base.findings import Finding
from pertstack.predictions.source import BlockSource
from pertstack.verdict.probes.batches import batch_effects
from pertstack.verdict.probes.of_folds import fold_fingerprint
from pertstack.verdict.probes.of_noise import not_applicable, replicate_noise, too_good
from pertstack.verdict.probes.of_test import noise_floor
from pertstack.verdict.probes.rows import Sampled, read_rows


def accused_gravely(findings: Sequence[Finding]) -> dict[str, list[str]]:
    """Model -> what it is accused of with severity error: enough to keep it out of a stack."""
    return accused([f for f in findings if f.severity == "error"])


def accused(findings: Sequence[Finding]) -> dict[str, list[str]]:
    """Model -> what it is accused of, in words; findings of severity note accuse no model."""
    found: dict[str, list[str]] = {}
    for finding in findings:
        if finding.severity != "note":
            found.setdefault(finding.where, []).append(finding.message)
    return found


def seen_through(
    findings: Sequence[Finding], models: Sequence[str], accepted: Sequence[str], *, mend: str
) -> dict[str, str]:
    """Models to leave out of a stack because a probe shows that they saw the rows they predict: model -> what it shows.

    Parameters
    ----------
    findings : of the probes.
    models : of the stack.
    accepted : models that take part all the same.
    mend : how somebody accepts one, with ``{model}`` in it.

    Raises
    ------
    UnknownNameError, InputError
        An accepted name is no model of the stack, or no probe accuses it; every model is accused.
    """
    grave = accused_gravely(findings)
    for name in accepted:
        if name not in models:
            raise unknown_name("model of the stack", name, models)
        if name not in grave:
            raise InputError(
                f"No probe shows that {name} saw the rows it predicts (shown for: {', '.join(grave) or 'none'}), so "
                f"there is nothing to accept. Leave out {mend.format(model=name)}."
            )
    left_out = {m: " ".join(words) for m, words in grave.items() if m in models and m not in accepted}
    if len(left_out) == len(models):
        why = "".join(f"\n  - {words}" for words in left_out.values())
        raise InputError(
            f"Probes show of every model that it saw the rows it predicts, so nothing is left to stack:{why}\nTake "
            f"predictions that are out of fold, or accept one by name: {mend.format(model=next(iter(left_out)))}."
        )
    return left_out


def probe_model(
    source: BlockSource,
    sampled: Sampled,
    model: str,
    *,
    seed: int,
    claims_folds: bool = True,
    assumed: bool = False,
    floor: bool = False,
) -> list[Finding]:
    """The probes of one model, on the rows and genes it predicted and claims not to have seen.

    Parameters
    ----------
    source : the predictions.
    sampled : the rows and genes to look at, with truth, controls and conditions.
    model : name in the source.
    seed : each probe draws from its own stream of it.
    claims_folds : the model says it was cross-fitted on these folds.
    assumed : rows of one perturbation and cell line are taken for replicates without being declared as such, which
        makes an accusation a warning.
    floor : also against the noise of means of replicates.
    """
    samples, blocks = sampled.samples, source.blocks()
    parts = [source.obs(b).index.isin(samples.index) for b in blocks]
    predicted = read_rows(source, blocks, parts, layer=model, genes=sampled.genes)
    rows = np.concatenate([source.sound(b, model)[p] for b, p in zip(blocks, parts, strict=True)])
    genes = np.isfinite(predicted[rows]).all(axis=0)
    if not rows.any() or not genes.any():
        return []
    here = samples[rows]
    p, y, c = (a[rows][:, genes] for a in (predicted, sampled.treated, sampled.control))
    conditions, batches = sampled.conditions[rows], sampled.batches[rows]
    known = sampled.known(rows, genes, lambda: _knowable(y, c, conditions, batches))
    groups = here["group"].to_numpy().astype(str)

    def draws(probe: int) -> np.random.Generator:
        return np.random.default_rng([seed, probe])

    found = [
        too_good(p - known, y - known, conditions, groups=groups, rng=draws(1), model=model),
        replicate_noise(
            p,
            y,
            c,
            conditions=conditions,
            rng=draws(2),
            batches=batches if sampled.plates_known else None,
            model=model,
            sample_ids=here.index.to_numpy(),
        ),
    ]
    if floor:
        found.append(noise_floor(p - known, y - known, conditions, groups=groups, rng=draws(4), model=model))
    found = [_if_replicates(f) for f in found] if assumed else found
    if not claims_folds:
        return [*found, not_applicable("fold_fingerprint", "the model does not claim to be cross-fitted", model)]
    lines = here["cell_line"].to_numpy()
    return [
        *found,
        fold_fingerprint(p, y, here["fold"].to_numpy(), groups=groups, cell_lines=lines, rng=draws(3), model=model),
    ]


def _if_replicates(finding: Finding) -> Finding:
    if finding.severity == "note":
        return finding
    words = "Rows of one perturbation and cell line were taken for replicates: if they differ in dose or time, say so "
    words += "with condition= (one name per row), or the difference may be an effect."
    return replace(finding, severity="warning", message=f"{finding.message} {words}")


def _knowable(treated: Array, control: Array, conditions: Array, batches: Array) -> Array:
    """What an honest model may know of the noise of a sample: the effect of its batch, and what its control tells.

    Taken from truth and prediction alike it leaves the error as it is, and from the variance between replicates it
    takes the part that can be predicted.
    """
    y, c = np.asarray(treated, dtype=np.float64), np.asarray(control, dtype=np.float64)
    effect = batch_effects(y, conditions, batches)
    y, c = y - effect, c - batch_effects(c, conditions, batches)
    _, code = np.unique(conditions, return_inverse=True)
    size = np.bincount(code)[:, None]
    y_in, c_in = (a - (np.stack([np.bincount(code, w) for w in a.T], axis=1) / size)[code] for a in (y, c))
    spread = float((c_in**2).sum())
    slope = float((y_in * c_in).sum()) / spread if spread > 0 else 0.0
    known: Array = effect + slope * c
    return known
