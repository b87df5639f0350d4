"""Data and plans that cannot decide anything: an answer that says so, never a silent default (issue 16, bad input)."""

from __future__ import annotations

import json

import anndata
import numpy as np
import pandas as pd
import pytest

from pertstack.study.study import Study

from .conftest import ok, pertstack


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Nothing measured twice, no plate, two models that never see what was done."""
    place, rng = tmp_path_factory.mktemp("nothing"), np.random.default_rng(0)
    control = np.tile(rng.normal(8, 1, 12), (18, 1))
    treated = control + rng.normal(0, 1, control.shape)
    obs = pd.DataFrame({"perturbation": [f"d{i:02d}" for i in range(18)], "cell_line": "A"})
    data = anndata.AnnData(treated.astype(np.float32), obs.set_axis([f"s{i}" for i in range(18)]))
    data.var_names = [f"g{i}" for i in range(12)]
    data.layers["control"] = control.astype(np.float32)
    data.write_h5ad(place / "data.h5ad")
    ok("init", place / "study", "--data", place / "data.h5ad")
    made = Study.open(place / "study")
    assert all(r.ok for r in made.cross_fit(["mean_treated", "mean_shift"], engine="inline"))
    return place / "study"


def test_a_metric_that_is_undefined_everywhere_chooses_nothing_and_costs_no_look(study):
    said = pertstack("plan", study, "--primary", "pearson_all@plate")
    assert said.returncode == 2 and "undefined on every one of" in said.stderr, said.stderr
    before = (study / "plan.toml").read_bytes()
    (study / "plan.toml").write_bytes(before.replace(b'primary = "auto"', b'primary = "pearson_all@plate"'))
    for step in ("stack", "verdict", "report"):
        said = pertstack(step, study, *(["--combiners", "mean"] if step == "stack" else []))
        assert said.returncode == 2, (step, said.stdout, said.stderr)
        assert step == "report" or "pertstack" in said.stderr, said.stderr
    said = pertstack("stack", study, "--combiners", "mean").stderr
    assert "pearson_all@plate is undefined on every one of" in said and "such as pearson_all@pooled" in said
    opened = Study.open(study)
    assert opened.folder.ledger.looks() == 0 and not (opened.folder.results / "oof.json").exists()


def test_what_was_never_measured_twice_is_not_calibrated_and_constants_are_called_so(study):
    ok("plan", study, "--primary", "auto")
    ok("stack", study, "--combiners", "mean")
    said = " ".join(ok("verdict", study).split())
    assert "not calibrated" in said and "never sees what was done" in said
    told = json.loads((study / "results" / "setting.json").read_text())
    assert sorted(told["constants"]) == ["mean_shift", "mean_treated"], "known by what they say, not by their names"


def test_a_plan_with_a_metric_nobody_knows_is_refused_and_unchanged(study):
    before = (study / "plan.toml").read_bytes()
    said = pertstack("plan", study, "--primary", "r2top20")
    assert said.returncode == 2 and "Did you mean 'r2_top20'" in said.stderr
    (study / "plan.toml").write_bytes(before.replace(b"r2_top20@pooled", b"r2_tops@pooled"))
    said = pertstack("stack", study)
    assert said.returncode == 2 and "r2_tops" in said.stderr
    (study / "plan.toml").write_bytes(before)
