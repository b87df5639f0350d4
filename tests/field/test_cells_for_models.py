"""Cards that ask for cells: those of the fit rows and the controls, nothing of what is held out."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from e2e.conftest import ok, pertstack
from pertstack.study.study import Study
from references import cell_worlds as worlds

OWN_PROCESSES = True  # which find no bubblewrap on their PATH, whatever this process found
CARD = """
format = 1
name = "NAME"
licence = "BSD-3-Clause"
[run]
script = "mean_cell.py"
files = "cells"
scale = "treated"
"""
SCRIPT = """
import json, shutil, sys
from pathlib import Path
import anndata, numpy as np
folder = Path(sys.argv[1])
task = json.loads((folder / "task.json").read_text())
assert task["inputs"] == ["fit.h5ad", "predict.h5ad", "cells.h5ad"]
cells, fit, new = (anndata.read_h5ad(folder / f"{n}.h5ad") for n in ("cells", "fit", "predict"))
treated = ~cells.obs["is_control"].to_numpy(dtype=bool)
assert set(cells.obs["sample_id"][treated]) == set(fit.obs_names)
assert not set(cells.obs["sample_id"]) & set(new.obs_names) and new.X is None
x = np.asarray(cells.X.sum(axis=0)).ravel() / cells.n_obs
out = np.tile(np.log1p(x / x.sum() * 1e4), (new.n_obs, 1))
np.savez(folder / "predictions.npz", predictions=out, sample_ids=np.array(list(new.obs_names), dtype=str),
         gene_names=np.array(list(new.var_names), dtype=str))
shutil.copy(folder / "cells.h5ad", KEPT / f"{'-'.join(sorted(new.obs_names)[:1]).replace('|', '_')}.h5ad")
"""


@pytest.fixture
def screen(tmp_path, monkeypatch):
    """Counts of nine targets in two lines and batches, one of them too small; a study; a card that wants cells."""
    monkeypatch.setenv("PATH", str(tmp_path))  # in bubblewrap, where it is installed, the program could not keep copies
    obs = worlds.design(worlds.TARGETS, lines=("A", "B"), n=15)
    rare = (obs["target_gene"] == "GENE08").to_numpy()
    obs = obs[~rare | (rare.cumsum() <= 5)]
    x = worlds.counts_of(obs, "target_gene", "cell_line")
    worlds.write(tmp_path / "cells.h5ad", obs, x)
    (tmp_path / "mean_cell.toml").write_text(CARD.replace("NAME", tmp_path.name))
    (tmp_path / "mean_cell.py").write_text(SCRIPT.replace("KEPT", f"Path({str(tmp_path / 'kept')!r})"))
    (tmp_path / "kept").mkdir()
    ok("init", "study", "--data", "cells.h5ad", "--folds", 2, cwd=tmp_path)
    return tmp_path, obs, x


def test_a_program_gets_the_cells_of_the_fit_rows_and_the_controls(screen):
    folder, obs, x = screen
    done = pertstack("fit", "study", "--models", "mean_cell.toml", cwd=folder)
    assert done.returncode == 0 and "Licence: BSD-3-Clause" in done.stderr, done.stderr
    samples = Study.open(folder / "study").folder.samples
    key = obs["target_gene"].astype(str) + "|" + obs["cell_line"].astype(str) + "|" + obs["gem_group"].astype(str)
    for path in (folder / "kept").iterdir():
        given = anndata.read_h5ad(path)
        control = given.obs["is_control"].to_numpy(dtype=bool)
        assert given.uns["values"] == "counts" and given.uns["normalise"] == "cp10k"
        assert set(given.obs["perturbation"][control]) == {"control"}
        wanted = (control, obs["target_gene"] == "non-targeting"), (~control, key.isin(given.obs["sample_id"]))
        for mine, theirs in wanted:
            ours = pd.DataFrame(given.X.toarray()[mine]).sort_values(list(range(30))).to_numpy()
            expected = pd.DataFrame(x[theirs.to_numpy()]).sort_values(list(range(30))).to_numpy()
            np.testing.assert_array_equal(ours, expected)
        line = given.obs["sample_id"][~control].map(samples["cell_line"])
        assert (line == given.obs["cell_line"][~control].astype(str)).all()
    assert len(list((folder / "kept").iterdir())) == 3  # two folds and the final fit


@pytest.mark.slow
def test_cells_that_are_not_those_of_the_study_end_the_job(screen):
    folder, obs, x = screen
    x[(obs["target_gene"] == "GENE01").to_numpy(), 3] += 9
    worlds.write(folder / "cells.h5ad", obs, x)
    done = pertstack("fit", "study", "--models", "mean_cell.toml", cwd=folder)
    assert done.returncode != 0 and "was changed after the study was made" in done.stderr
    (folder / "cells.h5ad").unlink()
    done = pertstack("fit", "study", "--models", "mean_cell.toml", cwd=folder)
    assert done.returncode != 0 and "Put the file back" in done.stderr


def test_a_study_of_profiles_has_no_cells(tmp_path):
    ok("simulate", "world.h5ad", "--samples", 120, "--genes", 20, "--perturbations", 12, cwd=tmp_path)
    ok("init", "study", "--data", "world.h5ad", cwd=tmp_path)
    (tmp_path / "mean_cell.toml").write_text(CARD.replace("NAME", tmp_path.name))
    (tmp_path / "mean_cell.py").write_text(SCRIPT)
    done = pertstack("fit", "study", "--models", "mean_cell.toml", cwd=tmp_path)
    assert done.returncode == 2 and "learns from single cells" in " ".join(done.stderr.split())
