"""The probes of a study: after the stack step, every model's claim about its fit rows is checked on out-of-fold rows.

Three probes of ``verdict/`` apply without another fit: the error against the noise of replicates, knowledge of that
noise, and the mark of the claimed folds. They look at a sample of whole groups, so that the cost does not grow with the
study. What they find lies in ``results/probes.json`` and goes to the audit, the report and the model's row on the
board; a model that is accused with severity "error" is not stacked. After a look the rows of the test are probed too
(``results/test_probes.json``). A probe that passes is no proof of innocence (docs/probes.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pertstack._base.files import read_json, write_json
from pertstack._base.findings import Finding
from pertstack.predictions.sources.store_source import StoreSource
from pertstack.reduce.scoring.score_table import ScoreTable
from pertstack.study.audit.probes_refitted import fit_row_probe
from pertstack.study.folder import StudyFolder
from pertstack.verdict.probes.of_test import as_out_of_fold, jump
from pertstack.verdict.probes.rows import sample_rows
from pertstack.verdict.probes.run import probe_model

STACK_PROBES, TEST_PROBES = "probes.json", "test_probes.json"


def probe_study(folder: StudyFolder, source: StoreSource) -> list[Finding]:
    """Probe every model of a source of development rows."""
    seed = folder.analysis_plan.seed
    sampled = sample_rows(source, np.random.default_rng([seed, 5]))
    findings = []
    for model in source.models:
        findings += probe_model(source, sampled, model, seed=seed, claims_folds=_claims_folds(source, model))
        findings.append(fit_row_probe(folder, source, model, seed=seed))
    return findings


def probe_test(folder: StudyFolder, source: StoreSource, oof: ScoreTable, *, test: ScoreTable) -> list[Finding]:
    """Probe every model of a source of test rows, whose truth a look has opened: did its answers see them?

    Parameters
    ----------
    folder : of the study, for the seed.
    source : test rows.
    oof, test : scores of development and test rows.
    """
    seed = folder.analysis_plan.seed
    sampled = sample_rows(source, np.random.default_rng([seed, 9]))
    found: list[Finding] = []
    before = stored_probes(folder)
    for model in source.models:
        of_model = probe_model(source, sampled, model, seed=seed, claims_folds=False, floor=True)[:-1]
        found += [as_out_of_fold(f, before) for f in of_model]
        found.append(jump(model, source.models, oof, test, rng=np.random.default_rng([seed, 10])))
    return [_of_test(f) for f in found]


def _of_test(finding: Finding) -> Finding:
    code = f"test_{finding.code}"
    if finding.severity == "note":
        return replace(finding, code=code)
    said = f"On the held-out test, after the look: {finding.message}"
    if finding.code == "knows_replicate_noise":  # final fits know the plates of the test from their own rows
        return replace(finding, severity="warning", code=code, message=f"{said} An honest model may look so here.")
    return replace(finding, code=code, message=said)


def write_probes(folder: StudyFolder, findings: Sequence[Finding], key: str, *, name: str = STACK_PROBES) -> None:
    """Keep what probes found.

    Parameters
    ----------
    folder : of the study.
    findings : as they are stored.
    key : of the stack they belong to.
    name : file in ``results/``.
    """
    write_json(folder.results / name, {"format": 1, "key": key, "findings": [f.to_json() for f in findings]})


def stored_probes(folder: StudyFolder) -> list[Finding]:
    """What the probes found when the study was last stacked, and on the test by a look at that stack."""
    kept = [read_json(p) for n in (STACK_PROBES, TEST_PROBES) if (p := folder.results / n).exists()]
    return [Finding.from_json(f) for part in kept if part["key"] == kept[0]["key"] for f in part["findings"]]


def _claims_folds(source: StoreSource, model: str) -> bool:
    """Whether the model says that it was fitted anew for every fold: by a plan, or on other rows for each fold."""
    fitted = [r.fitted_on for b in source.blocks() if (r := source.store.find(b, model)) is not None and r.fitted_on]
    return any(f.kind == "plan" for f in fitted) or len({f.ids_digest for f in fitted if f.kind == "ids"}) > 1
