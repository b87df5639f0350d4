"""Twins and near-twins among compounds, by SMILES, InChIKey and skeleton."""

from __future__ import annotations

import pandas as pd
import pytest

from pertstack.design.leaks.check_plan import check_plan, placed
from pertstack.design.leaks.structures import structure_findings
from pertstack.design.plan.folds import FoldPlan


@pytest.fixture
def world() -> tuple[pd.DataFrame, FoldPlan, str, str]:
    """Metadata, plan, a perturbation in fold 0 and one in the test."""
    obs = pd.DataFrame(
        {"perturbation": [f"d{i // 4}" for i in range(160)], "cell_line": "A"}, index=[f"s{i}" for i in range(160)]
    )
    plan = FoldPlan.make(obs, seed=1)
    place = plan.table.assign(fold=plan.table["fold"].fillna(-1)).groupby("group")["fold"].first()
    return obs, plan, place.index[place == 0][0], place.index[place == -1][0]


def with_smiles(obs: pd.DataFrame, **of: str) -> pd.DataFrame:
    alkane = {p: "C" * (i + 3) for i, p in enumerate(sorted(obs["perturbation"].unique()))}
    return obs.assign(smiles=obs["perturbation"].map({**alkane, **of}))


def test_spellings_of_one_molecule_are_twins_by_smiles_and_tautomers_by_inchikey_only(world):
    pytest.importorskip("rdkit")
    obs, plan, here, there = world
    for one, other, by_smiles in (("OCCc1ccccc1", "c1ccc(cc1)CCO", 1), ("Oc1ccccn1", "O=c1cccc[nH]1", 0)):
        twins = with_smiles(obs, **{here: one, there: other})
        (finding,) = (f for f in check_plan(plan, twins) if f.code == "structure_across")
        assert finding.severity == "error" and finding.numbers["by_smiles"] == by_smiles
        assert finding.numbers["samples"] == 8 and finding.numbers["in_test"] == 1
        assert finding.numbers["question"] == "new perturbations in known cell lines" in finding.message


def test_mirror_images_are_a_warning_and_no_twins(world):
    pytest.importorskip("rdkit")
    obs, plan, here, there = world
    pair = with_smiles(obs, **{here: "C[C@H](N)C(=O)O", there: "C[C@@H](N)C(=O)O"})
    codes = {f.code: f for f in check_plan(plan, pair)}
    assert "structure_across" not in codes and codes["skeleton_across"].severity == "warning"
    assert codes["skeleton_across"].examples == (" = ".join(sorted([here, there])),)


def test_keys_that_are_given_serve_data_without_smiles(world):
    obs, plan, here, there = world
    keys = {
        p: f"{'ABCDEFGHIJKLMN'[:13]}{chr(65 + i % 26)}-{chr(65 + i // 26) * 10}-N"
        for i, p in enumerate(sorted(obs["perturbation"].unique()))
    }
    keyed = obs.assign(inchi_key=obs["perturbation"].map({**keys, there: keys[here]}))
    frame = placed(plan, keyed)
    (twin,) = (f for f in structure_findings(frame, "perturbation") if f.code == "structure_across")
    assert twin.count == 1 and "InChIKey as given" in twin.message
    nonsense = obs.assign(inchi_key="-666")
    assert structure_findings(placed(plan, nonsense), "perturbation") == []


SALTS = ("CN1CCC(CC1)c1ccccc1", "CN1CCC(CC1)c1ccccc1.Cl", "C[NH+]1CCC(CC1)c1ccccc1.OC(=O)CC(O)(CC([O-])=O)C(=O)O")


@pytest.mark.parametrize("salt", SALTS[1:])
def test_a_salt_and_its_free_base_on_both_sides_are_a_warning_and_group_by_smiles_holds_them_together(world, salt):
    pytest.importorskip("rdkit")
    obs, plan, here, there = world
    pair = with_smiles(obs, **{here: SALTS[0], there: salt})
    codes = {f.code: f for f in check_plan(plan, pair)}
    assert codes["salt_across"].severity == "warning" and codes["salt_across"].numbers["in_test"] == 1
    assert codes["salt_across"].examples == (" = ".join(sorted([here, there])),)
    assert "salt_across" not in {f.code for f in check_plan(plan, with_smiles(obs))}
    together = FoldPlan.make(pair, "smiles", seed=1)
    places = together.table.set_index("sample_id")["group"][pair["perturbation"].isin([here, there]).to_numpy()]
    assert places.nunique() == 1
    assert "salt_across" not in {f.code for f in check_plan(together, pair)}


def test_the_parent_of_salts_is_the_drug_whatever_the_acid():
    pytest.importorskip("rdkit")
    from pertstack.data.side.structures import parent_smiles

    assert len({parent_smiles(s) for s in SALTS}) == 1
    assert parent_smiles("CC(=O)[O-].[Na+]") == parent_smiles("CC(=O)O")  # an acid alone is itself
    assert parent_smiles("C[C@H](N)C(=O)O") != parent_smiles("C[C@@H](N)C(=O)O")
    assert parent_smiles("not a molecule") is None
