"""PDGrapher, its response network: a graph network on gene interactions in which a drug cuts the edges into its
targets.

Gonzalez G. et al. (2025), "Combinatorial prediction of therapeutic perturbations using causally inspired neural
networks", Nature Biomedical Engineering (s41551-025-01481-x). Neither structure nor dose is seen: a drug is the set of
its target genes, a genetic perturbation the genes it hits. Ours: one sparse matrix product over stacked features, 64
instead of 500 expression bins by default, own batches (no row is dropped), no mutation vector. The discovery network,
which looks for targets, is not needed to predict a response.
"""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np

from pertstack._base.errors import InputError, first_few
from pertstack.data.rows import FitRows, Float32
from pertstack.data.side.side import GeneGraph
from pertstack.fit.torch.common.batches import Batch
from pertstack.fit.torch.common.framework import Tensor, nn, torch
from pertstack.fit.torch.common.inputs import Encoder
from pertstack.fit.torch.common.model import TorchModel
from pertstack.fit.torch.common.network import Network, Sizes
from pertstack.fit.torch.common.settings import PDGrapherSettings

Edges = np.ndarray[Any, np.dtype[np.int64]]
MOST_ROWS = 4096
"""Most rows whose controls set the bounds of the expression bins; evenly spaced."""


class Spread(torch.autograd.Function):
    """Product with a symmetric sparse matrix; the gradient is the same product."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, dense: Tensor) -> Tensor:
        """``matrix @ dense`` in full precision.

        Parameters
        ----------
        ctx : keeps the matrix for the way back.
        matrix : sparse (G, G).
        dense : (G, width).
        """
        ctx.save_for_backward(matrix)
        with torch.autocast(dense.device.type, enabled=False):
            return matrix @ dense

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[None, Tensor]:
        (matrix,) = ctx.saved_tensors
        return None, matrix @ gradient[0].contiguous()


def neighbours(edges: Edges, n_genes: int) -> tuple[Tensor, Tensor]:
    """Symmetric-normalised adjacency with self loops, D^-1/2 (A + I) D^-1/2, as CSR without its diagonal, and the
    diagonal.

    The two are kept apart because a perturbed gene keeps its self loop when its incoming edges are cut.
    """
    edges = edges[edges[:, 0] != edges[:, 1]]
    both = np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0)
    degree = 1.0 + np.bincount(both[:, 0], minlength=n_genes)
    values = (1.0 / np.sqrt(degree[both[:, 0]] * degree[both[:, 1]])).astype(np.float32)
    start = np.concatenate([[0], np.cumsum(np.bincount(both[:, 0], minlength=n_genes))]).astype(np.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state", category=UserWarning)
        matrix = torch.sparse_csr_tensor(
            torch.from_numpy(start),
            torch.from_numpy(both[:, 1].astype(np.int64)),
            torch.from_numpy(values),
            size=(n_genes, n_genes),
            check_invariants=True,
        )
    return matrix, torch.from_numpy((1.0 / degree).astype(np.float32))


def edges_of(graph: GeneGraph, gene_names: Any) -> Edges:
    """Edges between genes of the study, by name."""
    place = {str(g): i for i, g in enumerate(gene_names)}
    code = np.array([place.get(str(g), -1) for g in graph.gene_names], dtype=np.int64)
    edges: Edges = code[np.asarray(graph.edges, dtype=np.int64).reshape(-1, 2)]
    edges = edges[(edges >= 0).all(axis=1)]
    if not len(edges):
        raise InputError(
            f"No edge of the gene graph joins two genes of the study. The graph speaks of "
            f"{first_few(graph.gene_names, 3)}, the study of {first_few(gene_names, 3)}: use the same kind of gene "
            "names in both."
        )
    return edges


class GraphLayer(nn.Module):
    """Linear, mean over neighbours (cut into perturbed genes), ELU, joined with the input embeddings, batch norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(3 * width, width), nn.BatchNorm1d(3 * width)

    def forward(self, h: Tensor, inputs: Tensor, keep: Tensor, matrix: Tensor, own: Tensor) -> Tensor:
        """Messages along the edges of the graph, joined with the inputs, (B, G, 3 * width).

        Parameters
        ----------
        h : (B, G, 3 * width), what genes hold.
        inputs : (B, G, 2 * width), given to every layer.
        keep : (B, G), 0 where the edges into a gene are cut.
        matrix : sparse (G, G), normalised edges.
        own : (G,), weight of a gene's message to itself.
        """
        b, g, _ = h.shape
        message = self.linear(h)
        flat = message.float().transpose(0, 1).reshape(g, -1)  # (G, B * width)
        arrived: Tensor = Spread.apply(matrix, flat)  # type: ignore[no-untyped-call]
        gathered = arrived.reshape(g, b, -1).transpose(0, 1) * keep[:, :, None] + message * own[None, :, None]
        joined = torch.cat([nn.functional.elu(gathered), inputs.to(gathered.dtype)], dim=2)
        out: Tensor = self.norm(joined.reshape(b * g, -1)).reshape(b, g, -1)
        return out


class PDGrapherNetwork(Network):
    """Embeddings of expression, target flag and position per gene; graph layers; a network per node."""

    def __init__(self, n_genes: int, s: PDGrapherSettings, edges: Edges, control: Float32) -> None:
        super().__init__()
        w = s.width
        self.s, self.n_genes, scale = s, n_genes, 2.0 / n_genes**0.5
        matrix, own = neighbours(edges, n_genes)
        self.matrix: Tensor
        self.own: Tensor
        self.cuts: Tensor
        self.register_buffer("matrix", matrix, persistent=False)
        self.register_buffer("own", own, persistent=False)
        percentiles = np.quantile(control, np.linspace(0, 1, s.bins + 1)[1:-1]).astype(np.float32)
        self.register_buffer("cuts", torch.from_numpy(percentiles))
        self.expression = nn.Embedding(n_genes * s.bins, w)
        self.target = nn.Embedding(n_genes * 2, w)
        for table in (self.expression, self.target):
            nn.init.normal_(table.weight, std=scale)
        self.expression_bias = nn.Parameter(torch.zeros(n_genes, w))
        self.target_bias = nn.Parameter(torch.zeros(n_genes, w))
        self.position = nn.Parameter(torch.randn(n_genes, w) * scale)
        self.unknown = nn.Parameter(torch.zeros(w))  # "targets unknown", used with on_missing_structure = "mask"
        self.layers = nn.ModuleList(GraphLayer(w) for _ in range(s.layers))
        nodes: list[nn.Module] = []
        for a, b in zip([3 * w, *[w] * s.node_hidden], [*[w] * s.node_hidden, s.node_state], strict=True):
            nodes += [nn.Linear(a, b), nn.ELU(), nn.BatchNorm1d(b)]
        self.nodes, self.out = nn.Sequential(*nodes), nn.Linear(s.node_state, 1)

    def states(self, batch: Batch) -> Tensor:
        """State of every gene, (B, G, node_state)."""
        assert batch.targets is not None, "rows of this model carry targets"
        b, gene = len(batch.row), torch.arange(self.n_genes, device=batch.x1.device)
        level = torch.bucketize(batch.x1, self.cuts)
        expression = self.expression(gene * self.s.bins + level) + self.expression_bias
        target = self.target(gene * 2 + batch.targets.long()) + self.target_bias
        target = target + (1 - batch.known)[:, :, None] * self.unknown
        inputs = torch.cat([expression, target], dim=2)
        h = torch.cat([self.position.expand(b, -1, -1), inputs], dim=2)
        for layer in self.layers:
            h = layer(h, inputs, 1 - batch.targets, self.matrix, self.own)
        out: Tensor = self.nodes(h.reshape(b * self.n_genes, -1)).reshape(b, self.n_genes, -1)
        return out

    def predict(self, batch: Batch) -> Tensor:
        out: Tensor = self.out(self.states(batch)).squeeze(-1)
        return out

    def embed(self, batch: Batch) -> Tensor:
        """Mean state over all genes and over the targets (zeros without targets)."""
        states = self.states(batch).float()
        assert batch.targets is not None
        share = batch.targets / batch.targets.sum(dim=1, keepdim=True).clamp(min=1)
        return torch.cat([states.mean(dim=1), (states * share[:, :, None]).sum(dim=1)], dim=1)


class PDGrapher(TorchModel):
    """PDGrapher's response network (Gonzalez et al. 2025). Embedding: mean node state over all genes and over
    targets."""

    name: ClassVar[str] = "PDGrapher"
    uses_features: ClassVar[bool | str] = False

    def build(self, sizes: Sizes, rows: FitRows, encoder: Encoder) -> Network:
        if rows.side.graph is None:
            raise InputError(
                "PDGrapher needs a gene graph, and this study has none. Provide an edge list of gene names (for "
                "example protein-protein interactions), or leave PDGrapher out: no other graph is put in its place."
            )
        edges = edges_of(rows.side.graph, rows.gene_names)
        some = np.unique(np.linspace(0, rows.n_samples - 1, min(MOST_ROWS, rows.n_samples)).astype(np.int64))
        return PDGrapherNetwork(sizes.n_genes, self.settings, edges, encoder.scaler.apply(rows.control[some]))
