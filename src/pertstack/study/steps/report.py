"""Gathering what the report shows: everything from files under the study, nothing from the held-out truth."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Any

import pandas as pd

from pertstack._base.errors import InputError
from pertstack._base.files import read_json
from pertstack._base.findings import Finding
from pertstack._base.shown import count_of
from pertstack._base.version import __version__
from pertstack.design.ledger import LOOK
from pertstack.stacking.weights import mean_weights
from pertstack.study.audit.probes import stored_probes
from pertstack.study.check_facts import check_facts
from pertstack.study.development.learned import Stored, stored_stack
from pertstack.study.estimate import roughly
from pertstack.study.folder import StudyFolder
from pertstack.study.judged import recall_verdict
from pertstack.study.manifests import SEALED
from pertstack.study.members import is_simulated, stack_facts
from pertstack.study.sealed_results import sealed_verdict
from pertstack.study.steps.calibrate import stored_calibration
from pertstack.verdict.checks.checks import run_checks
from pertstack.write.report import report
from pertstack.write.report_input import ReportInput


def write_report(folder: StudyFolder) -> Path:
    """Write ``report.html``.

    Raises
    ------
    InputError
        Nothing is stacked yet.
    """
    return report(report_input(folder), folder.report)


def report_input(folder: StudyFolder) -> ReportInput:
    """Everything a report shows, as plain data."""
    if not (folder.results / "weights.json").exists():
        raise InputError(
            f"{folder.root} has nothing to report yet. Run `pertstack stack {folder.word}` and "
            f"`pertstack verdict {folder.word}` first."
        )
    stored, verdict = stored_stack(folder), recall_verdict(folder)
    facts = check_facts(folder, stored.combiners, verdict)
    diversity = read_json(folder.results / "diversity.json")
    oof = read_json(folder.results / "oof.json")
    return ReportInput(
        title=f"{folder.root.resolve().name}: {Path(folder.choices['data']).name}",
        verdict=verdict,
        group_by=folder.plan.group_by,
        data=_data_facts(folder),
        plan=folder.analysis_plan.to_json(),
        ledger=[e.to_json() for e in folder.ledger.entries() if e.kind != SEALED],  # digests for the audit
        weights=_weights(stored),
        prediction_correlation=facts.prediction_correlation,
        error_correlation=facts.error_correlation,
        diversity=_single_numbers(diversity),
        ladder=_ladder(oof["choice"]),
        checks=run_checks(facts),
        findings=[Finding.from_json(f) for f in read_json(folder.path("plan", "findings.json"))],
        probes=stored_probes(folder),
        absent=_absent(folder, oof),
        coverage=_coverage(folder),
        slopes={m: float(v) for m, v in oof.get("slopes", {}).items()},
        made=_made(folder),
        simulated=is_simulated(folder),
        calibration=None if (found := stored_calibration(folder)) is None else list(found.metrics.values()),
        why_missing={"coverage": "Prediction intervals are computed by the verdict."},
    )


def _made(folder: StudyFolder) -> dict[str, str]:
    """What is shown under the headline. Read off records, so that the same study gives the same page."""
    looks = folder.ledger.of_kind(LOOK)
    seconds = sum(float(read_json(p)["seconds"]) for p in folder.path("jobs").glob("*/*/job.json"))
    return {
        **({"test opened": looks[-1].time[:16].replace("T", " ") + " UTC"} if looks else {}),
        **({"fitting took": roughly(seconds).removeprefix("about ")} if seconds else {}),
        "pertstack": __version__,
        "command": f"pertstack report {quote(folder.root.resolve().name)}",
    }


def _data_facts(folder: StudyFolder) -> dict[str, Any]:
    choices, plan = folder.choices, folder.plan
    roles = plan.table["role"].value_counts()
    samples = folder.samples
    return {
        "samples": choices["n_samples"],
        **({"made of": folder.card.made} if folder.card.made else {}),
        "genes": choices["n_genes"],
        "cell lines": int(samples["cell_line"].nunique()),
        "perturbations": int(samples["perturbation"].nunique()),
        "held-out test": f"{count_of(int(roles.get('test', 0)), 'sample')} in "
        f"{count_of(int(plan.table.loc[plan.table['role'] == 'test', 'group'].nunique()), 'group')}",
        "folds": plan.n_folds,
        "control": folder.card.to_json().get("pairing", "unknown"),
        "data": Path(choices["data"]).name,
        "ledger digest of the verdict, to be registered elsewhere": sealed_verdict(folder) or "no verdict yet",
    }


def _weights(stored: Stored) -> dict[str, dict[str, float]]:
    return {name: w for name, facts in stored.combiners.items() if (w := mean_weights(facts["weights"])) is not None}


def _single_numbers(diversity: dict[str, Any]) -> dict[str, Any]:
    """The numbers of diversity.json a reader can use, in words."""
    known = diversity["effective_number"]
    effective = {k: "not defined: two models err alike" if v is None else v for k, v in known.items()}
    error = diversity["ambiguity"]
    clusters = diversity["redundancy"]["clusters"]
    return {
        "effective number of models (participation ratio of error correlations)": effective["participation"],
        "the same if all errors were equally correlated": effective["equicorrelated"],
        "the same for the best linear mixture of errors of equal size": effective["best_linear"],
        "models beyond 0.95 correlated": "; ".join(", ".join(c) for c in clusters) or "none",
        "mean squared error of one model": error["mean_error"],
        "of the plain mean": error["ensemble_error"],
        "removed by averaging (ambiguity)": error["ambiguity"],
        "mean correlation of predictions, of errors, by cell line": _by_cell_line(diversity),
        "samples of highest disagreement (rms between models)": _samples(diversity["highest_disagreement"]),
        "shared failures (best correlation that any model reaches)": _samples(diversity["shared_failures"]),
        "share of samples where every model fails": diversity["share_failed_by_all"],
    }


def _by_cell_line(diversity: dict[str, Any]) -> str:
    """Mean correlations off the diagonal, a cell line at a time; the matrices are in diversity.json."""
    said = []
    for line, found in diversity["correlation_per_cell_line"].items():
        values = [_mean_off_diagonal(found[kind]) for kind in ("predictions", "errors")]
        if None not in values:
            said.append(f"{line} {values[0]:.2f}, {values[1]:.2f}")
    return "; ".join(said) or "not defined"


def _mean_off_diagonal(matrix: list[list[float | None]]) -> float | None:
    known = [v for i, row in enumerate(matrix) for j, v in enumerate(row) if i != j and v is not None]
    return sum(known) / len(known) if known else None


def _samples(found: list[dict[str, Any]], most: int = 5) -> str:
    return (
        "; ".join(f"{s['sample_id']} ({s['perturbation']}, {s['cell_line']}): {s['value']:.2f}" for s in found[:most])
        or "none"
    )


def _ladder(choice: dict[str, Any]) -> list[dict[str, Any]]:
    rungs = [
        {
            "name": r["name"],
            "outcome": "chosen" if r["passed"] else "falls back to the next simpler",
            "reason": f"{r['why']}; gain {r['gain']['value']:+.4f} (s.e. {r['gain']['se']:.4f}), "
            f"lower bound {r['bound']:+.4f}",
        }
        for r in choice["ladder"]
    ]
    marked = [
        {"name": n, "outcome": "may not ship", "reason": why.removeprefix("not shipped: ")}
        for n, why in choice["marked"].items()
    ]
    if choice["chosen"] == "best_single":
        rungs.append({"name": choice["best_single"], "outcome": "ships alone", "reason": "no combination passed"})
    return [*rungs, *marked]


def _absent(folder: StudyFolder, oof: dict[str, Any]) -> list[dict[str, str]]:
    """Models that failed or were withdrawn, and combiners that could not be fitted."""
    out = [{"name": name, "reason": f"withdrawn: {why}"} for name, why in folder.withdrawn().items()]
    out += [{"name": name, "reason": why} for name, why in stack_facts(folder)["left_out"].items()]
    for path in sorted(folder.path("jobs").glob("*/*/job.json")):
        job = read_json(path)
        if job["status"] not in ("done", "present"):
            out.append(
                {"name": f"{job['job']['model']} {path.parent.name}", "reason": f"{job['status']}: {job['error']}"}
            )
    out += [{"name": text.split(" ")[0], "reason": text} for text in oof["failures"]]
    return out


def _coverage(folder: StudyFolder) -> pd.DataFrame | None:
    path = folder.results / "coverage.json"
    return pd.DataFrame(read_json(path)["by_cell_line"]) if path.exists() else None
