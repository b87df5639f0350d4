"""What is exported is taken by the tools it is for: vcc-cli 0.3.0 and cell-eval2 0.20.0 (``make judges``).

vcc-cli is looked for beside this Python and on PATH, because its pins may ask for an environment of its own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import anndata
import pandas as pd
import pytest

from e2e.conftest import ok
from references.screens import study_of_cells

SIZE = 50


def tool(name: str) -> str:
    """The path of a command, or a skip."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*words: object, cwd: Path) -> str:
    done = subprocess.run([*map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    return study_of_cells(tmp_path_factory.mktemp("screen"), n=SIZE)


def written(screen: Path, to: Path, *more: str) -> Path:
    words = ("--models", "ridge", "--cells", screen / "cells.h5ad", "--cells-per-target", SIZE)
    ok("export", screen / "study", to, "--to", "vcc", *words, *more)
    return to


@pytest.mark.parametrize("more", [(), ("--sampled",)])
def test_vcc_prep_accepts_cells(screen, tmp_path, more):
    vcc = tool("vcc")
    path = written(screen, tmp_path / "entry.h5ad", *more)
    data = anndata.read_h5ad(path, backed="r")
    (tmp_path / "gene_names.csv").write_text("\n".join(data.var_names) + "\n")
    targets = sorted(data.obs["target_gene"].unique())
    pd.DataFrame({"target_gene": targets}).to_csv(tmp_path / "pert_counts.csv", index=False)
    bundle = ("--genes", "gene_names.csv", "--perts", "pert_counts.csv", "--contexts", "A,B")
    size = ("--cells-per-pert", SIZE, "--expected-gene-dim", data.n_vars)
    said = json.loads(run(vcc, "--json", "prep", path, *bundle, *size, "--dry-run", cwd=tmp_path))
    said = said.get("data", said)
    assert said["normalization"] == "counts-preserved" and said["verified_targets"]
    assert said["cells_per_context"] == {"A": 16 * SIZE, "B": 16 * SIZE}


def test_cell_eval2_scores_the_pair_of_a_cell_line(screen, tmp_path):
    """The command that ``export`` prints, as printed."""
    judge = tool("cell-eval2")
    ok("export", screen / "study", tmp_path / "out", "--to", "cell-eval2", "--models", "ridge")
    pair = (tmp_path / "out/ridge.A.predicted.h5ad", tmp_path / "out/ridge.A.real.h5ad")
    names = ("--pert-col", "perturbation", "--control", "control", "--input-type", "lognorm", "--profile", "anndata")
    run(judge, "run", "-ap", pair[0], "-ar", pair[1], *names, "-o", "scored", cwd=tmp_path)
    found = pd.read_csv(tmp_path / "scored/results.csv")
    assert {"delta_pearson", "pds_l1", "expr_mae"} <= set(found["metric"])
    assert found.loc[found["metric"] == "expr_mae", "value"].notna().all()


def test_cell_eval2_scores_cells_as_the_challenge_does(screen, tmp_path):
    """Sampled cells pass without a remark on their spread; exact ones are remarked on, as ``export`` says."""
    judge = tool("cell-eval2")
    real = anndata.read_h5ad(screen / "cells.h5ad")
    real = real[real.obs["context"] == "A"].copy()
    real.write_h5ad(tmp_path / "real.h5ad")
    control = real[real.obs["target_gene"] == "non-targeting"]
    remarks = {}
    for name, more in (("exact", ()), ("sampled", ("--sampled",))):
        entry = anndata.read_h5ad(written(screen, tmp_path / f"{name}.h5ad", *more))
        both = anndata.concat([entry[entry.obs["context"] == "A"], control])
        both.obs_names_make_unique()
        both.write_h5ad(tmp_path / f"{name}_A.h5ad")
        words = ("--preset", "vcc2026", "--pert-col", "target_gene", "--control", "non-targeting")
        pair = ("-ap", f"{name}_A.h5ad", "-ar", "real.h5ad")
        remarks[name] = run(judge, "run", *words, *pair, "-o", name, cwd=tmp_path)
        assert len(pd.read_csv(tmp_path / name / "results.csv"))
    assert "per-cell scatter largely CANCELS" in remarks["exact"]
    assert "per-cell scatter largely CANCELS" not in remarks["sampled"]


def test_our_document_is_one_of_the_form(screen, tmp_path):
    results = pytest.importorskip("cell_eval2.evaluation_results")
    path = written(screen, tmp_path / "entry.h5ad")
    ok("evaluate", screen / "cells.h5ad", f"ridge={path}", "--out", tmp_path / "evaluation")
    results.check_document(results.load_document(tmp_path / "evaluation/evaluation_results.json"))
