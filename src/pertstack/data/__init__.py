"""Samples, genes, controls: reading what people have, validating it, simulating what nobody has."""

from pertstack.data.card import Card
from pertstack.data.checks.validate import Examination, validate
from pertstack.data.file import Chunk, DataFile
from pertstack.data.readers.open import open_data
from pertstack.data.rows import FitRows, PredictRows
from pertstack.data.side.build import build_side
from pertstack.data.side.files import load_side, save_side
from pertstack.data.side.side import GeneGraph, PerturbationFeatures, SideInformation
from pertstack.data.side.structures import canonical_smiles, inchi_key
from pertstack.data.simulation.config import SimulationConfig
from pertstack.data.simulation.simulate import simulate, simulate_to_file

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
    "build_side",
    "canonical_smiles",
    "inchi_key",
    "load_side",
    "open_data",
    "save_side",
    "simulate",
    "simulate_to_file",
    "validate",
]
