"""Everything a report shows, as plain data, gathered by the study. What is missing is left out with the reason why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from pertstack._base.findings import Finding
from pertstack.reduce.scoring.calibration import Calibration
from pertstack.verdict.checks.facts import Check
from pertstack.verdict.judge import Verdict

QUESTIONS: dict[str, str] = {
    "perturbation": "How well are perturbations predicted that no model has ever been fitted on?",
    "parts": "How well are combinations predicted whose parts are in no combination that was fitted on?",
    "sample": "How well are single held-out samples predicted when other samples of the same perturbation were seen?",
    "cell_line": "How well are cell lines predicted in which no model has ever been fitted?",
    "control_id": "How well are samples predicted whose control was used for no fitted sample?",
    "perturbation+cell_line": "How well is a perturbation predicted in a cell line where it was never fitted, although "
    "it may have been seen in others?",
}


def question_of(group_by: str) -> str:
    """The scientific question that a grouping answers, in plain words."""
    return QUESTIONS.get(group_by, f"How well are held-out values of {group_by} predicted?")


@dataclass(frozen=True)
class ReportInput:
    """What the report is made of. Only ``title`` and ``verdict`` are needed.

    data
        Facts in words or numbers, in the order they should be read: ``{"samples": 2000, "genes": 978, ...}``.
    plan, ledger
        The analysis plan as a mapping; ledger entries as mappings with time, who, kind, facts.
    weights
        Combiner -> base model -> weight (mean over genes if weights differ by gene).
    prediction_correlation, error_correlation
        Square frames by base model. ``diversity`` holds single numbers such as the effective number of models.
    ladder
        How the combination was chosen, out of fold: mappings with name, outcome, reason.
    findings, probes
        Of the leak checks of plan against data; of the leak probes of every model (``where`` names the model).
    calibration
        Of every metric: can it tell the same condition measured again from a constant?
    absent
        Models that failed or were withdrawn or refused: mappings with name, reason.
    coverage
        Frame with cell_line, coverage, width; for intervals that promise ``nominal_coverage``.
    slopes
        Model -> slope of the measured on its predicted change, out of fold: 1 is well calibrated.
    made
        What is shown under the headline: date of the look, run time, version, command.
    simulated
        The data come from a simulation.
    why_missing
        Part -> sentence, in place of the stock sentence for a missing part.
    """

    title: str
    verdict: Verdict
    group_by: str = "perturbation"
    data: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] | None = None
    ledger: Sequence[Mapping[str, Any]] | None = None
    weights: Mapping[str, Mapping[str, float]] | None = None
    prediction_correlation: pd.DataFrame | None = None
    error_correlation: pd.DataFrame | None = None
    diversity: Mapping[str, Any] | None = None
    ladder: Sequence[Mapping[str, Any]] | None = None
    checks: Sequence[Check] | None = None
    findings: Sequence[Finding] | None = None
    absent: Sequence[Mapping[str, Any]] = ()
    coverage: pd.DataFrame | None = None
    nominal_coverage: float = 0.9
    mean_name: str = "mean"
    probes: Sequence[Finding] | None = None
    calibration: Sequence[Calibration] | None = None
    slopes: Mapping[str, float] = field(default_factory=dict)
    made: Mapping[str, str] = field(default_factory=dict)
    simulated: bool = False
    why_missing: Mapping[str, str] = field(default_factory=dict)

    def why(self, part: str) -> str:
        """Why a part is not shown."""
        stock = {
            "plan": "This report was given no analysis plan.",
            "ledger": "This report was given no ledger, so looks at the test cannot be listed.",
            "weights": "No combiner with linear weights was fitted.",
            "diversity": "Correlations between models were not computed (fewer than two models, or not asked for).",
            "calibration": "Metrics were not calibrated. Run `pertstack stack` again.",
            "checks": "The numbered checks were not run.",
            "findings": "The leak checks of plan against data were not run.",
            "probes": "The predictions were not probed for leaks.",
            "coverage": "No prediction intervals were computed.",
            "ladder": "How the combination was chosen was not recorded.",
            "decomposition": "No combiner was chosen, so there is no gain to take apart.",
            "cell_lines": "There is only one cell line.",
        }
        return self.why_missing.get(part, stock.get(part, f"{part} was not computed."))


CITATIONS: tuple[tuple[str, str], ...] = (
    ("Stacking", "Wolpert 1992, Neural Networks 5:241; Breiman 1996, Machine Learning 24:49."),
    ("Cross-fitted candidates, best chosen", "van der Laan, Polley, Hubbard 2007, Stat. Appl. Genet. Mol. Biol. 6:25."),
    (
        "Bootstrap over whole groups",
        "Field and Welsh 2007, J. R. Stat. Soc. B 69:369; Cameron, Gelbach, Miller 2008, Rev. Econ. Stat. 90:414.",
    ),
    ("Centroid reference", "Systema, 2025: performance beyond systematic variation in perturbation prediction."),
    ("Prediction intervals", "Barber, Candès, Ramdas, Tibshirani 2021, Ann. Stat. 49:486; Vovk 2015."),
    ("What cross-validation estimates", "Bates, Hastie, Tibshirani 2024, J. Am. Stat. Assoc."),
    ("Looking at a test more than once", "Dwork et al. 2015, Science 349:636; Blum and Hardt 2015, ICML."),
)
