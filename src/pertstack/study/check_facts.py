"""What the numbered checks look at, gathered from the results of a study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.files import read_json
from pertstack.stacking.weights import mean_weights
from pertstack.study.audit.probes import stored_probes
from pertstack.study.folder import StudyFolder
from pertstack.verdict.checks.facts import Facts
from pertstack.verdict.judge import Verdict
from pertstack.verdict.probes.run import accused


def check_facts(folder: StudyFolder, combiners: Mapping[str, Any], verdict: Verdict) -> Facts:
    """Facts for ``run_checks``; what a study has not computed stays None and the check says so.

    Parameters
    ----------
    folder : of the study; its results are read.
    combiners : name -> facts, as in ``weights.json``.
    verdict : that the checks are about.
    """
    diversity = read_json(folder.results / "diversity.json")
    oof = read_json(folder.results / "oof.json")
    roles = folder.samples.groupby("role")["cell_line"].unique()
    coverage = folder.results / "coverage.json"
    weights = {name: w for name, f in combiners.items() if (w := mean_weights(f["weights"])) is not None}
    condition = {name: c for name, f in combiners.items() if (c := _condition(f["weights"])) is not None}
    return Facts(
        verdict,
        prediction_correlation=correlation_frame(diversity, "predictions"),
        error_correlation=correlation_frame(diversity, "errors"),
        weights=weights,
        condition=condition or None,
        slopes=oof.get("slopes"),
        fit_cell_lines=frozenset(str(c) for role in ("development", "support") for c in roles.get(role, ())),
        judged_cell_lines=frozenset(map(str, roles.get("test", ()))),
        in_sample={name: gap["in_sample"] for name, gap in oof["gaps"].items()},
        coverage=read_json(coverage)["coverage"] if coverage.exists() else None,
        accused=accused(stored_probes(folder)) if (folder.results / "probes.json").exists() else None,
    )


def correlation_frame(diversity: Mapping[str, Any], name: str) -> pd.DataFrame:
    """A square frame by base model, of "predictions" or "errors"; undefined correlations are NaN."""
    table = diversity["correlation"][name]
    values = np.array([[np.nan if v is None else v for v in row] for row in table], dtype=np.float64)
    return pd.DataFrame(values, index=diversity["models"], columns=diversity["models"])


def _condition(found: Mapping[str, Any]) -> float | None:
    facts = found.get("facts", {}).get("condition") if isinstance(found.get("facts"), dict) else None
    if isinstance(facts, dict):
        facts = facts.get("largest")
    return float(facts) if isinstance(facts, int | float) else None
