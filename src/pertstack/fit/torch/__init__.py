"""The published base models as networks: names, needs and where each lives. Importing this does not import torch."""

from __future__ import annotations

from pertstack.data.side.side import FeatureKind
from pertstack.fit.base import Needs
from pertstack.fit.registry import RegistryRow

_DRUG: tuple[FeatureKind, ...] = ("structure", "user", "genes")

NEEDS: dict[str, Needs] = {
    "TranSiGen": Needs(features=_DRUG, extra="models"),
    "TranSiGen_SparseMoE": Needs(features=_DRUG, extra="models"),
    "TranSiGen_BalancedMoE": Needs(features=_DRUG, extra="models"),
    "ChemCPA": Needs(features=_DRUG, extra="models", uses_cell_line=True),
    "ChemCPASupervised": Needs(features=_DRUG, extra="models", uses_cell_line=True),
    "scGen": Needs(extra="models", uses_cell_line=True),
    "Biolord": Needs(features=_DRUG, extra="models", uses_cell_line=True),
    "MultiDCP": Needs(features=_DRUG, extra="models"),
    "MultiDCP_CheMoE": Needs(features=_DRUG, extra="models"),
    "CheMoE": Needs(features=_DRUG, extra="models", uses_cell_line=True),
    "PDGrapher": Needs(targets=True, graph=True, extra="models"),
}
"""What each model needs and claims, by registry name."""

_WHERE: tuple[tuple[str, str, str], ...] = (
    ("Biolord", "biolord:Biolord", "Latent optimisation; codes of new rows inferred from their controls (Piran 2024)."),
    ("MultiDCP", "multidcp:MultiDCP", "One small network per gene vector, drug, cell state and dose (Wu 2022)."),
    ("MultiDCP_CheMoE", "multidcp:MultiDCPCheMoE", "MultiDCP's branches with a mixture-of-experts head."),
    ("PDGrapher", "pdgrapher:PDGrapher", "Graph network on gene interactions with cut edges (Gonzalez 2025)."),
    ("ChemCPA", "chemcpa:ChemCPA", "Autoencoder with an adversarially cleaned basal state (Hetzel 2022)."),
    ("ChemCPASupervised", "chemcpa_supervised:ChemCPASupervised", "Paired regressor on control, structure and dose."),
    ("scGen", "scgen:ScGen", "Autoencoder and latent difference vectors (Lotfollahi 2019)."),
    ("TranSiGen", "transigen:TranSiGen", "Two autoencoders, joined by the molecule (Tong 2024)."),
    ("TranSiGen_SparseMoE", "transigen:TranSiGenSparseMoE", "TranSiGen, fused by one of four experts (Switch gate)."),
    ("TranSiGen_BalancedMoE", "transigen:TranSiGenBalancedMoE", "TranSiGen, fused by two of four experts."),
    ("CheMoE", "chemoe:CheMoE", "Mixture of experts over drug, basal state, cell line and gene vectors."),
)

ROWS: tuple[RegistryRow, ...] = tuple(
    RegistryRow(name, f"pertstack.fit.torch.{target}", NEEDS[name], summary=summary, kind="network")
    for name, target, summary in _WHERE
)

__all__ = ["NEEDS", "ROWS"]
