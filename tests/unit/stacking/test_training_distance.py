"""Distance to the training perturbations: by a plain loop, without the row's own fold, used when it tells something."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pertstack import stack
from pertstack._base.errors import MisalignedError, UnknownNameError
from pertstack.data.side.side import PerturbationFeatures, SideInformation
from pertstack.design.blocks import Block
from pertstack.fit.baselines import perturbation_knn
from pertstack.fit.baselines.perturbation_knn import similarity
from pertstack.predictions.sources.array_source import ArraySource
from pertstack.predictions.sources.store_source import StoreSource
from pertstack.predictions.sources.training_distance import TrainingDistance
from pertstack.reduce.read_tiles import iter_tiles
from pertstack.reduce.references import References
from pertstack.reduce.scoring.score import score
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.combiners.row_weights.sample_features import SampleFeatures
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.experimental.feature_weighted_sample import expanded_over_samples
from pertstack.stacking.registry import make_combiner
from pertstack.study.steps.refit import with_distance
from references.small_store import make_world
from references.small_world import small_world
from references.stack_loops import rows_of

NAMES = [f"p{i:02d}" for i in range(12)]


def features(bits=True, unknown=("p05",)):
    rng = np.random.default_rng(0)
    matrix = (rng.random((12, 16)) < 0.4 if bits else rng.normal(0, 1, (12, 16))).astype(np.float32)
    known = ~np.isin(NAMES, unknown)
    columns = tuple(f"f{i}" for i in range(16))
    return PerturbationFeatures("structure", tuple(NAMES), columns, np.where(known[:, None], matrix, 0), known)


def loop_distance(table, asked, trained):
    """Plain formulas, one pair at a time."""
    values, known = table.rows(NAMES)
    rows = dict(zip(NAMES, zip(values.astype(float), known, strict=True), strict=True))
    if asked in trained:
        return 0.0
    if not rows[asked][1]:
        return np.nan
    best = []
    for other in trained:
        if rows[other][1]:
            x, y = rows[asked][0], rows[other][0]
            bits = (table.matrix >= 0).all()
            best.append(x @ y / (x @ x + y @ y - x @ y) if bits else max(x @ y / np.sqrt((x @ x) * (y @ y)), 0))
    return 1 - max(best)


@pytest.mark.parametrize("bits", [True, False])
@pytest.mark.parametrize("outside", [(), (0,), (0, 2)])
def test_the_nearest_by_a_plain_loop(bits, outside):
    table = features(bits)
    by_fold = {0: ("p00", "p01", "p05"), 1: ("p02", "p03"), 2: ("p04", "p06")}
    trained = [p for k, ps in by_fold.items() if k not in outside for p in ps]
    found = TrainingDistance(table, by_fold).of([*NAMES, "p00"], outside=outside)
    expected = [loop_distance(table, p, trained) for p in [*NAMES, "p00"]]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_what_is_not_known_is_unknown_and_nobody_trained_is_unknown_too():
    distance = TrainingDistance(features(), {0: ("p00",), 1: ("p01",)})
    assert np.isnan(distance.of(["p05", "never heard of"])).all()
    assert np.isnan(distance.of(["p03"], outside=(0, 1))).all()


def test_the_digest_knows_folds_and_features():
    first = TrainingDistance(features(), {0: ("p00",), 1: ("p01",)})
    assert first.digest == TrainingDistance(features(), {1: ("p01",), 0: ("p00",)}).digest
    assert first.digest != TrainingDistance(features(), {0: ("p01",), 1: ("p00",)}).digest
    assert first.digest != TrainingDistance(features(unknown=()), {0: ("p00",), 1: ("p01",)}).digest


def test_of_samples_takes_development_rows_only():
    samples = pd.DataFrame(
        {
            "perturbation": ["a", "b", "c", "a"],
            "role": ["development", "development", "test", "development"],
            "fold": pd.array([0, 1, None, 0], dtype="Int64"),
        }
    )
    assert TrainingDistance.of_samples(features(), samples).by_fold == {0: ("a",), 1: ("b",)}


def near_and_far(n=240, told=True):
    """m0 is right near the training perturbations and noise far from them, m1 the other way; equally loud."""
    world = small_world(n=n, n_groups=80, n_models=2, errors=[0.3, 0.3], noise=0.3, seed=8)
    rng = np.random.default_rng(9)
    distance = rng.uniform(0, 1, 80)[np.arange(n) % 80]
    for m, wrong in enumerate([distance > 0.5, distance < 0.5]):
        delta = world["predictions"][f"m{m}"] - world["control"]
        delta[wrong] = delta[wrong][rng.permutation(int(wrong.sum()))]
        world["predictions"][f"m{m}"] = world["control"] + delta
    return world, distance if told else np.full(n, np.nan)


def evidence_of(world, distance):
    source = ArraySource(
        world["predictions"],
        world["treated"],
        world["control"],
        folds=world["folds"],
        perturbation=world["perturbation"],
        cell_line=world["cell_line"],
        obs=None if distance is None else pd.DataFrame({"training_distance": distance}),
    )
    references = References.collect(source)
    return Evidence(reduce_blocks(source, references), source=source, references=references)


def values_of(evidence, *names, metric="r2_top20@pooled"):
    fits = {n: make_combiner(n).fit(evidence).combine for n in names}
    table = score(evidence.source, fits, evidence.references, metrics=[metric], base_models=False)
    return {n: table.mean(n, metric).value for n in names}


@pytest.mark.parametrize("name", ["selector", "soft_gate", "feature_weighted_sample"])
def test_models_that_differ_by_distance_are_told_apart(name):
    world, distance = near_and_far()
    told = values_of(evidence_of(world, distance), name, "best_single", "direct_pooled")
    blind = values_of(evidence_of(world, None), name)
    assert told[name] > told["best_single"] + 0.1 and told[name] > told["direct_pooled"] + 0.05
    assert told[name] > blind[name] + 0.05


@pytest.mark.parametrize("name", ["selector", "soft_gate", "feature_weighted_sample"])
def test_a_distance_that_is_unknown_everywhere_changes_nothing(name):
    world, unknown = near_and_far(told=False)
    absent, never = (make_combiner(name).fit(evidence_of(world, d)) for d in (None, unknown))
    assert "training_distance" not in never.weights()["features"]
    assert absent.weights() == never.weights()


def test_a_distance_that_says_nothing_is_not_followed():
    world = small_world(n=240, n_groups=80, n_models=2, errors=[0.5, 0.6], noise=0.3, seed=8)
    noise = np.random.default_rng(3).uniform(0, 1, 80)[np.arange(240) % 80]
    evidence = evidence_of(world, noise)
    found = values_of(evidence, "selector", "best_single")
    assert found["selector"] > found["best_single"] - 0.01
    arguments = {k: world[k] for k in ("treated", "control", "folds", "perturbation", "cell_line")}
    fit = stack(
        world["predictions"],
        **arguments,
        combiners=["selector", "feature_weighted_sample", "direct_pooled"],
        features={"training_distance": noise},
        trust_partial=True,
    )
    assert fit.chosen not in ("selector", "feature_weighted_sample")


def test_arrays_take_features_for_learning_and_for_new_samples():
    world, distance = near_and_far()
    arguments = {k: world[k] for k in ("treated", "control", "folds", "perturbation", "cell_line")}
    fit = stack(
        world["predictions"],
        **arguments,
        combiners=["soft_gate"],
        features={"training_distance": distance},
        trust_partial=True,
    )
    assert fit.chosen == "soft_gate"
    new = {"control": world["control"], "cell_line": world["cell_line"]}
    near, far = (
        fit.predict(world["predictions"], **new, features={"training_distance": np.full(240, d)}) for d in (0.0, 1.0)
    )
    x = {m: np.abs(p - near).mean() - np.abs(p - far).mean() for m, p in world["predictions"].items()}
    assert x["m0"] < 0 < x["m1"]
    assert np.isfinite(fit.predict(world["predictions"], **new)).all()
    with pytest.raises(UnknownNameError, match="training_distance"):
        stack(world["predictions"], **arguments, features={"trainin_distance": distance})
    with pytest.raises(MisalignedError, match="one entry per row"):
        stack(world["predictions"], **arguments, features={"training_distance": distance[1:]})


def test_sample_weights_are_plain_least_squares_on_rows():
    """Ridge on every row and gene, regressors ``feature_j(sample) x_m``, pulled to equal weights."""
    world = small_world(n=60)
    evidence = evidence_of(world, np.linspace(0, 1, 60))
    _, plain = SampleFeatures.learn(evidence)
    phi = np.column_stack([np.ones(60), plain])
    ids = evidence.reduction.samples["sample_id"].str.removeprefix("row_").astype(int).to_numpy()
    x, t = (a[ids] for a in rows_of(world))
    wide = np.einsum("nj,nmg->ngjm", phi, x).reshape(-1, phi.shape[1] * 4)
    sums = expanded_over_samples(evidence, phi, np.ones(60, dtype=bool))
    np.testing.assert_allclose(sums.xx[0] * x.shape[2], wide.T @ wide, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(sums.xt[0] * x.shape[2], wide.T @ t.ravel(), rtol=1e-3, atol=1e-2)
    fitted = make_combiner("feature_weighted_sample").fit(evidence)
    gram = wide.T @ wide
    pull = fitted.facts["strength"] * np.trace(gram) / len(gram)
    centre = np.zeros(len(gram))
    centre[:4] = 0.25
    expected = centre + np.linalg.solve(gram + pull * np.eye(len(gram)), wide.T @ (t.ravel() - wide @ centre))
    for tile, _ in iter_tiles(evidence.source, evidence.references):
        at = tile.obs.index.str.removeprefix("row_").astype(int)
        mine = np.flatnonzero(np.isin(ids, at))
        by_rows = np.einsum("nj,jm,nmg->ng", phi[mine], expected.reshape(-1, 4), x[mine]) + tile.pooled
        np.testing.assert_allclose(fitted.combine(tile), by_rows, rtol=2e-3, atol=2e-3)


def test_a_store_measures_every_row_against_its_own_fit(tmp_path):
    """Rows of fold 0 against the other folds; in fits without fold 1 too, against the rest; test rows against all."""
    blocks = {Block("A", 0): 4, Block("A", 1): 4, Block("A", 2): 4, Block("A", None): 4}
    store = make_world(tmp_path / "store", blocks).store
    samples = pd.concat([store.obs(b).assign(role=b.role, fold=b.fold) for b in blocks])
    names = sorted(set(map(str, samples["perturbation"])))
    matrix = (np.random.default_rng(1).random((len(names), 16)) < 0.5).astype(np.float32)
    table = PerturbationFeatures(
        "structure", tuple(names), tuple(map(str, range(16))), matrix, np.ones(len(names), bool)
    )
    distance = TrainingDistance.of_samples(table, samples)
    seen = {}
    for label, source in {
        "plain": StoreSource(store, None, "all", distance=distance),
        "nested": StoreSource(store, None, "all", distance=distance, without=1),
    }.items():
        for block in blocks:
            seen[label, block.fold] = source.obs(block)["training_distance"].to_numpy()
    asked = {b.fold: list(store.obs(b)["perturbation"]) for b in blocks}
    for (label, fold), found in seen.items():
        outside = () if fold is None else (fold,) if label == "plain" else (fold, 1)
        trained = {p for k, ps in distance.by_fold.items() if k not in outside for p in ps}
        rows = dict(zip(names, matrix.astype(float), strict=True))
        for name, value in zip(asked[fold], found, strict=True):
            mine = rows[name]
            common = [(rows[p] @ mine, rows[p] @ rows[p] + mine @ mine) for p in trained]
            alike = [*(both / (all_ - both) for both, all_ in common), float(name in trained)]
            assert value == pytest.approx(1 - max(alike), abs=1e-6), (label, fold, name)
    assert "training_distance" not in StoreSource(store, None, "all").obs(Block("A", 0))


def test_new_samples_are_measured_against_all_development_rows():
    """Known perturbations by the study's features, others by what the new file says (here nothing)."""
    table = replace(features(), kind="user")
    distance = TrainingDistance(table, {0: ("p00", "p01"), 1: ("p02", "p03")})
    obs = pd.DataFrame({"perturbation": ["p07", "new", "p01"], "cell_line": "A"}, index=["x", "y", "z"])
    folder = SimpleNamespace(
        training_distance=distance,
        side=SideInformation({"user": table}),
        gene_names=np.array(["g0", "g1"]),
        other_gene_names={},
    )
    file = SimpleNamespace(obs=obs, uns={}, beside={})
    found = with_distance(folder, file)["training_distance"]
    assert found["x"] == pytest.approx(loop_distance(table, "p07", ["p00", "p01", "p02", "p03"]), abs=1e-6)
    assert np.isnan(found["y"]) and found["z"] == 0.0
    plain = SimpleNamespace(training_distance=None, side=SideInformation(), gene_names=folder.gene_names)
    assert with_distance(plain, file) is obs


def test_a_perturbation_is_compared_once_for_each_set_of_folds(monkeypatch):
    compared = []

    def counted(mine, theirs):
        compared.append(len(mine))
        return similarity(mine, theirs)

    monkeypatch.setattr(perturbation_knn, "similarity", counted)
    distance = TrainingDistance(features(), {0: tuple(NAMES[:4]), 1: tuple(NAMES[4:8])})
    first = distance.of([NAMES[9], NAMES[2], NAMES[9]], outside=(1,))
    again = distance.of([NAMES[2], NAMES[10], NAMES[9]], outside=(1,))
    assert compared == [2, 1] and first[0] == first[2] == again[2] and first[1] == again[0]
    assert distance.of([NAMES[9]]) <= first[0] and compared == [2, 1, 1]
    fresh = distance.with_features(features(bits=False))
    np.testing.assert_allclose(fresh.of([NAMES[9]]), loop_distance(features(bits=False), NAMES[9], NAMES[:8]))
