"""Baselines against other libraries, plain loops and worlds where the answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.linear_model import Ridge as SklearnRidge

from pertstack._base.errors import InputError
from pertstack.data.side.side import PerturbationFeatures, SideInformation
from pertstack.fit import get_model
from pertstack.fit.baselines.additive import additive_effects
from pertstack.fit.baselines.low_rank import bilinear_middle, gene_scores, principal_axes
from pertstack.fit.baselines.per_gene_linear import per_gene_lines
from pertstack.fit.baselines.perturbation_knn import KAPPAS, choose_kappa, similarity
from pertstack.fit.baselines.ridge import GRID, gcv_penalty, label_means, solve_ridge
from references.fit_world import make_rows, split_by_perturbation, with_obs


def fit_predict(name, fit, rows, **params):
    return get_model(name, params).fit(fit, rng=np.random.default_rng(0)).predict(rows.without_treated())


@pytest.fixture
def world():
    """Unbalanced: B has fewer samples, and some perturbations occur in one line only."""
    rows = make_rows(replicates=5)
    keep = np.random.default_rng(1).random(rows.n_samples) < np.where(rows.cell_line == "A", 0.9, 0.5)
    return split_by_perturbation(rows.take(keep), 6)


def test_means_match_pandas(world):
    fit, held = world
    treated = pd.DataFrame(fit.treated.astype(np.float64))
    by_line = treated.groupby(fit.cell_line).mean()
    np.testing.assert_allclose(
        fit_predict("mean_treated", fit, held), np.tile(treated.mean(), (held.n_samples, 1)), 1e-5
    )
    np.testing.assert_allclose(fit_predict("mean_treated_cell_line", fit, held), by_line.loc[held.cell_line], 1e-5)
    delta = pd.DataFrame(fit.delta.astype(np.float64))
    np.testing.assert_allclose(fit_predict("mean_shift", fit, held), held.control + delta.mean().to_numpy(), atol=1e-4)
    shift = delta.groupby(fit.cell_line).mean().loc[held.cell_line].to_numpy()
    np.testing.assert_allclose(fit_predict("mean_shift_cell_line", fit, held), held.control + shift, atol=1e-4)
    np.testing.assert_array_equal(fit_predict("no_change", fit, held), held.control)
    elsewhere = with_obs(held, cell_line="new")
    np.testing.assert_allclose(
        fit_predict("mean_treated_cell_line", fit, elsewhere), fit_predict("mean_treated", fit, held), rtol=1e-5
    )


def test_mean_treated_perturbation_matches_a_loop(world):
    fit, held = world
    got = fit_predict("mean_treated_perturbation", fit, fit, kappa=3.0)
    for i in range(0, fit.n_samples, 7):
        rows = np.flatnonzero(fit.perturbation == fit.perturbation[i])
        line = {c: fit.treated[fit.cell_line == c].mean(axis=0, dtype=np.float64) for c in "AB"}
        deviation = np.mean([fit.treated[r] - line[fit.cell_line[r]] for r in rows], axis=0)
        expected = line[fit.cell_line[i]] + len(rows) / (len(rows) + 3.0) * deviation
        np.testing.assert_allclose(got[i], expected, atol=1e-4)
    new = fit_predict("mean_treated_perturbation", fit, held)
    np.testing.assert_array_equal(new, fit_predict("mean_treated_cell_line", fit, held))


def _two_kinds_of_lines(seed):
    """Ten lines of two kinds with controls of their own; a drug does one thing in one kind, another in the other."""
    rng = np.random.default_rng(seed)
    kind = np.arange(10) % 2
    base = rng.normal(8, 0.3, (10, 30)) + 2.0 * kind[:, None] * rng.normal(size=30)
    effect = rng.normal(0, 1, (2, 12, 30))
    line, drug = (a.ravel() for a in np.meshgrid(np.arange(10), np.arange(12), indexing="ij"))
    rows = make_rows(n_perturbations=12, replicates=10).take(np.arange(120))
    control = base[line] + rng.normal(0, 0.05, (120, 30))
    treated = control + effect[kind[line], drug] + rng.normal(0, 0.2, (120, 30))
    rows = replace(rows, control=control.astype(np.float32), treated=treated.astype(np.float32))
    return with_obs(rows, cell_line=[f"l{x}" for x in line], perturbation=[f"d{x:02d}" for x in drug]), line


def test_the_same_perturbation_elsewhere_weighs_lines_by_their_controls():
    rows, line = _two_kinds_of_lines(3)
    fit, held = rows.take(np.flatnonzero(line < 8)), rows.take(np.flatnonzero(line >= 8))  # two lines never fitted
    model = get_model("perturbation_elsewhere", {"kappa": 0.5}).fit(fit, rng=np.random.default_rng(0))
    got = model.predict(held.without_treated())
    assert model.width_ < 1
    controls = {x: fit.control[fit.cell_line == x].mean(axis=0, dtype=np.float64) for x in np.unique(fit.cell_line)}
    shift = {x: fit.delta[fit.cell_line == x].mean(axis=0, dtype=np.float64) for x in controls}
    apart = [np.mean((controls[a] - controls[b]) ** 2) for a in controls for b in controls if a < b]
    for i in (0, 7, 13):
        there = np.flatnonzero(fit.perturbation == held.perturbation[i])
        far = np.array([np.mean((held.control[i] - controls[fit.cell_line[r]]) ** 2) for r in there])
        w = np.exp(-(far - far.min()) / (model.width_ * np.median(apart)))
        added = np.stack([fit.delta[r] - shift[fit.cell_line[r]] for r in there])
        expected = held.control[i] + fit.delta.mean(axis=0, dtype=np.float64) + w @ added / (0.5 + w.sum())
        np.testing.assert_allclose(got[i], expected, atol=1e-3)
    plain = fit_predict("perturbation_elsewhere", fit, held, width=float("inf"))
    errors = [float(((p - held.treated) ** 2).mean()) for p in (got, plain)]
    assert errors[0] < 0.6 * errors[1]
    never = fit_predict("perturbation_elsewhere", fit, with_obs(held, perturbation="other"))
    np.testing.assert_array_equal(never, fit_predict("mean_shift_cell_line", fit, held))


def test_per_gene_linear_matches_polyfit_and_ridge_pulls_to_no_change(world):
    fit, held = world
    got = fit_predict("PerGeneLinear", fit, held)
    for g in (0, 11, 29):
        slope, intercept = np.polyfit(fit.control[:, g].astype(np.float64), fit.treated[:, g], 1)
        np.testing.assert_allclose(got[:, g], slope * held.control[:, g] + intercept, atol=1e-4)
    strong, _ = per_gene_lines(fit.control, fit.treated, 1e9)
    np.testing.assert_allclose(strong, 1.0, atol=1e-6)
    x, y = np.float32([[0], [1], [2]]), np.float32([[1], [1], [4]])  # slope 1.5; scatter of x 2, variance 2/3
    slope, intercept = per_gene_lines(x, y, 3.0)  # (3 + 3 * 2/3) / (2 + 3 * 2/3) = 1.25; 2 - 1.25 = 0.75
    np.testing.assert_allclose([slope[0], intercept[0]], [1.25, 0.75])


def test_a_flat_control_has_no_slope():
    slope, intercept = per_gene_lines(np.full((4, 1), 7.0, np.float32), np.float32([[1], [2], [3], [6]]), 0.0)
    assert slope[0] == 0 and intercept[0] == 3


def test_tanimoto_matches_rdkit_and_edges():
    datastructs = pytest.importorskip("rdkit.DataStructs")
    rng = np.random.default_rng(0)
    bits = (rng.random((6, 40)) < 0.3).astype(float)
    bits[5] = 0
    vectors = [datastructs.CreateFromBitString("".join(str(int(b)) for b in row)) for row in bits]
    got = similarity(bits, bits)
    for i in range(5):
        expected = datastructs.BulkTanimotoSimilarity(vectors[i], vectors)
        np.testing.assert_allclose(got[i], expected, atol=1e-12)
    assert got[5, 5] == 0, "nothing in common with nothing"
    np.testing.assert_allclose(similarity(np.array([[1.0, -1.0]]), np.array([[2.0, -2.0], [-1.0, 1.0]])), [[1.0, 0.0]])


def test_knn_matches_a_loop():
    fit, held = split_by_perturbation(make_rows(cell_lines=("A",)), 4)
    got = fit_predict("perturbation_knn", fit, held, k=3, kappa=0.7)
    mean = fit.delta.mean(axis=0, dtype=np.float64)
    features, names = fit.side.features["structure"], sorted(set(fit.perturbation))
    for i in (0, 5, 15):
        x = features.rows([held.perturbation[i]])[0][0]
        found = []
        for name in names:
            y = features.rows([name])[0][0]
            alike = (x * y).sum() / ((x + y) > 0).sum()
            found.append((-alike, name, fit.delta[fit.perturbation == name].mean(axis=0, dtype=np.float64) - mean))
        nearest = sorted(found, key=lambda f: f[:2])[:3]
        effect = sum(-w * e for w, _, e in nearest) / (0.7 - sum(w for w, _, _ in nearest))
        np.testing.assert_allclose(got[i], held.control[i] + mean + effect, atol=1e-4)


def test_knn_shrinkage_is_chosen_by_leaving_perturbations_out():
    """Against a loop that really leaves each one out; and with features that say nothing it ends at no effect."""
    rng = np.random.default_rng(8)
    features = (rng.random((30, 12)) < 0.4).astype(float)
    effects = features @ rng.normal(size=(12, 5)) + rng.normal(size=(30, 5))
    effects -= effects.mean(axis=0)
    alike = similarity(features, features)

    def loss(kappa, effects):
        total = 0.0
        for i in range(30):
            rest = np.delete(np.arange(30), i)
            nearest = rest[np.argsort(-alike[i, rest], kind="stable")[:5]]
            w = alike[i, nearest]
            total += ((effects[i] - w @ effects[nearest] / (kappa + w.sum())) ** 2).sum()
        return total

    assert choose_kappa(alike, effects, 5) == min(KAPPAS, key=lambda kappa: loss(kappa, effects))
    noise = 10 * rng.normal(size=(30, 5))
    chosen = choose_kappa(alike, noise, 5)
    assert chosen >= 8 and (chosen == np.inf or loss(chosen, noise) < (noise**2).sum())


def test_ridge_matches_sklearn_on_rows_and_on_condition_means():
    rng = np.random.default_rng(3)
    distinct, counts = rng.normal(size=(12, 5)), rng.integers(1, 6, size=12)
    who = np.repeat(np.arange(12), counts)
    target = rng.normal(size=(len(who), 3))
    means, found = label_means(target, who, 12)
    np.testing.assert_array_equal(found, counts)
    for p in (5, 40):  # fewer and more columns than rows: both sides of the decomposition
        design = np.hstack([distinct, rng.normal(size=(12, p - 5))]) if p > 5 else distinct
        coefficients, intercept = solve_ridge(design, means, found, penalty=2.5)
        other = SklearnRidge(alpha=2.5).fit(design[who], target)
        np.testing.assert_allclose(coefficients.T, other.coef_, atol=1e-8)
        np.testing.assert_allclose(intercept, other.intercept_, atol=1e-8)


@pytest.mark.parametrize("p", [4, 30])
def test_gcv_matches_hat_matrices(p):
    rng = np.random.default_rng(p)
    n = 15
    design, target = rng.normal(size=(n, p)), rng.normal(size=(n, 6))
    target += design[:, :2] @ rng.normal(size=(2, 6))
    x, y = design - design.mean(axis=0), target - target.mean(axis=0)
    squares, left = np.linalg.eigh(x @ x.T)
    kept = squares > 1e-9
    squares, left = squares[kept], left[:, kept]
    got = gcv_penalty(squares, left.T @ y, float((y**2).sum()), n=n)
    scores = []
    for penalty in GRID * squares.mean():
        hat = x @ np.linalg.solve(x.T @ x + penalty * np.eye(p), x.T) + 1 / n
        scores.append(((y - hat @ y) ** 2).sum() / (1 - np.trace(hat) / n) ** 2)
    np.testing.assert_allclose(got, GRID[int(np.argmin(scores))] * squares.mean())


def test_ridge_recovers_a_linear_world_and_uninformative_features_do_no_harm():
    fit, held = split_by_perturbation(make_rows(n_perturbations=60, noise=0.05), 10)
    error = np.sqrt(((fit_predict("ridge", fit, held) - held.treated) ** 2).mean())
    mean_error = np.sqrt(((fit_predict("mean_shift_cell_line", fit, held) - held.treated) ** 2).mean())
    assert error < 0.3 * mean_error
    features = fit.side.features["structure"]
    noise = np.random.default_rng(5).normal(size=features.matrix.shape).astype(np.float32)
    side = SideInformation({"structure": replace(features, matrix=noise)})
    useless = fit_predict("ridge", replace(fit, side=side), replace(held, side=side))
    assert np.sqrt(((useless - held.treated) ** 2).mean()) < 1.1 * mean_error


def test_ridge_is_blind_to_replication_of_whole_perturbations():
    """One observation per perturbation: three times the replicates of one drug must not shift the choice of penalty."""
    fit, _ = split_by_perturbation(make_rows(cell_lines=("A",)), 4)
    often = np.concatenate([np.arange(fit.n_samples), *[np.flatnonzero(fit.perturbation == "d03")] * 2])
    more = fit.take(often)
    more = replace(more, obs=more.obs.set_axis([f"r{i}" for i in range(len(often))]))
    models = [get_model("ridge").fit(rows, rng=np.random.default_rng(0)) for rows in (fit, more)]
    assert 0.5 < models[0].penalty_ / models[1].penalty_ < 2


def test_low_rank_matches_the_formula_with_inverses():
    rng = np.random.default_rng(2)
    effects, genes, embedded = rng.normal(size=(9, 7)), rng.normal(size=(7, 3)), rng.normal(size=(9, 2))
    got = bilinear_middle(effects, genes, embedded, strength=0.1)
    left = np.linalg.inv(genes.T @ genes + 0.1 * np.eye(3)) @ genes.T
    right = embedded @ np.linalg.inv(embedded.T @ embedded + 0.1 * np.eye(2))
    np.testing.assert_allclose(got, left @ effects.T @ right, atol=1e-12)


@pytest.mark.parametrize("shape", [(20, 6), (6, 20)])
def test_principal_axes_match_svd(shape):
    values = np.random.default_rng(0).normal(size=shape)
    axes = principal_axes(values, 4)
    _, _, other = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(axes.T @ other[:4].T), np.eye(4), atol=1e-8)
    assert principal_axes(np.ones((5, 3)), 2).shape == (3, 0)


def test_gene_scores_rebuild_the_effects():
    """With as many components as perturbations nothing but each perturbation's mean over genes is lost."""
    effects = np.random.default_rng(1).normal(size=(4, 9))
    scores = gene_scores(effects, 4)
    axes = principal_axes(effects.T, 4)
    np.testing.assert_allclose((scores @ axes.T).T, effects - effects.mean(axis=1, keepdims=True), atol=1e-9)
    assert (np.diff((scores**2).sum(axis=0)) <= 0).all(), "largest first, with their size"


def test_low_rank_uses_gene_vectors_where_perturbed_genes_are_measured():
    """A perturbation of gene a acts as gene a's row of the effects says; a gene that is not measured says nothing."""
    rows = make_rows(kinds=("genes",))
    features = rows.side.features["genes"]
    foreign = replace(features, columns=tuple(f"x{c}" for c in features.columns))
    fit, held = split_by_perturbation(rows, 4)
    by_genes = fit_predict("low_rank", fit, held)
    side = SideInformation({"genes": foreign})
    by_bits = fit_predict("low_rank", replace(fit, side=side), replace(held, side=side))
    assert np.abs(by_genes - by_bits).max() > 1e-3


def test_additive_effects_add_up():
    rng = np.random.default_rng(4)
    single = rng.normal(size=(3, 5))
    genes = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], dtype=float)
    effects = additive_effects(genes @ single, genes, np.full(4, 10.0), kappa=1e-9)
    np.testing.assert_allclose(effects[:3], single, atol=1e-6)
    average = (genes @ single).sum(axis=0) / 5  # five perturbed genes over four conditions
    np.testing.assert_allclose(effects[3], average, atol=1e-6)
    strong = additive_effects(genes @ single, genes, np.full(4, 10.0), kappa=1e9)
    np.testing.assert_allclose(strong[:3], np.tile(average, (3, 1)), atol=1e-6)


def test_additive_predicts_a_double_from_its_singles():
    names = ("a", "a+b", "b")
    matrix = np.float32([[1, 0], [1, 1], [0, 1]])
    features = PerturbationFeatures("genes", names, ("g1", "g2"), matrix, np.ones(3, dtype=bool))
    rows = make_rows(n_perturbations=3, replicates=4, cell_lines=("A",))
    effect = {"a": 1.0, "b": -3.0, "a+b": -2.0}
    perturbation = np.array([names[int(p[1:])] for p in rows.perturbation], dtype=object)
    treated = rows.control + np.float32([effect[p] for p in perturbation])[:, None]
    rows = replace(
        rows,
        treated=treated,
        side=SideInformation({"genes": features}),
        obs=rows.obs.assign(perturbation=perturbation),
        group=perturbation,
    )
    double = perturbation == "a+b"
    got = fit_predict("additive", rows.take(~double), rows.take(double), kappa=1e-6)
    np.testing.assert_allclose(got, treated[double], atol=1e-3)


def test_mlp_keeps_the_best_epoch_and_does_nothing_where_nothing_can_be_learned():
    fit, held = split_by_perturbation(make_rows(n_perturbations=60, noise=0.05), 10)
    model = get_model("mlp").fit(fit, rng=np.random.default_rng(0))
    assert 0 < model.best_epoch_ <= 200
    shuffled = fit.take(np.random.default_rng(1).permutation(fit.n_samples))
    lost = replace(fit, treated=fit.control + (shuffled.treated - shuffled.control))
    got, plain = fit_predict("mlp", lost, held), fit_predict("per_gene_linear", lost, held)
    truth = lambda p: float(np.sqrt(((p - held.treated) ** 2).mean()))  # noqa: E731
    assert truth(got) < 1.15 * truth(plain)
    assert model.embed(held.without_treated()).shape[0] == held.n_samples


def test_an_mlp_whose_fit_rows_all_answer_alike_has_no_embedding():
    """A nested fit on a few rows of one perturbation: no component is left, and a vector of none was refused."""
    fit, held = split_by_perturbation(make_rows(n_perturbations=12), 2)
    flat = replace(fit, control=np.zeros_like(fit.control), treated=np.ones_like(fit.control))
    model = get_model("mlp").fit(flat, rng=np.random.default_rng(0))
    assert model.axes_.shape[1] == 0 and model.embed(held.without_treated()) is None
    assert np.isfinite(model.predict(held.without_treated())).all()


def test_start_at_the_control_or_at_the_mean_is_a_matter_of_control_noise():
    """With noisy controls paired at random the _treated variants win; with quiet ones the others do."""
    for noise, better, worse in ((3.0, "ridge_treated", "ridge"), (0.05, "ridge", "ridge_treated")):
        rows = make_rows(n_perturbations=60, control_noise=0.05)
        jitter = noise * np.random.default_rng(9).normal(size=rows.control.shape)
        rows = replace(rows, control=(rows.control + jitter).astype(np.float32))
        fit, held = split_by_perturbation(rows, 10)
        errors = [((fit_predict(n, fit, held) - held.treated) ** 2).mean() for n in (better, worse)]
        assert errors[0] < errors[1] * (0.5 if noise > 1 else 1.2)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("per_gene_linear", {"ridge": -1}),
        ("mean_treated_perturbation", {"kappa": -1}),
        ("ridge", {"penalty": 0}),
        ("perturbation_knn", {"k": 0}),
        ("low_rank", {"rank": 0}),
        ("additive", {"kappa": 0}),
        ("perturbation_elsewhere", {"width": 0}),
        ("mlp", {"width": 0}),
    ],
)
def test_impossible_parameters_are_refused(name, params):
    with pytest.raises(InputError, match=str(next(iter(params)))):
        get_model(name, params)


def test_a_wrong_start_is_refused():
    fit, _ = split_by_perturbation(make_rows(), 4)
    with pytest.raises(InputError, match="'treated'"):
        get_model("ridge", {"start": "treated"}).fit(fit, rng=np.random.default_rng(0))


def test_ols_reference_for_the_whole_design():
    """Dose, time and cell line enter ridge as they should: a tiny penalty gives the least squares answer on them."""
    rows = make_rows(n_perturbations=12, replicates=12, noise=0.0, control_noise=0.0)
    rng = np.random.default_rng(0)
    obs = rows.obs.assign(time_h=rng.choice([6.0, 24.0], rows.n_samples))
    extra = 0.5 * obs["log10_dose"] - 0.1 * obs["time_h"] + (obs["cell_line"] == "B")
    rows = replace(rows, obs=obs, treated=(rows.control + extra.to_numpy(np.float32)[:, None]))
    fit, held = split_by_perturbation(rows, 2)
    got = fit_predict("ridge", fit, held, penalty=1e-6)
    np.testing.assert_allclose(got, held.treated, atol=2e-2)
    known = np.stack([obs["log10_dose"], obs["time_h"], obs["cell_line"] == "B"], axis=1).astype(float)
    ols = LinearRegression().fit(known, extra)
    np.testing.assert_allclose(ols.predict(known), extra, atol=1e-9)
