"""Names as the field writes them: two for a gene, labels with doses, several controls; and what was taken for what."""

from __future__ import annotations

import re
from pathlib import Path
from shlex import quote

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from e2e.conftest import ok, pertstack, python_c
from pertstack._base.errors import InputError
from pertstack.cli.entry import app
from pertstack.data import build_side
from pertstack.data.labels import is_control_name
from pertstack.data.readers.columns.aliases import ALIASES
from pertstack.data.readers.columns.genes import other_names
from pertstack.data.readers.columns.tuple_labels import part_label
from pertstack.data.readers.open import open_data
from pertstack.study.study import Study
from references import cell_worlds as worlds

IDS = [f"ENSG{i:011d}.{i % 7 + 1}" for i in range(len(worlds.GENES))]


def ensembl_file(tmp_path, symbols=worlds.GENES, column="gene_name"):
    obs = worlds.design(worlds.TARGETS)
    var = pd.DataFrame({column: list(symbols)}, index=IDS)
    return worlds.write(tmp_path / "cells.h5ad", obs, worlds.counts_of(obs, "target_gene", None), var=var)


@pytest.mark.parametrize("column", ["gene_name", "gene_symbols", "gene_symbol", "feature_name"])
def test_symbols_name_the_genes_of_a_file_with_ensembl_ids(tmp_path, column):
    file = open_data(ensembl_file(tmp_path, column=column))
    assert list(file.gene_names) == worlds.GENES
    perturbed = build_side(file.obs, file.gene_names)[0].features["genes"]
    assert perturbed.known.all() and list(perturbed.columns) == worlds.TARGETS
    others = other_names(file.var)
    assert others["ENSG00000000003"] == "GENE03" and len(others) == len(IDS)


def test_ids_in_a_column_name_the_genes_where_perturbations_are_ids(tmp_path):
    obs = worlds.design([i.split(".")[0] for i in IDS[:9]])
    var = pd.DataFrame({"gene_ids": IDS}, index=worlds.GENES)
    path = worlds.write(tmp_path / "cells.h5ad", obs, worlds.counts_of(obs, "target_gene", None), var=var)
    assert list(open_data(path).gene_names) == [i.split(".")[0] for i in IDS]
    assert list(open_data(path, mapping={"gene": "index"}).gene_names) == worlds.GENES


def test_genes_that_share_a_symbol_or_have_none_keep_their_id_and_are_named(tmp_path):
    symbols = [*worlds.GENES[:-3], "SAME", "SAME", ""]
    file = open_data(ensembl_file(tmp_path, symbols))
    plain = [i.split(".")[0] for i in IDS]
    assert list(file.gene_names) == [*worlds.GENES[:-3], *plain[-3:]]
    said = next(n for n in file.notes if n.code == "gene_names_collide")
    assert said.count == 3 and "SAME" in said.message


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_symbols_of_the_index_that_repeat_give_way_to_ids(tmp_path):
    """Symbols as 10x writes them: two genes of one symbol, an id in a column. Such files were refused."""
    obs, symbols = worlds.design(worlds.TARGETS), [*worlds.GENES[:-2], "TBCE", "TBCE"]
    x = worlds.counts_of(obs, "target_gene", None)
    worlds.write(tmp_path / "cells.h5ad", obs, x, var=pd.DataFrame({"gene_ids": IDS}, index=symbols))
    file = open_data(tmp_path / "cells.h5ad")
    assert list(file.gene_names) == [*symbols[:-2], *(i.split(".")[0] for i in IDS[-2:])]
    said = next(n for n in file.notes if n.code == "gene_names_collide")
    assert said.count == 2 and "TBCE" in said.message and "these go by var['gene_ids']" in said.message
    theirs = worlds.pseudobulk_of(x, obs, ["target_gene", "cell_line", "gem_group"])
    np.testing.assert_allclose(file.read(slice(None))[1], theirs.loc[file.sample_ids], rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("words", [("--dry-run",), ()])
def test_genes_of_one_name_without_ids_are_refused_with_a_command_that_numbers_them(tmp_path, words):
    """Also by the dry run, which showed a plan for a file that ``init`` then refused."""
    obs, names = worlds.design(worlds.TARGETS), [*worlds.GENES[:-2], "TBCE", "TBCE"]
    worlds.write(tmp_path / "cells.h5ad", obs, worlds.counts_of(obs, "target_gene", None), genes=names)
    done = pertstack("init", "study", "--data", "cells.h5ad", *words, cwd=tmp_path)
    assert done.returncode == 2 and "1 gene names occur more than once: 'TBCE'" in done.stderr
    command = re.search(r'python -c "(.+?)", then --data unique.h5ad', " ".join(done.stderr.split()))
    python_c(command[1], tmp_path)
    ok("init", "study", "--data", "unique.h5ad", *words, cwd=tmp_path)


def test_two_versions_of_one_id_keep_their_versions(tmp_path):
    obs = worlds.design(worlds.TARGETS)
    ids = ["ENSG00000000001.1", "ENSG00000000001.2", *IDS[2:]]
    path = worlds.write(tmp_path / "cells.h5ad", obs, worlds.counts_of(obs, "target_gene", None), genes=ids)
    assert list(open_data(path).gene_names)[:3] == ["ENSG00000000001.1", "ENSG00000000001.2", "ENSG00000000002"]


def test_a_gene_column_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"gene=symbol.*gene_name.*--map gene=index"):
        open_data(ensembl_file(tmp_path), mapping={"gene": "symbol"})


def tahoe(tmp_path, plates=("plate1",), n=12):
    """Three drugs at two doses in four lines on one plate, DMSO beside them; log-normalised."""
    labels = [f"[('{d}', {dose}, 'uM')]" for d in ("Dabrafenib", "5-Azacytidine", "Drug (S)") for dose in (0.5, 5.0)]
    names = ("drugname_drugconc", "cell_line", "plate")
    lines = [f"CVCL_{i:04d}" for i in range(4)]
    obs = worlds.design(labels, lines=lines, batches=plates, n=n, control="[('DMSO_TF', 0.0, 'uM')]", names=names)
    logs = worlds.lognormal(worlds.counts_of(obs, "drugname_drugconc", "cell_line"))
    return worlds.write(tmp_path / "tahoe.h5ad", obs, logs), obs, logs


def test_tahoe_labels_are_drug_dose_and_unit_and_every_line_of_a_plate_has_its_own_control(tmp_path):
    path, obs, logs = tahoe(tmp_path)
    file = open_data(path)
    assert file.n_samples == 24 and set(file.obs["perturbation"]) == {"Dabrafenib", "5-Azacytidine", "Drug (S)"}
    np.testing.assert_allclose(sorted(set(file.obs["log10_dose"])), np.log10([0.5, 5.0]))
    expected = worlds.means_of(logs, obs, ["drugname_drugconc", "cell_line"])
    control, treated = file.read(slice(None))
    for i, (drug, line, dose) in enumerate(file.obs[["perturbation", "cell_line", "dose"]].itertuples(index=False)):
        np.testing.assert_allclose(treated[i], expected.loc[f"[('{drug}', {dose}, 'uM')]|{line}"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(control[i], expected.loc[f"[('DMSO_TF', 0.0, 'uM')]|{line}"], rtol=0, atol=1e-6)


def test_labels_that_are_half_a_list_are_refused(tmp_path):
    obs = worlds.design(["[('A', 0.5, 'uM')]", "[('B', 0.5"], control="DMSO_TF")
    path = worlds.write(tmp_path / "cells.h5ad", obs, worlds.counts_of(obs, "target_gene", None))
    with pytest.raises(InputError, match=r"no list of \(drug, dose, unit\).*\('B'"):
        open_data(path)


@pytest.mark.parametrize(
    ("label", "parts"),
    [
        ("[('DMSO_TF', 0.0, 'uM')]", ("DMSO_TF", 0.0, "uM")),
        ("('A', 1, 'nM')", ("A", 1.0, "nM")),
        ("[('A', 0.5, 'uM'), ('B', 0.5, 'uM')]", ("A+B", 0.5, "uM")),
        ("[('A', 0.5, 'uM'), ('B', 5.0, 'uM')]", ("A (0.5 uM)+B (5 uM)", None, None)),
        ("(+)-MK-801", None),
        ("[(__import__('os'), 1, 'x')]", None),
        ("[()]", None),
        ("HLA-B", None),
    ],
)
def test_labels_are_parted_and_nothing_in_them_is_run(label, parts):
    assert part_label(label) == parts


def test_several_names_of_controls_are_one_pool_and_named_in_one_finding(tmp_path):
    obs = worlds.design(worlds.TARGETS)
    controls = np.flatnonzero((obs["target_gene"] == "non-targeting").to_numpy())
    obs.iloc[controls[::3], 0] = "ctrl"
    x = worlds.counts_of(obs, "target_gene", None)
    file = open_data(worlds.write(tmp_path / "cells.h5ad", obs, x))
    said = [n for n in file.notes if n.code == "control_names"]
    assert len(said) == 1 and "'non-targeting' (16 rows), 'ctrl' (8 rows)" in said[0].message
    pooled = worlds.pseudobulk_of(x[controls], obs.iloc[controls], ["gem_group"])
    control, _ = file.read(slice(None))
    np.testing.assert_allclose(control, pooled.loc[file.obs["plate"]], rtol=0, atol=1e-6)


def test_a_dry_run_shows_what_was_taken_with_its_mend_and_writes_nothing(tmp_path):
    path = ensembl_file(tmp_path)
    command = ["init", str(tmp_path / "study"), "--data", str(path), "--folds", "2"]
    done = CliRunner().invoke(app, [*command, "--dry-run"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    expected = (
        "column target_gene",
        "--map perturbation=COLUMN",
        "gem_group",
        "gene_name",
        "--map gene=COLUMN",
        "fold 0",
        "'non-targeting' (24 rows)",
        "--control-label",
        "240 cells -> 18 pseudobulk samples",
    )
    for text in expected:
        assert text in " ".join(done.stdout.split()).replace("│", "").replace("  ", " "), text
    assert not (tmp_path / "study").exists() and sorted(p.name for p in tmp_path.iterdir()) == ["cells.h5ad"]
    assert CliRunner().invoke(app, command).exit_code == 0
    study = Study.open(tmp_path / "study")
    assert {t.what for t in study.taken()} >= {"perturbation", "cell line", "batch or plate", "control", "genes"}
    assert study.folder.other_gene_names["ENSG00000000003"] == "GENE03"


@pytest.mark.parametrize(
    "names",
    [
        ("Target_Gene", "CellLine", "Batch"),
        ("perturbation", "Cell Type", "GEM.group"),
        ("Gene", "cell line", "Plate ID"),
        ("Guide_Identity", "Cell_Line", "libraryID"),
    ],
)
def test_capitals_blanks_and_points_make_no_other_column(tmp_path, names):
    """Two lines under ``CellLine`` were summed into one sample once, without a word."""
    obs = worlds.design(worlds.TARGETS, lines=("K562", "RPE1"), names=names)
    x = worlds.counts_of(obs, names[0], names[1])
    file = open_data(worlds.write(tmp_path / "cells.h5ad", obs, x))
    theirs = worlds.pseudobulk_of(x, obs, list(names))
    np.testing.assert_allclose(file.read(slice(None))[1], theirs.loc[file.sample_ids], rtol=0, atol=1e-6)
    assert file.n_samples == 36 and set(file.obs["cell_line"]) == {"K562", "RPE1"}


@pytest.mark.parametrize(("column", "name"), [("tissue", "cell_line"), ("lane", "plate")])
def test_a_column_that_may_be_the_line_or_the_batch_is_named_with_its_mend(tmp_path, column, name):
    names = ("target_gene", column, "batch") if name == "cell_line" else ("target_gene", "cell_line", column)
    obs = worlds.design(worlds.TARGETS, lines=("K562", "RPE1"), names=names)
    x = worlds.counts_of(obs, "target_gene", names[1])
    path = worlds.write(tmp_path / "cells.h5ad", obs.assign(pct_mito=0.5, n_umi=x.sum(axis=1)), x)
    said = [n.message for n in open_data(path).notes if n.code == f"{name}_not_named"]
    assert len(said) == 1 and f"--map {name}={column}" in said[0] and "n_umi" not in said[0]
    file = open_data(path, mapping={name: column})
    theirs = worlds.pseudobulk_of(x, obs, list(names))
    np.testing.assert_allclose(file.read(slice(None))[1], theirs.loc[file.sample_ids], rtol=0, atol=1e-6)
    assert not [n for n in file.notes if n.code.endswith("_not_named")]


@pytest.mark.parametrize(
    "control",
    [
        "safe-targeting",
        "Safe Targeting_7",
        "NO-TARGET",
        "sgNT",
        "negative-control",
        "DMSO 0.1%",
        "Vehicle control",
        "PBS",
    ],
)
def test_spellings_of_controls(tmp_path, control):
    obs = worlds.design(worlds.TARGETS, control=control)
    x = worlds.counts_of(obs, "target_gene", None)
    file = open_data(worlds.write(tmp_path / "cells.h5ad", obs, x))
    assert file.n_samples == 18 and set(file.obs["perturbation"]) == set(worlds.TARGETS)
    theirs = worlds.pseudobulk_of(x, obs, ["target_gene", "gem_group"]).loc[
        [f"{control}|{b}" for b in file.obs["plate"]]
    ]
    np.testing.assert_allclose(file.read(slice(None))[0], theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["NT3", "NT-3", "NT5E", "PBS1", "CTRL2B", "NTC4A", "GUIDE1"])
def test_genes_whose_names_are_like_those_of_controls_are_no_controls(name):
    assert not is_control_name(name)


@pytest.mark.parametrize(
    ("column", "control", "mend"),
    [
        ("sgRNA", "non-targeting", ("--map", "perturbation=sgRNA")),
        ("target_gene", "AAVS1", ("--control-label", "AAVS1")),
        ("target_gene", "no guide", ("--control-label", "no guide")),
    ],
)
def test_what_is_not_known_is_refused_with_the_words_that_name_it(tmp_path, column, control, mend):
    """The first word was once that there is no layer 'control'."""
    obs = worlds.design(worlds.TARGETS, control=control, names=(column, "cell_line", "gem_group"))
    path = worlds.write(tmp_path / "cells.h5ad", obs, worlds.counts_of(obs, column, None))
    done = pertstack("init", "study", "--data", path, cwd=tmp_path)
    assert done.returncode == 2 and " ".join(map(quote, mend)) in " ".join(done.stderr.split())
    ok("init", "study", "--data", path, *mend, cwd=tmp_path)


@pytest.mark.parametrize(
    "beside",
    [
        lambda target: {"condition": np.where(target == "non-targeting", "ctrl", "perturbed")},
        lambda target: {"treatment": "none"},
        lambda target: {"perturbation": "CRISPRi"},
    ],
)
def test_a_column_that_says_only_whether_something_was_done_is_not_the_perturbation(tmp_path, beside):
    """``condition`` = ctrl / perturbed was taken before ``target_gene``."""
    obs = worlds.design(worlds.TARGETS)
    x = worlds.counts_of(obs, "target_gene", None)
    path = worlds.write(tmp_path / "cells.h5ad", obs.assign(**beside(obs["target_gene"])), x)
    file = open_data(path)
    theirs = worlds.pseudobulk_of(x, obs, ["target_gene", "cell_line", "gem_group"])
    np.testing.assert_allclose(file.read(slice(None))[1], theirs.loc[file.sample_ids], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("written", "names"),
    [
        (lambda t: f"['{t}']", lambda t: t),
        (
            lambda t: f"{t}_NegCtrl0__{t}_NegCtrl0" if t != "non-targeting" else "NegCtrl1_NegCtrl0__NegCtrl1_NegCtrl0",
            str,
        ),
        (lambda t: f"('{t}', '{t}b')" if t != "non-targeting" else "['non-targeting']", lambda t: f"{t}+{t}b"),
    ],
)
def test_labels_that_are_lists_of_names_or_name_two_guides_twice(tmp_path, written, names):
    obs = worlds.design(worlds.TARGETS, names=("guide_identity", None, "gem_group"))
    x = worlds.counts_of(obs, "guide_identity", None)
    labels = [written(t) for t in obs["guide_identity"]]
    file = open_data(worlds.write(tmp_path / "cells.h5ad", obs.assign(guide_identity=labels), x))
    assert set(file.obs["perturbation"]) == {names(t) for t in worlds.TARGETS}
    theirs = worlds.pseudobulk_of(x, obs, ["guide_identity", "gem_group"])
    theirs.index = [f"{names(i.split('|')[0])}|{i.split('|')[1]}" for i in theirs.index]
    np.testing.assert_allclose(file.read(slice(None))[1], theirs.loc[file.sample_ids], rtol=0, atol=1e-6)


@pytest.mark.parametrize("column", ["Gene Symbol", "SYMBOL", "gene_short_name", "name"])
def test_symbols_are_found_under_any_spelling_and_by_what_they_are(tmp_path, column):
    assert list(open_data(ensembl_file(tmp_path, column=column)).gene_names) == worlds.GENES


@pytest.mark.parametrize(
    ("column", "control", "batch"),
    [("cytokine", "PBS", "library"), ("pert", "ctrl", "gem_batch"), ("perturbation_id", "NT", "library_id")],
)
def test_columns_of_perturbation_and_batch_by_the_names_that_people_give_them(tmp_path, column, control, batch):
    """In the cytokine atlas of 10 million cells `treatment` only says whether it was one: 'cytokine' or 'PBS'."""
    obs = worlds.design(worlds.TARGETS, names=(column, None, batch))
    x = worlds.counts_of(obs, column, None)
    labels = obs[column].replace("non-targeting", control)
    said = obs.assign(**{column: labels, "treatment": np.where(labels == control, control, column)})
    file = open_data(worlds.write(tmp_path / "cells.h5ad", said, x))
    theirs = worlds.pseudobulk_of(x, obs, [column, batch])
    assert set(file.obs["perturbation"]) == set(worlds.TARGETS)
    np.testing.assert_allclose(file.read(slice(None))[1], theirs.loc[file.sample_ids], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["perturbation", "cell_line", "smiles", "plate", "replicate", "control_id"])
def test_the_page_on_data_files_lists_every_name_that_is_recognised(name):
    page = (Path(__file__).parents[2] / "docs" / "formats-data.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
    assert re.split(r"; | \(", row.split("|")[3].strip())[0].split(", ") == list(ALIASES[name])


CONDITIONS = ("Control", "IFNg", "Co-culture")


@pytest.mark.parametrize("crossed", [True, False])
def test_knockouts_done_under_several_conditions_are_the_perturbations(tmp_path, crossed):
    """Frangieh et al. 2021: guides in three cultures, one of which is called Control. Where every gene was knocked out
    in one culture alone, the column that comes first by its name is taken, and targets are summed over. Either way the
    other column is named with its mend."""
    obs = worlds.design(worlds.TARGETS, names=("target_gene", None, "batch"))
    x = worlds.counts_of(obs, "target_gene", None)
    turn = np.arange(len(obs)) if crossed else pd.factorize(obs["target_gene"])[0]
    path = worlds.write(tmp_path / "cells.h5ad", obs.assign(condition=np.array(CONDITIONS)[turn % 3]), x)
    file = open_data(path)
    (said,) = [n.message for n in file.notes if n.code == "perturbation_elsewhere"]
    assert f"--map perturbation={'condition' if crossed else 'target_gene'}" in said
    if not crossed:
        assert set(file.obs["perturbation"]) == set(CONDITIONS[1:])
        file = open_data(path, mapping={"perturbation": "target_gene"})
    assert set(file.obs["perturbation"]) == set(worlds.TARGETS)
    theirs = worlds.pseudobulk_of(x, obs, ["target_gene", "batch"])
    np.testing.assert_allclose(file.read(slice(None))[1], theirs.loc[file.sample_ids], rtol=0, atol=1e-6)


def test_few_knockouts_under_many_conditions_are_a_background(tmp_path):
    """Compounds on three mutants of a line: the compounds are what was done, although crossed with the mutants."""
    obs = worlds.design(worlds.TARGETS, names=("condition", None, "batch"))
    x = worlds.counts_of(obs, "condition", None)
    mutants = np.array(["PTEN", "TP53", "NF1"])[np.arange(len(obs)) % 3]
    file = open_data(worlds.write(tmp_path / "cells.h5ad", obs.assign(target_gene=mutants), x))
    assert set(file.obs["perturbation"]) == set(worlds.TARGETS)


def test_two_names_of_one_compound_are_no_condition(tmp_path):
    """An id that is finer than the name, and one id with two names: the column that comes first is kept."""
    obs = worlds.design(worlds.TARGETS, names=("cmap_name", None, "batch"))
    x = worlds.counts_of(obs, "cmap_name", None)
    finer = obs["cmap_name"] + np.where(np.arange(len(obs)) % 2, "-a", "-b")
    file = open_data(worlds.write(tmp_path / "cells.h5ad", obs.assign(drug_name=finer), x))
    assert set(file.obs["perturbation"]) == set(worlds.TARGETS)
