"""Tables that are not cells, what is said beside them, and prior knowledge: errors that once passed without a word."""

from __future__ import annotations

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import InputError
from pertstack.data.readers.open import open_data
from pertstack.data.side.build import build_side

GENES = ["TP53", "MDM2", "KLF1", "CEBPA", "MYC", "JUN", *(f"ZNF{i}" for i in range(14))]
DRUGS = [f"drug{i}" for i in range(6)]


@pytest.fixture(scope="module")
def world():
    """Profiles of six drugs and DMSO in two lines, twice each: what is said of them, and their values."""
    rng = np.random.default_rng(0)
    rows = [(p, line) for line in ("A375", "MCF7") for p in [*DRUGS, "DMSO"] for _ in range(2)]
    obs = pd.DataFrame(rows, columns=["perturbation", "cell_line"])
    obs.index = pd.Index([f"S{i:02d}" for i in rng.permutation(len(obs))], name="sample_id")
    return obs, pd.DataFrame(rng.normal(8, 1, (len(obs), 20)).astype(np.float32), index=obs.index, columns=GENES)


def differences(world):
    """Treated minus the mean control of the line, by plain pandas."""
    obs, x = world
    control = x[obs["perturbation"] == "DMSO"].groupby(obs["cell_line"]).mean()
    treated = obs[obs["perturbation"] != "DMSO"]
    return treated, x.loc[treated.index] - control.loc[treated["cell_line"]].to_numpy()


def same_differences(file, world):
    treated, expected = differences(world)
    control, values = file.read(slice(None))
    found = pd.DataFrame(values - control, index=file.obs.index, columns=file.gene_names)
    assert sorted(found.columns) == sorted(GENES)
    np.testing.assert_allclose(found.loc[treated.index, GENES], expected, rtol=0, atol=1e-5)
    assert file.obs.loc[treated.index, "perturbation"].tolist() == treated["perturbation"].tolist()
    assert file.obs.loc[treated.index, "cell_line"].tolist() == treated["cell_line"].tolist()


def codes(file):
    return [n.code for n in file.notes]


NUMBERS = {
    "n_cells": 40,
    "Cas9_score": 0.3,
    "viability": 0.9,
    "age": 3,
    "RIN": 8.1,
    "my_panel": 0.5,
    "dose_nM": 100.0,
    "day": 2,
}


@pytest.mark.parametrize("form", ["wide", "pair", "delta"])
def test_numbers_that_are_no_genes_are_not_taken_for_genes_by_any_reader_of_tables(world, tmp_path, form):
    obs, x = world
    treated, expected = differences(world)
    said = obs.assign(**NUMBERS)
    if form == "wide":
        pd.concat([said, x], axis=1).to_csv(tmp_path / "t.csv")
        file = open_data(tmp_path / "t.csv")
    elif form == "pair":
        pd.concat([said, x], axis=1).loc[treated.index].to_csv(tmp_path / "t.csv")
        (x.loc[treated.index] - expected).assign(**NUMBERS).to_parquet(tmp_path / "c.parquet")
        file = open_data(tmp_path / "t.csv", control=tmp_path / "c.parquet")
    else:
        pd.concat([said.loc[treated.index], expected], axis=1).to_parquet(tmp_path / "t.parquet")
        file = open_data(tmp_path / "t.parquet", delta=True)
    same_differences(file, world)
    assert file.obs["log10_dose"].to_numpy() == pytest.approx(-1)
    warned = next(n for n in file.notes if n.code == "columns_apart")
    assert warned.examples == ("my_panel",)


def test_ids_are_known_in_any_spelling_and_repeated_ones_are_kept_to_be_refused(world, tmp_path):
    obs, x = world
    table = pd.concat([obs, x], axis=1)
    table.to_csv(tmp_path / "t.csv", index_label="Sample ID")
    same_differences(open_data(tmp_path / "t.csv"), world)
    table.rename(index={table.index[3]: table.index[4]}).to_csv(tmp_path / "t.csv", index_label="Sample ID")
    assert open_data(tmp_path / "t.csv").obs.index.has_duplicates  # rows were numbered anew once


def gctx(path, x):
    with h5py.File(path, "w") as file:
        file["0/DATA/0/matrix"] = x.to_numpy()
        file["0/META/ROW/id"] = np.array(x.columns, dtype="S")
        file["0/META/COL/id"] = np.array(x.index, dtype="S")
    return path


def opened_beside(world, folder, kind, metadata):
    """The values in one of five forms, with a table beside them."""
    _, x = world
    treated, expected = differences(world)
    if kind == "h5ad":
        anndata.AnnData(x.to_numpy(), pd.DataFrame(index=x.index), pd.DataFrame(index=x.columns)).write_h5ad(
            folder / "x.h5ad"
        )
        return open_data(folder / "x.h5ad", metadata=metadata)
    if kind == "gctx":
        return open_data(gctx(folder / "x.gctx", x), metadata=metadata)
    if kind == "wide":
        x.to_csv(folder / "x.csv")
        return open_data(folder / "x.csv", metadata=metadata)
    expected.to_csv(folder / "d.csv")
    if kind == "delta":
        return open_data(folder / "d.csv", delta=True, metadata=metadata)
    x.loc[treated.index].to_csv(folder / "t.csv")
    (x.loc[treated.index] - expected).to_csv(folder / "c.csv")
    return open_data(folder / "t.csv", control=folder / "c.csv", metadata=metadata)


@pytest.mark.parametrize("header", ["sample_id", "Sig ID", None])
@pytest.mark.parametrize("kind", ["h5ad", "gctx", "wide", "pair", "delta"])
def test_a_table_beside_the_values_is_read_for_every_kind_of_file(world, tmp_path, kind, header):
    obs, _ = world
    more = pd.concat([obs, obs.iloc[:3].rename(index=lambda s: f"other {s}"), obs.iloc[4:6]])
    more.sample(frac=1, random_state=0).rename_axis(header).to_csv(tmp_path / "m.csv", encoding="utf-8-sig")
    same_differences(opened_beside(world, tmp_path, kind, tmp_path / "m.csv"), world)


def test_a_column_that_both_have_is_taken_from_the_table_with_a_warning(world, tmp_path):
    obs, x = world
    wrong = obs.assign(cell_line=["MCF7" if i == 2 else line for i, line in enumerate(obs["cell_line"])])
    obs.to_csv(tmp_path / "m.csv")
    pd.concat([wrong, x], axis=1).to_csv(tmp_path / "wide.csv")
    anndata.AnnData(x.to_numpy(), wrong, pd.DataFrame(index=x.columns)).write_h5ad(tmp_path / "x.h5ad")
    for name in ("wide.csv", "x.h5ad"):
        file = open_data(tmp_path / name, metadata=tmp_path / "m.csv")
        same_differences(file, world)
        told = next(n for n in file.notes if n.code == "columns_in_both")
        assert f"cell_line of {obs.index[2]!r} is 'MCF7' and 'A375'" in told.message


def test_what_the_table_leaves_empty_is_taken_from_the_file(world, tmp_path):
    obs, x = world
    obs.assign(cell_line=obs["cell_line"].where(np.arange(len(obs)) % 2 == 0)).to_csv(tmp_path / "m.csv")
    pd.concat([obs, x], axis=1).to_csv(tmp_path / "wide.csv")
    file = open_data(tmp_path / "wide.csv", metadata=tmp_path / "m.csv")
    same_differences(file, world)
    assert "columns_in_both" not in codes(file)


def test_rows_known_by_their_numbers_alone_are_warned_about(world, tmp_path):
    obs, x = world
    x.reset_index(drop=True).to_csv(tmp_path / "x.csv")
    obs.reset_index(drop=True).to_csv(tmp_path / "m.csv")
    assert "row_numbers_as_ids" in codes(open_data(tmp_path / "x.csv", metadata=tmp_path / "m.csv"))


def test_a_file_that_says_nothing_of_its_rows_asks_for_the_table_that_does(world, tmp_path):
    _, x = world
    anndata.AnnData(x.to_numpy(), pd.DataFrame(index=x.index), pd.DataFrame(index=x.columns)).write_h5ad(
        tmp_path / "x.h5ad"
    )
    with pytest.raises(InputError, match=r"no columns that say anything of its rows.*--metadata FILE"):
        open_data(tmp_path / "x.h5ad", delta=True)


def test_ids_that_do_not_fit_are_named_with_their_column(world, tmp_path):
    obs, x = world
    x.to_csv(tmp_path / "x.csv")
    obs.iloc[2:].to_csv(tmp_path / "m.csv")
    with pytest.raises(InputError, match=rf"no line for 2 of 28 rows .*{obs.index[0]}.*column 'sample_id'"):
        open_data(tmp_path / "x.csv", metadata=tmp_path / "m.csv")
    obs.rename(index=str.lower).to_csv(tmp_path / "m.csv")
    with pytest.raises(InputError, match=r"column 'sample_id' .* alike but for case"):
        open_data(tmp_path / "x.csv", metadata=tmp_path / "m.csv")
    pd.concat([obs, obs.iloc[:1].assign(cell_line="HeLa")]).to_csv(tmp_path / "m.csv")
    with pytest.raises(InputError, match="more than once, with lines that differ"):
        open_data(tmp_path / "x.csv", metadata=tmp_path / "m.csv")
    named = obs.reset_index(drop=True).assign(first=obs.index, second=obs.index[::-1])
    named.to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(InputError, match=r"in different orders.*--map sample_id=first"):
        open_data(tmp_path / "x.csv", metadata=tmp_path / "m.csv")
    same_differences(open_data(tmp_path / "x.csv", metadata=tmp_path / "m.csv", mapping={"sample_id": "first"}), world)


def test_options_that_nothing_would_be_made_of_are_refused(world, tmp_path):
    obs, x = world
    x.to_csv(tmp_path / "x.csv")
    anndata.AnnData(x.to_numpy(), obs, pd.DataFrame(index=x.columns)).write_h5ad(tmp_path / "x.h5ad")
    with pytest.raises(InputError, match="--control is of no use here: its controls are in a layer or among its rows"):
        open_data(tmp_path / "x.h5ad", control=tmp_path / "x.csv")
    with pytest.raises(InputError, match="--control is of no use here: with --delta"):
        open_data(tmp_path / "x.csv", control=tmp_path / "x.csv", delta=True)
    with pytest.raises(InputError, match="--treated-layer is of no use here: only AnnData has layers"):
        open_data(tmp_path / "x.csv", treated_layer="counts")
    with pytest.raises(InputError, match="--map gene is of no use here"):
        open_data(tmp_path / "x.csv", mapping={"gene": "symbol"})


@pytest.mark.parametrize(
    ("column", "molar"), [("dose_nM", -1), ("Dose (uM)", 2), ("dose_M", 8), ("Dose [mM]", 5), ("dose_m", None)]
)
def test_units_of_doses_are_read_from_names_of_columns_but_for_a_lone_m(world, tmp_path, column, molar):
    """``dose_m`` may be of meters, minutes or a model; it is no dose in moles."""
    obs, x = world
    pd.concat([obs.assign(**{column: 100.0}), x], axis=1).to_csv(tmp_path / "t.csv")
    found = open_data(tmp_path / "t.csv").obs
    assert ("log10_dose" not in found) if molar is None else found["log10_dose"].to_numpy() == pytest.approx(molar)


@pytest.mark.parametrize(
    ("columns", "mapping", "hours"),
    [
        ({"time_min": 1440}, None, 24),
        ({"Time (min)": 1440}, None, 24),
        ({"harvest_days": 2}, {"time": "harvest_days"}, 48),
        ({"time": 1440, "time_unit": "min"}, None, 24),
        ({"time_h": 24, "time_unit": "h"}, None, 24),
    ],
)
def test_units_of_times_are_read_wherever_they_stand(world, tmp_path, columns, mapping, hours):
    obs, x = world
    pd.concat([obs.assign(**columns), x], axis=1).to_csv(tmp_path / "t.csv")
    assert open_data(tmp_path / "t.csv", mapping=mapping).obs["time_h"].to_numpy() == pytest.approx(hours)


def test_times_and_doses_that_could_mean_two_things_are_refused_or_warned_about(world, tmp_path):
    obs, x = world
    path = tmp_path / "t.csv"
    pd.concat([obs.assign(time_h=1440, time_unit="min"), x], axis=1).to_csv(path)
    with pytest.raises(InputError, match=r"time of .* two units: 'h', 'min'.*--map time_unit=none"):
        open_data(path)
    pd.concat([obs.assign(time=1440), x], axis=1).to_csv(path)
    assert "time_without_unit" in codes(open_data(path))
    pd.concat([obs.assign(conc_nM=100), x], axis=1).to_csv(path)
    file = open_data(path, mapping={"dose": "conc_nM"})
    assert file.obs["log10_dose"].to_numpy() == pytest.approx(-1) and "dose_without_unit" not in codes(file)
    pd.concat([obs.assign(dose="1,000 nM"), x], axis=1).to_csv(path)
    with pytest.raises(InputError, match=r"1 values of dose are not a number.*'1,000 nM'"):
        open_data(path)
    pd.concat([obs.assign(log10_dose=-1), x], axis=1).to_csv(path)
    assert open_data(path).obs["log10_dose"].dtype == np.float64
    assert "log10_dose" not in open_data(path, mapping={"dose": "none"}).obs


def test_gene_names_lose_the_blanks_around_them(world, tmp_path):
    obs, x = world
    spaced = [f" {g}" for g in x.columns]
    anndata.AnnData(x.to_numpy(), obs, pd.DataFrame(index=spaced)).write_h5ad(tmp_path / "x.h5ad")
    same_differences(open_data(tmp_path / "x.h5ad"), world)


@pytest.mark.parametrize("types", ["none", "ctl_vector"])
def test_wells_of_gctx_are_controls_by_their_names_where_their_type_does_not_say_so(world, tmp_path, types):
    obs, x = world
    kinds = {} if types == "none" else {"pert_type": np.where(obs["perturbation"] == "DMSO", types, "trt_sh")}
    obs.assign(**kinds).to_csv(tmp_path / "m.csv")
    file = open_data(gctx(tmp_path / "x.gctx", x), metadata=tmp_path / "m.csv", control_label="DMSO")
    same_differences(file, world)


PERTURBATIONS = pd.DataFrame({"perturbation": ["TP53", "KLF1+CEBPA", "MYC"], "cell_line": "A"})
EDGES = pd.DataFrame({"gene_a": ["TP53", "MYC", "KLF1"], "gene_b": ["MDM2", "JUN", "CEBPA"], "Weight": [0.9, 0.3, 1]})


def edges_of(path, least=None):
    side, _ = build_side(PERTURBATIONS, GENES, graph=path, graph_min_score=least)
    return sorted((GENES[a], GENES[b]) for a, b in side.graph.edges)


def test_scores_of_edges_are_read_as_numbers_or_refused(tmp_path):
    path, kept = tmp_path / "g.tsv", [("KLF1", "CEBPA"), ("TP53", "MDM2")]
    kept = sorted(tuple(sorted(e, key=GENES.index)) for e in kept)
    EDGES.to_csv(path, sep="\t", index=False)
    assert edges_of(path, 0.5) == kept
    EDGES.assign(Weight=["0,9", "0,3", "1"]).to_csv(path, sep="\t", index=False)
    assert edges_of(path, 0.5) == kept  # edges of decimal commas were dropped once
    EDGES.assign(Weight=["0.9", "0.3", "high"]).to_csv(path, sep="\t", index=False)
    with pytest.raises(InputError, match=r"1 of 3 scores in column 'Weight' are no numbers: 'high'"):
        edges_of(path, 0.5)
    EDGES.assign(Weight=[900, 300, 1000]).to_csv(path, sep="\t", index=False)
    with pytest.raises(InputError, match=r"every edge has Weight >= 0.5.*--graph-min-score 500"):
        edges_of(path, 0.5)


def test_names_of_edges_lose_blanks_and_versions(tmp_path):
    EDGES.assign(gene_a=EDGES["gene_a"] + " ").to_csv(tmp_path / "g.csv", index=False)
    assert len(edges_of(tmp_path / "g.csv")) == 3


def test_features_of_one_perturbation_under_two_spellings_are_one_or_refused(tmp_path):
    path = tmp_path / "f.csv"
    table = pd.DataFrame({"f": [1.5, 2.5, 3.5, 2.5]}, index=["TP53", "KLF1+CEBPA", "MYC", "CEBPA+KLF1"])
    table.to_csv(path, index_label="Perturbation")
    side, _ = build_side(PERTURBATIONS, GENES, features=path)
    assert side.features["user"].matrix.ravel().tolist() == [2.5, 3.5, 1.5]
    table.assign(f=[1.5, 2.5, 3.5, 9.5]).to_csv(path, index_label="Perturbation")
    with pytest.raises(InputError, match="are one perturbation, and their features differ"):
        build_side(PERTURBATIONS, GENES, features=path)
    table.iloc[:3].to_csv(path, header=False)
    with pytest.raises(InputError, match=r"no line with the names of its columns.*read_csv.*header=None"):
        build_side(PERTURBATIONS, GENES, features=path)


@pytest.mark.parametrize("between", [";", ", ", "/", "+", " | "])
def test_targets_are_parted_and_those_of_both_orders_put_together(tmp_path, between):
    rows = [("TP53", between.join(["MDM2", "MYC"])), ("KLF1+CEBPA", "JUN"), ("CEBPA+KLF1", "MYC")]
    pd.DataFrame(rows, columns=["Perturbation", "Gene"]).to_csv(tmp_path / "t.csv", index=False)
    side, _ = build_side(PERTURBATIONS, GENES, targets=tmp_path / "t.csv")
    found = side.features["targets"]
    hot = {
        p: {c for c, v in zip(found.columns, row, strict=True) if v}
        for p, row in zip(found.perturbations, found.matrix, strict=True)
    }
    assert hot == {"TP53": {"MDM2", "MYC"}, "KLF1+CEBPA": {"JUN", "MYC"}, "MYC": set()}


def test_a_name_that_stands_twice_in_a_json_of_targets_is_refused(tmp_path):
    (tmp_path / "t.json").write_text('\ufeff{"TP53": ["MDM2"], "TP53": ["MYC"]}', encoding="utf-8")
    with pytest.raises(InputError, match="'TP53' occurs more than once"):
        build_side(PERTURBATIONS, GENES, targets=tmp_path / "t.json")


SECOND = {f"ENSG{i:011d}": g for i, g in enumerate(GENES)}


def test_genes_of_graphs_and_targets_are_found_by_second_names_and_in_other_capitals(tmp_path):
    ids = {g: e for e, g in SECOND.items()}
    spelt = EDGES.assign(gene_a=EDGES["gene_a"].str.lower(), gene_b=[f"{ids[g]}.3" for g in EDGES["gene_b"]])
    spelt.to_csv(tmp_path / "g.csv", index=False)
    targets = pd.DataFrame({"perturbation": ["TP53", "MYC"], "gene": ["mdm2;" + ids["JUN"], "Klf1"]})
    targets.to_csv(tmp_path / "t.csv", index=False)
    side, told = build_side(PERTURBATIONS, GENES, graph=tmp_path / "g.csv", targets=tmp_path / "t.csv", other=SECOND)
    EDGES.to_csv(tmp_path / "own.csv", index=False)
    assert sorted((GENES[a], GENES[b]) for a, b in side.graph.edges) == edges_of(tmp_path / "own.csv")
    assert side.features["targets"].columns == ("JUN", "KLF1", "MDM2")  # only counted once
    warned = [f for f in told if f.code == "genes_by_capitals"]
    assert [f.count for f in warned] == [2, 3] and "tp53 = TP53" in warned[1].message
    assert [f.count for f in told if f.code == "genes_by_second_name"] == [1, 3]


def test_capitals_that_mean_two_genes_match_neither(tmp_path):
    pd.DataFrame({"a": ["TP53", "myc"], "b": ["JUN", "JUN"]}).to_csv(tmp_path / "g.csv", index=False)
    side, told = build_side(PERTURBATIONS, [*GENES, "Myc"], graph=tmp_path / "g.csv")
    assert len(side.graph.edges) == 1 and [f.code for f in told] == ["graph_partial"]


def test_perturbed_genes_in_other_capitals_are_known_and_drugs_called_like_a_gene_are_not():
    side, told = build_side(pd.DataFrame({"perturbation": ["tp53", "klf1+Cebpa", "MYC"]}), GENES)
    assert side.features["genes"].columns == ("CEBPA", "KLF1", "MYC", "TP53")
    assert [f.count for f in told if f.code == "genes_by_capitals"] == [3]
    assert not build_side(pd.DataFrame({"perturbation": ["jun", "aspirin", "caffeine"]}), GENES)[0].features


@pytest.mark.parametrize("form", ["wide", "delta"])
def test_numbers_among_genes_that_are_taken_for_metadata_by_their_name_are_named(world, tmp_path, form):
    obs, x = world
    renamed = x.rename(columns={"KLF1": "DOSE", "ZNF3": "TARGET", "ZNF13": "REP"})  # the last stands at the end
    table = pd.concat([obs.assign(TIME=6.0), renamed], axis=1)
    table.to_csv(tmp_path / "t.csv")
    file = open_data(tmp_path / "t.csv", delta=form == "delta")
    (said,) = [n for n in file.notes if n.code == "metadata_among_genes"]
    assert said.examples == ("DOSE", "TARGET") and "DOSE_GENE" in said.message


@pytest.mark.parametrize(
    ("column", "value", "log10_um"),
    [
        ("log10_dose_M", -6.5, -0.5),
        ("log10_dose", 1.5, 1.5),
        ("log10(dose)", 1.5, 1.5),
        ("Log10 Dose (nM)", 2.0, -1.0),
        ("log10_conc", 0.25, 0.25),
    ],
)
@pytest.mark.parametrize("form", ["wide", "h5ad"])
def test_decimal_logarithms_of_doses_are_doses_in_the_unit_of_their_name(
    world, tmp_path, form, column, value, log10_um
):
    obs, x = world
    said = obs.assign(**{column: np.where(obs["perturbation"] == "DMSO", -np.inf if form == "h5ad" else np.nan, value)})
    if form == "wide":
        pd.concat([said, x], axis=1).to_csv(tmp_path / "t.csv")
    else:
        anndata.AnnData(x.to_numpy(), said, pd.DataFrame(index=x.columns)).write_h5ad(tmp_path / "t.h5ad")
    file = open_data(tmp_path / ("t.csv" if form == "wide" else "t.h5ad"))
    same_differences(file, world)
    assert file.obs["log10_dose"].to_numpy() == pytest.approx(log10_um)


def test_logarithms_of_doses_of_unknown_base_are_named_and_taken_as_told(world, tmp_path):
    obs, x = world
    said = obs.assign(log_dose=np.arange(len(obs)) % 3 - 1.0)
    pd.concat([said, x], axis=1).to_csv(tmp_path / "t.csv")
    (told,) = [n for n in open_data(tmp_path / "t.csv").notes if n.code == "dose_as_logarithm"]
    assert "--map log10_dose=log_dose" in told.message
    file = open_data(tmp_path / "t.csv", mapping={"log10_dose": "log_dose"})
    same_differences(file, world)
    assert file.obs["log10_dose"].to_numpy() == pytest.approx(said.loc[file.obs.index, "log_dose"].to_numpy())


@pytest.mark.parametrize(
    ("column", "hours"), [("day", 48), ("days", 48), ("Hours", 2), ("minutes", 1 / 30), ("week", 336)]
)
def test_times_called_by_their_unit_alone_are_times(world, tmp_path, column, hours):
    obs, x = world
    pd.concat([obs.assign(**{column: 2}), x], axis=1).to_csv(tmp_path / "t.csv")
    file = open_data(tmp_path / "t.csv")
    same_differences(file, world)
    assert file.obs["time_h"].to_numpy() == pytest.approx(hours)


def test_a_day_that_is_no_number_is_no_time(world, tmp_path):
    obs, x = world
    pd.concat([obs.assign(day=["d1", "d2"] * (len(obs) // 2)), x], axis=1).to_csv(tmp_path / "t.csv")
    file = open_data(tmp_path / "t.csv")
    same_differences(file, world)
    assert "time_h" not in file.obs
