"""Faults of the field's files, one command each: refused with the mend (exit code 2 or 3), or carried with a word."""

from __future__ import annotations

import pickle
import re
import shlex
import subprocess
import sys

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from e2e.conftest import pertstack, python_c
from pertstack.data.readers.open import open_data
from references import cell_worlds as cells
from references import prediction_files as files

GENES = [str(i) for i in range(30)]


def refused(*words, cwd, code=2):
    """Standard error of a command that must refuse, without a traceback and with nothing left on the disk."""
    before = sorted(p.name for p in cwd.iterdir())
    done = pertstack(*words, cwd=cwd)
    said = " ".join(done.stderr.split())
    assert done.returncode == code and "Traceback" not in said, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert sorted(p.name for p in cwd.iterdir()) == before
    return said


def test_pickled_anndata_are_refused_with_a_command_that_converts_them(tmp_path):
    """PerturBench pickles a dict of AnnData per model. The command of the message is run as printed."""
    data = files.truth(tmp_path)
    frame = files.profiles(data)
    obs = pd.DataFrame({"condition": frame.index, "cell_type": files.LINE}, index=[f"r{i}" for i in range(18)])
    models = {"latent_additive": anndata.AnnData(frame.to_numpy(), obs, pd.DataFrame(index=files.GENES))}
    (tmp_path / "predictions.pkl").write_bytes(pickle.dumps(models))
    done = pertstack("evaluate", "truth.h5ad", "m=predictions.pkl", cwd=tmp_path)
    assert done.returncode == 2 and "could run a program" in done.stderr
    command = shlex.split(next(line for line in done.stderr.splitlines() if line.startswith("python -c")))
    subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, check=True, timeout=300)
    assert np.array_equal(anndata.read_h5ad(tmp_path / "latent_additive.h5ad").X, frame.to_numpy())


@pytest.mark.parametrize("name", ["entry.vcc", "predictions.json", "predictions.npz"])
def test_predictions_are_no_data(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    assert "pertstack evaluate DATA.h5ad" in refused("init", "study", "--data", name, cwd=tmp_path)


def test_columns_in_another_order_are_seen_where_neither_side_names_its_genes(tmp_path):
    """STATE's adata_pred.h5ad and adata_real.h5ad have positions for names."""
    obs = cells.design(cells.TARGETS, names=("target_gene", "cell_type", "gem_group"))
    logs = np.clip(cells.lognormal(cells.counts_of(obs, "target_gene", "cell_type")), 0, 14)
    cells.write(tmp_path / "adata_real.h5ad", obs, logs, form="dense", genes=GENES)
    foretold = np.clip(logs + np.random.default_rng(0).normal(0, 1, logs.shape), 0, 14).astype(np.float32)
    rows = obs.set_axis([str(i) for i in range(len(obs))])
    turned = foretold[:, np.random.default_rng(1).permutation(30)]
    cells.write(tmp_path / "adata_pred.h5ad", rows, turned, form="dense", genes=GENES)
    said = refused("evaluate", "adata_real.h5ad", "state=adata_pred.h5ad", cwd=tmp_path, code=3)
    assert "another order" in said and "--genes FILE" in said
    assert pertstack("init", "study", "--data", "adata_real.h5ad", cwd=tmp_path).returncode == 0
    said = refused(
        "add", "study", "state", "adata_pred.h5ad", "--fitted-on", "unknown", "--scale", "treated", cwd=tmp_path, code=3
    )
    assert "another order" in said


def test_a_perturbation_with_one_cell_is_left_out_and_named(tmp_path):
    obs = cells.design(cells.TARGETS)
    rare = obs["target_gene"] == "GENE03"
    obs = obs[~rare | (rare.cumsum() == 1)]
    cells.write(tmp_path / "cells.h5ad", obs, cells.counts_of(obs, "target_gene", "cell_line"))
    done = pertstack("init", "study", "--data", "cells.h5ad", cwd=tmp_path)
    said = " ".join(done.stderr.split())
    assert done.returncode == 0 and "1 perturbations are lost altogether: 'GENE03'" in said and "--min-cells" in said


def declared(path, *, dense):
    """A file that declares 10^10 values (dense), or 10^12 stored ones, and holds none of them."""
    n = 10**5 if dense else 10**3
    with h5py.File(path, "w") as file:
        if dense:
            x = file.create_dataset("X", (n, n), "f4", chunks=(1, n))
            x.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        else:
            x = file.create_group("X")
            x.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": np.array([n, n])})
            x.create_dataset("data", (10**12,), "f4", chunks=(10**6,))
            x.create_dataset("indices", (10**12,), "i4", chunks=(10**6,))
            x.create_dataset("indptr", data=np.linspace(0, 10**12, n + 1).astype(np.int64))
        names = np.arange(n).astype(str).astype(object)
        label = pd.Categorical(np.where(np.arange(n) % 2, "non-targeting", "A"))
        anndata.io.write_elem(file, "obs", pd.DataFrame({"target_gene": label}, index=names))
        anndata.io.write_elem(file, "var", pd.DataFrame(index=names))
        for part in ("layers", "uns", "obsm", "varm", "obsp", "varp"):
            anndata.io.write_elem(file, part, {})
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})


@pytest.mark.parametrize("dense", [True, False])
def test_a_trillion_declared_values_are_refused_unread(tmp_path, dense):
    declared(tmp_path / "huge.h5ad", dense=dense)
    said = refused("init", "study", "--data", "huge.h5ad", cwd=tmp_path)
    assert f"declares {10**10 if dense else 10**12:,} values" in said and "Copy the file again" in said
    if dense:  # the same door
        files.truth(tmp_path)
        assert "declares 10,000" in refused("evaluate", "truth.h5ad", "m=huge.h5ad", cwd=tmp_path)


def test_sums_that_the_disk_cannot_hold_are_refused_before_they_are_made(monkeypatch):
    from pertstack._base.errors import InputError
    from pertstack.data.cells.sums import GroupSums

    with pytest.raises(InputError, match=r"1,000,000 groups of cells x 1,000,000 genes need 32,000 GB.*TMPDIR"):
        GroupSums.empty(10**6, 10**6, "counts")


def test_counts_of_the_challenge_of_2026_against_measured_counts(tmp_path):
    """An entry of counts with ``context`` and no control row; plain pandas gives its profiles."""
    from pertstack.study.new_rows.evaluation_rows import matched_values

    obs = cells.design(cells.TARGETS, names=("target_gene", "context", None), lines=("A", "B"), n=20, batches=("1",))
    cells.write(tmp_path / "cells.h5ad", obs, cells.counts_of(obs, "target_gene", "context"))
    entry = obs[obs["target_gene"] != "non-targeting"].reset_index(drop=True)
    y = cells.counts_of(entry, "target_gene", "context", seed=1)
    inner = cells.write(tmp_path / "pred.h5ad", entry.set_axis(map(str, entry.index)), y)
    files.vcc(tmp_path / "entry.vcc", inner)
    found = matched_values(tmp_path / "cells.h5ad", {"m": tmp_path / "entry.vcc"})
    theirs = cells.pseudobulk_of(y, entry, ["target_gene", "context"])
    np.testing.assert_allclose(found.values["m"], theirs.loc[found.samples.index], rtol=0, atol=1e-6)


def mended(said, cwd):
    """The file that the command of a message writes, run as printed."""
    found = re.search(r'python -c "(.*?)", then --data (\S+)\.(\s|$)', said)
    assert found, said
    python_c(found[1], cwd)
    return found[2]


SCREEN = cells.design(cells.TARGETS)
COUNTS = cells.counts_of(SCREEN, "target_gene", None)
DEPTH = np.maximum(COUNTS.sum(axis=1, keepdims=True), 1)
KEY = ["target_gene", "cell_line", "gem_group"]
LOGS = cells.lognormal(COUNTS)
AMBIENT = np.maximum(COUNTS - 0.13 * (COUNTS > 0), 0)


@pytest.mark.parametrize(
    ("values", "words", "expected"),
    [
        (COUNTS / DEPTH * 1e4, "without a logarithm", cells.means_of(LOGS, SCREEN, KEY)),
        (COUNTS / DEPTH * 1e6, "without a logarithm", cells.means_of(cells.lognormal(COUNTS, 1e6), SCREEN, KEY)),
        (AMBIENT, "neither whole counts nor logarithms", cells.pseudobulk_of(np.rint(AMBIENT), SCREEN, KEY)),
        (np.log2(1 + COUNTS), "base of two", cells.pseudobulk_of(COUNTS, SCREEN, KEY)),
    ],
    ids=["CP10k", "CPM", "ambient RNA removed", "log2 of counts"],
)
@pytest.mark.parametrize("form", ["csr", pytest.param("dense", marks=pytest.mark.slow)])
def test_values_that_cannot_be_summed_are_named_with_the_command_that_mends_them(
    tmp_path, values, words, expected, form
):
    """Counts that are not whole were once logarithms, and counts per million 'counts and logarithms mixed'."""
    cells.write(tmp_path / "cells.h5ad", SCREEN, values.astype(np.float32), form=form)
    said = refused("init", "study", "--data", "cells.h5ad", cwd=tmp_path)
    assert words in said
    file = open_data(tmp_path / mended(said, tmp_path))
    np.testing.assert_allclose(file.read(slice(None))[1], expected.loc[file.sample_ids], rtol=0, atol=2e-6)


@pytest.mark.parametrize("empty", [np.nan, ""])
@pytest.mark.parametrize("who", ["some cells", "controls"])
def test_cells_without_a_name_are_refused_with_the_command_that_mends_them(tmp_path, empty, who):
    """No guide was seen in them; or they are the controls."""
    obs, control = SCREEN.copy(), (SCREEN["target_gene"] == "non-targeting").to_numpy()
    lacking = control if who == "controls" else ~control & (np.arange(len(obs)) % 9 == 0)
    obs.loc[lacking, "target_gene"] = empty
    cells.write(tmp_path / "cells.h5ad", obs, COUNTS)
    file = open_data(tmp_path / mended(refused("init", "study", "--data", "cells.h5ad", cwd=tmp_path), tmp_path))
    kept = np.ones(len(obs), dtype=bool) if who == "controls" else ~lacking
    expected = cells.pseudobulk_of(COUNTS[kept], SCREEN[kept], KEY)
    np.testing.assert_allclose(file.read(slice(None))[1], expected.loc[file.sample_ids], rtol=0, atol=1e-6)


def test_genes_as_rows_of_anndata_are_refused_with_the_command_that_turns_them(tmp_path):
    data = anndata.AnnData(COUNTS.T.copy(), pd.DataFrame(index=cells.GENES), SCREEN)
    data.write_h5ad(tmp_path / "cells.h5ad")
    file = open_data(tmp_path / mended(refused("init", "study", "--data", "cells.h5ad", cwd=tmp_path), tmp_path))
    expected = cells.pseudobulk_of(COUNTS, SCREEN, KEY)
    np.testing.assert_allclose(file.read(slice(None))[1], expected.loc[file.sample_ids], rtol=0, atol=1e-6)


def test_cells_in_hundreds_of_batches_are_cells(tmp_path):
    """One of each perturbation a batch: they were refused as counts of samples."""
    obs = cells.design(cells.TARGETS, batches=tuple(map(str, range(60))), n=1)
    x = cells.counts_of(obs, "target_gene", None)
    cells.write(tmp_path / "cells.h5ad", obs, x)
    said = refused("init", "study", "--data", "cells.h5ad", cwd=tmp_path)
    assert "no sample has 10 cells" in said and "--map plate=none" in said
    file = open_data(tmp_path / "cells.h5ad", mapping={"plate": "none"})
    expected = cells.pseudobulk_of(x, obs, KEY[:2])
    np.testing.assert_allclose(file.read(slice(None))[1], expected.loc[file.sample_ids], rtol=0, atol=1e-6)


def test_a_file_without_rows_is_said_to_be_empty(tmp_path):
    cells.write(tmp_path / "cells.h5ad", SCREEN[:0], COUNTS[:0])
    assert "has no rows" in refused("init", "study", "--data", "cells.h5ad", cwd=tmp_path)


def test_a_perturbation_that_is_the_index(tmp_path):
    cells.write(tmp_path / "cells.h5ad", SCREEN.set_index("target_gene"), COUNTS)
    file = open_data(tmp_path / "cells.h5ad")
    expected = cells.pseudobulk_of(COUNTS, SCREEN, KEY)
    np.testing.assert_allclose(file.read(slice(None))[1], expected.loc[file.sample_ids], rtol=0, atol=1e-6)
