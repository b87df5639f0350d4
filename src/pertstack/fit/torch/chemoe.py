"""CheMoE: a mixture of experts over drug, basal state, cell line and gene vectors.

No publication; built from a description of the founding study's network. Ours: the log dose joins the gate's input,
only the chosen experts are run while training, the first expert layer is computed in factors, an unknown cell line has
its own vector, and the balance term is the Switch transformer's (Fedus, Zoph and Shazeer 2022). ``residual``
(off) is our variant: a per-gene line on x1 beside the experts, since x1 otherwise reaches a gene only through a
128-number summary.
"""

from __future__ import annotations

from typing import ClassVar

from pertstack.data.rows import FitRows
from pertstack.fit.torch.common.batches import Batch
from pertstack.fit.torch.common.framework import Tensor, nn, torch
from pertstack.fit.torch.common.inputs import Encoder
from pertstack.fit.torch.common.layers import Gate, GeneHead, PerGeneResidual, mix
from pertstack.fit.torch.common.model import TorchModel
from pertstack.fit.torch.common.network import Network, Sizes
from pertstack.fit.torch.common.settings import CheMoESettings


def _two_layers(n_in: int, hidden: int, out: int, dropout: float) -> nn.Sequential:
    """Linear, LayerNorm, ReLU, dropout, linear, LayerNorm."""
    return nn.Sequential(
        nn.Linear(n_in, hidden),
        nn.LayerNorm(hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, out),
        nn.LayerNorm(out),
    )


class CheMoENetwork(Network):
    """Three encoders, a gate on all of them, experts shared by all genes."""

    def __init__(self, sizes: Sizes, s: CheMoESettings) -> None:
        super().__init__()
        v = s.vector
        self.balance = s.balance
        self.drug = _two_layers(sizes.n_treatment, s.hidden, v, s.dropout)
        self.basal = _two_layers(sizes.n_genes, s.hidden, v, s.dropout)
        self.cell = nn.Embedding(sizes.n_cell_lines, v)
        self.gene = nn.Embedding(sizes.n_genes, v)
        scores = nn.Sequential(
            nn.Linear(3 * v, s.gate),
            nn.LayerNorm(s.gate),
            nn.ReLU(),
            nn.Dropout(s.dropout),
            nn.Linear(s.gate, s.experts),
        )
        self.gate = Gate(scores, s.experts, s.chosen)
        self.experts = nn.ModuleList(
            GeneHead(3 * v, v, s.expert, norm=True, dropout=s.dropout) for _ in range(s.experts)
        )
        self.residual = PerGeneResidual(sizes.n_genes) if s.residual else None

    def embed(self, batch: Batch) -> Tensor:
        return torch.cat([self.drug(batch.treatment), self.basal(batch.x1), self.cell(batch.cell)], dim=1)

    def forward_all(self, batch: Batch) -> tuple[Tensor, Tensor]:
        row = self.embed(batch)
        gene = self.gene.weight if batch.genes is None else self.gene.weight[batch.genes]
        weights, balance = self.gate(row)
        out = mix(self.experts, weights, [row], shared=[gene])
        if self.residual is not None:
            out = out + self.residual(batch.x1, batch.genes)
        return out, balance

    def predict(self, batch: Batch) -> Tensor:
        return self.forward_all(batch)[0]

    def loss(self, batch: Batch, step: int) -> dict[str, Tensor]:
        out, balance = self.forward_all(batch)
        error = nn.functional.mse_loss(out.float(), batch.truth)
        return {"loss": error + self.balance * balance, "predicted": error, "balance": balance}


class CheMoE(TorchModel):
    """CheMoE: mixture of experts over drug, basal state, cell line and gene. Embedding: the first three, 384
    numbers."""

    name: ClassVar[str] = "CheMoE"
    per_gene: ClassVar[bool] = True

    def build(self, sizes: Sizes, rows: FitRows, encoder: Encoder) -> Network:
        return CheMoENetwork(sizes, self.settings)
