"""Mistakes of published base models and stackers, made on purpose: L9, L17; P3, P4, P15, P17, P18, P21, P22, P24, P25,
P30. (P26, code that cannot run, is met by tests/contract, which fits and asks every registered model.)"""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pertstack as ps
from pertstack._base.errors import InputError, IntegrityError, MisalignedError, UnknownNameError
from pertstack.fit.registry import get_model
from pertstack.predictions.sources.array_source import ArraySource
from pertstack.reduce.references import References
from pertstack.reduce.scoring.score import score
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.nested import fit_nested
from references.fit_world import make_rows, split_by_perturbation, with_control, with_obs
from references.small_world import small_world

SOURCE = Path(ps.__file__).parent
SMALL = {"epochs": 3, "patience": 2}


def network(name: str, **more):
    pytest.importorskip("torch")
    from pertstack.fit.profiles import profile

    known = profile("fast", name)
    wanted = {**SMALL, "infer_steps": 20, **more}
    return get_model(name, {**known, **{k: v for k, v in wanted.items() if k in known}})


# -- stackers ----------------------------------------------------------------------------------------------------------


def test_the_best_single_of_a_fold_is_chosen_without_that_fold_also_by_a_metric_that_is_no_loss():
    """L9: a selector scored candidates on the rows of the scored fold. Here one model is splendid in fold 0 alone."""
    world = small_world(n=180, n_groups=36, n_models=2, errors=[0.6, 0.9])
    fold = np.asarray(world["folds"])
    lucky = world["predictions"]["m1"].copy()
    lucky[fold == 0] = world["treated"][fold == 0]
    predictions = {"steady": world["predictions"]["m0"], "lucky": lucky}
    source = ArraySource(
        predictions,
        world["treated"],
        world["control"],
        folds=fold,
        perturbation=world["perturbation"],
        cell_line=world["cell_line"],
    )
    references = References.collect(source)
    reduction = reduce_blocks(source, references, k=20)
    nested = fit_nested(["mean"], reduction, source=source, references=references, primary="r2_top20@pooled")
    chosen = {k: fit.weights()["facts"]["chosen"] for k, fit in nested.fits["best_single"].items()}
    assert chosen == {0: "steady", 1: "lucky", 2: "lucky"}
    table = score(source, nested.combines(), references, metrics=["r2_top20@pooled"])
    in_zero = table.samples["fold"].to_numpy() == 0
    best = table.values("best_single", "r2_top20@pooled")[in_zero].mean()
    assert best == pytest.approx(table.values("steady", "r2_top20@pooled")[in_zero].mean(), abs=1e-6)
    assert table.values("lucky", "r2_top20@pooled")[in_zero].mean() > best + 0.1


def test_repeated_validation_cannot_be_stacked(fitted, tmp_path):
    """L17: two out-of-fold rows of one sample, from repeated folds, stand in different folds: each would be learned
    from when the other is scored."""
    world = small_world(n=90, n_groups=18)
    twice = {k: np.concatenate([v, v]) for k, v in world.items() if k in ("treated", "control", "perturbation")}
    folds = np.concatenate([world["folds"], (np.asarray(world["folds"]) + 1) % 3])
    predictions = {k: np.concatenate([p, p]) for k, p in world["predictions"].items()}
    with pytest.raises(InputError, match="rows in several folds"):
        ps.stack(predictions, **twice, folds=folds, combiners=["mean"])
    store = fitted.folder.store
    parts = [
        pd.DataFrame(store.read(b, "ridge"), index=store.sample_ids(b), columns=store.gene_names)
        for b in store.blocks()
    ]
    pd.concat([*parts, *parts]).to_parquet(tmp_path / "repeated.parquet")
    with pytest.raises((MisalignedError, InputError), match="more than once"):
        fitted.add("repeated", tmp_path / "repeated.parquet", fitted_on="plan", scale="treated")


def test_two_meanings_of_r2_have_two_names():
    """P4: r2_score in one script, Pearson squared in another. P5: the square rewards anti-correlation."""
    world = small_world(n=90, n_groups=18)
    y = world["treated"].astype(float) - world["control"]
    source = ArraySource(
        {"opposite": (world["control"] - y).astype(np.float32)},
        world["treated"],
        world["control"],
        folds=world["folds"],
        perturbation=world["perturbation"],
    )
    names = ["r2_top20", "pearson_top20", "cod_all", "sign_acc_top20"]
    table = score(source, {}, References.collect(source), metrics=names)
    found = {m: table.mean("opposite", m).value for m in names}
    assert found["r2_top20"] == pytest.approx(1.0, abs=1e-4) and found["pearson_top20"] == pytest.approx(-1, abs=1e-4)
    assert found["cod_all"] < -2 and found["sign_acc_top20"] == pytest.approx(0.0, abs=1e-6)
    for name in ("r2", "r2_score", "r2_all_score"):
        with pytest.raises(UnknownNameError, match="r2_top20"):
            score(source, {}, References.collect(source), metrics=[name])


# -- encoders and scales -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ridge", "perturbation_knn", "mlp"])
def test_doses_are_read_with_what_was_learned_from_the_fit_rows(name):
    """P17: min-max per split, a vocabulary per split, an invented second level for a single dose."""
    fit, held = split_by_perturbation(make_rows())
    model = get_model(name, {"max_epochs": 5} if name == "mlp" else {}).fit(fit, rng=np.random.default_rng(0))
    rows = held.without_treated()
    whole = model.predict(rows)
    for dose in np.unique(rows.obs["log10_dose"]):
        alone = (rows.obs["log10_dose"] == dose).to_numpy()
        part = replace(rows, control=rows.control[alone], obs=rows.obs[alone])
        np.testing.assert_allclose(model.predict(part), whole[alone], atol=1e-5)
    one = replace(fit, obs=fit.obs.assign(log10_dose=1.0))
    flat = get_model(name, {"max_epochs": 5} if name == "mlp" else {}).fit(one, rng=np.random.default_rng(0))
    for other in (-3.0, 5.0):
        np.testing.assert_array_equal(
            flat.predict(with_obs(rows, log10_dose=other)), flat.predict(with_obs(rows, log10_dose=1.0))
        )


@pytest.mark.parametrize("name", ["mean_treated", "per_gene_linear", "ridge", "Biolord", "scGen", "TranSiGen"])
def test_predictions_are_in_the_scale_of_the_data(name):
    """P18: wrappers that normalise and log-transform again answer in a scale of their own."""
    fit, held = split_by_perturbation(make_rows(kinds=("structure", "targets")))
    rows, make = held.without_treated(), network if name[0].isupper() or name == "scGen" else get_model

    def answer(scale: float, shift: float) -> np.ndarray:
        moved = replace(
            fit, control=scale * fit.control + np.float32(shift), treated=scale * fit.treated + np.float32(shift)
        )
        model = make(name).fit(moved, rng=np.random.default_rng(1))
        return (model.predict(with_control(rows, scale * rows.control + np.float32(shift))) - shift) / scale

    plain, moved = answer(1.0, 0.0), answer(4.0, 20.0)
    off = np.abs(moved - plain).mean() / fit.treated.std()
    assert off < 0.02, off
    assert np.abs(plain.mean(axis=0) - fit.treated.mean(axis=0)).mean() < fit.treated.std()


def test_values_normalised_and_logged_again_are_refused_at_the_door(fitted, tmp_path):
    """P18: library size 10,000 and log1p of what already is log2."""
    store, parts = fitted.folder.store, []
    for block in store.blocks():
        values = store.read(block, "ridge")
        again = np.log1p(values / values.sum(axis=1, keepdims=True) * 1e4)
        parts.append(pd.DataFrame(again, index=store.sample_ids(block), columns=store.gene_names))
    pd.concat(parts).to_parquet(tmp_path / "again.parquet")
    with pytest.raises(IntegrityError, match=r"scale"):
        fitted.add("again", tmp_path / "again.parquet", fitted_on="plan", scale="treated")
    assert "again" not in fitted.folder.store.models()


# -- networks ----------------------------------------------------------------------------------------------------------


@pytest.mark.torch
def test_one_epoch_is_kept_and_no_curve_knows_the_test():
    """P3: the epoch with the best test score is printed beside the chosen one, and epoch 1 overwrites the rest."""
    fit, held = split_by_perturbation(make_rows())
    model = network("TranSiGen", epochs=12, patience=4).fit(fit, rng=np.random.default_rng(0))
    keys = {k for epoch in model.curve for k in epoch}
    assert not {k for k in keys if "test" in k} and {k for k in keys if "validation" in k}
    watched = [e[next(k for k in e if "validation" in k)] for e in model.curve]
    assert model.best_epoch == int(np.argmin(watched))
    assert model.predict(held.without_treated()).shape == (held.n_samples, held.n_genes)


def sensitivity(model, rows) -> float:
    """Mean change of the prediction for a change of one standard deviation of the control, relative to its spread."""
    plain = model.predict(rows)
    noise = np.random.default_rng(2).normal(size=rows.control.shape).astype(np.float32) * rows.control.std()
    return float(np.abs(model.predict(with_control(rows, rows.control + noise)) - plain).mean() / plain.std())


@pytest.mark.torch
@pytest.mark.parametrize("name", ["Biolord", "MultiDCP", "MultiDCP_CheMoE", "CheMoE"])
def test_no_network_is_blind_to_its_control(name):
    """P15: the code of a test row was never trained; P24: every 1-d parameter starts at 1e-7 and the encoder is dead.
    Biolord told to ignore the control (the published habit) has a sensitivity of exactly 0."""
    fit, held = split_by_perturbation(make_rows(replicates=8))
    rows = held.without_treated()
    model = network(name, epochs=10, patience=10).fit(fit, rng=np.random.default_rng(0))
    alive = sensitivity(model, rows)
    assert alive > 1e-3, alive
    if name == "Biolord":
        blind = network(name, infer="zero", epochs=10, patience=10).fit(fit, rng=np.random.default_rng(0))
        assert sensitivity(blind, rows) == 0.0


@pytest.mark.torch
def test_a_gate_with_one_expert_learns_and_the_naive_one_does_not():
    """P21: a softmax over the one selected logit is the constant 1, so no gradient reaches the gate."""
    torch = pytest.importorskip("torch")
    from pertstack.fit.torch.common.layers import Gate

    torch.manual_seed(0)
    x, target = torch.randn(64, 6), torch.randn(64, 3)
    experts = [torch.nn.Linear(6, 3) for _ in range(4)]
    answers = torch.stack([e(x) for e in experts], dim=1)

    def gradient(weights, scores) -> float:
        ((weights[:, :, None] * answers).sum(1) - target).pow(2).mean().backward(retain_graph=True)
        return float(scores.weight.grad.abs().max())

    naive = torch.nn.Linear(6, 4)
    top, at = naive(x).topk(1, dim=1)
    assert gradient(torch.zeros(64, 4).scatter(1, at, top.softmax(1)), naive) == 0.0
    ours = torch.nn.Linear(6, 4)
    weights, _ = Gate(ours, 4, 1)(x)
    assert gradient(weights, ours) > 1e-4


@pytest.mark.torch
@pytest.mark.parametrize("name", ["TranSiGen_SparseMoE", "TranSiGen_BalancedMoE", "CheMoE"])
def test_the_balance_term_has_force(name):
    """P22: summed reconstruction (1e6 a batch) beside a balance term of 0.1: 1e-7 of the loss. Here both are means."""
    fit, _ = split_by_perturbation(make_rows(replicates=8))
    model = network(name, epochs=3).fit(fit, rng=np.random.default_rng(0))
    losses = model.curve[0]
    balance = [v for k, v in losses.items() if "balance" in k]
    main = [v for k, v in losses.items() if "balance" not in k and "validation" not in k and k != "epoch"]
    assert balance and balance[0] > 0
    assert balance[0] > 1e-4 * max(map(abs, main)), losses


@pytest.mark.torch
@pytest.mark.parametrize("name", ["MultiDCP_CheMoE", "Biolord"])
def test_the_seed_of_the_run_controls_everything_and_nothing_global_is_touched(name):
    """P25: init_weights calls torch.manual_seed(42 + i), so that the seed of the run means nothing any more."""
    torch = pytest.importorskip("torch")
    fit, held = split_by_perturbation(make_rows())
    rows = held.without_treated()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, other = (network(name).fit(fit, rng=np.random.default_rng(s)).predict(rows) for s in (7, 8))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    np.testing.assert_array_equal(network(name).fit(fit, rng=np.random.default_rng(7)).predict(rows), first)
    assert np.abs(first - other).max() > 1e-4


# -- habits of the code ------------------------------------------------------------------------------------------------


def _calls(tree: ast.AST) -> list[str]:
    return [ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)]


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_silenced_warnings_pickles_global_settings_or_machine_paths(path):
    """P30: warnings ignored for good, whole models pickled, absolute paths, a global default dtype."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    calls = _calls(tree)
    top = [c for node in tree.body if isinstance(node, ast.Expr) for c in _calls(node)]
    assert not [c for c in top if c.startswith("warnings.")]
    place = path.relative_to(SOURCE).as_posix()
    assert not [c for c in calls if c.endswith(("set_default_dtype", "pickle.dump", "pickle.load"))]
    if not place.startswith("fit/cards/"):  # workers of external models: programs of their own, in a process of theirs
        seeding = {"fit/torch/common/trainer.py"} if "fork_rng" in text else set()
        assert place in seeding or not {"torch.manual_seed", "np.random.seed", "random.seed"} & set(calls)
    # A checkpoint holds tensors and plain values and is read back without running code; workers are other programs.
    if "torch.save" in calls and not place.startswith("fit/cards/"):
        assert place == "fit/torch/common/checkpoint.py" and "weights_only=True" in text
    names = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    allowed = {
        "_base/reading/unpickle.py",
        "_base/reading/unpickle_pandas.py",
        "_base/reading/unpickle_parts.py",
        "fit/torch/common/checkpoint.py",
    }  # a reader that runs no code; the name of an exception
    assert not ({"pickle", "joblib", "dill"} & set(names)) or path.relative_to(SOURCE).as_posix() in allowed, names
    words = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    assert not [w for w in words if w.startswith(("/home/", "/Users/", "/work/", "/data/", "C:\\"))]
