"""Spellings of one perturbation are one; names that only look alike are listed, not joined."""

from __future__ import annotations

import itertools

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pertstack.data import build_side, open_data, validate
from pertstack.data.labels import is_control_name, look_up, one_spelling, parts_of, perturbation_keys
from pertstack.data.near_names import near_names
from pertstack.design.leaks.check_plan import check_plan
from pertstack.design.plan.folds import FoldPlan


@pytest.mark.parametrize(
    "spelt",
    [
        ["A+B", "B+A", "A + B", " A+B ", "B +A"],
        ["A|B", "B;A", "B & A"],
        ["A", "A+ctrl", "ctrl+A", "A + control", "A+non-targeting", "NegCtrl0+A"],
        ["A+B", "B+A", "A_B", "B_A"],
        ["A_B", "B_A"],  # the order alone shows what _ joins
        ["ABC1_NegCtrl0", "NegCtrl0_ABC1", "ABC1"],
        ["A+B+C", "C+A+B", "B+C+A"],
        ["nilotinib/ruxolitinib", "ruxolitinib/nilotinib"],
        ["A\uff0bB", "B\u2009+\u2009A", "A\u3000+ B", "A+B"],  # full width, blanks of any width
        ["ABC1", "ABC1+control_1", "ctrl2+ABC1", "ABC1+safe-targeting_3", "ABC1+NTC_4", "safe-targeting+ABC1"],
        ["ABC1", "ABC1+None", "nan|ABC1"],  # a second guide that is missing
        ["ABC1", "ABC1\u200b", "\ufeffABC1", "ABC1+non\u2011targeting", "\uff44\uff4d\uff53\uff4f+ABC1"],  # unseen
        ["A_B__A_B", "B_A__B_A", "A_B", "A\ufe62B"],  # guides of both, written twice
    ],
)
def test_spellings_of_one_perturbation(spelt):
    keys = perturbation_keys([*spelt, "other", "A+other"])
    assert len({keys[n] for n in spelt}) == 1
    assert keys["other"] not in {keys[n] for n in spelt} and keys["A+other"] not in {keys[n] for n in spelt}
    renamed = one_spelling(spelt)
    assert len({renamed.get(n, n) for n in spelt}) == 1


@pytest.mark.parametrize(
    "joined",
    [
        *("AB1:CD2", "CD2-AB1", "AB1.CD2", "CD2__AB1", "AB1 and CD2", "AB1 x CD2", "CD2 \u00d7 AB1", "AB1 PLUS CD2"),
        *("AB1 - CD2", "CD2\u2013AB1", "AB1~CD2", "CD2 * AB1", "AB1\u00b7CD2", "AB1=CD2", "AB1\\CD2", "CD2 # AB1"),
        *("('AB1', 'CD2')", "[CD2, AB1]", "(AB1,CD2)"),
    ],
)
def test_other_marks_join_where_every_piece_is_a_name(joined):
    assert perturbation_keys([joined, "AB1", "CD2"])[joined] == ("AB1", "CD2")
    assert perturbation_keys([joined, "AB1+CD2"])[joined] == ("AB1", "CD2")
    assert len(perturbation_keys([joined, "AB1"])[joined]) == 1  # CD2 is no name here


@pytest.mark.parametrize(
    "different",
    [
        ["T-DM1", "T", "DM1"],
        ["NKX2-1", "NKX2", "1"],
        ["A-B", "B-A"],
        ["A", "B", "A+B"],
        ["drug00", "DRUG-00"],  # alike, but a person decides
        ["(+)-catechin", "(-)-catechin"],
        ["NAD+", "NAD"],
        ["cmpd_1_2", "cmpd_2_1"],  # numbers are no parts
        ["1,2-dichloroethane", "2,1-x"],
        ["A+A", "A"],
        ["IFNb_control", "IFNb"],
        ["007", "7"],
        ["5-FU (10,5)", "5-FU (5,10)"],
    ],
)
def test_names_that_are_not_one(different):
    assert one_spelling(different) == {}


def test_the_spelling_kept_is_that_of_the_study_else_the_plainest():
    assert one_spelling(["ctrl+A", "A+ctrl"]) == {"ctrl+A": "A+ctrl"}
    assert one_spelling(["A + B", "A+B"]) == {"A + B": "A+B"}
    assert one_spelling(["A+B"], like=["B+A"]) == {"A+B": "B+A"}
    assert one_spelling(["B+A", "A+B"], like=["B+A"]) == {"A+B": "B+A"}
    assert look_up(["A+B", "C"], ["B+A", "A+B", "c"]) == {"A+B": "A+B"}


WORDS = st.lists(st.sampled_from(["KLF1", "TP53", "MYC", "ctrl", "GATA1"]), min_size=1, max_size=4, unique=True)


@given(WORDS, st.sampled_from(["+", " + ", "|", ";"]))
def test_law_every_order_of_the_parts_is_the_same_perturbation(parts, join):
    spelt = [join.join(p) for p in itertools.permutations(parts)]
    assert len({parts_of(n) for n in spelt}) == 1
    assert len({one_spelling(spelt).get(n, n) for n in spelt}) == 1


@given(st.lists(st.text(max_size=12), max_size=8))
def test_law_one_spelling_is_stable_and_only_maps_to_names_that_are_there(names):
    changed = one_spelling(names)
    assert set(changed.values()) <= set(names) and not set(changed) & set(changed.values())
    again = [changed.get(n, n) for n in names]
    assert one_spelling(again) == {}


@pytest.mark.parametrize(
    "alike",
    [
        ("DRUG-00", "drug00"),
        ("Drug 7", "drug_07"),
        ("Imatinib", "imatinib mesylate"),
        ("metformin", "metformin HCl"),
        ("BRD-K12345678-001-01-9", "BRD-K12345678-003-02-1"),
        ("aspirin rep1", "aspirin rep2"),
        ("aspirin", "aspirin_1"),
        ("007", "7"),
        ("doxorubicin", "doxorubicin-HCl"),
        ("Doxorubicin", "doxorubicin_hydrochloride"),
        ("doxorubicin", "doxorubicin\u00b7HCl"),
        ("doxorubicin", "doxorubicin [HCl]"),
        ("doxorubicin", "doxorubicin sodium pentahydrate"),
        ("doxorubicin", "doxorubic\u00edn"),
        ("doxorubicin", "doxorubicin_10uM"),
        ("doxorubicin 500 nM", "doxorubicin (10 \u00b5M)"),
        ("belinostat", "Belinostat_1000.0"),
        ("ENSG00000105610.5", "ENSG00000105610.12"),
        ("KLF1_sg1", "KLF1_sg2"),
        ("KLF1_P1", "KLF1_P2"),
        ("KLF1", "KLF1+KLF1"),
        ("KLF1", "KLF1_ctrl"),
        ("A\u2010549", "A-549"),
    ],
)
def test_names_that_look_alike_are_listed(alike):
    assert near_names([*alike, "something else"]) == [tuple(sorted(alike))]


def test_numbered_names_are_alike_only_where_several_stems_are_numbered():
    assert near_names([f"cpd-{i}" for i in range(30)]) == []
    replicates = [f"drug{c}_{i}" for c in "abc" for i in (1, 2)]
    assert near_names(replicates) == [("druga_1", "druga_2"), ("drugb_1", "drugb_2"), ("drugc_1", "drugc_2")]


def test_enantiomers_charges_and_other_numbers_are_not_alike():
    assert (
        near_names(
            [
                "(+)-X1",
                "(-)-X1",
                "CD4+",
                "CD4-",
                "ab1-0",
                "ab10",
                "1.5 a",
                "15 a",
                "sodium chloride",
                "sodium citrate",
                "(R)-x",
                "(S)-x",
                "SB-203580",
                "SB-431542",
                "acetic acid",
                "folic acid",
                "NT-3",
                "NT-4",
            ]
        )
        == []
    )


def test_names_of_controls():
    assert all(map(is_control_name, ["DMSO", " Ctrl", "non-targeting", "NegCtrl0", "ctrl+ctrl", "NegCtrl0+NegCtrl1"]))
    assert all(map(is_control_name, ["Negative Control", "vehicle control", "DMSO (vehicle)", "NTC_1", "DMSO_2"]))
    assert all(
        map(is_control_name, ["non\u2011targeting", "ctrl\u200b", "NegCtrl10_NegCtrl0", "Non-Targeting Control"])
    )
    assert not any(
        map(is_control_name, ["A+ctrl", "positive control", "controlin", "KLF1", "", "NT-3", "IFNb control"])
    )


def small(tmp_path, perturbations, lines, **columns):
    x = np.random.default_rng(0).normal(8, 1, (len(perturbations), 4)).astype(np.float32)
    obs = pd.DataFrame({"perturbation": perturbations, "cell_line": lines, **columns})
    data = anndata.AnnData(x, obs=obs.set_axis([f"s{i}" for i in range(len(obs))]), layers={"control": x + 1})
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.h5ad"
    data.write_h5ad(path)
    return open_data(path)


def test_cell_lines_and_plates_that_look_the_same_are_one_and_alike_ones_are_named(tmp_path):
    """Two cell lines of one name to the eye would each be held out while models learn from the other."""
    lines = ["T cell", "T\u00a0cell", "T cell\u200b", "T  cell", "HT-29", "ht29"]
    file = small(tmp_path, list("ABCDEF"), lines, plate=["P1", "P1\u00a0", "P\u200b1", " P1", "P2", "P2"])
    assert file.obs["cell_line"].tolist() == ["T cell"] * 4 + ["HT-29", "ht29"]
    assert file.obs["plate"].tolist() == ["P1"] * 4 + ["P2"] * 2
    found = [f for f in validate(file) if f.code == "lines_alike"]
    assert len(found) == 1 and "HT-29 = ht29" in found[0].message and found[0].count == 2
    numbered = small(tmp_path, list("ABCDEF"), ["T cell", "T cell 2", "B 1", "B 2", "NK 1", "NK 2"])
    assert not [f for f in validate(numbered) if f.code == "lines_alike"]


def test_a_sample_that_is_called_like_many_controls_is_named(tmp_path):
    file = small(tmp_path, ["saline", "A", "empty_vector", "AAVS1", "Mediumistat", "PBS1"], "L")
    found = [f for f in validate(file) if f.code == "perhaps_untreated"]
    assert len(found) == 1 and list(found[0].examples) == ["AAVS1", "empty_vector", "saline"]


def test_every_reader_brings_spellings_together_and_says_so(tmp_path):
    """Through the door that all readers share: combinations in any order, a control beside the gene, blanks."""
    names = ["A+B", "B+A", "A + B", "C+ctrl", "ctrl+C", "C", "D", "e7", "E-07"]
    x = np.random.default_rng(0).normal(8, 1, (len(names), 4)).astype(np.float32)
    obs = pd.DataFrame({"perturbation": names, "cell_line": "L"}, index=[f"s{i}" for i in range(len(names))])
    data = anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=list("wxyz")), layers={"control": x + 1})
    data.write_h5ad(tmp_path / "d.h5ad")
    table = pd.DataFrame(x, columns=list("wxyz"), index=obs.index.rename("sample_id"))
    obs.join(table).to_csv(tmp_path / "t.csv")
    (table + 1).to_csv(tmp_path / "c.csv")
    for file in (open_data(tmp_path / "d.h5ad"), open_data(tmp_path / "t.csv", control=tmp_path / "c.csv")):
        assert file.obs["perturbation"].tolist() == ["A+B"] * 3 + ["C"] * 3 + ["D", "e7", "E-07"]
        found = {f.code: f for f in validate(file)}
        assert found["several_names"].count == 4 and "'B+A' = 'A+B'" in found["several_names"].message
        assert found["names_alike"].severity == "warning" and "E-07 = e7" in found["names_alike"].message


def test_a_pair_in_the_test_whose_reverse_is_in_development_is_found():
    pairs = [f"G{i}+G{i + 50}" for i in range(40) for _ in range(2)]
    obs = pd.DataFrame({"perturbation": pairs, "cell_line": "L"}, index=[f"s{i}" for i in range(80)])
    plan = FoldPlan.make(obs, seed=1)
    test, dev = (plan.table.loc[plan.table["role"] == role, "sample_id"].tolist() for role in ("test", "development"))
    reversed_pair = "+".join(reversed(obs.loc[test[0], "perturbation"].split("+")))
    table = plan.table[["sample_id", "role", "fold"]]
    leaky = obs.assign(perturbation=obs["perturbation"].where(obs.index != dev[0], reversed_pair))
    for group in ("sample", "perturbation"):
        read = FoldPlan.from_table(table, leaky, group)
        found = {f.code: f for f in check_plan(read, leaky)}
        code = "perturbation_across" if group == "sample" else "group_across_roles"
        assert found[code].severity in ("warning", "error") and obs.loc[test[0], "perturbation"] in str(found[code])
    mixed = obs.assign(perturbation=[p if i % 2 else "+".join(p.split("+")[::-1]) for i, p in enumerate(pairs)])
    together = FoldPlan.make(mixed, seed=1).table
    assert together.assign(pair=pairs).groupby("pair")["fold"].nunique(dropna=False).max() == 1


def test_features_and_targets_find_a_combination_in_any_order(tmp_path):
    obs = pd.DataFrame({"perturbation": ["A+B", "C+ctrl"], "cell_line": "L"})
    pd.DataFrame({"perturbation": ["B+A", "C", "D"], "f": [1.0, 2.0, 3.0]}).to_csv(tmp_path / "f.csv", index=False)
    pd.DataFrame({"perturbation": ["B+A"], "gene": ["g1"]}).to_csv(tmp_path / "t.csv", index=False)
    side, _ = build_side(obs, ["g1", "g2"], features=tmp_path / "f.csv", targets=tmp_path / "t.csv")
    np.testing.assert_array_equal(side.features["user"].matrix[:, 0], [1, 2])
    assert side.features["user"].known.all()
    assert side.features["targets"].known.tolist() == [True, False]
    named, _ = build_side(obs.assign(perturbation=["g1_g2", "g2"]), ["g1", "g2"])
    np.testing.assert_array_equal(named.features["genes"].matrix, [[1, 1], [0, 1]])


@pytest.mark.parametrize(
    "name",
    [
        "9-methyl-5H-6-thia-4,5-diaza-chrysene-6,6-dioxide",
        "N,N-dimethyltryptamine",
        "benzo-2,1,3-thiadiazole",
        "tetra-3a,4,7,7a-hydroindene",
        "di-4,4'-pyridyl",
    ],
)
def test_commas_between_locants_join_nothing(name):
    assert parts_of(name) == (name,)
    assert parts_of(f"{name} + KLF1") == tuple(sorted((name, "KLF1")))


def test_commas_between_names_join_them():
    assert parts_of("KLF1,CEBPA") == parts_of("CEBPA, KLF1") == ("CEBPA", "KLF1")
    assert parts_of("N1,N2") == ("N1", "N2") and parts_of("IL-2,IL-4") == ("IL-2", "IL-4")


def test_a_single_beside_the_control_is_not_called_like_one(tmp_path):
    """Every single of a screen of pairs, ``A+ctrl``, was said to be called like a control."""
    file = small(tmp_path, ["A+ctrl", "ctrl+B", "A+B", "C_ctrl", "C", "D"], "L")
    assert not [f for f in validate(file) if f.code == "perhaps_untreated"]
