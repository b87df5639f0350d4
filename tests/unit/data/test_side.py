"""Side information: what is known is right, what is missing is marked and counted."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import CorruptionError, InputError, MissingFileError
from pertstack.data import build_side, canonical_smiles, inchi_key, load_side, save_side
from pertstack.data.side.targets import genes_of

GENES = ["TP53", "EGFR", "MYC", "KLF1", "CEBPA"]
DRUGS = pd.DataFrame(
    {
        "perturbation": ["aspirin", "caffeine", "mystery", "broken", "aspirin"],
        "smiles": [
            "CC(=O)Oc1ccccc1C(=O)O",
            "Cn1c(=O)c2c(ncn2C)n(C)c1=O",
            None,
            "not-a-molecule(",
            "OC(=O)c1ccccc1OC(C)=O",
        ],
    },
    index=[f"s{i}" for i in range(5)],
)


def test_fingerprints_equal_rdkit_and_unknown_structures_are_masked() -> None:
    all_chem = pytest.importorskip("rdkit.Chem.AllChem")
    chem = pytest.importorskip("rdkit.Chem")
    side, findings = build_side(DRUGS, GENES)
    table = side.features["structure"]
    assert table.perturbations == ("aspirin", "broken", "caffeine", "mystery")
    assert table.known.tolist() == [True, False, True, False]
    bits = all_chem.GetMorganFingerprintAsBitVect(chem.MolFromSmiles("Cn1c(=O)c2c(ncn2C)n(C)c1=O"), 2, nBits=2048)
    np.testing.assert_array_equal(np.flatnonzero(table.matrix[2]), list(bits.GetOnBits()))
    assert not table.matrix[[1, 3]].any(), "a missing structure must not become another molecule"
    values, known = table.rows(["mystery", "caffeine", "never seen"])
    assert known.tolist() == [False, True, False] and not values[[0, 2]].any()
    codes = {f.code: f for f in findings}
    assert codes["smiles_unreadable"].examples == ("broken",)
    assert "mystery" not in str(codes), "told once, by the checks of metadata"


def test_without_rdkit_the_finding_says_so(monkeypatch) -> None:
    monkeypatch.setattr("pertstack.data.side.build.has_rdkit", lambda: False)
    side, findings = build_side(DRUGS, GENES)
    assert "structure" not in side.features
    assert "pip install" in next(f for f in findings if f.code == "no_rdkit").message


def test_two_spellings_are_one_compound() -> None:
    pytest.importorskip("rdkit")
    assert canonical_smiles(DRUGS["smiles"].iloc[0]) == canonical_smiles(DRUGS["smiles"].iloc[4])
    assert canonical_smiles("CCO") != canonical_smiles("CCN")
    assert canonical_smiles("C[C@H](N)O") != canonical_smiles("C[C@@H](N)O")
    assert canonical_smiles("not a molecule(") is None and canonical_smiles("") is None
    assert inchi_key("CCO") == "LFQSCWFLJHTTHZ-UHFFFAOYSA-N"


@pytest.mark.parametrize(
    ("name", "genes"),
    [
        ("g0013+ctrl", ("g0013",)),
        ("A+B", ("A", "B")),
        ("ctrl+B", ("B",)),
        ("ctrl", ()),
        ("A|B;C", ("A", "B", "C")),
        ("A+A", ("A",)),
        ("non-targeting", ()),
    ],
)
def test_genes_in_a_perturbation_name(name: str, genes: tuple[str, ...]) -> None:
    assert genes_of(name) == genes


def test_perturbed_genes_from_names_and_from_columns() -> None:
    obs = pd.DataFrame({"perturbation": ["KLF1+ctrl", "KLF1+CEBPA", "MYC+ctrl", "KLF1+ctrl"]})
    table = build_side(obs, GENES)[0].features["genes"]
    assert table.columns == ("CEBPA", "KLF1", "MYC")
    assert table.rows(["KLF1+CEBPA"])[0].tolist() == [[1, 1, 0]]
    named = pd.DataFrame({"perturbation": ["x", "y"], "gene_a": ["MYC", "TP53"], "gene_b": [None, "EGFR"]})
    table = build_side(named, GENES)[0].features["genes"]
    assert table.rows(["y"])[0].tolist() == [[1, 0, 1]] and table.columns == ("EGFR", "MYC", "TP53")
    assert "genes" not in build_side(DRUGS, GENES)[0].features


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npz"])
def test_a_users_matrix_is_matched_by_name_not_by_order(tmp_path, suffix: str) -> None:
    path = tmp_path / f"features.{suffix}"
    names, matrix = ["caffeine", "mystery", "unrelated", "aspirin"], np.arange(8, dtype=np.float32).reshape(4, 2)
    matrix[1, 0] = np.nan
    if suffix == "npz":
        np.savez(path, perturbations=np.array(names), matrix=matrix)
    else:
        frame = pd.DataFrame(matrix, columns=["x", "y"]).assign(perturbation=names)[["perturbation", "x", "y"]]
        frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path)
    side, findings = build_side(DRUGS, GENES, features=path)
    table = side.features["user"]
    values, known = table.rows(["aspirin", "caffeine", "mystery", "broken"])
    assert values.tolist() == [[6, 7], [0, 1], [0, 0], [0, 0]]
    assert known.tolist() == [True, True, False, False]
    assert np.isfinite(table.matrix).all(), "a row with a missing value is unknown as a whole"
    assert next(f for f in findings if f.code == "features_missing").count == 2
    assert side.best() is table


def test_a_users_matrix_that_cannot_be_used(tmp_path) -> None:
    path = tmp_path / "f.csv"
    pd.DataFrame({"perturbation": ["zzz"], "x": [1.0]}).to_csv(path, index=False)
    with pytest.raises(InputError, match="none of the 4 perturbations"):
        build_side(DRUGS, GENES, features=path)
    pd.DataFrame({"perturbation": ["aspirin"], "x": ["high"]}).to_csv(path, index=False)
    with pytest.raises(InputError, match="'x'"):
        build_side(DRUGS, GENES, features=path)
    pd.DataFrame({"perturbation": ["aspirin", "aspirin"], "x": [1.0, 2.0]}).to_csv(path, index=False)
    with pytest.raises(InputError, match="more than once"):
        build_side(DRUGS, GENES, features=path)
    with pytest.raises(MissingFileError):
        build_side(DRUGS, GENES, features=tmp_path / "nowhere.csv")
    np.savez(tmp_path / "objects.npz", perturbations=np.array(["a"], dtype=object), matrix=np.zeros((1, 2)))
    with pytest.raises(InputError, match="dtype=str"):
        build_side(DRUGS, GENES, features=tmp_path / "objects.npz")


def test_targets_from_csv_json_and_uns(tmp_path) -> None:
    (tmp_path / "t.json").write_text(json.dumps({"aspirin": ["TP53", "NOT_HERE"], "caffeine": "MYC"}))
    pd.DataFrame({"perturbation": ["aspirin", "caffeine"], "gene": ["TP53;NOT_HERE", "MYC"]}).to_csv(
        tmp_path / "t.csv", index=False
    )
    for options in (
        {"targets": tmp_path / "t.json"},
        {"targets": tmp_path / "t.csv"},
        {"uns": {"targets": pd.DataFrame({"perturbation": ["aspirin", "caffeine"], "gene": ["TP53", "MYC"]})}},
    ):
        side, findings = build_side(DRUGS, GENES, **options)
        table = side.features["targets"]
        assert table.columns == ("MYC", "TP53")
        assert table.rows(["aspirin", "caffeine", "mystery"])[0].tolist() == [[0, 1], [1, 0], [0, 0]]
        assert next(f for f in findings if f.code == "targets_missing").count == 2
    (tmp_path / "t.json").write_text(json.dumps({"other": ["TP53"]}))
    with pytest.raises(InputError, match="no perturbation of the study has a target"):
        build_side(DRUGS, GENES, targets=tmp_path / "t.json")
    (tmp_path / "t.json").write_text("{")
    with pytest.raises(InputError, match="JSON"):
        build_side(DRUGS, GENES, targets=tmp_path / "t.json")


def edges(side) -> set[tuple[str, str]]:
    return {(side.graph.gene_names[a], side.graph.gene_names[b]) for a, b in side.graph.edges}


def test_graphs_of_several_kinds(tmp_path) -> None:
    rows = [
        ("TP53", "EGFR", 900),
        ("EGFR", "TP53", 900),
        ("MYC", "MYC", 999),
        ("MYC", "KLF1", 200),
        ("MYC", "OTHER", 800),
    ]
    expected = {("TP53", "EGFR"), ("MYC", "KLF1")}
    string = tmp_path / "string.txt"
    string.write_text("protein1 protein2 combined_score\n" + "\n".join(f"{a} {b} {s}" for a, b, s in rows))
    side, findings = build_side(DRUGS, GENES, graph=string)
    assert edges(side) == expected
    assert next(f for f in findings if f.code == "graph_partial").examples == ("CEBPA",)
    assert edges(build_side(DRUGS, GENES, graph=string, graph_min_score=400)[0]) == {("TP53", "EGFR")}
    ppi = pd.DataFrame(rows, columns=["symbol_a", "symbol_b", "n_papers"]).assign(entrez=range(5))
    ppi[["entrez", "symbol_a", "n_papers", "symbol_b"]].to_csv(tmp_path / "ppi.tsv", sep="\t", index=False)
    assert edges(build_side(DRUGS, GENES, graph=tmp_path / "ppi.tsv")[0]) == expected
    (tmp_path / "bare.csv").write_text("TP53,EGFR\nMYC,KLF1\n")
    assert edges(build_side(DRUGS, GENES, graph=tmp_path / "bare.csv")[0]) == expected
    side = build_side(DRUGS, GENES, uns={"graph": ppi[["symbol_a", "symbol_b"]].to_numpy()})[0]
    assert edges(side) == expected
    string.write_text("protein1 protein2\n9606.ENSP1 9606.ENSP2\n")
    with pytest.raises(InputError, match="Translate"):
        build_side(DRUGS, GENES, graph=string)
    with pytest.raises(InputError, match="score column"):
        build_side(DRUGS, GENES, graph=tmp_path / "bare.csv", graph_min_score=1)


def test_side_information_survives_the_disk(tmp_path) -> None:
    pytest.importorskip("rdkit")
    (tmp_path / "g.csv").write_text("gene_a,gene_b\nTP53,EGFR\n")
    side, _ = build_side(DRUGS, GENES, graph=tmp_path / "g.csv", uns={"targets": {"aspirin": ["TP53"]}})
    save_side(tmp_path / "side", side)
    back = load_side(tmp_path / "side")
    assert {k: t.digest for k, t in back.features.items()} == {k: t.digest for k, t in side.features.items()}
    assert back.graph.gene_names == side.graph.gene_names
    np.testing.assert_array_equal(back.graph.edges, side.graph.edges)
    assert load_side(tmp_path / "nothing").features == {}
    (tmp_path / "side" / "features_targets.npz").write_bytes(b"garbage")
    with pytest.raises(CorruptionError, match="features_targets"):
        load_side(tmp_path / "side")


def test_features_do_not_depend_on_the_order_of_samples() -> None:
    pytest.importorskip("rdkit")
    first = build_side(DRUGS, GENES)[0].features["structure"].digest
    assert build_side(DRUGS.iloc[::-1], GENES)[0].features["structure"].digest == first
