"""The same perturbation in other cell lines: lines with a control like this one count more."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from pertstack._base.errors import InputError
from pertstack.data.rows import FitRows, Float32, PredictRows
from pertstack.fit.base import Needs
from pertstack.fit.baselines.groups import Floats, label_sums
from pertstack.fit.baselines.model import Baseline
from pertstack.fit.baselines.start import StartingPoint

WIDTHS = (0.1, 0.25, 0.5, 1.0, 2.0, float("inf"))
"""Widths of the kernel that are tried, in units of the median squared distance between the controls of two lines."""
KAPPAS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, float("inf"))
"""Shrinkages that are tried, in lines; the last: no addition at all."""


@dataclass
class PerturbationElsewhere(Baseline):
    """Control, mean change of the cell line, and what the perturbation adds to it in other lines.

    With e the mean addition of the perturbation in line l and d(l) the mean squared difference between the control of
    the sample and the mean control of l: ``sum w e / (kappa + sum w)``, ``w = exp(-(d(l) - min d) / width)``, so the
    nearest line counts as one and ``kappa`` (>= 0) as so many lines without any addition. Either is chosen if it is
    None, from ``WIDTHS`` and ``KAPPAS``, by predicting each fitted line from the others, perturbation by perturbation;
    an infinite width: all lines alike. A perturbation that was fitted nowhere adds nothing.
    """

    name: ClassVar[str] = "perturbation_elsewhere"
    needs: ClassVar[Needs] = Needs(uses_cell_line=True, predicts="delta")
    kappa: float | None = None
    width: float | None = None
    start_: StartingPoint = field(init=False, repr=False)
    lines_: tuple[str, ...] = field(init=False, repr=False)
    controls_: Floats = field(init=False, repr=False)  # (n_lines, n_genes)
    kappa_: float = field(init=False, repr=False)
    unit_: float = field(init=False, repr=False)
    width_: float = field(init=False, repr=False)
    effects_: dict[str, tuple[Floats, Floats]] = field(init=False, repr=False)  # name -> lines (k,), (k, n_genes)

    def __post_init__(self) -> None:
        if (self.kappa is not None and self.kappa < 0) or (self.width is not None and not self.width > 0):
            raise InputError(f"kappa is {self.kappa} and width {self.width}; kappa is 0 or more and width above 0.")

    def fit(self, rows: FitRows, *, rng: np.random.Generator) -> PerturbationElsewhere:
        self.start_ = StartingPoint.fit(rows, "control")
        names, sums, counts = label_sums(rows.control, rows.cell_line)
        self.lines_, self.controls_ = tuple(names), sums / counts[:, None]
        apart = _distances(self.controls_, self.controls_)
        between = apart[np.triu_indices(len(names), 1)]
        self.unit_ = float(np.median(between)) if (between > 0).any() else 1.0
        added = self.start_.residual(rows)
        drugs, lines = rows.perturbation.astype(str), rows.cell_line.astype(str)
        self.effects_ = {}
        for name in np.unique(drugs):
            mine = drugs == name
            there, total, n = label_sums(added[mine], lines[mine])
            self.effects_[str(name)] = np.array([names.index(x) for x in there]), total / n[:, None]
        self.width_, self.kappa_ = self._chosen(apart)
        return self

    def predict(self, rows: PredictRows) -> Float32:
        out = self.start_.predict(rows)
        for i, name in enumerate(rows.perturbation.astype(str)):
            if name in self.effects_:
                lines, effects = self.effects_[name]
                far = _distances(rows.control[i : i + 1].astype(np.float64), self.controls_[lines])
                out[i] += (self._weights(far, self.width_, self.kappa_) @ effects)[0].astype(np.float32)
        return out

    def _weights(self, far: Floats, width: float, kappa: float) -> Floats:
        """Weights (n, k) of k lines for rows at squared distances ``far`` (n, k); infinite: not to be used."""
        nearest = far.min(axis=1, keepdims=True, initial=np.inf)
        step = np.where(np.isfinite(far), far - np.where(np.isfinite(nearest), nearest, 0.0), np.inf)
        raw = np.where(np.isfinite(step), np.exp(-np.where(np.isfinite(step), step, 0.0) / (width * self.unit_)), 0.0)
        total = kappa + raw.sum(axis=1, keepdims=True)
        weights: Floats = np.divide(raw, total, out=np.zeros_like(raw), where=total > 0)
        return weights

    def _chosen(self, apart: Floats) -> tuple[float, float]:
        """Width and shrinkage of least squared error when each line is predicted from the others; ties: the largest."""
        widths = WIDTHS[::-1] if self.width is None else (self.width,)
        kappas = KAPPAS[::-1] if self.kappa is None else (self.kappa,)
        lost = {(w, k): 0.0 for k in kappas for w in widths}
        for lines, effects in self.effects_.values():
            far = apart[np.ix_(lines, lines)].copy()
            np.fill_diagonal(far, np.inf)
            for width, kappa in lost if len(lines) > 1 else ():
                lost[width, kappa] += float(((self._weights(far, width, kappa) @ effects - effects) ** 2).sum())
        return min(lost, key=lambda pair: lost[pair])


def _distances(left: Floats, right: Floats) -> Floats:
    """(n_left, n_right) mean squared differences."""
    return np.stack([np.mean((right - row) ** 2, axis=1) for row in left])
