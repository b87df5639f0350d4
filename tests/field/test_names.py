"""Names as the field writes them: two for a gene, labels with doses, several controls; and what was taken for what."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pertstack._base.errors import InputError
from pertstack.cli.entry import app
from pertstack.data import build_side
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
