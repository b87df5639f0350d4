"""A metric that cannot be what its name says decides nothing in silence, at any door: study, evaluate, arrays."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

import pertstack as ps
from e2e.conftest import ok, pertstack
from pertstack._base.errors import InputError

N_GENES = 25


def world(*, perturbations=15, lines=1, replicates=1, plates=0, genes=N_GENES, landmarks=0, seed=0):
    """Treated and control rows of some perturbations, and two honest-looking predictions of them."""
    rng = np.random.default_rng(seed)
    keys = [(f"d{p:02d}", f"L{c}", r) for p in range(perturbations) for c in range(lines) for r in range(replicates)]
    obs = pd.DataFrame(keys, columns=["perturbation", "cell_line", "r"]).drop(columns="r")
    obs.index = [f"s{i:03d}" for i in range(len(obs))]
    if plates:
        obs["plate"] = [f"P{i % plates}" for i in range(len(obs))]
    effect = {p: rng.normal(0, 1, genes) for p in sorted(set(obs["perturbation"]))}
    control = np.tile(rng.normal(8, 1, genes), (len(obs), 1))
    change = np.stack([effect[p] for p in obs["perturbation"]])
    data = anndata.AnnData((control + change + rng.normal(0, 0.3, control.shape)).astype(np.float32), obs)
    data.var_names = [f"g{i}" for i in range(genes)]
    if landmarks:
        data.var["is_landmark"] = np.arange(genes) < landmarks
    data.layers["control"] = control.astype(np.float32)
    models = {
        m: (control + 0.5 * change + rng.normal(0, 0.4, control.shape)).astype(np.float32) for m in ("one", "two")
    }
    return data, models


NOWHERE = [
    ("r2_top2000", {}, "asks for 2,000 of 25 genes"),
    ("r2_top25@pooled", {}, "asks for 25 of 25 genes"),
    ("rmse_top40", {}, "asks for 40 of 25 genes"),
    ("pearson_t50@others", {"replicates": 2}, "asks for 50 of 25 genes"),
    ("mse_heg1000", {"replicates": 2}, "asks for 1,000 of 25 genes"),
    ("r2_top20_landmark", {"landmarks": 12}, "asks for 20 of 12 landmark genes"),
    ("r2_all_landmark", {}, "needs landmarks"),
    ("pearson_all@plate", {}, "no row says on which plate"),
    ("pearson_all@plate", {"plates": 15}, "must hold 4 other perturbations"),
    ("pearson_all@matched", {}, "cannot be computed"),
    ("pds_l1@pooled", {"perturbations": 1, "lines": 12}, "single perturbation"),
    ("cod_exp2@others", {"perturbations": 1, "lines": 12}, "single perturbation"),
    ("pearson_degs", {"perturbations": 1, "lines": 12}, "single perturbation"),
    ("mse_all_corrected", {}, "measured once"),
    ("mse_all_offtarget", {}, "No perturbation names a gene"),
    ("pds_l1_offtarget", {}, "No perturbation names a gene"),
]
"""Metric, world, what is said."""
LESS = [
    ("mse_t20", {}, "was measured twice"),
    ("pearson_exp2", {}, "was measured twice"),
    ("pearson_all@plate", {"plates": 1, "perturbations": 40}, "on a single plate"),
]
"""Metrics that mean less than their name says: they are computed, and it is said."""


def arrays(primary, changes):
    data, models = world(**changes)
    by = "cell_line" if changes.get("perturbations") == 1 else "perturbation"
    folds = pd.factorize(data.obs[by].astype(str))[0] % 3
    return ps.stack(
        models,
        treated=data.X,
        control=data.layers["control"],
        folds=folds,
        perturbation=data.obs["perturbation"].to_numpy(),
        cell_line=data.obs["cell_line"].to_numpy(),
        group=data.obs[by].to_numpy(),
        gene_names=data.var_names,
        primary=primary,
        combiners=["mean"],
    )


@pytest.mark.parametrize(("primary", "changes", "said"), NOWHERE)
def test_a_study_refuses_it_at_the_plan_and_in_a_plan_edited_by_hand(primary, changes, said, tmp_path):
    data, _ = world(**changes)
    data.write_h5ad(tmp_path / "data.h5ad")
    study, options = tmp_path / "study", ["--group", "cell_line"] if changes.get("perturbations") == 1 else []
    ok("init", study, "--data", tmp_path / "data.h5ad", "--folds", 2, *options)
    before = (study / "plan.toml").read_bytes()
    refused = pertstack("plan", study, "--primary", primary)
    assert refused.returncode == 2 and said in " ".join(refused.stderr.split()), refused.stderr
    assert (study / "plan.toml").read_bytes() == before
    (study / "plan.toml").write_bytes(before.replace(b'primary = "auto"', f'primary = "{primary}"'.encode()))
    for step in ("calibrate", "stack") if primary == "r2_top2000" else ("calibrate",):
        refused = pertstack(step, study)
        assert refused.returncode == 2 and said in " ".join(refused.stderr.split()), (step, refused.stderr)


@pytest.mark.parametrize(("primary", "changes", "said"), [c for c in NOWHERE if "plates" not in c[1]])
def test_arrays_refuse_it(primary, changes, said):
    if "landmarks" in changes:
        said = "needs landmarks"
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        arrays(primary, changes)


@pytest.mark.parametrize(("primary", "changes", "said"), NOWHERE)
def test_evaluate_refuses_it(primary, changes, said, tmp_path):
    data, models = world(**changes)
    if "landmarks" in changes:
        said = "needs landmarks"
    data.write_h5ad(tmp_path / "truth.h5ad")
    guess = anndata.AnnData(models["one"], data.obs[[]], data.var[[]])
    guess.write_h5ad(tmp_path / "one.h5ad")
    found = pertstack("evaluate", tmp_path / "truth.h5ad", tmp_path / "one.h5ad", "--primary", primary, cwd=tmp_path)
    assert found.returncode == 2 and said in " ".join(found.stderr.split()), found.stderr
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        ps.evaluate(data, {"one": guess}, primary=primary)


@pytest.mark.parametrize(("primary", "changes", "said"), LESS)
def test_what_is_less_than_its_name_is_said_at_every_door(primary, changes, said, tmp_path):
    data, models = world(**changes)
    data.write_h5ad(tmp_path / "data.h5ad")
    study = tmp_path / "study"
    ok("init", study, "--data", tmp_path / "data.h5ad")
    done = pertstack("plan", study, "--primary", primary)
    assert done.returncode == 0 and said in " ".join(done.stderr.split()), done.stderr
    done = pertstack("calibrate", study)
    assert done.returncode == 0 and said in " ".join(done.stderr.split()), done.stderr
    guess = anndata.AnnData(models["one"], data.obs[[]], data.var[[]])
    assert said in ps.evaluate(data, {"one": guess}, primary=primary).leaderboard.headline
    if "plates" not in changes:
        with pytest.warns(UserWarning, match=said):
            arrays(primary, changes)


def test_a_number_of_top_genes_that_nothing_reads_is_said(tmp_path):
    data, _ = world()
    data.write_h5ad(tmp_path / "data.h5ad")
    ok("init", tmp_path / "s", "--data", tmp_path / "data.h5ad")
    plan = tmp_path / "s" / "plan.toml"
    plan.write_text(plan.read_text().replace("k = 20", "k = 5"))
    assert "k = 5 in plan.toml changes nothing" in " ".join(pertstack("calibrate", tmp_path / "s").stderr.split())


def test_the_default_of_arrays_on_few_genes_is_warned_of_and_on_many_it_is_not(recwarn):
    data, models = world(genes=12)
    given = {"treated": data.X, "folds": np.arange(15) % 3, "perturbation": data.obs["perturbation"].to_numpy()}
    with pytest.warns(UserWarning, match="20 of 12 genes"):
        ps.stack({m: p[:, :12] for m, p in models.items()}, combiners=["mean"], **given)
    recwarn.clear()
    arrays("r2_top20@pooled", {})
    assert not [w for w in recwarn if "genes" in str(w.message)]


def test_halves_of_a_single_control_decide_nothing(tmp_path):
    data, models = world()
    guess = anndata.AnnData(models["one"], data.obs[[]], data.var[[]])
    with pytest.raises(InputError, match="undefined on every one"):
        ps.evaluate(data, {"one": guess}, primary="pearson_all@halves")
    with pytest.raises(InputError, match="undefined on every one"):
        arrays("pearson_all@halves", {})
