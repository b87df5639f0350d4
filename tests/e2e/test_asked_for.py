"""Is what will be predicted what is scored? `init --for` and `predict` compare what was known at fit time (16, E2)."""

from __future__ import annotations

import warnings
from itertools import combinations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pertstack.design.plan.asked import DIFFERS, Known, compare
from pertstack.study.new_rows.expected import Expected, _weighed, never_scored, weights_toward
from pertstack.study.steps.run import default_models
from pertstack.study.study import Study

from .conftest import ok, pertstack

GENES = [f"g{i:02d}" for i in range(12)]
HELD = GENES[10:]  # genes that only new doubles have


def profiles(names, seed=0):
    """One sample of every name, 30 genes; the effect of a gene grows with its number."""
    rng = np.random.default_rng(seed)
    effect = {g: np.random.default_rng(i).normal(0, 0.5 + 0.1 * i, 30) for i, g in enumerate(GENES)}
    control = np.tile(np.random.default_rng(99).normal(8, 1.2, 30).astype(np.float32), (len(names), 1))
    treated = control + np.stack([sum(effect[g] for g in n.split("+") if g in effect) for n in names])
    obs = pd.DataFrame(
        {"perturbation": names, "cell_line": "K562"}, index=[f"{seed}s{i:02d}" for i in range(len(names))]
    )
    var = pd.DataFrame(index=GENES + [f"m{i}" for i in range(18)])
    treated = (treated + rng.normal(0, 0.2, treated.shape)).astype(np.float32)
    return anndata.AnnData(treated, obs, var, layers={"control": control})


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    place = tmp_path_factory.mktemp("asked")
    known = GENES[:10]
    doubles = [str(d) for d in np.random.default_rng(6).permutation(["+".join(p) for p in combinations(known, 2)])]
    profiles([f"{g}+ctrl" for g in known] + doubles[:35]).write_h5ad(place / "data.h5ad")
    profiles(doubles[35:], seed=1).write_h5ad(place / "alike.h5ad")
    profiles(
        ["+".join(p) for p in combinations(HELD, 2)] + [f"{g}+{h}" for g in HELD for h in known[:6]], seed=2
    ).write_h5ad(place / "other.h5ad")
    return place


def test_init_says_where_the_rows_to_come_differ_and_where_they_do_not(files, tmp_path):
    said = ok(
        "init", tmp_path / "a", "--data", files / "data.h5ad", "--support", "kind=single", "--for", files / "alike.h5ad"
    )
    assert "Known at fit time" in said and "parts seen" in said
    alike = Study.open(tmp_path / "a")
    assert not [f for f in alike.findings() if f.code == DIFFERS]
    assert {(r["known at fit time"], r["level"]): (r["scored"], r["asked"]) for r in alike.asked()}[
        "parts seen", "2 of 2"
    ] == ("100%", "100%")
    other = pertstack(
        "init", tmp_path / "b", "--data", files / "data.h5ad", "--support", "kind=single", "--for", files / "other.h5ad"
    )
    assert other.returncode == 0 and "warning: What" in other.stderr, other.stderr
    found = [f for f in Study.open(tmp_path / "b").findings() if f.code == DIFFERS]
    study = Study.open(tmp_path / "b")
    assert {"additive", "mean_of_parts", "larger_change", "scaled_sum"} <= set(default_models(study.folder))
    assert all(r.ok for r in study.cross_fit(["mean_treated", "additive"], engine="inline"))
    assert found[0].message in pertstack("stack", tmp_path / "b", "--combiners", "mean").stderr
    shares = found[0].numbers["parts seen"]
    assert shares["2 of 2"] == [1.0, 0.0] and shares["1 of 2"] == [0.0, pytest.approx(12 / 13)]
    assert "no scored row is 0 of 2 or 1 of 2" in found[0].message and "--support" in found[0].message


def test_singles_scored_beside_doubles_are_another_question(files, tmp_path):
    """The contest: two thirds of the singles known in each fold, all at the time of use."""
    names = anndata.read_h5ad(files / "alike.h5ad").obs["perturbation"]
    pd.DataFrame({"perturbation": ["+".join(reversed(n.split("+"))) for n in names]}).to_csv(
        tmp_path / "new.csv", index=False
    )
    study = Study.create(tmp_path / "s", data=files / "data.h5ad", test=0, asked_for=tmp_path / "new.csv")
    found = [f for f in study.findings() if f.code == DIFFERS]
    assert found and found[0].numbers["parts measured alone"]["2 of 2"][0] < 0.6
    assert found[0].numbers["parts measured alone"]["2 of 2"][1] == 1
    pd.DataFrame({"drug": names}).to_csv(tmp_path / "odd.csv", index=False)
    refused = pertstack("init", tmp_path / "o", "--data", files / "data.h5ad", "--for", tmp_path / "odd.csv")
    assert refused.returncode == 2 and "no column 'perturbation'" in refused.stderr and not (tmp_path / "o").exists()


def test_predict_says_it_too_and_writes_it_down(files, tmp_path):
    study = Study.create(tmp_path / "s", data=files / "data.h5ad", support="kind=single")
    assert all(r.ok for r in study.cross_fit(["mean_treated", "additive"], engine="inline"))
    study.stack(["mean"])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        study.predict(files / "alike.h5ad", tmp_path / "alike.h5ad")
    with pytest.warns(UserWarning, match="no scored row is 0 of 2 or 1 of 2") as told:
        assert study.predict(files / "other.h5ad", tmp_path / "other.h5ad") == (13, 30)
    facts = anndata.read_h5ad(tmp_path / "other.h5ad").uns["pertstack"]
    assert facts["warnings"][0] == str(told[0].message)
    assert "It does not answer for parts seen: 0 of 2, parts seen: 1 of 2" in facts["expected"]
    said = pertstack("predict", tmp_path / "s", files / "alike.h5ad", tmp_path / "again.h5ad").stderr
    assert "Expected of" in said and "speak in effect" in said
    assert "Measured on 10 such groups the mean should lie in [" in said


def test_scores_are_weighed_to_the_rows_asked_for():
    """A score that is linear in what is known: the weighed mean is the score at the mean asked for (plain algebra)."""
    rng = np.random.default_rng(3)
    effect, level = rng.normal(1, 0.3, 400), np.array(["a", "b"] * 200)
    scored = Known({"v": list(level)}, {"effect": effect}, [f"p{i}" for i in range(400)])
    asked = Known({"v": ["a"] * 3 + ["b"] + ["new"] * 4}, {"effect": [0.8] * 8}, [f"q{i}" for i in range(8)])
    weights = weights_toward(scored, asked)
    truth = 2 * effect + 3 * (level == "a")
    assert np.average(truth, weights=weights) == pytest.approx(2 * 0.8 + 3 * 0.75, abs=0.02)
    assert np.mean(truth) == pytest.approx(2 + 1.5, abs=0.1) and (weights > 0).all() and never_scored(scored, asked)
    same = weights_toward(scored, Known({"v": list(level)}, {"effect": effect}, scored.units))
    np.testing.assert_allclose(same, 1, atol=1e-6)
    blind = Known({"v": ["a"] * 400}, {"effect": [np.nan] * 400}, scored.units)
    np.testing.assert_allclose(weights_toward(blind, asked), 1)


def test_what_new_groups_show_is_wider_than_what_is_expected_of_them():
    """19 of 20 new batches of seven groups lie in the interval; the one of the mean holds far fewer (simulated)."""
    rng = np.random.default_rng(1)
    kept = {"ci": 0, "seen": 0}
    for _ in range(400):
        level = rng.normal(0.5, 0.2, 40)  # forty groups of three rows, then seven new ones
        values = np.repeat(level, 3) + rng.normal(0, 0.05, 120)
        _, ci, seen = _weighed(values, np.ones(120), np.repeat(np.arange(40), 3), n_asked=7)
        new = (rng.normal(0.5, 0.2, (7, 1)) + rng.normal(0, 0.05, (7, 3))).mean()
        kept["ci"] += ci[0] < new < ci[1]
        kept["seen"] += seen[0] < new < seen[1]
    assert 0.92 < kept["seen"] / 400 < 0.98 and kept["ci"] / 400 < 0.75


def doubles(rng, genes, n):
    """Names of parts and values of n doubles, of which those of a gene are hard or easy alike (correlation 0.3)."""
    of_gene = dict(zip(genes, rng.normal(0, 0.3**0.5, len(genes)), strict=True))
    pairs = list(combinations(genes, 2))
    chosen = [pairs[i] for i in rng.permutation(len(pairs))[:n]]
    return chosen, np.array([of_gene[a] + of_gene[b] + rng.normal(0, 0.4**0.5) for a, b in chosen])


def test_doubles_that_share_a_gene_are_hard_or_easy_alike_and_the_interval_knows():
    """Fifteen new doubles of other genes (simulated): 19 of 20 lie in it, and far fewer where pairs count as apart."""
    rng, genes = np.random.default_rng(2), [f"g{i:02d}" for i in range(40)]
    kept = {"apart": 0, "alike": 0}
    for _ in range(120):
        scored, values = doubles(rng, genes[:26], 48)
        new, truth = doubles(rng, genes[26:36], 15)
        names = [f"{a}+{b}" for a, b in scored]
        more = {"n_asked": 15, "parts": dict(zip(names, scored, strict=True)), "asked": new}
        for kind, said in (("apart", {"n_asked": 15}), ("alike", more)):
            _, _, seen = _weighed(values, np.ones(48), names, **said)
            kept[kind] += seen[0] < truth.mean() < seen[1]
    assert 0.9 < kept["alike"] / 120 < 0.985 and kept["apart"] / 120 < 0.87, kept


def test_few_groups_that_speak_have_the_interval_of_few():
    """Of forty groups three have nearly all of the weight: what is known is known from three."""
    rng, kept = np.random.default_rng(4), 0
    weights = np.r_[np.full(3, 1.0), np.full(37, 1e-3)]
    for _ in range(300):
        _, ci, _ = _weighed(rng.normal(0, 1, 40), weights, np.arange(40), n_asked=1)
        kept += ci[0] < 0 < ci[1]
    assert 0.92 < kept / 300 < 0.99
    values = rng.normal(0, 1, 40)
    mean, ci, _ = _weighed(values, np.ones(40), np.arange(40), n_asked=1)
    plain = stats.t.interval(0.95, 39, values.mean(), stats.sem(values))
    np.testing.assert_allclose((mean, *ci), (values.mean(), *plain))


def test_where_all_groups_share_a_part_it_is_taken_as_given():
    values, names = np.arange(10.0), [f"a+{i}" for i in range(10)]
    parts = {n: tuple(n.split("+")) for n in names}
    with_parts = _weighed(values, np.ones(10), names, n_asked=3, parts=parts, asked=[("a", "x")])
    assert with_parts == _weighed(values, np.ones(10), names, n_asked=3)


def test_groups_whose_weight_is_too_small_for_a_number_say_nothing():
    """Seen in a study of 182,246 samples: new rows near the fitted ones, and an interval of NaN to NaN."""
    rng = np.random.default_rng(3)
    values, groups = rng.normal(0.5, 0.1, 60), np.repeat([f"a+g{i}" for i in range(20)], 3)
    weights = np.where(np.arange(60) < 45, rng.uniform(0.5, 2.0, 60), 0.0)
    parts = {name: tuple(name.split("+")) for name in groups}
    for said in ({}, {"parts": parts, "asked": [("a", "x")]}):
        found = _weighed(values, weights, groups, n_asked=4, **said)
        assert found == _weighed(values[:45], weights[:45], groups[:45], n_asked=4, **said)
        assert np.isfinite([*found[1], *found[2]]).all()


def test_one_group_has_no_interval_and_says_so():
    mean, ci, seen = _weighed(np.array([0.2, 0.4]), np.ones(2), ["a", "a"], n_asked=3)
    assert (mean, ci, seen) == (pytest.approx(0.3), None, None)
    said = Expected("ridge", "rmse_all@own", mean, ci, seen, 3, 0.3, n=2, effective=2.0, never=()).in_words()
    assert "no interval: all scored samples are of one group" in said and "nan" not in said and "—" not in said


def test_numbers_and_levels_by_hand():
    rng = np.random.default_rng(0)
    units = [f"p{i}" for i in range(200)]
    same = Known({"v": ["a", "b"] * 100}, {"dose": rng.normal(0, 1, 200)}, units)
    again = Known({"v": ["a", "b"] * 100}, {"dose": rng.normal(0, 1, 200)}, units)
    assert compare(same, again, "x")[1] == []
    moved = Known({"v": ["a"] * 150 + ["b"] * 50}, {"dose": rng.normal(3, 1, 200)}, units)
    lines, (finding,) = compare(same, moved, "x")  # 1 / (0.75^2 / 0.5 + 0.25^2 / 0.5) = 0.8 of the rows speak for it
    assert (
        [x["differs"] for x in lines] == ["", "", "yes"] and "dose" in finding.message and "v:" not in finding.message
    )
    rare = Known({"v": ["a"] * 20 + ["b"] * 180}, {"dose": [np.nan] * 200}, units)
    only = Known({"v": ["a"] * 20}, {"dose": [np.nan] * 20}, units[:20])
    (said,) = compare(rare, only, "x")[1]
    assert "in effect 10% of the scored rows" in said.message and said.numbers["v"] == {
        "a": [0.1, 1.0],
        "b": [0.9, 0.0],
    }
    repeated = Known({"v": ["a"] * 180 + ["b"] * 20}, {}, ["p0"] * 180 + units[1:21])  # one perturbation, however often
    assert compare(rare, repeated, "x")[1] == []
