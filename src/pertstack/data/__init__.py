"""Samples, genes, controls: reading what people have, validating it, simulating what nobody has."""

from pertstack.data.card import Card
from pertstack.data.file import Chunk, DataFile
from pertstack.data.open import open_data
from pertstack.data.rows import FitRows, PredictRows
from pertstack.data.side import GeneGraph, PerturbationFeatures, SideInformation
from pertstack.data.simulate import simulate, simulate_to_file
from pertstack.data.simulate_config import SimulationConfig
from pertstack.data.validate import Examination, validate

__all__ = [
    "Card",
    "Chunk",
    "DataFile",
    "Examination",
    "FitRows",
    "GeneGraph",
    "PerturbationFeatures",
    "PredictRows",
    "SideInformation",
    "SimulationConfig",
    "open_data",
    "simulate",
    "simulate_to_file",
    "validate",
]
