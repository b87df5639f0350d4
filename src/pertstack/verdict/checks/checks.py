"""Numbered checks: why an ensemble may fail to improve, or improve too much to be believed.

Each looks at facts already computed and gives a finding: warning, note, passed or not applicable. A check that could
not run says so: that is not the same as passed. What to do about each is in ``docs/checks.md``; the checks
themselves are in ``verdict/checks/of_models.py`` and ``verdict/checks/of_gains.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pertstack._base.files import write_json
from pertstack._base.findings import SEVERITIES
from pertstack._base.plain_json import plain_json
from pertstack.verdict.checks.facts import Answer, Check, Facts
from pertstack.verdict.checks.of_gains import (
    below_mean,
    coupled_gain,
    few_groups,
    hangs_on_one_line,
    hardly_above_mean,
    interval_coverage,
    overfitting_gap,
    shipped_loses,
    too_good,
)
from pertstack.verdict.checks.of_models import (
    calibration,
    correlated_errors,
    dominant_model,
    redundancy,
    suspicious_models,
    unseen_cell_line,
    unstable_weights,
)

CHECKS: tuple[tuple[str, str, Callable[[Facts], Answer]], ...] = (
    ("dominant_model", "One model dominates", dominant_model),
    ("redundancy", "Near-copies among the models", redundancy),
    ("correlated_errors", "Models err on the same samples", correlated_errors),
    ("overfitting_gap", "Weights fit rows they saw better", overfitting_gap),
    ("below_mean", "Learned weights below the plain mean", below_mean),
    ("too_good", "Gain too good to be true", too_good),
    ("unstable_weights", "Weights or sums are unstable", unstable_weights),
    ("calibration", "Predictions on another scale", calibration),
    ("unseen_cell_line", "Judged cell line never fitted", unseen_cell_line),
    ("hardly_above_mean", "Hardly above the plain mean", hardly_above_mean),
    ("coupled_gain", "Gain made of shared control noise", coupled_gain),
    ("one_cell_line", "Gain hangs on one cell line", hangs_on_one_line),
    ("few_groups", "Few groups behind the intervals", few_groups),
    ("interval_coverage", "Prediction intervals keep their promise", interval_coverage),
    ("shipped_loses", "What was chosen loses on the test", shipped_loses),
    ("suspicious_models", "A model knows what it should not", suspicious_models),
)
"""Numbered from 1 in this order; new checks go to the end, so that numbers stay."""


def run_checks(facts: Facts) -> tuple[Check, ...]:
    """All checks, in their fixed order."""
    found = []
    for number, (code, title, check) in enumerate(CHECKS, start=1):
        severity, message, numbers = check(facts)
        found.append(Check(severity, code, message, numbers=numbers, number=number, title=title))
    return tuple(found)


def write_checks(path: Path, checks: tuple[Check, ...]) -> None:
    """``results/checks.json``: format 2, the counts by severity and every check."""
    counts = {severity: sum(c.severity == severity for c in checks) for severity in SEVERITIES}
    write_json(Path(path), plain_json({"format": 2, "counts": counts, "checks": [c.to_json() for c in checks]}))
