"""Shared MLP: gradient and step by torch, worlds where a correction exists or not, bounded reading, missing models."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from pertstack._base.errors import InputError
from pertstack.reduce.read_tiles import iter_tiles
from pertstack.reduce.scoring.score import score
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.experimental.shared_mlp import _draw
from pertstack.stacking.experimental.small_net import (
    PARTS,
    Cells,
    correction,
    epochs,
    loss_and_gradient,
    squared_rest,
    start_net,
)
from pertstack.stacking.registry import make_combiner, make_combiners
from references.small_world import as_source, small_world


def some_cells(n=9, g=7, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"x": (n, g, 3), "sample": (n, 2), "gene": (g, 4), "rest": (n, g)}
    return Cells(**{k: rng.normal(0, 1, s).astype(np.float32) for k, s in shapes.items()})


def trained_start(seed=1):
    net = start_net(3, 2, 4, hidden=5, rng=np.random.default_rng(seed))
    net["out"] = np.random.default_rng(seed + 1).normal(0, 0.5, 5).astype(np.float32)
    return net


def torch_loss(net, cells, decay):
    torch = pytest.importorskip("torch")
    p = {k: torch.tensor(v, dtype=torch.float64, requires_grad=True) for k, v in net.items()}
    x, s, g, r = (
        torch.tensor(np.asarray(v), dtype=torch.float64) for v in (cells.x, cells.sample, cells.gene, cells.rest)
    )
    hidden = torch.tanh(x @ p["models"] + (s @ p["sample"])[:, None] + (g @ p["gene"])[None] + p["shift"])
    loss = ((hidden @ p["out"] - r) ** 2).mean()
    loss = loss + decay * sum((p[k] ** 2).sum() for k in ("models", "sample", "gene", "out"))
    loss.backward()
    return float(loss.detach()), {k: v.grad.numpy() for k, v in p.items()}


def test_loss_and_gradient_are_torchs():
    net, cells = trained_start(), some_cells()
    loss, gradient = loss_and_gradient(net, cells, 0.01)
    expected, slopes = torch_loss(net, cells, 0.01)
    assert loss == pytest.approx(expected, rel=1e-5)
    for name in PARTS:
        np.testing.assert_allclose(gradient[name], slopes[name], rtol=1e-3, atol=1e-6)


def test_one_step_is_torchs_adam():
    net, cells = trained_start(), some_cells()
    after = next(epochs(net, cells, rate=0.01, decay=0.0, batch=100, rng=np.random.default_rng(0)))
    torch = pytest.importorskip("torch")
    _, slopes = torch_loss(net, cells, 0.0)
    params = {k: torch.nn.Parameter(torch.tensor(v)) for k, v in net.items()}
    adam = torch.optim.Adam(params.values(), lr=0.01)
    for k, p in params.items():
        p.grad = torch.tensor(slopes[k], dtype=torch.float32)
    adam.step()
    for name in PARTS:
        np.testing.assert_allclose(after[name], params[name].detach().numpy(), atol=2e-5)


def test_an_untrained_net_corrects_nothing_and_training_lowers_the_rest():
    cells = some_cells(n=64)
    cells = Cells(cells.x, cells.sample, cells.gene, np.tanh(cells.x.sum(axis=2)))
    net = start_net(3, 2, 4, hidden=8, rng=np.random.default_rng(0))
    assert (correction(net, cells.x, cells.sample, gene=cells.gene)[0] == 0).all()
    runs = epochs(net, cells, rate=0.01, decay=0.0, batch=16, rng=np.random.default_rng(0))
    last = list(islice(runs, 30))[-1]
    assert squared_rest(last, cells) < 0.2 * squared_rest(net, cells)


def test_a_bend_no_mixture_can_undo_is_undone():
    """The only model says tanh of the effect: a linear mixture cannot stretch the ends, the net can."""
    world = small_world(n=300, n_groups=100, n_models=1, errors=[0.05], noise=0.1, lines=1, seed=2)
    delta = world["predictions"]["m0"] - world["control"]
    bent = world["control"] + (3 * np.tanh(delta / 1.5)).astype(np.float32)
    source, references = as_source(world, predictions={"m0": bent})
    evidence = Evidence(reduce_blocks(source, references), source=source, references=references)
    fits = {
        n: make_combiner(n, **p).fit(evidence) for n, p in (("shared_mlp", {"most_epochs": 60}), ("global_ridge", {}))
    }
    table = score(
        source, {n: f.combine for n, f in fits.items()}, references, metrics=["rmse_all@own"], base_models=False
    )
    error = {n: table.mean(n, "rmse_all", "own").value for n in fits}
    assert fits["shared_mlp"].facts["epochs"] > 0 and error["shared_mlp"] < 0.9 * error["global_ridge"]


def test_without_a_gain_on_the_fold_left_out_the_mixture_ships():
    """The models' errors are white noise of known size: zero epochs, or no harm."""
    source, references = as_source(small_world(n=60, seed=5))
    evidence = Evidence(reduce_blocks(source, references), source=source, references=references)
    fitted = make_combiner("shared_mlp", most_epochs=1, rate=5.0).fit(evidence)
    assert fitted.facts["epochs"] == 0
    simplex = make_combiner("simplex").fit(evidence)
    for tile, _ in iter_tiles(source, references):
        np.testing.assert_allclose(fitted.combine(tile), simplex.combine(tile), rtol=1e-5, atol=1e-5)


def test_reading_is_bounded_and_spread_over_blocks():
    source, references = as_source(small_world(n=1200, n_groups=300))
    evidence = Evidence(reduce_blocks(source, references), source=source, references=references)
    drawn, folds, said = _draw(evidence, 400)
    assert 300 <= sum(t.n for t, _ in drawn) <= 700 and set(folds) == {0, 1, 2} and said
    assert {t.block for t, _ in drawn} == set(evidence.blocks)
    everything, _, said = _draw(evidence, 1200)
    assert sum(t.n for t, _ in everything) == 1200 and not said


def test_rows_are_needed_and_it_is_asked_for_by_name():
    source, references = as_source(small_world(n=30))
    with pytest.raises(InputError, match="learns from rows"):
        make_combiner("shared_mlp").fit(Evidence(reduce_blocks(source, references)))
    assert "shared_mlp" not in {c.name for c in make_combiners()}
