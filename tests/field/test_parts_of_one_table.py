"""Tables that were put together by hand: a line or plate on another scale, names by a spreadsheet, thousands, flags."""

from __future__ import annotations

import re

import anndata
import numpy as np
import pandas as pd
import pytest

from e2e.conftest import ok, pertstack, python_c
from pertstack._base.errors import InputError
from pertstack.data import open_data
from pertstack.data.checks.validate import validate
from pertstack.data.labels import perturbation_keys

GENES = [f"GENE{i:02d}" for i in range(40)]
LINES = ("A549", "HEK", "K562")
DOSES = (1.0, 10.0)


@pytest.fixture(scope="module")
def table():
    """Three lines on two plates each, with three control wells a plate; lines are alike, as in life."""
    rng = np.random.default_rng(3)
    names = [f"P{i:02d}" for i in range(12)]
    rows = [(p, line, plate) for p in [*names, *["DMSO"] * 3] for line in LINES for plate in ("1", "2")]
    obs = pd.DataFrame(rows, columns=["perturbation", "cell_line", "plate"])
    obs.index = [f"s{i:03d}" for i in range(len(obs))]
    shared = rng.gamma(2, 1.5, len(GENES)) + 1
    base = {line: shared + rng.normal(0, 0.6, len(GENES)) for line in LINES}
    change = {p: rng.normal(0, 0.5, len(GENES)) for p in names} | {"DMSO": 0.0}
    x = np.stack([base[line] + change[p] for p, line, _ in rows]) + rng.normal(0, 0.2, (len(rows), len(GENES)))
    return pd.DataFrame(np.maximum(x, 0), obs.index, GENES), obs


def found(tmp_path, x, obs):
    anndata.AnnData(x.astype(np.float32), obs).write_h5ad(tmp_path / "data.h5ad")
    return {f.code: f.message for f in validate(open_data(tmp_path / "data.h5ad"))}


def shuffled(x):
    return x.iloc[:, np.random.default_rng(0).permutation(x.shape[1])].to_numpy()


CHANGES = {
    "z-scores of a line": ("line", lambda x: ((x - x.mean()) / x.std()).to_numpy(), "cell line K562: 5"),
    "a plate in natural logarithms": ("plate", lambda x: (x * np.log(2)).to_numpy(), "plate 2 of K562: natural"),
    "genes of a plate in another order": ("plate", shuffled, "plate 2 of K562: means of genes do not follow"),
}


@pytest.mark.parametrize("which", CHANGES)
def test_a_line_or_plate_on_another_scale_is_named(table, tmp_path, which):
    """All of them made studies without a word, whose effects were those of the scale."""
    x, obs = table
    part, change, said = CHANGES[which]
    rows = (obs["cell_line"] == "K562") & ((part == "line") | (obs["plate"] == "2"))
    other = x.copy()
    other.loc[rows] = change(x[rows])
    assert re.search(said.replace(": 5", r": \d+%"), found(tmp_path, other, obs)["parts_on_other_scales"])


def test_tables_on_one_scale_give_no_remark(table, tmp_path):
    x, obs = table
    codes = found(tmp_path, x, obs)
    assert not {"parts_on_other_scales", "treated_unlike_control", "flat_profiles", "names_by_spreadsheet"} & set(codes)


def test_treated_profiles_of_one_line_under_other_genes_are_refused(table, tmp_path):
    """The means over all lines hid it."""
    x, obs = table
    rows = (obs["cell_line"] == "K562") & (obs["perturbation"] != "DMSO")
    other = x.copy()
    other.loc[rows] = shuffled(x[rows])
    other.to_parquet(tmp_path / "x.parquet")
    anndata.AnnData(other.astype(np.float32), obs).write_h5ad(tmp_path / "data.h5ad")
    done = pertstack("init", "s", "--data", "data.h5ad", cwd=tmp_path)
    assert done.returncode == 2 and "Treated profiles of cell line K562" in " ".join(done.stderr.split())


def test_samples_that_measured_nothing_are_named(table, tmp_path):
    x, obs = table
    other = x.copy()
    other.iloc[[4, 9]] = 0.0
    assert "2 samples have one value in all genes: 's004', 's009'" in found(tmp_path, other, obs)["flat_profiles"]


def test_names_that_spreadsheets_made_are_named(table, tmp_path):
    x, obs = table
    names = ["1-Mar", "Sep-02", "2001-12-01", "2.31E+13", *GENES[4:]]
    said = found(tmp_path, x.set_axis(names, axis=1), obs.replace({"P03": "2-Sep"}))["names_by_spreadsheet"]
    assert "1 perturbations" in said and "'2-Sep'" in said
    fine = [
        "MARCH1",
        "SEPT2",
        "H2-K1",
        "NKX2-1",
        "7-Dehydrocholesterol",
        "2310009E13Rik",
        "1e5",
        "sep-1",
        "mar-02",
        *GENES[9:],
    ]
    assert "names_by_spreadsheet" not in found(tmp_path, x.set_axis(fine, axis=1), obs)
    assert "4 genes" in found(tmp_path, x.set_axis(names, axis=1), obs)["names_by_spreadsheet"]


def test_a_gene_with_marks_of_thousands_is_refused_and_not_left_out(table, tmp_path):
    x, obs = table
    words = [f"{1000 * (1 + v):,.1f}" for v in x["GENE00"]]
    table_of = pd.concat([obs, x.astype(object).assign(GENE00=words)], axis=1)
    table_of.to_csv(tmp_path / "x.csv", index_label="sample_id")
    with pytest.raises(InputError, match=r"holds '\d+,\d+\.\d' in column 'GENE00', where a number is needed"):
        open_data(tmp_path / "x.csv")


@pytest.mark.parametrize("words", [("yes", "no"), ("Y", "N"), ("t", "f"), ("1", "0")])
def test_flags_of_controls_in_any_usual_words(table, tmp_path, words):
    x, obs = table
    flag = np.where(obs["perturbation"] == "DMSO", *words)
    obs = obs.replace({"DMSO": "solvent"}).assign(is_control=flag)
    anndata.AnnData(x.astype(np.float32), obs).write_h5ad(tmp_path / "data.h5ad")
    file = open_data(tmp_path / "data.h5ad")
    rows = obs["perturbation"] != "solvent"
    assert list(file.obs.index) == list(obs.index[rows])
    place = [obs["cell_line"], obs["plate"]]
    controls = x[~rows].groupby([p[~rows] for p in place]).mean()
    expected = controls.loc[list(zip(*(p[rows] for p in place), strict=True))]
    np.testing.assert_allclose(file.read_control(np.arange(file.n_samples)), expected, rtol=1e-5)


@pytest.mark.parametrize("control", ["ctrl", "NegCtrl0", "NTC1"])
def test_a_gene_beside_a_control_is_one_in_either_order(control):
    keys = perturbation_keys([f"KLF1_{control}", f"{control}_KLF1", "AHR+ctrl", "A_control", f"A_B_{control}"])
    assert keys[f"KLF1_{control}"] == keys[f"{control}_KLF1"] == ("KLF1",)
    assert keys["A_control"] == ("A_control",) and keys[f"A_B_{control}"] == (f"A_B_{control}",)


@pytest.fixture(scope="module")
def doses(tmp_path_factory):
    """Every perturbation at two doses in three lines, and a model of one line alone."""
    folder, rng = tmp_path_factory.mktemp("doses"), np.random.default_rng(8)
    names = [f"P{i:02d}" for i in range(24)]
    rows = [(p, line, d, "uM") for p in names for line in LINES for d in DOSES]
    obs = pd.DataFrame(rows, columns=["perturbation", "cell_line", "dose", "dose_unit"])
    obs.index = [f"s{i:03d}" for i in range(len(obs))]
    base = {line: rng.gamma(2, 1.5, len(GENES)) + 2 for line in LINES}
    change = {p: rng.normal(0, 0.5, len(GENES)) for p in names}
    control = np.stack([base[line] for _, line, _, _ in rows])
    said = np.stack([change[p] * d / 5 for p, _, d, _ in rows])
    layers = {"control": (control + rng.normal(0, 0.05, said.shape)).astype(np.float32)}
    x = (control + said + rng.normal(0, 0.2, said.shape)).astype(np.float32)
    anndata.AnnData(x, obs, pd.DataFrame(index=GENES), layers=layers).write_h5ad(folder / "data.h5ad")
    mine = obs["cell_line"] == "K562"
    model = anndata.AnnData((control + 0.8 * said)[mine].astype(np.float32), obs[mine], pd.DataFrame(index=GENES))
    model.obs_names = [f"r{i}" for i in range(model.n_obs)]
    model.write_h5ad(folder / "one.h5ad")
    return folder


def test_a_model_of_one_line_ends_at_a_command_that_takes_its_part_of_the_truth(doses, monkeypatch):
    done = pertstack("evaluate", "data.h5ad", "one=one.h5ad", "--out", "e", cwd=doses)
    assert done.returncode == 3 and "48 of 144" in done.stderr
    code = re.search(r'python -c "(.*?)", then evaluate part\.h5ad', done.stderr, re.DOTALL)[1]
    python_c(code, doses)
    assert set(anndata.read_h5ad(doses / "part.h5ad").obs["cell_line"]) == {"K562"}
    ok("evaluate", "part.h5ad", "one=one.h5ad", "--out", "e", cwd=doses)


@pytest.mark.parametrize("to", ["cell-eval", "cell-eval2"])
def test_doses_of_a_perturbation_are_told_apart_for_judges_that_know_names_alone(doses, tmp_path, to):
    """They were averaged there: a weak and a strong dose were one profile."""
    if not (doses / "s").exists():
        ok("init", doses / "s", "--data", doses / "data.h5ad")
        ok("fit", doses / "s", "--models", "mean_treated", "--no-nested")
    done = pertstack("export", doses / "s", tmp_path / "out", "--to", to, "--models", "mean_treated")
    assert done.returncode == 0 and "have these in their names" in done.stderr
    truth = anndata.read_h5ad(doses / "data.h5ad")
    for path in (tmp_path / "out").glob("*.real.h5ad"):
        real = anndata.read_h5ad(path)
        rows = real.obs["perturbation"].astype(str) != "control"
        assert rows.sum() == (~rows).sum()
        mine = truth[real.obs_names[rows]]
        assert list(real.obs["perturbation"][rows]) == [
            f"{p} {d:g} uM" for p, d in zip(mine.obs["perturbation"], mine.obs["dose"], strict=True)
        ]
        names = real.obs["perturbation"][rows].astype(str)
        mean = real[rows].to_df().groupby([names, real.obs["cell_line"][rows].astype(str)]).mean()
        key = [mine.obs[c].astype(str) for c in ("perturbation", "dose", "cell_line")]
        np.testing.assert_allclose(np.sort(mean, axis=0), np.sort(mine.to_df().groupby(key).mean(), axis=0), rtol=1e-5)
