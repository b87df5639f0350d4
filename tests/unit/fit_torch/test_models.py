"""Each model on a small planted world: learns, uses what it says, says what it cannot do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from pertstack._base.errors import InputError
from pertstack.data.rows import FitRows
from pertstack.data.side.side import GeneGraph, PerturbationFeatures, SideInformation
from pertstack.fit.profiles import profile
from pertstack.fit.registry import get_model
from pertstack.fit.torch.biolord import BiolordNetwork
from pertstack.fit.torch.chemcpa import adversary_classes
from pertstack.fit.torch.common.inputs import Encoder
from pertstack.fit.torch.common.network import Sizes
from pertstack.fit.torch.common.settings import SETTINGS
from pertstack.fit.torch.scgen import learn_differences
from references.fit_world import make_rows, split_by_perturbation, with_control, with_obs

pytestmark = pytest.mark.torch
NAMES = sorted(SETTINGS)


def model_of(name, **changes):
    return get_model(name, {**profile("fast", name), "epochs": 4, **changes})


def planted(n: int = 400, n_genes: int = 60) -> FitRows:
    """400 rows x 60 genes: 20 perturbations hit 3 genes each; hit genes fall by 3, their neighbours in a graph rise by
    2.

    What a perturbation does therefore follows both from its bits (one per gene) and from targets and graph. Genes 0-29
    move together in the control.
    """
    rng = np.random.default_rng(0)
    genes = np.array([f"g{i}" for i in range(n_genes)], dtype=object)
    edges = np.array([(i, (i + 7) % n_genes) for i in range(n_genes)])
    hits = np.zeros((20, n_genes), dtype=np.float32)
    for p in range(20):
        hits[p, rng.choice(n_genes, 3, replace=False)] = 1
    spread = np.zeros((n_genes, n_genes))
    spread[edges[:, 0], edges[:, 1]] = spread[edges[:, 1], edges[:, 0]] = 1
    who, line = np.arange(n) % 20, (np.arange(n) // 20) % 2
    control = rng.normal(size=(2, n_genes))[line] + 0.4 * rng.normal(size=(n, n_genes))
    control[:, :30] += rng.normal(size=(n, 1))
    treated = control + (-3 * hits + 2 * hits @ spread)[who] + 0.2 * rng.normal(size=(n, n_genes))
    names = tuple(f"p{i:02d}" for i in range(20))
    kinds = ("structure", "targets")
    features = {k: PerturbationFeatures(k, names, tuple(genes), hits, np.ones(20, bool)) for k in kinds}
    obs = pd.DataFrame(
        {"perturbation": np.array(names, dtype=object)[who], "cell_line": np.array(["A", "B"], dtype=object)[line]},
        index=[f"s{i}" for i in range(n)],
    )
    side = SideInformation(features, GeneGraph(tuple(genes), edges))
    group = np.array([f"r{i // 40}" for i in range(n)], dtype=object)  # runs of replicates
    return FitRows(genes, control.astype(np.float32), obs, side, treated.astype(np.float32), group)


QUICK = ("Biolord", "ChemCPA", "MultiDCP", "PDGrapher", "TranSiGen", "scGen")
"""One of each family; those with experts learn in `make test-all`."""
LEARN = {
    "MultiDCP": {"genes_per_step": 0, "batch_size": 16},
    "MultiDCP_CheMoE": {"genes_per_step": 0, "batch_size": 16, "dropout": 0.0},
    "CheMoE": {"genes_per_step": 0, "batch_size": 16, "dropout": 0.0},
    "PDGrapher": {"learning_rate": 1e-2, "batch_size": 16},
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in NAMES])
def test_a_planted_signal_is_learned_better_than_mean_treated(name):
    """New replicates of fitted perturbations, 30 epochs; mean treated is that of the cell line."""
    rows = planted()
    held = rows.group == "r9"
    fit, new = rows.take(~held), rows.take(held)
    model = model_of(name, epochs=30, patience=30, **LEARN.get(name, {})).fit(fit, rng=np.random.default_rng(0))
    mean = {c: fit.treated[fit.cell_line == c].mean(axis=0) for c in ("A", "B")}
    bar = np.mean([(mean[c] - t) ** 2 for c, t in zip(new.cell_line, new.treated, strict=True)])
    error = ((model.predict(new.without_treated()) - new.treated) ** 2).mean()
    assert error < 0.9 * bar, f"{name}: {error:.3f}, mean treated {bar:.3f}"


@pytest.mark.parametrize("n_genes", [5, 978])
@pytest.mark.parametrize("name", NAMES)
def test_few_and_many_genes_give_finite_answers_and_vectors(name, n_genes):
    rows = make_rows(n_genes=n_genes, n_perturbations=6, kinds=("structure", "targets"))
    model = model_of(name, epochs=2).fit(rows, rng=np.random.default_rng(0))
    out, vectors = model.predict(rows.without_treated()), model.embed(rows.without_treated())
    assert out.shape == (rows.n_samples, n_genes) and out.dtype == vectors.dtype == np.float32
    assert np.isfinite(out).all() and np.isfinite(vectors).all() and len(vectors) == rows.n_samples
    assert vectors.std(axis=0).max() > 1e-4
    np.testing.assert_array_equal(vectors, model.embed(rows.without_treated()))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_predict_gives_nothing_and_neighbours_do_not_matter(name):
    rows = make_rows(kinds=("structure", "targets"), replicates=12)
    model = model_of(name, epochs=2).fit(rows, rng=np.random.default_rng(0))
    whole, vectors = model.predict(rows.without_treated()), model.embed(rows.without_treated())
    for index in ([], [200], [5, 287, 5], list(range(100, 288))):
        part = replace(rows.without_treated(), control=rows.control[index], obs=rows.obs.iloc[index])
        np.testing.assert_allclose(model.predict(part), whole[index], atol=1e-5)
        if index:
            np.testing.assert_allclose(model.embed(part), vectors[index], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_mixed_precision_runs_and_stays_near_full_precision(name, monkeypatch):
    """What CUDA does by default, tried on the CPU: bfloat16 where autocast wants it, float32 answers."""
    rows = make_rows(kinds=("structure", "targets"))
    full = model_of(name, epochs=3).fit(rows, rng=np.random.default_rng(0)).predict(rows.without_treated())

    def always(device, settings):
        return torch.autocast("cpu", dtype=torch.bfloat16)

    for module in ("common.model", "chemcpa", "biolord"):
        monkeypatch.setattr(f"pertstack.fit.torch.{module}.autocast", always)
    model = model_of(name, epochs=3).fit(rows, rng=np.random.default_rng(0))
    half, vectors = model.predict(rows.without_treated()), model.embed(rows.without_treated())
    assert half.dtype == vectors.dtype == np.float32 and not np.array_equal(half, full)
    assert np.sqrt(((half - full) ** 2).mean()) < 0.25 * rows.treated.std(axis=0).mean()


@pytest.mark.parametrize("name", ["MultiDCP", "MultiDCP_CheMoE", "CheMoE"])
def test_genes_may_be_predicted_in_parts(name, monkeypatch):
    rows = make_rows()
    model = model_of(name, epochs=1, genes_per_step=7).fit(rows, rng=np.random.default_rng(0))
    whole = model.predict(rows.without_treated())
    monkeypatch.setattr("pertstack.fit.torch.common.model.PREDICT_GENES", 8)
    np.testing.assert_allclose(model.predict(rows.without_treated()), whole, atol=1e-5)


def test_biolord_looks_at_the_control_unless_told_not_to():
    rows = make_rows(replicates=8)
    other = with_control(
        rows.without_treated(), rows.control + np.random.default_rng(0).normal(size=rows.control.shape)
    )
    model = model_of("Biolord", epochs=20).fit(rows, rng=np.random.default_rng(0))
    assert np.abs(model.predict(other) - model.predict(rows.without_treated())).mean() > 0.05
    zero = model_of("Biolord", epochs=20, infer="zero").fit(rows, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(zero.predict(other), zero.predict(rows.without_treated()))


def test_biolord_infers_codes_that_explain_the_control():
    rows = make_rows(replicates=8)
    model = model_of("Biolord", epochs=40, infer_steps=100).fit(rows, rng=np.random.default_rng(0))
    net, table = model.net.eval(), model.encoder.encode(rows)
    batch = table.batch(np.arange(64), torch.device("cpu"))
    attributes = net.attributes(batch, treated=False)
    error = [net.cost(code, attributes, batch.x1)[1].mean() for code in (torch.zeros(64, 32), net.infer(batch))]
    assert error[1] < 0.7 * error[0]


def test_biolord_infers_a_row_once_for_its_prediction_and_its_embedding(monkeypatch):
    """A code takes as long as many epochs; what is kept gives the bits of a model that keeps nothing."""
    rows = make_rows(replicates=8).without_treated()
    model = model_of("Biolord", epochs=2).fit(make_rows(replicates=8), rng=np.random.default_rng(0))
    searched, search = [], BiolordNetwork._infer
    monkeypatch.setattr(BiolordNetwork, "_infer", lambda net, batch: searched.append(1) or search(net, batch))
    kept = model.predict(rows), model.embed(rows)
    assert len(searched) == -(-rows.n_samples // 128)
    model.net.inferred.clear()
    np.testing.assert_array_equal(kept[1], model.embed(rows))
    model.net.inferred.clear()
    np.testing.assert_array_equal(kept[0], model.predict(rows))
    other = with_control(rows, rows.control + 1.0)
    assert not np.array_equal(model.embed(other), kept[1])


def test_biolord_can_be_built_and_trained_as_the_published_package_is():
    """Batch norm in the decoder with its momentum and epsilon; codes from spread 1, trained with the cell lines."""
    rows = make_rows(replicates=8)
    found = {}
    for name in ("default", "published"):
        model = get_model("Biolord", {**profile(name, "Biolord"), "epochs": 1})
        encoder = Encoder.fit(rows, model.settings, model="Biolord", features=True)
        torch.manual_seed(0)
        sizes = Sizes(rows.n_genes, encoder.n_features, len(encoder.lines) + 1)
        found[name] = (model, model.build(sizes, rows, encoder))
    model, net = found["published"]
    norms = [m for m in net.hidden if isinstance(m, torch.nn.BatchNorm1d)]
    assert [(m.momentum, m.eps) for m in norms] == [(0.01, 1e-3)] * 2
    kinds = [type(m).__name__ for m in net.hidden if getattr(m, "p", 1) > 0]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU"] * 2
    assert float(net.codes.weight.detach().std()) == pytest.approx(1.0, abs=0.05)
    codes, attributes, decoder = (o.param_groups[0] for o in model.optimisers(net))
    assert [(g["lr"], g["weight_decay"]) for g in (codes, attributes, decoder)] == [
        (1e-2, 1e-4),
        (1e-3, 4e-8),
        (1e-3, 1e-4),
    ]
    assert any(p is net.cell.weight for p in codes["params"])
    total = sum(len(g["params"]) for g in (codes, attributes, decoder))
    assert total == len(list(net.parameters()))

    model, net = found["default"]
    assert [type(m).__name__ for m in net.hidden] == ["Linear", "ReLU", "Dropout"] * 2
    assert float(net.codes.weight.detach().std()) == pytest.approx(0.1, abs=0.005)
    codes, attributes, _ = (o.param_groups[0] for o in model.optimisers(net))
    assert codes["weight_decay"] == 0 and any(p is net.cell.weight for p in attributes["params"])


def test_biolord_never_trains_on_treated_profiles_of_inner_validation_rows():
    """Scrambling them changes the curve's validation error and not one trained weight."""
    rows = make_rows()
    first = model_of("Biolord", patience=99).fit(rows, rng=np.random.default_rng(0))
    rng = np.random.default_rng(0)
    rng.integers(2**62)
    from pertstack.fit.inner_split import inner_split

    _, held = inner_split(rows, 0.1, np.random.default_rng(rng.integers(2**62)))
    treated = rows.treated.copy()
    treated[held] = treated[held][::-1]  # the same values: scaling stays as it is
    second = model_of("Biolord", patience=99).fit(replace(rows, treated=treated), rng=np.random.default_rng(0))
    assert [c["loss"] for c in first.curve] == pytest.approx([c["loss"] for c in second.curve], rel=1e-5)
    assert first.curve[-1]["validation"] != pytest.approx(second.curve[-1]["validation"], rel=1e-4)


def test_scgen_differences_by_hand():
    """kappa 2. Line A: drug x at 1, 3; drug y at 8. Line B: drug x at 6.

    overall = mean of line means (4, 6) = 5; x has mean 10/3 over 3 rows: (10 + 2 * 5) / 5 = 4; y: (8 + 10) / 3 = 6;
    x in A: (4 + 2 * 4) / 4 = 3; x in B: (6 + 8) / 3 = 14/3; y in A: (8 + 12) / 3 = 20/3.
    """
    found = learn_differences(
        np.array([[1.0], [3.0], [8.0], [6.0]]),
        ["x", "x", "y", "x"],
        ["A", "A", "A", "B"],
        features={},
        kappa=2,
        ridge=1,
    )
    assert (
        found.overall == pytest.approx(5)
        and found.drug["x"] == pytest.approx(4)
        and found.drug["y"] == pytest.approx(6)
    )
    assert found.of("x", "A", None) == pytest.approx(3) and found.of("x", "B", None) == pytest.approx(14 / 3)
    assert found.of("y", "A", None) == pytest.approx(20 / 3) and found.of("y", "B", None) == pytest.approx(6)
    assert found.of("new", "A", None) == pytest.approx(5)


def test_scgen_takes_a_new_drug_from_its_features_as_ridge_does():
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(0)
    names, x = [f"d{i}" for i in range(8)], rng.normal(size=(8, 20))
    shift = rng.normal(size=(8, 3))
    found = learn_differences(shift, names, ["A"] * 8, features=dict(zip(names, x, strict=True)), kappa=0, ridge=0.5)
    centred = x - x.mean(axis=0)
    reference = Ridge(alpha=0.5 * (centred**2).sum() / 8, fit_intercept=False).fit(centred, shift - shift.mean(axis=0))
    new = rng.normal(size=20)
    expected = shift.mean(axis=0) + (new - x.mean(axis=0)) @ reference.coef_.T
    np.testing.assert_allclose(found.of("new", "A", new), expected, rtol=1e-9)


def test_scgen_needs_no_features_at_all():
    fit, held = split_by_perturbation(replace(make_rows(), side=SideInformation()))
    model = model_of("scGen").fit(fit, rng=np.random.default_rng(0))
    assert np.isfinite(model.predict(held.without_treated())).all()


def test_adversary_classes_pool_rare_drugs():
    classes = adversary_classes(["a", "b", "a", "c", "b", "d", "a"], least=2)
    assert classes.tolist() == [1, 2, 1, 3, 2, 3, 1]


def test_chemcpa_adversaries_lose_ground():
    """With the adversarial reward, the basal state tells less of the cell line than without it."""
    rows = make_rows(replicates=16, cell_lines=("A", "B"), control_noise=0.2)
    guess = {}
    for weight in (0.0, 5.0):
        model = model_of("ChemCPA", epochs=25, patience=99, drug_adversary=weight, cell_adversary=weight)
        guess[weight] = model.fit(rows, rng=np.random.default_rng(0)).curve[-1]["cell_adversary"]
    assert guess[5.0] > 2 * guess[0.0], guess


def test_transigen_keeps_data_that_cannot_be_negative_at_or_above_zero():
    """A decoder pushed far down ends at zero where no fitted value was negative, and below it elsewhere."""
    plain = make_rows()
    signed = replace(plain, control=plain.control - 6, treated=plain.treated - 6)
    positive = replace(plain, control=np.abs(plain.control), treated=np.abs(plain.treated))
    for rows, changes, floor in ((positive, {}, True), (positive, {"output": "linear"}, False), (signed, {}, False)):
        model = model_of("TranSiGen", epochs=1, **changes).fit(rows, rng=np.random.default_rng(0))
        with torch.no_grad():
            model.net.decode_2[-1].bias -= 100
        lowest = model.predict(rows.without_treated()).min()
        assert abs(lowest) < 1e-5 if floor else lowest < -10


def test_pdgrapher_says_what_is_missing():
    rows = make_rows(kinds=("structure", "targets"))
    with pytest.raises(InputError, match="needs a gene graph"):
        model_of("PDGrapher").fit(replace(rows, side=replace(rows.side, graph=None)), rng=np.random.default_rng(0))
    strange = GeneGraph(("ENSG1", "ENSG2"), np.array([[0, 1]]))
    with pytest.raises(InputError, match="ENSG1"):
        model_of("PDGrapher").fit(replace(rows, side=replace(rows.side, graph=strange)), rng=np.random.default_rng(0))
    unknown = make_rows(kinds=("structure", "targets"), unknown=("d01", "d02"))
    with pytest.raises(InputError, match="d01"):
        model_of("PDGrapher").fit(unknown, rng=np.random.default_rng(0))
    masked = model_of("PDGrapher", on_missing_structure="mask").fit(unknown, rng=np.random.default_rng(0))
    first, second = (masked.predict(with_obs(unknown.without_treated(), perturbation=p)) for p in ("d01", "d02"))
    np.testing.assert_array_equal(first, second)


def test_dropping_leaves_unknown_targets_out_of_the_fit_and_says_how_many_rows():
    """PDGrapher's unknowns are perturbations without targets; the contract suite tests those without structures."""
    rows = make_rows(kinds=("structure", "targets"), unknown=("d01", "d02"))
    dropped = np.isin(rows.perturbation, ["d01", "d02"])
    model = model_of("PDGrapher", on_missing_structure="drop").fit(rows, rng=np.random.default_rng(0))
    shifted = replace(rows, treated=rows.treated + np.float32(9) * dropped[:, None])
    again = model_of("PDGrapher", on_missing_structure="drop").fit(shifted, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(again.predict(rows.without_treated()), model.predict(rows.without_treated()))
    assert model.notes == {"rows_not_fitted_on": int(dropped.sum())} and dropped.sum() == 8


def test_dropping_all_but_one_row_is_refused():
    rows = make_rows(n_perturbations=3, unknown=("d01", "d02")).take(np.arange(3, 12))
    with pytest.raises(InputError, match=r"8 of 9 fit rows.*fewer than 2"):
        model_of("MultiDCP", on_missing_structure="drop").fit(rows, rng=np.random.default_rng(0))
