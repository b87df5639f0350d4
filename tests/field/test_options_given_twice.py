"""Options that are given twice: of two values the last was taken in silence, so half of what was asked was not done."""

from __future__ import annotations

import json
import re

import anndata
import numpy as np
import pandas as pd
import pytest

from e2e.conftest import ok, pertstack, python_c
from references import cell_worlds as cells


@pytest.fixture
def screen(tmp_path):
    """Two files of one screen: other order of genes, one gene less, another name of the batch, the same cell names."""
    for i, line in enumerate(("A", "B")):
        obs = cells.design(cells.TARGETS, lines=(line,), seed=i)
        x = cells.counts_of(obs, "target_gene", "cell_line", seed=i)
        obs = obs.rename(columns={"gem_group": "lane"}) if i else obs
        genes = np.array(cells.GENES)[: len(cells.GENES) - i][:: 1 - 2 * i]
        cells.write(tmp_path / f"{line}.h5ad", obs, pd.DataFrame(x, columns=cells.GENES)[genes].to_numpy(), genes=genes)
    return tmp_path


@pytest.mark.parametrize("as_folder", [False, True])
def test_several_data_files_are_refused_with_the_command_that_makes_one(screen, as_folder):
    words = ("--data", ".") if as_folder else ("--data", "A.h5ad", "--data", "B.h5ad")
    done = pertstack("init", "s", *words, cwd=screen)
    assert done.returncode == 2 and not (screen / "s").exists()
    code, out = re.search(r'python -c "(.*?)", then --data (\S+\.h5ad)', done.stderr, re.DOTALL).groups()
    python_c(code, screen)
    made, parts = anndata.read_h5ad(screen / out), [anndata.read_h5ad(screen / f"{x}.h5ad") for x in "AB"]
    expected = pd.concat([p.to_df() for p in parts], join="inner")
    np.testing.assert_array_equal(made.to_df()[expected.columns], expected)
    assert made.obs_names.is_unique and list(made.obs["cell_line"]) == [x for p in parts for x in p.obs["cell_line"]]
    assert made.obs["gem_group"].isna().sum() == len(parts[1]) and made.obs["lane"].isna().sum() == len(parts[0])
    assert ok("init", "s", "--data", out, "--map", "plate=file", cwd=screen)


def test_files_of_other_kinds_are_refused_together_too(screen):
    done = pertstack("init", "s", "--data", "A.h5ad", "--data", "b.csv", cwd=screen)
    assert done.returncode == 2 and "2 files were given as data ('A.h5ad', 'b.csv')" in " ".join(done.stderr.split())


def test_mappings_and_names_add_up(screen):
    ok(
        "init",
        "s",
        "--data",
        "A.h5ad",
        "--map",
        "plate=none",
        "--map",
        "cell_line=const:HEK",
        "--by",
        "gem_group",
        cwd=screen,
    )
    samples = pd.read_parquet(screen / "s" / "plan" / "samples.parquet")
    assert set(samples["cell_line"]) == {"HEK"} and "plate" not in samples and len(samples) == 18
    ok("fit", "s", "--models", "mean_treated", "--models", "ridge", "--no-nested", cwd=screen)
    assert {"mean_treated", "ridge"} <= set(json.loads(ok("status", "s", "--json", cwd=screen))["models"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--seed", "1", "--seed=2"), "--seed takes one value, and 2 were given: '1', '2'"),
        (("--control-layer", "a", "--control-layer", "b"), "--control-layer takes one value"),
        (("--map", "plate=a", "--map", "plate=b"), "--map gives 'plate' two columns, 'a' and 'b'"),
        (("--map", "plate=a,plate=b"), "--map gives 'plate' two columns"),
    ],
)
def test_two_values_of_one_option_are_refused(screen, words, said):
    done = pertstack("init", "s", "--data", "A.h5ad", *words, cwd=screen)
    assert done.returncode == 2 and said in " ".join(done.stderr.split()) and not (screen / "s").exists()


def test_one_value_may_be_repeated(screen):
    words = ("--dry-run", "--dry-run", "--seed", "1", "--seed", "1", "--map", "plate=none", "--map", "plate=none")
    ok("init", "s", "--data", "A.h5ad", *words, cwd=screen)


def test_evaluate_takes_several_names_of_controls(screen, tmp_path):
    truth = anndata.read_h5ad(screen / "A.h5ad")
    names = truth.obs["target_gene"].astype(str)
    truth.obs["target_gene"] = [f"off{i % 2}" if n == "non-targeting" else n for i, n in enumerate(names)]
    truth.write_h5ad(tmp_path / "truth.h5ad")
    mean = truth.to_df().groupby(truth.obs["target_gene"].astype(str)).mean().drop(index=["off0", "off1"])
    anndata.AnnData(np.log1p(mean.div(mean.sum(axis=1), axis=0) * 1e4)).write_h5ad(tmp_path / "m.h5ad")
    words = ("evaluate", "truth.h5ad", "m.h5ad", "--control-label", "off0", "--control-label", "off1")
    done = pertstack(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "off" not in " ".join(
        json.loads((tmp_path / "evaluation" / "leaderboard.json").read_text()).get("cautions", [])
    )
