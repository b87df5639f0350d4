"""Networks: sizes as published, factors equal to the whole, experts that are chosen and learn."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pertstack.fit.torch.biolord import BiolordNetwork
from pertstack.fit.torch.chemcpa import ChemCPANetwork
from pertstack.fit.torch.chemcpa_supervised import SupervisedNetwork
from pertstack.fit.torch.chemoe import CheMoENetwork
from pertstack.fit.torch.common.batches import Batch
from pertstack.fit.torch.common.layers import Gate, GeneHead, mix, mlp
from pertstack.fit.torch.common.network import Sizes
from pertstack.fit.torch.common.settings import (
    BiolordSettings,
    ChemCPASettings,
    ChemCPASupervisedSettings,
    CheMoESettings,
    MultiDCPCheMoESettings,
    MultiDCPSettings,
    PDGrapherSettings,
    ScGenSettings,
    TranSiGenMoESettings,
    TranSiGenSettings,
)
from pertstack.fit.torch.multidcp import ExpertHead, PlainHead
from pertstack.fit.torch.pdgrapher import PDGrapherNetwork, neighbours
from pertstack.fit.torch.scgen import ScGenNetwork
from pertstack.fit.torch.transigen import ExpertFusion, Fusion, TranSiGenNetwork

pytestmark = pytest.mark.torch
LINCS = Sizes(978, 2048, 2)
PAPER_CHEMCPA = ChemCPASettings(
    width=256,
    depth=4,
    latent=32,
    drug_width=128,
    drug_depth=4,
    doser_width=64,
    doser_depth=3,
    adversary_width=128,
    adversary_depth=3,
)
RING = np.array([(i, (i + 1) % 978) for i in range(978)])


def count(net) -> int:
    return sum(p.numel() for p in net.parameters())


def pdgrapher(bins, n_genes=978):
    control = np.zeros((2, n_genes), np.float32)
    return PDGrapherNetwork(n_genes, PDGrapherSettings(bins=bins), RING[: n_genes - 1], control)


@pytest.mark.parametrize(
    ("build", "published", "why"),
    [
        (lambda: TranSiGenNetwork(LINCS, TranSiGenSettings(), Fusion()), 5.49e6, "upstream sizes, 2048 bits"),
        (
            lambda: TranSiGenNetwork(LINCS, TranSiGenSettings(encoder=(1200, 600), decoder=(600, 1200)), Fusion()),
            8.88e6,
            "two hidden layers, 2048 bits",
        ),
        (lambda: ScGenNetwork(LINCS, ScGenSettings()), 3.10e6, "800-800-100"),
        (lambda: PlainHead(LINCS, MultiDCPSettings()), 0.94e6, "fingerprint version"),
        (lambda: CheMoENetwork(LINCS, CheMoESettings(expert=(256, 128))), 1.7e6, "fingerprint 2048, wide experts"),
        (lambda: CheMoENetwork(LINCS, CheMoESettings()), 1.2e6, "fingerprint 2048, narrow experts"),
        (lambda: BiolordNetwork(LINCS, BiolordSettings(), 0), 1.14e6, "decoder 256 x 2, attributes 256 x 2"),
        (
            lambda: ChemCPANetwork(LINCS, PAPER_CHEMCPA, np.arange(200), np.arange(2)),
            1.73e6,
            "repository's sizes, 200 drugs",
        ),
        (
            lambda: SupervisedNetwork(LINCS, ChemCPASupervisedSettings()),
            1.73e6 - 200 * 128 + 2050 * 128 + 2 * 16 + 16 * 256,
            "the founding study's, with a fingerprint layer for 200 drug vectors, and a cell line vector of 16",
        ),
        (lambda: pdgrapher(500), 8080 * 978 + 2.7e3, "8,080 per gene + 2.7 k"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_parameter_counts_are_those_described(build, published, why):
    """Within 1.5 %: the mask bit and the dose add a few hundred weights to what models.md counts."""
    assert count(build()) == pytest.approx(published, rel=0.015 if published != 1.2e6 else 0.04), why


def test_experts_add_what_they_should():
    """Four experts of 500 -> 500 -> 500 and a gate 500 -> 4."""
    s = TranSiGenMoESettings()
    more = count(TranSiGenNetwork(LINCS, s, ExpertFusion(500, 4, 1))) - count(TranSiGenNetwork(LINCS, s, Fusion()))
    assert more == 4 * 2 * (500 * 500 + 500) + 500 * 4 + 4


def test_the_factored_head_equals_the_concatenation():
    torch.manual_seed(0)
    head, row, gene = GeneHead(7, 5, [6, 4], norm=True, relu_first=True), torch.randn(3, 7), torch.randn(8, 5)
    both = torch.cat([row[:, None].expand(3, 8, 7), gene[None].expand(3, 8, 5)], dim=2).relu()
    weight = torch.cat([head.of_row.weight, head.of_gene.weight], dim=1)
    whole = head.rest(both @ weight.T + head.of_row.bias).squeeze(-1)
    torch.testing.assert_close(head(row, gene), whole)


@pytest.mark.parametrize("k", [1, 2])
def test_the_gate_learns_from_the_prediction_and_weighs_as_declared(k):
    torch.manual_seed(0)
    scores = torch.nn.Linear(6, 4)
    gate, experts = Gate(scores, 4, k), torch.nn.ModuleList(mlp([6, 3], last=False) for _ in range(4))
    x = torch.randn(32, 6)
    weights, _ = gate(x)
    probability = scores(x).softmax(1).detach().numpy()
    chosen = np.sort(probability, axis=1)[:, -k:].sum(1)
    np.testing.assert_allclose(weights.sum(1).detach(), chosen if k == 1 else 1.0, rtol=1e-5)
    assert ((weights > 0).sum(1) == k).all()
    (mix(experts, weights, [x]) ** 2).mean().backward()
    assert scores.weight.grad.abs().max() > 1e-6


def test_sparse_training_and_dense_evaluation_give_the_same_numbers():
    torch.manual_seed(0)
    experts = torch.nn.ModuleList(mlp([6, 8, 3], last=False) for _ in range(4))
    x = torch.randn(20, 6)
    weights, _ = Gate(torch.nn.Linear(6, 4), 4, 2)(x)
    sparse = mix(experts.train(), weights, [x])
    torch.testing.assert_close(mix(experts.eval(), weights, [x]), sparse)


def test_balance_is_one_when_even_and_the_number_of_experts_when_one_takes_all():
    class Fixed(torch.nn.Module):
        def __init__(self, scores):
            super().__init__()
            self.scores = scores

        def forward(self, x):
            return self.scores[: len(x)]

    even = Gate(Fixed(50.0 * torch.eye(4).repeat(5, 1)), 4, 1)
    one = Gate(Fixed(torch.tensor([[50.0, 0, 0, 0]]).repeat(20, 1)), 4, 1)
    assert float(even(torch.zeros(20, 2))[1]) == pytest.approx(1.0)
    assert float(one(torch.zeros(20, 2))[1]) == pytest.approx(4.0)


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2))])
@pytest.mark.parametrize("k", [1, 2])
def test_four_clusters_use_every_expert(k, seed):
    """Rows of four clusters with an answer of their own each: at least 5 % of the rows go to every expert."""
    torch.manual_seed(seed)
    cluster = torch.arange(400) % 4
    x = 3 * torch.eye(4)[cluster].repeat(1, 3) + 0.3 * torch.randn(400, 12)
    y = torch.randn(4, 5)[cluster] * 2 + x[:, :5] * torch.tensor([[1.0], [-1], [2], [0]])[cluster]
    y = (y - y.mean(0)) / y.std(0)
    fusion, head, balance = ExpertFusion(12, 4, k), torch.nn.Linear(12, 5), TranSiGenMoESettings().balance
    adam = torch.optim.Adam([*fusion.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(300):
        out, uneven = fusion(x)
        error = ((head(out) - y) ** 2).mean()
        adam.zero_grad()
        (error + balance * uneven).backward()
        adam.step()
    used = (fusion.gate(x)[0] > 0).float().mean(0)
    assert used.min() >= 0.05, used
    assert error < 0.1


def batch(n=6, genes=9, features=5, genes_of_step=None) -> Batch:
    g = torch.Generator().manual_seed(0)
    return Batch(
        torch.arange(n),
        torch.randn(n, genes, generator=g),
        (torch.rand(n, features, generator=g) < 0.5).float(),
        torch.ones(n, 1),
        torch.randn(n, 2, generator=g),
        torch.ones(n, dtype=torch.long),
        genes=genes_of_step,
    )


@pytest.mark.parametrize(
    "build",
    [
        lambda s: PlainHead(s, MultiDCPSettings(dropout=0.0)),
        lambda s: ExpertHead(s, MultiDCPCheMoESettings(dropout=0.0)),
        lambda s: CheMoENetwork(s, CheMoESettings(dropout=0.0, residual=True)),
    ],
)
def test_some_genes_are_the_same_as_those_of_all(build):
    torch.manual_seed(0)
    net = build(Sizes(9, 5, 2)).eval()
    some = torch.tensor([7, 0, 3])
    torch.testing.assert_close(net.predict(batch(genes_of_step=some)), net.predict(batch())[:, some])


def test_adjacency_agrees_with_a_plain_loop():
    edges = np.array([[0, 1], [1, 2], [2, 0], [3, 1], [1, 0], [2, 2]])
    matrix, own = neighbours(edges, 5)
    plain = np.eye(5)
    for a, b in edges:
        plain[a, b] = plain[b, a] = 1
    degree = plain.sum(1)
    for i in range(5):
        for j in range(5):
            plain[i, j] /= np.sqrt(degree[i] * degree[j])
    np.testing.assert_allclose(matrix.to_dense() + torch.diag(own), plain, rtol=1e-6)


def test_cut_edges_shield_a_target_from_its_neighbours_and_nothing_else():
    """0 - 1 - 2: what happens at gene 0 reaches gene 1 unless gene 1 is a target; with one layer never gene 2."""
    torch.manual_seed(0)
    control = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    net = PDGrapherNetwork(3, PDGrapherSettings(layers=1, bins=4), np.array([[0, 1], [1, 2]]), control).eval()
    x1 = torch.zeros(2, 3)
    x1[1, 0] = 3.0
    for target, reached in ((0.0, [True, True, False]), (1.0, [True, False, False])):
        rows = batch(n=2, genes=3)
        flags = torch.zeros(2, 3)
        flags[:, 1] = target
        rows = Batch(rows.row, x1, rows.features, rows.known, rows.dose, rows.cell, flags)
        out = net.predict(rows)
        rounding = 8 * torch.finfo(out.dtype).eps * out.abs().max()  # other processors sum in another order
        assert ((out[0] - out[1]).abs() > rounding).tolist() == reached


def test_gradients_pass_the_sparse_product():
    matrix, _ = neighbours(np.array([[0, 1], [1, 2]]), 4)
    from pertstack.fit.torch.pdgrapher import Spread

    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: Spread.apply(matrix.double(), d), (x,))
