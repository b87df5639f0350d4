"""What came out of an evaluation: board, scores, calibration, and what is to be said. Made by ``steps/evaluate.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pertstack._base.files import write_json
from pertstack._base.findings import Finding
from pertstack._base.version import __version__
from pertstack.predictions.store.files.names import encode_name
from pertstack.reduce.diversity import Diversity
from pertstack.reduce.scoring.calibration import Calibration
from pertstack.reduce.scoring.score_table import ScoreTable
from pertstack.study.check_facts import correlation_frame
from pertstack.study.new_rows.evaluation_rows import TOLD
from pertstack.verdict.boards.board import Leaderboard
from pertstack.verdict.boards.in_notebook import ShowsBoard
from pertstack.verdict.judge import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pertstack.write.report_input import ReportInput


SHOWN = ("matched_by_key", "genes_by_list", "genes_by_second_name", *TOLD)
"""Notes that are printed and shown on the page."""


@dataclass(frozen=True, repr=False)
class Evaluation(ShowsBoard):
    """What came out: the board with its decision, scores per sample, the calibration, and everything to be said.

    In a notebook: the board, ``to_frame()``, ``plot_differences()``, ``plot_calibration()``.
    """

    verdict: Verdict
    scores: ScoreTable
    calibration: Mapping[str, Calibration]
    findings: tuple[Finding, ...]  # of reading, matching and value checks
    probes: tuple[Finding, ...]
    diversity: Diversity | None
    slopes: Mapping[str, float]  # of the measured on each model's predicted change
    models: Sequence[Mapping[str, Any]]  # model, files, how, samples, genes
    facts: Mapping[str, Any]  # what was evaluated, in words and numbers

    @property
    def leaderboard(self) -> Leaderboard:
        return self.verdict.leaderboard

    def _board(self) -> Leaderboard:
        return self.leaderboard

    def plot_calibration(self) -> Figure:
        """Slope of the measured on every model's predicted change, as a matplotlib figure; 1 is well calibrated."""
        from pertstack.write.stack_pictures import calibration_picture

        return calibration_picture(self.slopes)

    def save(self, folder: str | Path) -> Path:
        """Write leaderboard.json and .csv, scores.npz, calibration.json, findings.json, report.html, and a document
        evaluation_results.json (``NAME.evaluation_results.json`` for each of several models); gives the page.

        Parameters
        ----------
        folder : made if it does not exist.
        """
        from pertstack.write.evaluation_results import evaluation_results

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.leaderboard.to_json(folder / "leaderboard.json")
        self.leaderboard.to_csv(folder / "leaderboard.csv")
        self.scores.save(folder / "scores.npz")
        found = [c.to_json() for c in self.calibration.values()]
        write_json(folder / "calibration.json", {"format": 1, "metrics": found})
        said = [f.to_json() for f in (*self.findings, *self.probes)]
        write_json(folder / "findings.json", {"format": 1, "findings": said})
        for model in (str(m["model"]) for m in self.models):
            name = "" if len(self.models) == 1 else f"{encode_name(model)}."
            document = evaluation_results(self.scores, model, dict(self.facts))
            write_json(folder / f"{name}evaluation_results.json", document)
        return self.report(folder / "report.html")

    def report(self, path: str | Path) -> Path:
        """One self-contained page.

        Parameters
        ----------
        path : the HTML file to write.
        """
        from pertstack.write.evaluation_page import evaluation_page

        return evaluation_page(self._shown(), self.models, Path(path))

    def _shown(self) -> ReportInput:
        """What the page is made of."""
        from pertstack.write.report_input import ReportInput

        correlation = {} if self.diversity is None else self.diversity.to_json()
        frames = {k: correlation_frame(correlation, k) for k in ("predictions", "errors") if correlation}
        return ReportInput(
            f"Evaluation: {self.facts['truth']}",
            self.verdict,
            data=self.facts,
            prediction_correlation=frames.get("predictions"),
            error_correlation=frames.get("errors"),
            findings=[f for f in self.findings if f.severity != "note" or f.code in SHOWN],
            probes=self.probes,
            calibration=list(self.calibration.values()),
            slopes=self.slopes,
            made={"pertstack": __version__},
        )
