"""MultiDCP and its mixture-of-experts variant: one small network, shared by all genes, on gene, drug, cell and dose
vectors.

Wu Y., Liu Q., Qiu Y., Xie L. (2022), "Deep learning prediction of chemical-induced dose-dependent and context-specific
multiplex phenotype responses and its application to personalized Alzheimer's disease drug repurposing", PLoS
Computational Biology 18, e1010367. Ours: fingerprint MLP for the graph convolution, the linear cell encoder on each
sample's own control (so rows cannot see each other), continuous log dose with a missing bit, trainable gene vectors,
PyTorch's initialisation (the cell branch is alive from the first step), first head layer in factors. The
mixture-of-experts head exists only in the founding study; its gate is used sparsely here.
"""

from __future__ import annotations

from typing import ClassVar

from pertstack.data.rows import FitRows
from pertstack.fit.torch.common.batches import Batch
from pertstack.fit.torch.common.framework import Tensor, nn, torch
from pertstack.fit.torch.common.inputs import Encoder
from pertstack.fit.torch.common.layers import Gate, GeneHead, PerGeneResidual, mix, mlp
from pertstack.fit.torch.common.model import TorchModel
from pertstack.fit.torch.common.network import Network, Sizes
from pertstack.fit.torch.common.settings import MultiDCPCheMoESettings, MultiDCPSettings


class MultiDCPNetwork(Network):
    """Branches for drug, cell state and dose; a head per gene."""

    def __init__(self, sizes: Sizes, s: MultiDCPSettings, dose: nn.Module) -> None:
        super().__init__()
        self.s = s
        self.drug = mlp([sizes.n_drug, *s.drug])
        self.cell = mlp([sizes.n_genes, *s.cell], dropout=s.dropout)
        self.dose = dose
        self.gene = nn.Embedding(sizes.n_genes, s.gene)
        self.residual = PerGeneResidual(sizes.n_genes) if s.residual else None
        self.width = s.drug[-1] + s.cell[-1] + s.dose

    def embed(self, batch: Batch) -> Tensor:
        return torch.cat([self.drug(batch.drug), self.cell(batch.x1), self.dose(batch.dose)], dim=1)

    def gene_vectors(self, batch: Batch) -> Tensor:
        weight: Tensor = self.gene.weight
        return weight if batch.genes is None else weight[batch.genes]

    def head(self, row: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B, genes) and an auxiliary loss."""
        raise TypeError("a MultiDCP network has a head")

    def forward_all(self, batch: Batch) -> tuple[Tensor, Tensor]:
        out, extra = self.head(self.embed(batch), batch)
        if self.residual is not None:
            out = out + self.residual(batch.x1, batch.genes)
        return out, extra

    def predict(self, batch: Batch) -> Tensor:
        return self.forward_all(batch)[0]


class PlainHead(MultiDCPNetwork):
    """[drug ; cell ; dose ; gene] through ReLU, linear, ReLU, linear."""

    def __init__(self, sizes: Sizes, s: MultiDCPSettings) -> None:
        super().__init__(sizes, s, nn.Linear(2, s.dose))
        self.per_gene = GeneHead(self.width, s.gene, [s.head], relu_first=True)

    def head(self, row: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.per_gene(row, self.gene_vectors(batch)), row.new_zeros(())


class ExpertHead(MultiDCPNetwork):
    """Some of several such heads per row, chosen by a gate on [drug ; cell ; dose]."""

    def __init__(self, sizes: Sizes, s: MultiDCPCheMoESettings) -> None:
        super().__init__(sizes, s, mlp([2, 64, s.dose], dropout=s.dropout))
        self.balance = s.balance
        self.gate = Gate(mlp([self.width, s.gate, s.experts], dropout=s.dropout, last=False), s.experts, s.chosen)
        self.experts = nn.ModuleList(
            GeneHead(self.width, s.gene, [s.head], dropout=s.dropout) for _ in range(s.experts)
        )

    def head(self, row: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        weights, balance = self.gate(row)
        return mix(self.experts, weights, [row], shared=[self.gene_vectors(batch)]), balance

    def loss(self, batch: Batch, step: int) -> dict[str, Tensor]:
        out, balance = self.forward_all(batch)
        error = nn.functional.mse_loss(out.float(), batch.truth)
        return {"loss": error + self.balance * balance, "predicted": error, "balance": balance}


class MultiDCP(TorchModel):
    """MultiDCP (Wu et al. 2022). Embedding: drug, cell state and dose vectors."""

    name: ClassVar[str] = "MultiDCP"
    per_gene: ClassVar[bool] = True

    def build(self, sizes: Sizes, rows: FitRows, encoder: Encoder) -> Network:
        return PlainHead(sizes, self.settings)


class MultiDCPCheMoE(TorchModel):
    """MultiDCP's branches with a mixture-of-experts head. Embedding: drug, cell state and dose vectors."""

    name: ClassVar[str] = "MultiDCP_CheMoE"
    per_gene: ClassVar[bool] = True

    def build(self, sizes: Sizes, rows: FitRows, encoder: Encoder) -> Network:
        return ExpertHead(sizes, self.settings)
