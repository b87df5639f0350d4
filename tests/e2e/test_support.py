"""Support rows: always fitted on, never scored (issue 16, E1)."""

from __future__ import annotations

import json
from itertools import combinations

import anndata
import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import InputError, LeakError, UnknownNameError
from pertstack.design.plan.folds import FoldPlan
from pertstack.design.plan.support import propose_support, support_rows
from pertstack.fit.jobs.job import Job
from pertstack.predictions.sources.store_source import StoreSource
from pertstack.reduce.scoring.score import score
from pertstack.study.development.fit_rows import fit_rows
from pertstack.study.study import Study
from pertstack.verdict.setting import Setting

from .conftest import ok, pertstack

GENES = [f"g{i:02d}" for i in range(10)]


@pytest.fixture(scope="module")
def doubles(tmp_path_factory):
    """10 singles and 45 doubles of 10 genes, one sample each, 30 genes measured."""
    rng = np.random.default_rng(0)
    names = [f"{g}+ctrl" for g in GENES] + ["+".join(p) for p in combinations(GENES, 2)]
    effect = {g: rng.normal(0, 1, 30) for g in GENES}
    control = np.float32(8) + np.zeros((len(names), 30), dtype=np.float32)
    treated = control + np.stack([sum(effect[g] for g in n.split("+") if g in effect) for n in names])
    treated = treated + rng.normal(0, 0.2, treated.shape)
    obs = pd.DataFrame({"perturbation": names, "cell_line": "K562"}, index=[f"s{i:02d}" for i in range(len(names))])
    var = pd.DataFrame(index=[f"m{i}" for i in range(30)])
    path = tmp_path_factory.mktemp("doubles") / "doubles.h5ad"
    anndata.AnnData(treated.astype(np.float32), obs, var, layers={"control": control}).write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def study(doubles, tmp_path_factory):
    root = tmp_path_factory.mktemp("support") / "study"
    said = ok("init", root, "--data", doubles, "--support", "kind=single", "--seed", 1)
    assert "support: 10 samples" in said and "always fitted on" in said
    made = Study.open(root)
    assert all(r.ok for r in made.cross_fit(["mean_treated", "mean_treated_cell_line"], engine="inline"))
    return made


def is_single(names):
    return pd.Series(names).astype(str).str.endswith("+ctrl").to_numpy()


def test_every_fit_sees_all_support_and_no_score_counts_it(study):
    plan = study.plan.table.merge(study.folder.samples[["perturbation"]], left_on="sample_id", right_index=True)
    assert set(plan.loc[is_single(plan["perturbation"]), "role"]) == {"support"}
    assert set(plan.loc[~is_single(plan["perturbation"]), "role"]) == {"development", "test"}
    for fold in (0, 1, None):
        seen = fit_rows(study.folder, Job.of("mean_treated", fold=fold)).obs["perturbation"]
        assert is_single(seen).sum() == 10
    nested = fit_rows(study.folder, Job.of("mean_treated", fold=0, also=1))
    of_fold = set(plan.loc[plan["fold"] == 2, "perturbation"])
    assert set(nested.obs["perturbation"]) == of_fold | set(plan.loc[plan["role"] == "support", "perturbation"])
    source = StoreSource(study.folder.store, models=("mean_treated",), groups=study.plan.groups)
    table = score(source, {}, study.folder.references, metrics=["rmse_all"])
    assert table.n == (plan["role"] == "development").sum()
    block = next(b for b in source.blocks() if b.fold == 0)
    fit = plan[(plan["role"] == "support") | plan["fold"].isin([1, 2])]["sample_id"]  # loop: the mean of what was seen
    data = anndata.read_h5ad(study.folder.choices["data"])
    change = (data[list(fit)].X - data[list(fit)].layers["control"]).mean(axis=0)
    got = source.read(block, "mean_treated", start=0, stop=1)[0] - source.read(block, "control", start=0, stop=1)[0]
    np.testing.assert_allclose(got, change, rtol=1e-3, atol=1e-4)


def test_the_whole_road_knows_support(study):
    stacked = study.stack(["mean"])
    board = study.verdict()
    for said in (repr(stacked), board.footer("oof"), board.footer()):  # all 45 doubles share a gene with others
        assert "of which share parts, so their scores go together" in said
    facts = json.loads((study.folder.results / "setting.json").read_text())
    assert Setting.from_json(facts).parts["g00+g01"] == ("g00", "g01") and Setting.from_json(facts).to_json() == facts
    del facts["parts"]  # a bundle of an older version is derived as it was
    assert Setting.from_json(facts).parts is None and Setting.from_json(facts).to_json() == facts
    n_test = (study.plan.table["role"] == "test").sum()
    assert {c.n for r in board.rows if r.split == "test" for c in r.scores.values()} == {n_test}
    assert not [f for f in study.audit() if f.severity == "error"]
    assert study.report().exists() and "support" in study.describe()
    json.dumps(study.status().to_json())


def test_support_in_a_fold_table_and_beside_one(doubles, study, tmp_path):
    table = study.plan.table
    rows = table[["sample_id", "role", "fold"]].astype(object).where(table[["sample_id", "role", "fold"]].notna(), "")
    rows.to_csv(tmp_path / "roles.csv", index=False)
    plain = rows.assign(
        fold=[
            f if r == "development" else 0 if r == "support" else "" for r, f in zip(rows.role, rows.fold, strict=True)
        ]
    )
    plain.drop(columns="role").to_csv(tmp_path / "plain.csv", index=False)
    for name, more in (("roles", ()), ("plain", ("--support", "kind=single"))):
        ok("init", tmp_path / name, "--data", doubles, "--plan", tmp_path / f"{name}.csv", *more)
        assert FoldPlan.load(tmp_path / name / "plan").digest == study.plan.digest
    clash = plain.drop(columns="role").assign(fold=["test" if i < 3 else f for i, f in enumerate(plain.fold)])
    clash.to_csv(tmp_path / "clash.csv", index=False)
    said = pertstack(
        "init", tmp_path / "c", "--data", doubles, "--plan", tmp_path / "clash.csv", "--support", "kind=single"
    )
    assert said.returncode == 2 and "s00" in said.stderr and not (tmp_path / "c").exists()


def test_init_proposes_support_with_both_readings(doubles):
    obs = anndata.read_h5ad(doubles, backed="r").obs
    plan = FoldPlan.make(obs, seed=1)
    found = propose_support(plan, obs)
    table = plan.table.set_index("sample_id").join(obs["perturbation"].astype(str))
    hits, total = 0, 0
    for _, row in table[(table["role"] == "development") & ~is_single(table["perturbation"])].iterrows():
        fit = table[(table["role"] == "development") & (table["fold"] != row["fold"])]["perturbation"]
        for gene in row["perturbation"].split("+"):
            hits, total = hits + (f"{gene}+ctrl" in set(fit)), total + 1
    assert [f.code for f in found] == ["parts_scored_with_combinations"]
    assert (
        found[0].numbers["known_out_of_fold"] == pytest.approx(hits / total)
        and found[0].numbers["known_as_support"] == 1
    )
    assert "--support kind=single" in found[0].message
    settled = FoldPlan.make(obs, seed=1, support=support_rows(obs, ["kind=single"]))
    assert propose_support(settled, obs) == []


def test_what_is_support_can_be_said_in_four_ways(tmp_path):
    names = ["a+ctrl", "b+ctrl", "a+b", "c+d"]
    kinds = ["single", "single", "double", "double"]
    obs = pd.DataFrame(
        {"perturbation": names, "kind": kinds, "reference": [1, 0, 0, 0]}, index=["s0", "s1", "s2", "s3"]
    )
    (tmp_path / "list.txt").write_text("a+ctrl\ns3\n")
    asked = {
        "kind=single": [1, 1, 0, 0],
        "reference": [1, 0, 0, 0],
        "b+ctrl,s2": [0, 1, 1, 0],
        str(tmp_path / "list.txt"): [1, 0, 0, 1],
    }
    for text, expected in asked.items():
        assert support_rows(obs, [text]).astype(int).tolist() == expected, text
    assert support_rows(obs.drop(columns="kind"), ["kind=single"]).tolist() == [True, True, False, False]
    joined = pd.DataFrame({"perturbation": ["A", "B", "A_B"]}, index=["s0", "s1", "s2"])
    assert support_rows(joined, ["kind=single"]).tolist() == [True, True, False]
    for text, error in (
        ("kind=singel", "Did you mean 'single'"),
        ("sort=single", "column"),
        ("zzz", "perturbation, sample or column"),
    ):
        with pytest.raises(UnknownNameError, match=error):
            support_rows(obs, [text])
    for text in ("kind=single,double", "kind"):
        with pytest.raises(InputError):
            support_rows(obs, [text])


def test_a_group_that_is_support_and_scored_is_a_leak(doubles, tmp_path):
    """Support is fitted on, so a compound of the support may not be among the scored ones of a plan by compound."""
    data = anndata.read_h5ad(doubles)
    data.obs["perturbation"] = ["d0", "d0", *[f"d{i}" for i in range(1, 54)]]
    data.obs["reference"] = ["yes", *["no"] * 54]
    data.write_h5ad(tmp_path / "twice.h5ad")
    with pytest.raises(LeakError, match="d0"):
        Study.create(tmp_path / "s", data=tmp_path / "twice.h5ad", support="reference")
    assert not (tmp_path / "s").exists()
