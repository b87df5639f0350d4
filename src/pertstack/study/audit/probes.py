"""The probes of a study: after the stack step, every model's claim about its fit rows is checked on out-of-fold rows.

Three probes of ``verdict/`` apply without another fit: the error against the noise of replicates, knowledge of that
noise, and the mark of the claimed folds. They look at a sample of whole groups, so that the cost does not grow with the
study. What they find lies in ``results/probes.json`` and goes to the audit, the report and the model's row on the
board. A probe that passes is no proof of innocence (docs/probes.md).
"""

from __future__ import annotations

import numpy as np

from pertstack._base.files import read_json, write_json
from pertstack._base.findings import Finding
from pertstack.predictions.sources.store_source import StoreSource
from pertstack.study.audit.probes_refitted import fit_row_probe
from pertstack.study.folder import StudyFolder
from pertstack.verdict.probes.rows import sample_rows
from pertstack.verdict.probes.run import probe_model


def probe_study(folder: StudyFolder, source: StoreSource, key: str) -> list[Finding]:
    """Probe every model of a source of development rows; writes ``results/probes.json`` under the key of the stack."""
    seed = folder.analysis_plan.seed
    sampled = sample_rows(source, np.random.default_rng([seed, 5]))
    findings = []
    for model in source.models:
        findings += probe_model(source, sampled, model, seed, claims_folds=_claims_folds(source, model))
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


def _claims_folds(source: StoreSource, model: str) -> bool:
    """Whether the model says that it was fitted anew for every fold: by a plan, or on other rows for each fold."""
    fitted = [r.fitted_on for b in source.blocks() if (r := source.store.find(b, model)) is not None and r.fitted_on]
    return any(f.kind == "plan" for f in fitted) or len({f.ids_digest for f in fitted if f.kind == "ids"}) > 1
