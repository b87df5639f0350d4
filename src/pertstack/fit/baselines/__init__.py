"""Baselines in numpy: the answers every learned model must beat. One model or one family per file."""

from __future__ import annotations

from pertstack.fit.baselines.additive import Additive
from pertstack.fit.baselines.elsewhere import PerturbationElsewhere
from pertstack.fit.baselines.low_rank import LowRank, LowRankTreated
from pertstack.fit.baselines.means import (
    MeanShift,
    MeanShiftCellLine,
    MeanTreated,
    MeanTreatedCellLine,
    MeanTreatedPerturbation,
    NoChange,
)
from pertstack.fit.baselines.mlp import MLP
from pertstack.fit.baselines.parts import LargerChange, MeanOfParts, ScaledSum
from pertstack.fit.baselines.per_gene_linear import PerGeneLinear
from pertstack.fit.baselines.perturbation_knn import PerturbationKNN, PerturbationKNNTreated
from pertstack.fit.baselines.ridge import Ridge, RidgeTreated
from pertstack.fit.registry import ModelKind

MODELS: tuple[tuple[type, ModelKind], ...] = (
    (NoChange, "baseline"),
    (MeanShift, "baseline"),
    (MeanShiftCellLine, "baseline"),
    (MeanTreated, "baseline"),
    (MeanTreatedCellLine, "baseline"),
    (MeanTreatedPerturbation, "baseline"),
    (PerturbationElsewhere, "linear"),
    (PerGeneLinear, "linear"),
    (PerturbationKNN, "linear"),
    (PerturbationKNNTreated, "linear"),
    (Ridge, "linear"),
    (RidgeTreated, "linear"),
    (LowRank, "linear"),
    (LowRankTreated, "linear"),
    (Additive, "linear"),
    (MeanOfParts, "linear"),
    (ScaledSum, "linear"),
    (LargerChange, "linear"),
    (MLP, "network"),
)
