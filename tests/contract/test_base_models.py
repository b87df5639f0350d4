"""What every registered base model must keep (models.md section 4). A new model is picked up through the registry.

Each test breaks when the mistake of a known repository is repeated: predictions that depend on their neighbours in the
batch (P23), sampling at prediction time (P20), dead inputs (P24), fake molecules (P10), arbitrary answers for the
unseen (P11), fits that see the held-out truth (P1, P2).
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from importlib.util import find_spec

import numpy as np
import pytest

from pertstack._base.errors import InputError, StackingError
from pertstack.data.side.side import SideInformation
from pertstack.design.blocks import Block
from pertstack.fit import Job, JobRows, available, cross_fit, get_model, get_row, list_models
from pertstack.fit.baselines import MODELS
from pertstack.fit.registry import build, model_class
from references.fit_world import make_rows, split_by_perturbation, with_control, with_obs

HAS_TORCH = find_spec("torch") is not None
ROWS = [row for row in list_models() if row.kind != "external"]
TORCH = {row.name for row in ROWS if row.target.startswith("pertstack.fit.torch")}
QUICK = {"epochs": 3, "patience": 2, "infer_steps": 5}
PATIENT = {"epochs": 150, "patience": 30, "batch_size": 16, "genes_per_step": 0, "dropout": 0.0, "learning_rate": 2e-3}


def named(names, *marks):
    """Parameters for pytest: torch models carry their mark, and further ones where a test is long for them."""
    skip = pytest.mark.skipif(not HAS_TORCH, reason="needs torch")
    return [pytest.param(n, marks=[pytest.mark.torch, skip, *marks] if n in TORCH else []) for n in names]


EVERY = named([row.name for row in ROWS])
FEATURED = named([row.name for row in ROWS if row.needs.features])


def settings(name: str, *, quick: bool = True, **more) -> dict:
    """Parameters that make a model small; ``quick`` where a test asks about behaviour rather than learning."""
    if name in TORCH:
        from pertstack.fit.profiles import profile

        known = profile("fast", name)
        return {**known, **{k: v for k, v in (QUICK if quick else PATIENT).items() if k in known}, **more}
    return {**({"max_epochs": 5} if name == "mlp" and quick else {}), **more}


def world(name: str, **options):
    needs = get_row(name).needs
    kinds = ("genes",) if needs.features == ("genes",) else ("targets",) if needs.targets else ("structure", "targets")
    return make_rows(**{"kinds": kinds, **options})


@cache
def fitted(name: str):
    """A model fitted once, and held-out rows without truth: shared by tests that only predict."""
    fit, held = split_by_perturbation(world(name, replicates=8))
    model = get_model(name, settings(name)).fit(fit, rng=np.random.default_rng(5))
    return model, fit, held.without_treated()


def spread(values) -> float:
    return float(np.std(values)) + 1e-6


def part_of(rows, index):
    return replace(rows, control=rows.control[index], obs=rows.obs.iloc[index])


@pytest.mark.parametrize("name", EVERY)
def test_registry_and_class_agree(name):
    row = get_row(name)
    cls = model_class(row)
    assert (cls.name, cls.needs) == (row.name, row.needs) and row.summary
    model = get_model(name, settings(name))
    again = build(cls, json.loads(json.dumps(model.params())), name)
    assert again.params() == model.params()


@pytest.mark.parametrize("name", EVERY)
def test_a_row_is_predicted_the_same_in_any_company(name):
    model, _, held = fitted(name)
    whole = model.predict(held)
    assert whole.dtype == np.float32 and whole.shape == (held.n_samples, held.n_genes) and np.isfinite(whole).all()
    order = np.random.default_rng(0).permutation(held.n_samples)
    for index in (order, np.array([3]), np.array([7, 3, 3, 0])):
        np.testing.assert_allclose(model.predict(part_of(held, index)), whole[index], atol=1e-5 * spread(whole))


@pytest.mark.parametrize("name", EVERY)
def test_predict_is_deterministic_and_draws_nothing(name):
    model, _, held = fitted(name)
    state = np.random.get_state()[1].copy()
    first = model.predict(held)
    np.random.seed(99)
    if name in TORCH:
        import torch

        torch.manual_seed(99)
    np.testing.assert_array_equal(model.predict(held), first)
    np.random.set_state(("MT19937", state, 624, 0, 0.0))


@pytest.mark.parametrize("name", EVERY)
def test_the_same_seed_gives_the_same_fit(name):
    model, fit, held = fitted(name)
    again = get_model(name, settings(name)).fit(fit, rng=np.random.default_rng(5))
    np.testing.assert_array_equal(again.predict(held), model.predict(held))


@pytest.mark.parametrize("name", EVERY)
def test_inputs_are_left_as_they_were(name):
    fit, held = split_by_perturbation(world(name))
    before = fit.control.copy(), fit.treated.copy(), held.control.copy(), fit.obs.copy()
    get_model(name, settings(name)).fit(fit, rng=np.random.default_rng(5)).predict(held.without_treated())
    for old, new in zip(before[:3], (fit.control, fit.treated, held.control), strict=True):
        np.testing.assert_array_equal(old, new)
    assert before[3].equals(fit.obs)


@pytest.mark.parametrize("name", named([cls.name for cls, kind in MODELS if kind != "network"]))
def test_order_of_fit_rows_does_not_matter(name):
    model, fit, held = fitted(name)
    order = np.random.default_rng(1).permutation(fit.n_samples)
    again = get_model(name, settings(name)).fit(fit.take(order), rng=np.random.default_rng(5))
    np.testing.assert_allclose(again.predict(held), model.predict(held), atol=1e-4)


def claims_checked(name: str, aspect: bool, changed, plain) -> None:
    if aspect:
        assert np.abs(changed - plain).max() > 1e-6 * spread(plain), f"{name} claims to use what it ignores"
    else:
        np.testing.assert_array_equal(changed, plain, err_msg=f"{name} uses what it says it does not")


@pytest.mark.parametrize("name", EVERY)
def test_it_uses_what_it_claims_and_nothing_else(name):
    if name == "mlp":
        model, fit, _ = trained(name)
    else:
        model, fit, _ = fitted(name)
    rows, needs = fit.without_treated(), get_row(name).needs
    plain = model.predict(rows)
    noise = np.random.default_rng(2).normal(size=rows.control.shape)
    claims_checked(name, needs.uses_control, model.predict(with_control(rows, rows.control + noise)), plain)
    names = sorted(set(rows.perturbation))
    swapped = dict(zip(names, names[::-1], strict=True))
    others = [swapped[p] for p in rows.perturbation]
    claims_checked(name, needs.uses_perturbation, model.predict(with_obs(rows, perturbation=others)), plain)
    lines = np.where(rows.cell_line == "A", "B", "A").astype(object)
    claims_checked(name, needs.uses_cell_line, model.predict(with_obs(rows, cell_line=lines)), plain)


class Loader:
    """Fold 0 is every third perturbation; its treated values may be scrambled."""

    def __init__(self, name: str, *, scramble: bool) -> None:
        self.rows, self.scramble = world(name), scramble

    def __call__(self, job: Job) -> JobRows:
        rows = self.rows
        held = np.array([int(p[1:]) % 3 == 0 for p in rows.perturbation])
        if self.scramble:
            order = np.random.default_rng(3).permutation(np.flatnonzero(held))
            treated = rows.treated.copy()
            treated[held] = 7 - treated[order]
            rows = replace(rows, treated=treated)
        blocks = [(Block(x, 0), rows.take(held & (rows.cell_line == x)).without_treated()) for x in ("A", "B")]
        return JobRows(rows.take(~held), blocks)


@pytest.mark.parametrize("name", EVERY)
def test_the_fit_is_bit_identical_when_held_out_targets_are_permuted(name, tmp_path):
    found: dict[bool, list] = {False: [], True: []}
    for scramble, kept in found.items():
        (result,) = cross_fit(
            [Job.of(name, settings(name), fold=0)],
            rows_for=Loader(name, scramble=scramble),
            engine="inline",
            commit=lambda job, block, values, embedding, record, kept=kept: kept.append((block, values, embedding)),
            done=lambda job: False,
            log_dir=tmp_path / str(scramble),
            seed=1,
        )
        assert result.status == "done", result.error
    assert len(found[True]) == 2
    for (block, values, embedding), (_, scrambled, other) in zip(found[False], found[True], strict=True):
        np.testing.assert_array_equal(values, scrambled, err_msg=str(block))
        if embedding is not None:
            np.testing.assert_array_equal(embedding, other)
            assert len(embedding) == len(values) and embedding.ndim == 2


@pytest.mark.parametrize("name", EVERY)
def test_unseen_perturbations_and_cell_lines_are_as_declared(name):
    model, _, held = fitted(name)
    needs = get_row(name).needs
    for claim, rows in (
        (needs.unseen_perturbation, held),
        (needs.unseen_cell_line, with_obs(held, cell_line="a line nobody fitted")),
    ):
        if claim:
            assert np.isfinite(model.predict(rows)).all()
        else:
            with pytest.raises(StackingError):
                model.predict(rows)


@pytest.mark.parametrize("name", EVERY)
def test_unseen_cell_lines_do_not_get_the_answer_of_an_arbitrary_one(name):
    """P11: the answer must not depend on what the unseen line is called, nor be the one of some fitted line."""
    model, fit, held = fitted(name)
    needs = get_row(name).needs
    if not needs.unseen_cell_line:
        pytest.skip("refuses unseen cell lines")
    first, second = (model.predict(with_obs(held, cell_line=line)) for line in ("0 first", "zz last"))
    np.testing.assert_array_equal(first, second)
    known, plain = fit.without_treated(), model.predict(with_obs(fit.without_treated(), cell_line="zz last"))
    for line in sorted(set(fit.cell_line)) if needs.uses_cell_line else ():
        assert np.abs(model.predict(with_obs(known, cell_line=line)) - plain).max() > 0, f"unseen passes for {line}"


@pytest.mark.parametrize(
    "options",
    [
        {"n_genes": 5},
        {"n_genes": 978, "n_perturbations": 12},
        {"replicates": 1},
        {"cell_lines": ("A",)},
        {"zero_control": True},
        {"n_perturbations": 3, "replicates": 2},
    ],
    ids=["5 genes", "978 genes", "one replicate", "one line", "delta", "tiny"],
)
@pytest.mark.parametrize("name", EVERY)
def test_odd_sizes_give_finite_answers(name, options):
    fit, held = split_by_perturbation(world(name, **options), n_held_out=1)
    model = get_model(name, settings(name)).fit(fit, rng=np.random.default_rng(0))
    assert np.isfinite(model.predict(held.without_treated())).all()


@cache
def trained(name: str):
    """A model fitted with patience, with rows to test it on: new replicates, and four new perturbations."""
    rows = world(name, n_perturbations=60, replicates=8, noise=0.1, control_noise=0.3)
    fit, new = split_by_perturbation(rows, n_held_out=4)
    again = np.arange(fit.n_samples) % 8 >= 6
    model = get_model(name, settings(name, quick=False)).fit(fit.take(~again), rng=np.random.default_rng(0))
    return model, fit.take(~again), {"new replicates": fit.take(again), "new perturbations": new}


@pytest.mark.parametrize("name", named([row.name for row in ROWS if row.needs.uses_perturbation], pytest.mark.slow))
def test_it_learns_a_planted_signal_better_than_mean_treated(name):
    model, fit, tests = trained(name)
    mean = get_model("mean_treated_cell_line").fit(fit, rng=np.random.default_rng(0))
    needs = get_row(name).needs
    for where, rows in tests.items():
        if where == "new perturbations" and not needs.features:
            continue  # nothing is known of them
        error, bar = (np.sqrt(((m.predict(rows.without_treated()) - rows.treated) ** 2).mean()) for m in (model, mean))
        assert error < 0.95 * bar, f"{name} on {where}: {error:.3f}, mean treated {bar:.3f}"


@pytest.mark.parametrize("name", FEATURED)
def test_without_features_it_is_unavailable_with_a_reason_and_refuses(name):
    row, rows = get_row(name), world(name)
    assert available(row, rows.side, rows.obs) is None
    bare = replace(rows, side=SideInformation())
    reason = available(row, bare.side, bare.obs)
    assert reason is not None and row.needs.features[0] in reason
    with pytest.raises(InputError):
        get_model(name, settings(name)).fit(bare, rng=np.random.default_rng(0))
    nobody = world(name, unknown=tuple(sorted(set(rows.perturbation))))
    assert "missing for every" in (available(row, nobody.side, nobody.obs) or "")


def policy_of(name: str) -> str | None:
    known = get_model(name, settings(name)).params()
    return next((key for key in ("on_missing", "on_missing_structure") if key in known), None)


@pytest.mark.parametrize("policy", ["raise", "mask", "drop"])
@pytest.mark.parametrize("name", FEATURED)
def test_missing_structures_follow_the_policy(name, policy):
    key = policy_of(name)
    if key is None:
        pytest.skip("has no structures to miss")
    fit, held = split_by_perturbation(world(name, unknown=("d03", "d22", "d23")))
    model = get_model(name, settings(name, **{key: policy}))
    if policy == "raise":
        with pytest.raises(InputError, match="d03"):
            model.fit(fit, rng=np.random.default_rng(0))
        return
    model.fit(fit, rng=np.random.default_rng(0))
    rows = held.without_treated()
    assert np.isfinite(model.predict(rows)).all()
    first, second = (model.predict(with_obs(rows, perturbation=p)) for p in ("d22", "d23"))
    np.testing.assert_array_equal(first, second, err_msg="two unknown structures must get the same answer (P10)")
    if policy == "drop":
        assert_not_fitted_on(model, name, key, fit, "d03", rows)


def assert_not_fitted_on(model, name, key, fit, perturbation, rows):
    """The same fit comes out whatever the treated profiles of a dropped perturbation are."""
    dropped = fit.perturbation == perturbation
    assert dropped.any()
    treated = fit.treated + np.float32(50) * dropped[:, None]
    again = get_model(name, settings(name, **{key: "drop"}))
    again.fit(replace(fit, treated=treated), rng=np.random.default_rng(0))
    np.testing.assert_array_equal(again.predict(rows), model.predict(rows))


@pytest.mark.parametrize("name", FEATURED)
def test_a_misspelt_policy_is_refused(name):
    key = policy_of(name)
    if key is None:
        pytest.skip("has no structures to miss")
    with pytest.raises(StackingError, match="methane"):
        get_model(name, settings(name, **{key: "methane"}))
