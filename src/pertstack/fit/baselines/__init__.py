"""Baselines in numpy: the answers every learned model must beat. One model or one family per file."""

from __future__ import annotations

from pertstack.fit.baselines.means import (
    MeanShift,
    MeanShiftCellLine,
    MeanTreated,
    MeanTreatedCellLine,
    MeanTreatedPerturbation,
    NoChange,
)
from pertstack.fit.baselines.per_gene_linear import PerGeneLinear
from pertstack.fit.registry import ModelKind

MODELS: tuple[tuple[type, ModelKind], ...] = (
    (NoChange, "baseline"),
    (MeanShift, "baseline"),
    (MeanShiftCellLine, "baseline"),
    (MeanTreated, "baseline"),
    (MeanTreatedCellLine, "baseline"),
    (MeanTreatedPerturbation, "baseline"),
    (PerGeneLinear, "linear"),
)
