"""The exchange folder as CSV: what is written, what comes back, and the example in base R where there is an Rscript."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import InputError, ModelFailedError
from pertstack.data import FitRows
from pertstack.fit import get_model
from pertstack.fit.external.card import load_card
from pertstack.fit.external.exchange import read_answer, write_task
from pertstack.fit.external.model import ExternalModel
from references.fit_world import make_rows, split_by_perturbation

ON_DISK = True
PAGE = (Path(__file__).parents[3] / "docs" / "external-models.md").read_text()
R_CARD = PAGE.split("## The same in R")[1].split("```toml\n")[1].split("```")[0]
R_CODE = PAGE.split("```r\n")[1].split("```")[0]
needs_r = pytest.mark.skipif(shutil.which("Rscript") is None, reason="needs R")


@pytest.fixture
def card(tmp_path):
    (tmp_path / "mine.R").write_text(R_CODE)
    (tmp_path / "mine.toml").write_text(R_CARD)
    return tmp_path / "mine.toml"


def rows():
    return split_by_perturbation(make_rows(n_perturbations=8, n_genes=6), 2)


def named(table: FitRows, samples, genes) -> FitRows:
    obs = table.obs.set_axis(list(samples), axis=0)
    return FitRows(np.array(genes, dtype=object), table.control, obs, table.side, table.treated, table.group)


def write(card, tmp_path, fit, new) -> Path:
    write_task(tmp_path / "x", load_card(card), fit, predict=new, seed=1, params={})
    return tmp_path / "x"


def test_the_files_hold_the_rows_exactly_and_no_held_out_truth(card, tmp_path):
    fit, held = rows()
    folder = write(card, tmp_path, fit, held.without_treated())
    assert not list(folder.glob("*.h5ad"))
    task = json.loads((folder / "task.json").read_text())
    present = {p.name for p in folder.iterdir()}
    assert (
        task["files"] == "csv"
        and set(task["inputs"]) <= present
        and present <= {*task["inputs"], "task.json", "features.csv"}
    )
    for name, values, ids in (
        ("fit_control", fit.control, fit.sample_ids),
        ("fit_treated", fit.treated, fit.sample_ids),
        ("predict_control", held.control, held.sample_ids),
    ):
        table = pd.read_csv(folder / f"{name}.csv", index_col="sample_id", dtype={"sample_id": str})
        assert list(table.index) == list(ids) and list(table.columns) == list(fit.gene_names)
        np.testing.assert_array_equal(table.to_numpy(dtype=np.float32), values)
    seen = pd.read_csv(folder / "predict_samples.csv", dtype=str, index_col="sample_id")
    assert list(seen["perturbation"]) == list(held.perturbation) and "group" not in seen
    table = pd.read_csv(folder / "features.csv", index_col="perturbation")
    expected, known = fit.side.best().rows(np.array(table.index, dtype=object))
    np.testing.assert_array_equal(table.drop(columns="known").to_numpy(dtype=np.float32), expected)
    np.testing.assert_array_equal(table["known"], known)


def test_the_same_answer_as_csv_and_as_h5ad_is_the_same(card, tmp_path):
    """Shuffled rows and genes, names with commas, quotes and leading zeros, an embedding in yet another order."""
    fit, held = rows()
    genes = ["001", "1", 'A "quoted"', "B,C", "é", "NA"]
    fit = named(fit, fit.sample_ids, genes)
    ids = [f"00{i},'{i}\"" for i in range(held.n_samples)]
    held = named(held, ids, genes)
    folder = write(card, tmp_path, fit, held.without_treated())
    rng = np.random.default_rng(0)
    order, columns = rng.permutation(len(ids)), rng.permutation(len(genes))
    vectors = rng.normal(size=(len(ids), 3)).astype(np.float32)
    answer = pd.DataFrame(held.treated[order][:, columns], index=np.array(ids)[order], columns=np.array(genes)[columns])
    answer.to_csv(folder / "predictions.csv", quoting=csv.QUOTE_NONNUMERIC)
    pd.DataFrame(vectors[::-1], index=ids[::-1]).to_csv(folder / "embedding.csv")
    found = read_answer(folder, load_card(card), fit, predict=held.without_treated())
    np.testing.assert_array_equal(found.treated, held.treated)
    np.testing.assert_array_equal(found.embedding, vectors)
    table = anndata.AnnData(
        answer.to_numpy(), obs=pd.DataFrame(index=answer.index), var=pd.DataFrame(index=answer.columns)
    )
    table.write_h5ad(folder / "predictions.h5ad")  # stands before the CSV file
    np.testing.assert_array_equal(
        read_answer(folder, load_card(card), fit, predict=held.without_treated()).treated, found.treated
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: "", "cannot be read|shape|lack"),
        (lambda t: t.split("\n")[0] + "\n", "lack 8 samples"),
        (lambda t: t.replace("\n", ",9\n", 2).replace(",9\n", "\n", 1), "line 2 has 8 fields, the header 7"),
        (lambda t: t.replace("0.", "zero.", 1), "line 2 holds .*zero"),
        (lambda t: t.replace("g002", "g001"), "lack 1 genes .*repeat 1 genes"),
        (
            lambda t: "\n".join(
                line if i != 3 else line.split(",")[0] + ",NA" * 6 for i, line in enumerate(t.split("\n"))
            ),
            "NaN or infinite values for 1 samples",
        ),
        (lambda t: t.replace(",0.", ",NA0.", 1), "where a number should be"),
    ],
)
def test_a_damaged_csv_answer_is_refused_with_its_line(card, tmp_path, change, message):
    fit, held = rows()
    folder = write(card, tmp_path, fit, held.without_treated())
    text = pd.DataFrame(np.abs(held.treated) % 1, index=held.sample_ids, columns=held.gene_names).to_csv()
    (folder / "predictions.csv").write_text(change(text))
    with pytest.raises(ModelFailedError, match=message):
        read_answer(folder, load_card(card), fit, predict=held.without_treated())


def test_an_embedding_of_other_samples_is_refused(card, tmp_path):
    fit, held = rows()
    folder = write(card, tmp_path, fit, held.without_treated())
    pd.DataFrame(held.treated, index=held.sample_ids, columns=held.gene_names).to_csv(folder / "predictions.csv")
    pd.DataFrame(np.ones((2, 2)), index=["a", "b"]).to_csv(folder / "embedding.csv")
    with pytest.raises(ModelFailedError, match="other samples"):
        read_answer(folder, load_card(card), fit, predict=held.without_treated())


def test_a_gene_named_as_the_first_column_and_another_form_are_refused(card, tmp_path):
    fit, held = rows()
    genes = ["sample_id", *fit.gene_names[1:]]
    with pytest.raises(InputError, match="sample_id"):
        write(card, tmp_path, named(fit, fit.sample_ids, genes), held.without_treated())
    card.write_text(R_CARD.replace('"csv"', '"rds"'))
    with pytest.raises(InputError, match="'h5ad' or 'csv'"):
        load_card(card)


# -- in R -------------------------------------------------------------------------------------------------------------


def ask(card, **change):
    fit, held = rows()
    if change:
        fit, held = (named(r, change["ids"][: r.n_samples], change["genes"]) for r in (fit, held))
    model = ExternalModel(str(card))
    model.folder = card.parent / "job"
    new = held.without_treated()
    return fit, new, model.fit(fit, rng=np.random.default_rng(0)).predict(new)


@needs_r
def test_the_lines_in_base_r_of_the_documentation_give_mean_shift(card):
    assert "library(" not in R_CODE and "::" not in R_CODE
    fit, new, predicted = ask(card)
    expected = get_model("mean_shift").fit(fit, rng=np.random.default_rng(0)).predict(new)
    np.testing.assert_allclose(predicted, expected, atol=1e-5)
    assert [p.name for p in (card.parent / "job").iterdir()] == ["external.log"]


@needs_r
def test_names_that_r_would_change_come_back_as_they_were(card):
    """Genes that are no R names; samples that look like numbers."""
    fit, new, predicted = ask(
        card, ids=[f"{i:04d}" for i in range(100)], genes=["1-Mar", "HLA A", "0x", "_", "a,b", "TRUE"]
    )
    expected = get_model("mean_shift").fit(fit, rng=np.random.default_rng(0)).predict(new)
    np.testing.assert_allclose(predicted, expected, atol=1e-5)


@needs_r
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('stop("no licence found")', "exit code 1.*no licence found"),
        ("library(noSuchPackage)", "exit code 1.*noSuchPackage"),
        ("predicted <- predicted[-1, ]", "lack 1 samples"),
        ("predicted[1, 2] <- NA", "NaN or infinite values for 1 samples"),
        ("predicted[1, 2] <- 1 / 0", "NaN or infinite values for 1 samples"),
        ('colnames(predicted)[1] <- "TP53"', "lack 1 genes .*foreign 1 genes"),
        ('rownames(predicted)[1] <- "elsewhere"', "include foreign 1 samples"),
        ("quit(status = 0)", "ended without writing"),
    ],
)
def test_an_r_program_that_fails_or_answers_wrongly_is_refused(card, line, message):
    before, last = R_CODE.rstrip().rsplit("\n", 1)
    (card.parent / "mine.R").write_text(f"{before}\n{line}\n{last}\n")
    with pytest.raises(ModelFailedError, match=message):
        ask(card)


@needs_r
def test_an_r_program_that_hangs_is_stopped(card):
    (card.parent / "mine.R").write_text('cat("waiting\\n"); Sys.sleep(60)')
    card.write_text(R_CARD + "time_limit = 3\n")
    with pytest.raises(ModelFailedError, match=r"time limit of 3 s.*waiting"):
        ask(card)


@needs_r
def test_r_reads_and_writes_what_pandas_does(card, tmp_path):
    """An independent look at the form: R's own read.csv and write.csv without our example."""
    fit, held = rows()
    folder = write(card, tmp_path, fit, held.without_treated())
    code = (
        'f <- commandArgs(TRUE)[1]; t <- read.csv(file.path(f, "fit_treated.csv"));'
        'cat(dim(t), sprintf("%.6f", sum(as.matrix(t[, -1]))))'
    )
    said = subprocess.run(["Rscript", "-e", code, str(folder)], check=True, capture_output=True, text=True).stdout
    n, g, total = said.split()
    assert (int(n), int(g)) == (fit.n_samples, fit.n_genes + 1)
    assert float(total) == pytest.approx(float(fit.treated.sum(dtype=np.float64)), abs=1e-3)
