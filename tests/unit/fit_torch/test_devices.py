"""What can be checked of CUDA without a GPU: how a device is picked, when autocast is on, where every tensor lives.

The "meta" device has shapes and no numbers, and refuses to mix with the CPU as CUDA does: a training step and a
prediction on it find every tensor that was left behind.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pertstack._base.errors import InputError
from pertstack.fit import get_model
from pertstack.fit.profiles import profile
from pertstack.fit.torch.common.model import PREDICT_ROWS
from pertstack.fit.torch.common.network import Sizes, autocast
from pertstack.fit.torch.common.settings import SETTINGS, Settings
from pertstack.fit.torch.common.trainer import pick_device, torch_session
from references.fit_world import make_rows

pytestmark = pytest.mark.torch
NAMES = sorted(SETTINGS)
META = torch.device("meta")


@pytest.mark.parametrize(("there", "expected"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_cuda_where_there_is_one(there, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert pick_device("auto") == torch.device(expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_cuda_asked_for_where_there_is_none_is_refused_not_replaced(name):
    with pytest.raises(InputError, match=rf"device '{name}' cannot be used here.*'auto' or 'cpu'"):
        pick_device(name)
    model = get_model("scGen", {"device": name, "epochs": 1})
    with pytest.raises(InputError, match="cannot be used here"):
        model.fit(make_rows(), rng=np.random.default_rng(0))


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
def test_autocast_is_bfloat16_on_cuda_if_wanted_and_never_on_a_cpu(wanted, monkeypatch):
    settings, made = Settings(mixed_precision=wanted), []

    class Noted:
        def __init__(self, **options):
            made.append(options)

    assert not autocast(torch.device("cpu"), settings)._enabled
    monkeypatch.setattr(torch, "autocast", Noted)
    autocast(torch.device("cuda"), settings)
    assert made == [{"device_type": "cuda", "dtype": torch.bfloat16, "enabled": wanted}]


def test_a_session_on_cuda_puts_the_state_of_that_device_back_too(monkeypatch):
    asked = []
    real = torch.random.fork_rng
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: asked.append(list(devices)) or real(devices=[]))
    for name in ("cuda", "cpu"):
        with torch_session(torch.device(name), threads=1):
            pass
    assert asked == [[torch.device("cuda")], []]


@pytest.fixture
def meta(monkeypatch):
    """Let the meta device stand where three things would ask for its numbers."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(
        torch.nn.functional, "gaussian_nll_loss", lambda m, x, v, **_: (v.log() + (x - m) ** 2 / v).mean()
    )
    monkeypatch.setattr(torch.fx.experimental._config, "meta_nonzero_assume_all_nonzero", True, raising=False)


def moved(net):
    """On the meta device, which has no sparse product: the graph matrix as a dense one."""
    for name, buffer in list(net.named_buffers()):
        if buffer.layout != torch.strided:
            setattr(net, name, buffer.to_dense())
    return net.to(META)


def on_meta(name):
    """A model fitted for one epoch on the CPU, then moved; its fit rows and their table (which stays on the CPU)."""
    changes = {"on_missing_structure": "mask", "unknown_dropout": 0.2, "epochs": 1}
    model, rows = get_model(name, {**profile("fast", name), **changes}), make_rows(kinds=("structure", "targets"))
    model.fit(rows, rng=np.random.default_rng(0))
    model.device = META
    moved(model.net)
    return model, rows, model.encoder.encode(rows, rows.treated)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_and_a_prediction_leave_no_tensor_on_the_cpu(name, meta):
    model, rows, table = on_meta(name)
    part = np.arange(PREDICT_ROWS) % rows.n_samples
    batch = replace(model.encode(model.encoder, rows.without_treated()).batch(part, META), x2=None)
    assert model.answer(model.net, batch).shape == (PREDICT_ROWS, rows.n_genes)
    assert len(model.describe(model.net, batch)) == PREDICT_ROWS

    sizes = Sizes(rows.n_genes, model.encoder.n_features, len(model.encoder.lines) + 1)
    net = model.net = moved(model.build(sizes, rows, model.encoder)).train()
    job = model._job(rows, table, net, np.random.default_rng(0), seed=0)
    for step in range(4):  # adversaries take turns
        losses = job.step(job.make_batch(job.rows[:32], job.generator), step, job.generator)
        assert losses and all(value.device == META and value.ndim == 0 for value in losses.values())
    updated = [p for optimiser in job.optimisers for p in optimiser.state]
    assert updated and all(p.device == META for p in updated)


def test_the_meta_device_does_notice_a_tensor_left_behind(meta):
    """The check above can fail."""
    model, _, table = on_meta("TranSiGen")
    batch = table.batch(np.arange(8), META)
    with pytest.raises(RuntimeError, match="device"):
        model.net.predict(replace(batch, x1=batch.x1 + torch.ones(8, batch.x1.shape[1])))
