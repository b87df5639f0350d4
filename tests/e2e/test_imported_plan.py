"""A split made elsewhere is judged by groups, as one of our own is (issue 16, A2)."""

from __future__ import annotations

import json

import anndata
import pandas as pd
import pytest

from pertstack.design.plan.folds import FoldPlan
from pertstack.study.study import Study

from .conftest import ok, pertstack


@pytest.fixture
def split(world, tmp_path):
    """Whole perturbations: every fifth is the test, the others go round three folds."""
    obs = anndata.read_h5ad(world, backed="r").obs
    number = obs["perturbation"].astype("category").cat.codes.to_numpy()
    fold = ["test" if n % 5 == 0 else str(n % 3) for n in number]
    return pd.DataFrame({"sample_id": obs.index, "fold": fold, "perturbation": obs["perturbation"].astype(str)})


def made(tmp_path, world, table, *options):
    table.drop(columns="perturbation").to_csv(tmp_path / "split.csv", index=False)
    said = pertstack("init", tmp_path / "s", "--data", world, "--plan", tmp_path / "split.csv", *options)
    return said, tmp_path / "s"


@pytest.mark.parametrize("options", [(), ("--group", "perturbation")])
def test_groups_of_an_imported_split_are_perturbations(world, split, tmp_path, options):
    """Not one group a sample: intervals, leak checks and the question all go by group."""
    said, study = made(tmp_path, world, split, *options)
    assert said.returncode == 0, said.stderr
    plan = json.loads((study / "plan" / "plan.json").read_text())
    assert plan["group_by"] == "perturbation" and "new perturbations" in plan["question"]
    table = pd.read_parquet(study / "plan" / "folds.parquet").set_index("sample_id")
    assert (table["group"] == split.set_index("sample_id")["perturbation"].reindex(table.index)).all()
    assert "40, by perturbation" in said.stdout and "explicit table" in said.stdout


def test_any_other_group_is_taken_from_the_data_or_from_the_table(world, split, tmp_path):
    pairs = made(tmp_path, world, split, "--group", "perturbation+cell_line")[1]
    assert Study.open(pairs).plan.group_by == "perturbation+cell_line"
    scaffold = split["perturbation"].map({p: f"scaffold{i % 15}" for i, p in enumerate(split["perturbation"].unique())})
    whole = split.assign(fold=[str(int(s[8:]) % 3) if int(s[8:]) > 2 else "test" for s in scaffold], group=scaffold)
    for folder, options in (("a", ()), ("b", ("--group", "group"))):  # coarser than perturbations: the table's own
        (tmp_path / folder).mkdir()
        said, study = made(tmp_path / folder, world, whole, *options)
        assert said.returncode == 0, said.stderr
        assert Study.open(study).plan.groups.nunique() == 15


def test_a_column_named_group_that_splits_perturbations_does_not_take_over(world, split, tmp_path):
    said, study = made(tmp_path, world, split.assign(group=[f"row{i}" for i in range(len(split))]))
    assert said.returncode == 0 and Study.open(study).plan.group_by == "perturbation"


@pytest.mark.parametrize("place", ["1", "test"])
def test_a_split_that_cuts_a_perturbation_is_refused_with_the_grouping_it_keeps(world, split, tmp_path, place):
    name = split.loc[split["fold"] == "0", "perturbation"].iloc[0]
    rows = split.index[split["perturbation"] == name]
    cut = split.copy()
    cut.loc[rows[::2], "fold"] = place
    said, study = made(tmp_path, world, cut)
    assert said.returncode == 3 and not study.exists()
    assert name in said.stderr and "--group sample" in said.stderr
    said, study = made(tmp_path, world, cut, "--group", "sample")
    assert said.returncode == 0 and name in said.stderr  # said, not silent


def test_one_compound_under_two_names_is_found_in_an_imported_split(world, split, tmp_path):
    data = anndata.read_h5ad(world)
    names = split.set_index("sample_id").reindex(data.obs_names)["perturbation"]
    fold = split.set_index("sample_id")["fold"]
    first = names[fold.reindex(names.index) == "0"].iloc[0]
    second = names[fold.reindex(names.index) == "test"].iloc[0]
    smiles = {name: "C" * (i + 1) for i, name in enumerate(sorted(set(names)))}
    data.obs["smiles"] = names.map({**smiles, second: smiles[first]}).to_numpy()
    data.write_h5ad(tmp_path / "twins.h5ad")
    said, study = made(tmp_path, tmp_path / "twins.h5ad", split)
    assert said.returncode == 3 and not study.exists()
    assert first in said.stderr and second in said.stderr


def test_what_the_table_decides_cannot_be_asked_for_beside_it(world, split, tmp_path):
    said, study = made(tmp_path, world, split, "--test", "0.3")
    assert said.returncode == 2 and not study.exists() and "--test" in said.stderr
    said, study = made(tmp_path, world, split, "--folds", "4")
    assert said.returncode == 2 and not study.exists() and "folds of the table are [0, 1, 2]" in said.stderr


def test_folds_are_drawn_by_group_where_the_table_has_roles_only(world, split, tmp_path):
    roles = split.assign(role=["test" if f == "test" else "development" for f in split["fold"]]).drop(columns="fold")
    said, study = made(tmp_path, world, roles, "--folds", "4")
    assert said.returncode == 0, said.stderr
    table = Study.open(study).plan.table
    assert table["fold"].nunique() == 4
    assert (table.groupby("group")["fold"].nunique(dropna=False) == 1).all()


def test_ids_keep_their_leading_zeros(world, split, tmp_path):
    data = anndata.read_h5ad(world)
    data.obs_names = [f"{i:05d}" for i in range(data.n_obs)]
    data.write_h5ad(tmp_path / "zeros.h5ad")
    said, _ = made(tmp_path, tmp_path / "zeros.h5ad", split.assign(sample_id=list(data.obs_names)))
    assert said.returncode == 0, said.stderr


def test_a_plan_of_our_own_comes_back_as_it_was(world, tmp_path):
    """folds.parquet of one study given to the next: the same groups, folds and test."""
    ok("init", tmp_path / "first", "--data", world, "--seed", 5)
    ok("init", tmp_path / "again", "--data", world, "--plan", tmp_path / "first" / "plan" / "folds.parquet")
    first, again = FoldPlan.load(tmp_path / "first" / "plan"), FoldPlan.load(tmp_path / "again" / "plan")
    assert again.group_by == "perturbation" and again.digest == first.digest
