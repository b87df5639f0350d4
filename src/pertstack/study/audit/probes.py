"""The probes of a study: after the stack step, every model's claim about its fit rows is checked on out-of-fold rows.

Three probes of ``verdict/`` apply without another fit: the error against the noise of replicates, knowledge of that
noise, and the mark of the claimed folds. They look at a sample of whole groups, so that the cost does not grow with the
study. What they find lies in ``results/probes.json`` and goes to the audit, the report and the model's row on the
board. A probe that passes is no proof of innocence (docs/probes.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pertstack._base.files import read_json, write_json
from pertstack._base.findings import Finding
from pertstack.predictions.source import BlockSource
from pertstack.predictions.sources.store_source import StoreSource
from pertstack.study.audit.probes_refitted import fit_row_probe
from pertstack.study.folder import StudyFolder
from pertstack.verdict.probes.of_folds import fold_fingerprint
from pertstack.verdict.probes.of_noise import less_batch_mean, not_applicable, replicate_noise, too_good
from pertstack.verdict.probes.rows import Sampled, read_rows, sample_rows

Array = np.ndarray[Any, Any]


def probe_study(folder: StudyFolder, source: StoreSource, key: str) -> list[Finding]:
    """Probe every model of a source of development rows; writes ``results/probes.json`` under the key of the stack."""
    seed = folder.analysis_plan.seed
    sampled = sample_rows(source, np.random.default_rng([seed, 5]))
    findings = []
    for model in source.models:
        claims, ours = _claims_folds(source, model), not _was_added(source, model)
        findings += probe_model(source, sampled, model, seed, claims_folds=claims, ours=ours)
        findings.append(fit_row_probe(folder, source, model, seed))
    facts = {"rows": len(sampled.samples), "genes": len(sampled.genes)}
    write_json(
        folder.results / "probes.json",
        {"format": 1, "key": key, **facts, "findings": [f.to_json() for f in findings]},
    )
    return findings


def stored_probes(folder: StudyFolder) -> list[Finding]:
    """What the probes found when the study was last stacked; empty before that."""
    path = folder.results / "probes.json"
    return [Finding.from_json(f) for f in read_json(path)["findings"]] if path.exists() else []


def accused(findings: Sequence[Finding]) -> dict[str, list[str]]:
    """Model -> what it is accused of, in words; findings of severity note accuse nobody."""
    found: dict[str, list[str]] = {}
    for finding in findings:
        if finding.severity != "note":
            found.setdefault(finding.where, []).append(finding.message)
    return found


def probe_model(
    source: BlockSource, sampled: Sampled, model: str, seed: int, *, claims_folds: bool = True, ours: bool = False,
    replicates: bool = True,
) -> list[Finding]:  # fmt: skip
    """The probes of one model, on the rows and genes it predicted and claims not to have seen.

    ``claims_folds``: it says it was cross-fitted on these folds; ``ours``: our own jobs withheld them;
    ``replicates``: conditions are known well enough to call their rows replicates.
    """
    samples, blocks = sampled.samples, source.blocks()
    parts = [source.obs(b).index.isin(samples.index) for b in blocks]
    predicted = read_rows(source, blocks, parts, model, sampled.genes)
    rows = np.concatenate([source.sound(b, model)[p] for b, p in zip(blocks, parts, strict=True)])
    genes = np.isfinite(predicted[rows]).all(axis=0)
    if not rows.any() or not genes.any():
        return []
    here = samples[rows]
    p, y, c = (a[rows][:, genes] for a in (predicted, sampled.treated, sampled.control))
    known = _knowable(y, c, sampled.conditions[rows], sampled.batches[rows])
    groups, conditions = here["group"].to_numpy().astype(str), sampled.conditions[rows]
    plates = sampled.batches[rows] if "plate" in samples else None

    def draws(probe: int) -> np.random.Generator:
        return np.random.default_rng([seed, probe])

    mark = not_applicable("fold_fingerprint", "the model does not claim to be cross-fitted", model)
    if claims_folds:
        mark = fold_fingerprint(
            p, y, here["fold"].to_numpy(), groups, cell_lines=here["cell_line"].to_numpy(), rng=draws(3), model=model
        )
    mark = _our_own(mark) if ours else mark
    if not replicates:
        return [mark]
    return [
        too_good(p - known, y - known, conditions, groups, rng=draws(1), model=model),
        replicate_noise(
            p, y, c, conditions, rng=draws(2), batches=plates, model=model, sample_ids=here.index.to_numpy()
        ),
        mark,
    ]


def _knowable(treated: Array, control: Array, conditions: Array, batches: Array) -> Array:
    """What an honest model may know of the noise of a sample: the mean of its batch, and what its control tells.

    Taken from truth and prediction alike it leaves the error as it is, and from the variance between replicates it
    takes the part that can be predicted.
    """
    y, c = np.asarray(treated, dtype=np.float64), np.asarray(control, dtype=np.float64)
    batch_mean = y - less_batch_mean(y, batches)
    y, c = y - batch_mean, less_batch_mean(c, batches)
    _, code = np.unique(conditions, return_inverse=True)
    size = np.bincount(code)[:, None]
    y_in, c_in = (a - (np.stack([np.bincount(code, w) for w in a.T], axis=1) / size)[code] for a in (y, c))
    spread = float((c_in**2).sum())
    slope = float((y_in * c_in).sum()) / spread if spread > 0 else 0.0
    known: Array = batch_mean + slope * c
    return known


def _claims_folds(source: StoreSource, model: str) -> bool:
    """Whether the model says that it was fitted anew for every fold: by a plan, or on other rows for each fold."""
    fitted = [r.fitted_on for b in source.blocks() if (r := source.store.find(b, model)) is not None and r.fitted_on]
    return any(f.kind == "plan" for f in fitted) or len({f.ids_digest for f in fitted if f.kind == "ids"}) > 1


def _was_added(source: StoreSource, model: str) -> bool:
    """Whether somebody else fitted the model: its folds are a claim then, not a fact of our own jobs."""
    records = (source.store.find(b, model) for b in source.blocks())
    return any(r is not None and r.meta.get("kind") != "cross_fit" for r in records)


def _our_own(mark: Finding) -> Finding:
    """A missing mark accuses nobody where our own jobs withheld the fold: the model then has no fitted level."""
    if mark.severity == "note":
        return mark
    words = f"{mark.where} was fitted here without the fold it predicts, so the missing mark means no fitted level."
    return replace(mark, severity="note", message=words)
