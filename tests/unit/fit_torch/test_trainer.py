"""The shared training loop: early stopping, seeds, failures in words, checkpoints."""

from __future__ import annotations

import io
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pertstack._base.errors import CorruptionError, FoldPlanMismatchError, InputError, ModelFailedError
from pertstack.design.blocks import Block
from pertstack.fit import Job, JobRows, cross_fit
from pertstack.fit.inner_split import inner_split
from pertstack.fit.profiles import profile
from pertstack.fit.registry import get_model
from pertstack.fit.torch.common import trainer
from pertstack.fit.torch.common.checkpoint import Identity, read_checkpoint
from pertstack.fit.torch.common.settings import SETTINGS
from references.fit_world import make_rows, split_by_perturbation

pytestmark = pytest.mark.torch
CHECKED = ["ChemCPASupervised", "ChemCPA", "Biolord", "MultiDCP_CheMoE"]  # one, two, three optimisers; gene subsets


def small(name, **changes):
    kinds = {"epochs": 6, "patience": 50, "batch_size": 16}
    return get_model(name, {**profile("fast", name), **kinds, **changes})


def test_early_stopping_restores_the_best_epoch():
    rows = make_rows(noise=1.0)
    model = small("ChemCPASupervised", epochs=60, patience=3, learning_rate=1e-2)
    model.fit(rows, rng=np.random.default_rng(0))
    errors = [epoch["validation"] for epoch in model.curve]
    assert len(errors) < 60 and model.best_epoch == int(np.argmin(errors)) == len(errors) - 4
    rng = np.random.default_rng(0)
    rng.integers(2**62)
    _, held = inner_split(rows, model.settings.validation_share, np.random.default_rng(rng.integers(2**62)))
    found = model.encoder.scaler.apply(model.predict(rows.take(held).without_treated()))
    truth = model.encoder.scaler.apply(rows.treated[held])
    np.testing.assert_allclose(((found - truth) ** 2).mean(), min(errors), rtol=1e-4)


def test_inner_validation_holds_whole_groups_and_is_never_trained_on(monkeypatch):
    rows, seen = make_rows(), []
    plain = trainer.train

    def spy(job):
        seen.append(job.rows)
        return plain(job)

    monkeypatch.setattr("pertstack.fit.torch.common.model.train", spy)
    small("TranSiGen", epochs=1).fit(rows, rng=np.random.default_rng(0))
    trained = set(rows.group[seen[0]])
    held = set(np.delete(rows.group, seen[0]))
    assert held and not trained & held


def test_global_state_is_left_as_it_was():
    torch.manual_seed(3)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    assert threads == 1
    rows = make_rows()
    small("TranSiGen", epochs=1, threads=2).fit(rows, rng=np.random.default_rng(0)).predict(rows.without_treated())
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads
    first = small("TranSiGen", epochs=2).fit(rows, rng=np.random.default_rng(7)).predict(rows.without_treated())
    torch.manual_seed(99)
    second = small("TranSiGen", epochs=2).fit(rows, rng=np.random.default_rng(7)).predict(rows.without_treated())
    np.testing.assert_array_equal(first, second)
    other = small("TranSiGen", epochs=2).fit(rows, rng=np.random.default_rng(8)).predict(rows.without_treated())
    assert np.abs(first - other).max() > 1e-3


def test_a_loss_that_runs_away_is_told_with_epoch_and_mend():
    with pytest.raises(ModelFailedError, match=r"epoch \d.*smaller learning_rate \(now 1e\+30\).*gradient_clip"):
        small("MultiDCP", learning_rate=1e30, gradient_clip=0.0).fit(make_rows(), rng=np.random.default_rng(0))


def test_out_of_memory_is_told_with_what_to_make_smaller(monkeypatch):
    def no_memory(*_, **__):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried ...")

    model = small("MultiDCP")
    monkeypatch.setattr(type(model), "step", no_memory)
    with pytest.raises(ModelFailedError, match="batch_size = 16"):
        model.fit(make_rows(), rng=np.random.default_rng(0))


@pytest.mark.parametrize(("where", "value"), [("control", np.nan), ("treated", np.inf)])
def test_values_that_are_not_finite_are_refused_with_the_sample(where, value):
    rows = make_rows()
    values = getattr(rows, where).copy()
    values[5, 2] = value
    with pytest.raises(InputError, match="s0005"):
        small("MultiDCP").fit(replace(rows, **{where: values}), rng=np.random.default_rng(0))


def test_one_row_or_an_unknown_device_is_refused():
    rows = make_rows()
    with pytest.raises(InputError, match="at least 2"):
        small("MultiDCP").fit(rows.take([0]), rng=np.random.default_rng(0))
    with pytest.raises(InputError, match="abacus"):
        small("MultiDCP", device="abacus").fit(rows, rng=np.random.default_rng(0))
    with pytest.raises(InputError, match="before it was fitted"):
        small("MultiDCP").predict(rows.without_treated())


class Interrupted(Exception):
    pass


def interrupted(name, rows, path, plan, after, **changes):
    """A fit that is stopped in the middle and leaves its checkpoint."""
    model = small(name, **changes)
    model.checkpoint, model.plan_digest, model.checkpoint_seconds = path, plan, 0.0
    plain, calls = model.validation, []

    def validation(*args):
        calls.append(1)
        if len(calls) > after:
            raise Interrupted
        return plain(*args)

    model.validation = validation
    with pytest.raises(Interrupted):
        model.fit(rows, rng=np.random.default_rng(0))
    return model


@pytest.mark.parametrize("name", CHECKED)
def test_a_resumed_fit_is_bit_identical_to_an_uninterrupted_one(name, tmp_path):
    rows, path = make_rows(), tmp_path / "checkpoint"
    whole = small(name).fit(rows, rng=np.random.default_rng(0))
    interrupted(name, rows, path, "plan", after=3)
    assert path.exists()
    again = small(name)
    again.checkpoint, again.plan_digest = path, "plan"
    epochs, plain = [], again.validation
    again.validation = lambda *args: (epochs.append(1), plain(*args))[1]
    again.fit(rows, rng=np.random.default_rng(0))
    assert len(epochs) == 3  # epochs 4 to 6 only
    np.testing.assert_array_equal(again.predict(rows.without_treated()), whole.predict(rows.without_treated()))
    assert again.curve == whole.curve and not path.exists()


def test_a_checkpoint_of_another_plan_or_of_other_rows_is_refused(tmp_path):
    rows, path = make_rows(), tmp_path / "checkpoint"
    interrupted("ChemCPASupervised", rows, path, "plan A", after=2)
    changed = rows.treated.copy()
    changed[0, 0] += 1
    for other, plan in (
        (rows, "plan B"),
        (rows.take(np.arange(50)), "plan A"),
        (replace(rows, treated=changed), "plan A"),
    ):
        model = small("ChemCPASupervised")
        model.checkpoint, model.plan_digest = path, plan
        with pytest.raises(FoldPlanMismatchError, match="held-out values"):
            model.fit(other, rng=np.random.default_rng(0))
        assert path.exists()


def test_in_a_run_only_the_job_with_the_foreign_checkpoint_fails(tmp_path):
    """Somebody copied a job's folder from a study with another plan."""
    fit, held = split_by_perturbation(make_rows(), 6)
    jobs = [Job.of(name, small(name).params(), fold=fold) for name, fold in ((CHECKED[0], 0), (CHECKED[0], 1))]
    path = tmp_path / "jobs" / jobs[0].folder / "checkpoint.npz"
    path.parent.mkdir(parents=True)
    interrupted(CHECKED[0], fit, path, "plan A", after=2)
    kept = {}
    results = cross_fit(
        jobs,
        rows_for=lambda job: JobRows(fit, [(Block("A", job.fold), held.without_treated())]),
        commit=lambda job, block, predicted, embedding, record: kept.setdefault(job.id, predicted),
        done=lambda job: False,
        log_dir=tmp_path / "jobs",
        seed=0,
        engine="inline",
        plan_digest="plan B",
    )
    assert [r.status for r in results] == ["failed", "done"] and list(kept) == ["pooled.f1"]
    assert "held-out values" in results[0].error and str(path) in results[0].error


def test_other_hyper_parameters_start_anew(tmp_path):
    rows, path = make_rows(), tmp_path / "checkpoint"
    interrupted("ChemCPASupervised", rows, path, "plan", after=2)
    model = small("ChemCPASupervised", epochs=4)
    model.checkpoint, model.plan_digest = path, "plan"
    model.fit(rows, rng=np.random.default_rng(0))
    assert len(model.curve) == 4
    plain = small("ChemCPASupervised", epochs=4).fit(rows, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(model.predict(rows.without_treated()), plain.predict(rows.without_treated()))


class Payload:
    def __reduce__(self):
        return (pytest.fail, ("a checkpoint was allowed to run code",))


def torch_file(content):
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"rubbish",
        pickle.dumps(Payload()),
        torch_file(Payload()),
        torch_file({"rows": "rows"}),
        torch_file([])[:-20],
    ],
    ids=["empty", "rubbish", "pickle", "payload", "fields missing", "cut short"],
)
def test_a_file_that_is_no_checkpoint_is_refused_and_nothing_in_it_is_run(content, tmp_path):
    path = tmp_path / "checkpoint"
    path.write_bytes(content)
    with pytest.raises(CorruptionError, match="Delete it"):
        read_checkpoint(path, Identity("rows", "params"))


def test_the_rate_falls_along_half_a_cosine():
    """At epoch e of E: 2 % + 98 % of (1 + cos(pi e / E)) / 2."""
    rates, rows = [], make_rows()
    model = small("ChemCPASupervised", epochs=4, learning_rate=1e-3)
    plain = model.optimisers

    def optimisers(net):
        made = plain(net)
        model.validation = lambda *_: rates.append(made[0].param_groups[0]["lr"]) or 1.0
        return made

    model.optimisers = optimisers
    model.fit(rows, rng=np.random.default_rng(0))
    np.testing.assert_allclose(rates, [1e-3 * (0.02 + 0.49 * (1 + math.cos(math.pi * e / 4))) for e in range(4)])


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_curves_are_kept_for_every_model(name):
    rows = make_rows(kinds=("structure", "targets"))
    model = small(name, epochs=3).fit(rows, rng=np.random.default_rng(0))
    assert [c["epoch"] for c in model.curve] == [0, 1, 2]
    assert all(math.isfinite(v) for c in model.curve for v in c.values()) and "validation" in model.curve[-1]


@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_handful_of_rows_never_leaves_a_batch_of_one(n):
    rows = make_rows().take(np.arange(n))
    model = small("TranSiGen", batch_size=2, epochs=2, validation_share=0.0).fit(rows, rng=np.random.default_rng(0))
    assert np.isfinite(model.predict(rows.without_treated())).all()
    assert model.best_epoch is None and "validation" not in model.curve[-1]
