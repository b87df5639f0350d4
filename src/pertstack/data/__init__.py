"""Samples, genes, controls: reading what people have, validating it, simulating what cannot be measured."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pertstack.data.card import Card as Card
    from pertstack.data.checks.validate import Examination as Examination
    from pertstack.data.checks.validate import validate as validate
    from pertstack.data.file import Chunk as Chunk
    from pertstack.data.file import DataFile as DataFile
    from pertstack.data.readers.open import open_data as open_data
    from pertstack.data.rows import FitRows as FitRows
    from pertstack.data.rows import PredictRows as PredictRows
    from pertstack.data.side.build import build_side as build_side
    from pertstack.data.side.files import load_side as load_side
    from pertstack.data.side.files import save_side as save_side
    from pertstack.data.side.side import GeneGraph as GeneGraph
    from pertstack.data.side.side import PerturbationFeatures as PerturbationFeatures
    from pertstack.data.side.side import SideInformation as SideInformation
    from pertstack.data.side.structures import canonical_smiles as canonical_smiles
    from pertstack.data.side.structures import inchi_key as inchi_key
    from pertstack.data.simulation.config import SimulationConfig as SimulationConfig
    from pertstack.data.simulation.simulate import simulate as simulate
    from pertstack.data.simulation.simulate import simulate_to_file as simulate_to_file

_HOMES = {
    "card": ["Card"],
    "checks.validate": ["Examination", "validate"],
    "file": ["Chunk", "DataFile"],
    "readers.open": ["open_data"],
    "rows": ["FitRows", "PredictRows"],
    "side.build": ["build_side"],
    "side.files": ["load_side", "save_side"],
    "side.side": ["GeneGraph", "PerturbationFeatures", "SideInformation"],
    "side.structures": ["canonical_smiles", "inchi_key"],
    "simulation.config": ["SimulationConfig"],
    "simulation.simulate": ["simulate", "simulate_to_file"],
}
__all__ = sorted(name for names in _HOMES.values() for name in names)


def __getattr__(name: str) -> Any:
    """Names are imported on first use: readers and the simulator bring much that most commands do not need."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
