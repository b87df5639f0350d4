"""Building blocks shared by the networks: plain MLPs, a per-gene head computed in factors, mixtures of experts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from pertstack.fit.torch.common.framework import Tensor, nn, torch


def mlp(
    sizes: Sequence[int],
    *,
    norm: str = "",
    activation: type[nn.Module] = nn.ReLU,
    dropout: float = 0.0,
    last: bool = True,
) -> nn.Sequential:
    """Linear layers, each followed by norm, activation and dropout.

    Parameters
    ----------
    sizes : widths, input first.
    norm : "batch", "layer" or "" for none.
    activation : made anew for each layer.
    dropout : probability; 0 for none.
    last : False leaves the last layer linear.
    """
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(sizes)):
        layers.append(nn.Linear(a, b))
        if i == len(sizes) - 2 and not last:
            break
        if norm:
            layers.append(nn.BatchNorm1d(b) if norm == "batch" else nn.LayerNorm(b))
        layers.append(activation())
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)


class PerGeneResidual(nn.Module):
    """``a_g x1_g + b_g`` per gene, starting at x1 itself: the skip connection of our variants."""

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(n_genes))
        self.offset = nn.Parameter(torch.zeros(n_genes))

    def forward(self, x1: Tensor, genes: Tensor | None) -> Tensor:
        if genes is None:
            return x1 * self.slope + self.offset
        return x1[:, genes] * self.slope[genes] + self.offset[genes]


class GeneHead(nn.Module):
    """One small network shared by all genes: [row vector ; gene vector] -> a number per row and gene.

    The first layer is linear, so its row part is computed once per row and its gene part once per gene and both are
    added: the same numbers as on the concatenation, without ever building it. ``relu_first`` rectifies both inputs
    before it.
    """

    def __init__(
        self,
        n_row: int,
        n_gene: int,
        hidden: Sequence[int],
        *,
        norm: bool = False,
        dropout: float = 0.0,
        relu_first: bool = False,
    ) -> None:
        super().__init__()
        self.relu_first = relu_first
        self.of_row = nn.Linear(n_row, hidden[0])
        self.of_gene = nn.Linear(n_gene, hidden[0], bias=False)
        rest: list[nn.Module] = []
        if norm:
            rest.append(nn.LayerNorm(hidden[0]))
        rest.append(nn.ReLU())
        if dropout > 0:
            rest.append(nn.Dropout(dropout))
        for a, b in pairwise(hidden):
            rest.append(nn.Linear(a, b))
            if norm:
                rest.append(nn.LayerNorm(b))
            rest.append(nn.ReLU())
            if dropout > 0:
                rest.append(nn.Dropout(dropout))
        rest.append(nn.Linear(hidden[-1], 1))
        self.rest = nn.Sequential(*rest)

    def forward(self, row: Tensor, gene: Tensor) -> Tensor:
        """(B, n_row) and (G, n_gene) to (B, G)."""
        if self.relu_first:
            row, gene = row.relu(), gene.relu()
        first = self.of_row(row)[:, None, :] + self.of_gene(gene)[None, :, :]
        out: Tensor = self.rest(first).squeeze(-1)
        return out


class Gate(nn.Module):
    """Chooses ``k`` of ``E`` experts per row, with weights through which the gate learns.

    ``k`` = 1 follows the Switch transformer (Fedus, Zoph and Shazeer 2022, JMLR 23): the chosen expert's output is
    multiplied by its probability under the full softmax. Larger ``k`` renormalises the chosen probabilities to one.
    ``balance`` is their load-balancing term, ``E sum_e f_e P_e`` with f the share of rows routed and P the mean
    probability (1 when even).
    """

    def __init__(self, scores: nn.Module, n_experts: int, k: int) -> None:
        super().__init__()
        self.scores, self.n_experts, self.k = scores, n_experts, min(k, n_experts)

    def forward(self, row: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (B, E), zero where not chosen, and the balance term."""
        probability = self.scores(row).float().softmax(dim=1)
        top = probability.topk(self.k, dim=1)
        weight = top.values if self.k == 1 else top.values / top.values.sum(dim=1, keepdim=True)
        chosen = torch.zeros_like(probability).scatter(1, top.indices, 1.0)
        weights = torch.zeros_like(probability).scatter(1, top.indices, weight)
        balance = self.n_experts * (chosen.mean(dim=0) / self.k * probability.mean(dim=0)).sum()
        return weights, balance


def mix(experts: nn.ModuleList, weights: Tensor, inputs: Sequence[Tensor], *, shared: Sequence[Tensor] = ()) -> Tensor:
    """Weighted sum of expert outputs, (B, n_out). While training only the rows an expert was chosen for pass through
    it.

    In evaluation mode every expert sees every row, so that a row's answer cannot depend on who else is in the batch.

    Parameters
    ----------
    experts : E networks.
    weights : (B, E), 0 where an expert was not chosen.
    inputs : tensors of B rows, given to every expert.
    shared : further arguments that do not go by rows.
    """
    out: Tensor | None = None
    for e, expert in enumerate(experts):
        if expert.training:
            rows = weights[:, e].nonzero(as_tuple=True)[0]
            if not len(rows):
                continue
            part = expert(*(i[rows] for i in inputs), *shared) * weights[rows, e][:, None]
            if out is None:
                out = torch.zeros(len(weights), part.shape[1], dtype=part.dtype, device=part.device)
            out = out.index_add(0, rows, part.to(out.dtype))
        else:
            part = expert(*inputs, *shared) * weights[:, e][:, None]
            out = part if out is None else out + part
    assert out is not None, "a batch has at least one row, and each row at least one expert"
    return out
