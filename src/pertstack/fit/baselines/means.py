"""Constant answers: no change, mean shift, mean treated, and their cell line and perturbation versions.

They learn nothing of the control and (but one) nothing of the perturbation, and still score high on the canonical
metric when controls are paired at random: control noise is then shared by truth and prediction. So they are on every
board. Definitions: MERGE's MeanShift and MeanTreated; "mean treated" as the bar is Ahlmann-Eltze, Huber, Anders (2025),
Nat Methods.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from pertstack._base.errors import InputError
from pertstack.data.rows import FitRows, Float32, PredictRows
from pertstack.fit.base import Needs
from pertstack.fit.baselines.groups import GroupMeans, centred_group_means, deltas
from pertstack.fit.baselines.model import Baseline


@dataclass
class NoChange(Baseline):
    """Predicts the control itself: nothing happens."""

    name: ClassVar[str] = "no_change"
    needs: ClassVar[Needs] = Needs(uses_perturbation=False, predicts="delta")

    def fit(self, rows: FitRows, *, rng: np.random.Generator) -> NoChange:
        return self

    def predict(self, rows: PredictRows) -> Float32:
        return np.array(rows.control, dtype=np.float32)


@dataclass
class _MeanOf(Baseline):
    """Mean over fit rows of delta or treated, overall or per cell line; an unseen cell line gets the overall mean."""

    of: ClassVar[Literal["delta", "treated"]] = "treated"
    by_cell_line: ClassVar[bool] = False
    means_: GroupMeans = field(init=False, repr=False)

    def fit(self, rows: FitRows, *, rng: np.random.Generator) -> _MeanOf:
        labels = rows.cell_line if self.by_cell_line else np.full(rows.n_samples, "all", dtype=object)
        self.means_ = GroupMeans.of(deltas(rows) if self.of == "delta" else rows.treated, labels)
        return self

    def predict(self, rows: PredictRows) -> Float32:
        labels = rows.cell_line if self.by_cell_line else np.full(rows.n_samples, "all", dtype=object)
        out = self.means_.rows(labels)
        if self.of == "delta":
            out += rows.control
        return out


@dataclass
class MeanShift(_MeanOf):
    """Control plus the mean delta of all fit rows."""

    name: ClassVar[str] = "mean_shift"
    needs: ClassVar[Needs] = Needs(uses_perturbation=False, predicts="delta")
    of: ClassVar[Literal["delta", "treated"]] = "delta"


@dataclass
class MeanShiftCellLine(MeanShift):
    """Control plus the mean delta of the fit rows of its cell line."""

    name: ClassVar[str] = "mean_shift_cell_line"
    needs: ClassVar[Needs] = Needs(uses_perturbation=False, uses_cell_line=True, predicts="delta")
    by_cell_line: ClassVar[bool] = True


@dataclass
class MeanTreated(_MeanOf):
    """Mean treated profile of all fit rows, whatever the control and the perturbation."""

    name: ClassVar[str] = "mean_treated"
    needs: ClassVar[Needs] = Needs(uses_control=False, uses_perturbation=False)


@dataclass
class MeanTreatedCellLine(MeanTreated):
    """Mean treated profile of the fit rows of its cell line."""

    name: ClassVar[str] = "mean_treated_cell_line"
    needs: ClassVar[Needs] = Needs(uses_control=False, uses_perturbation=False, uses_cell_line=True)
    by_cell_line: ClassVar[bool] = True


@dataclass
class MeanTreatedPerturbation(Baseline):
    """Cell line mean treated plus the perturbation's mean deviation from it, shrunk by n / (n + kappa).

    ``n`` counts the fit rows of the perturbation over all cell lines; one never fitted gets the cell line mean.
    ``kappa`` >= 0 is in samples: 0 does not shrink.
    """

    name: ClassVar[str] = "mean_treated_perturbation"
    needs: ClassVar[Needs] = Needs(uses_control=False, uses_cell_line=True)
    kappa: float = 2.0
    lines_: GroupMeans = field(init=False, repr=False)
    deviations_: dict[Any, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.kappa < 0:
            raise InputError(f"kappa is {self.kappa}; it counts samples, so give 0 (no shrinkage) or more.")

    def fit(self, rows: FitRows, *, rng: np.random.Generator) -> MeanTreatedPerturbation:
        self.lines_ = GroupMeans.of(rows.treated, rows.cell_line)
        names, means, counts = centred_group_means(
            rows.treated, rows.perturbation, self.lines_, centre_labels=rows.cell_line
        )
        shrunk = means * (counts / (counts + self.kappa))[:, None]
        self.deviations_ = dict(zip(names, shrunk.astype(np.float32), strict=True))
        return self

    def predict(self, rows: PredictRows) -> Float32:
        out = self.lines_.rows(rows.cell_line)
        for i, perturbation in enumerate(rows.perturbation):
            if perturbation in self.deviations_:
                out[i] += self.deviations_[perturbation]
        return out
