"""ChemCPASupervised: a paired regressor on control, structure, dose and cell line.

The founding study called a model of this shape ChemCPA; it has no adversary and is not the model of Hetzel et al.
(2022), which is ``chemcpa.py``. Ours sees a structure where the study's saw a drug index, knows missing doses, and has
a cell line vector with a row for unknown lines.
"""

from __future__ import annotations

from typing import ClassVar

from pertstack.data.rows import FitRows
from pertstack.fit.torch.common.batches import Batch
from pertstack.fit.torch.common.framework import Tensor, nn, torch
from pertstack.fit.torch.common.inputs import Encoder
from pertstack.fit.torch.common.layers import mlp
from pertstack.fit.torch.common.model import TorchModel
from pertstack.fit.torch.common.network import Network, Sizes
from pertstack.fit.torch.common.settings import ChemCPASupervisedSettings


class SupervisedNetwork(Network):
    """Encode x1, encode the treatment, join, decode x2."""

    def __init__(self, sizes: Sizes, s: ChemCPASupervisedSettings) -> None:
        super().__init__()
        n = sizes.n_genes
        self.basal = mlp([n, *s.encoder, s.latent], norm="batch", dropout=s.dropout)
        self.structure = mlp([sizes.n_drug, s.drug], dropout=s.dropout)
        self.dose = nn.Linear(2, s.dose)
        self.treatment = mlp([s.drug + s.dose, s.drug_hidden, s.latent], dropout=s.dropout)
        self.cell = nn.Embedding(sizes.n_cell_lines, s.cell)
        self.join = mlp([2 * s.latent + s.cell, s.latent, s.latent], norm="batch", dropout=s.dropout)
        self.decode = mlp([s.latent, *reversed(s.encoder), n], norm="batch", dropout=s.dropout, last=False)

    def embed(self, batch: Batch) -> Tensor:
        treatment = self.treatment(torch.cat([self.structure(batch.drug), self.dose(batch.dose)], dim=1))
        out: Tensor = self.join(torch.cat([self.basal(batch.x1), treatment, self.cell(batch.cell)], dim=1))
        return out

    def predict(self, batch: Batch) -> Tensor:
        out: Tensor = self.decode(self.embed(batch))
        return out


class ChemCPASupervised(TorchModel):
    """Paired regressor on control, structure, dose and cell line. Embedding: the joined latent."""

    name: ClassVar[str] = "ChemCPASupervised"

    def build(self, sizes: Sizes, rows: FitRows, encoder: Encoder) -> Network:
        return SupervisedNetwork(sizes, self.settings)
