"""Errors on fit rows, and the stack step on exchanged truths: the guilty are accused, the innocent are not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

import pertstack as ps
from pertstack.fit import registry
from pertstack.fit.registry import Needs
from pertstack.study.audit.audit import audit_study, folder_to_audit
from pertstack.study.audit.probes_refitted import PERMUTATIONS, PERMUTED, permuted_study


@dataclass
class OpensTheDrawer:
    """A model somebody registered: flexible, and it finds the truth of every row in a place of its own."""

    name: ClassVar[str] = "opens_the_drawer"
    needs: ClassVar[Needs] = Needs()
    drawer: ClassVar[pd.DataFrame | None] = None

    def fit(self, rows, *, rng):
        return self

    def params(self):
        return {}

    def predict(self, rows):
        known = type(self).drawer.loc[list(rows.obs.index)].to_numpy(dtype=np.float32)
        return (0.9 * known + 0.1 * rows.control).astype(np.float32)


@dataclass
class Remembers:
    """A registered model that is flexible and honest: it remembers the fit rows and answers new ones by their mean."""

    name: ClassVar[str] = "remembers"
    needs: ClassVar[Needs] = Needs()

    def fit(self, rows, *, rng):
        self.known = dict(zip(rows.sample_ids, 0.9 * rows.treated + 0.1 * rows.control, strict=True))
        self.mean = rows.treated.mean(axis=0)
        return self

    def params(self):
        return {}

    def predict(self, rows):
        return np.stack([self.known.get(s, self.mean) for s in rows.sample_ids]).astype(np.float32)


def truth_of(study: ps.Study) -> pd.DataFrame:
    """Every treated profile, the test's from the store that only the verdict opens."""
    parts = []
    for block in study.folder.store.blocks():
        store = study.folder.store if block.role == "development" else study.folder.open_store("test_truth")
        parts.append(pd.DataFrame(store.read(block, "treated"), index=store.sample_ids(block)))
    return pd.concat(parts)


@pytest.fixture
def registered(monkeypatch):
    """Models of this module are registered for one test."""
    kept = dict(registry._registered)
    for model in (OpensTheDrawer, Remembers):
        registry.register(model)
    yield
    registry._registered.clear()
    registry._registered.update(kept)


def by_model(findings) -> dict:
    return {f.where: f for f in findings if f.code.startswith("oof_")}


def test_a_model_that_reads_what_it_was_not_handed_is_accused_and_an_honest_memory_is_not(fitted, registered):
    """Our own jobs withheld the fold, and the model has the truth all the same."""
    OpensTheDrawer.drawer = truth_of(fitted)
    results = fitted.cross_fit(["opens_the_drawer", "remembers"], engine="inline", nested=False)
    assert all(r.ok for r in results), results
    stacked = fitted.stack(["mean"])
    found = by_model(stacked.probes)
    guilty, honest = found["opens_the_drawer"], found["remembers"]
    assert (guilty.severity, guilty.code) == ("warning", "oof_like_fit"), guilty
    assert abs(guilty.numbers["share"]) < 0.05 and guilty.numbers["groups"] >= 10
    assert honest.code == "oof_against_fit_passed" and honest.numbers["share"] > 0.8
    for ours in ("mean_treated", "ridge", "perturbation_knn"):
        assert found[ours].severity == "note", found[ours]
    assert set(stacked.accused) == {"opens_the_drawer"}  # its errors are below the noise of replicates as well
    fitted.stack(["mean"], accept_accused=["opens_the_drawer"])
    board = fitted.verdict()
    said = {r.name: " ".join(r.cautions) for r in board.rows if r.split == "test"}
    assert "loses" in said["opens_the_drawer"] and "a probe accuses: opens_the_drawer" in said["mean"]
    assert "loses" not in said["remembers"]
    probes = json.loads((fitted.folder.results / "probes.json").read_text())["findings"]
    assert "oof_like_fit" in {f["code"] for f in probes}
    checks = json.loads((fitted.folder.results / "checks.json").read_text())["checks"]
    found = next(c for c in checks if c["code"] == "suspicious_models")
    assert found["severity"] == "warning" and "opens_the_drawer" in found["numbers"]["accused"]
    assert "of what it learned" in fitted.report().read_text()


@pytest.mark.parametrize("honest", [True, False])
def test_an_added_model_that_names_half_of_its_fit_rows_is_compared_with_the_other_half(fitted, tmp_path, honest):
    """It lists half of the groups as seen; in truth it saw all, so the rows it calls unseen are as good as those."""
    store, truth, rng = fitted.folder.store, truth_of(fitted), np.random.default_rng(0)
    ids = [s for b in store.blocks("development") for s in store.sample_ids(b)]
    group = fitted.plan.table.set_index("sample_id")["group"][ids]
    names = sorted(group.unique())
    seen = set(group.index[group.isin(rng.permutation(names)[: len(names) // 2])])
    mean = truth.loc[sorted(seen)].to_numpy().mean(axis=0)
    rows = {s: truth.loc[s].to_numpy() + rng.normal(0, 0.05, 40) if s in seen or not honest else mean for s in ids}
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=list(store.gene_names))
    frame.to_parquet(tmp_path / "half.parquet")
    (tmp_path / "ids.txt").write_text("\n".join(sorted(seen)))
    fitted.add("half", tmp_path / "half.parquet", fitted_on=str(tmp_path / "ids.txt"), scale="treated")
    found = by_model(fitted.stack(["mean"]).probes)["half"]
    if honest:
        assert found.code == "oof_against_fit_passed" and found.numbers["share"] > 0.5, found
    else:
        assert found.code in ("oof_like_fit", "oof_equals_fit") and found.severity != "note", found


def test_jobs_keep_errors_of_fit_rows_and_the_audit_watches_them(fitted):
    files = sorted(fitted.folder.path("jobs").glob("*/*/fit_errors.json"))
    assert {p.parent.name for p in files} == {"pooled.f0", "pooled.f1", "pooled.f2"}  # no nested, no final fit
    value = json.loads(files[0].read_text())["mean_squared_error"]
    assert 20 <= len(value) <= 128 and all(v >= 0 for v in value.values())
    held = {s for b in fitted.folder.store.blocks() if b.fold == 0 for s in fitted.folder.store.sample_ids(b)}
    assert not held & set(value)
    files[0].write_text(files[0].read_text().replace("0.", "9.", 1))
    found = [
        f for f in audit_study(folder_to_audit(fitted.folder.root), deep=False, clean=False) if f.where == str(files[0])
    ]
    assert [f.code for f in found] == ["job_log_changed"] and found[0].numbers["rows"]


# -- exchanged truths --------------------------------------------------------------------------------------------------


def test_an_honest_stack_step_gains_nothing_on_exchanged_truths(judged):
    found = [f for f in judged.audit(deep=True) if "permut" in f.code]
    assert {f.where for f in found} == set(PERMUTED) and all(f.code == "permuted_truth_passed" for f in found), found
    assert all(f.numbers["permutations"] == PERMUTATIONS and abs(f.numbers["z"]) < 3 for f in found)
    assert not [f for f in judged.audit() if "permut" in f.code]  # only when asked


def test_a_fold_loop_that_learns_from_what_it_scores_is_accused(judged, monkeypatch):
    """The mistake of L8 and L12, made in our own loop: weights per gene know which exchanged truth they learned."""
    import pertstack.stacking.nested as nested

    monkeypatch.setattr(nested, "_without", lambda reduction, *_: reduction)
    monkeypatch.setattr(nested, "_level_one", lambda level_one, fold, plain: plain)
    models = tuple(judged.folder.store.models())
    found = {f.where: f for f in permuted_study(judged.folder, models, accept_unverified=False)}
    guilty = found["gene_ridge"]
    assert (guilty.severity, guilty.code) == ("error", "gain_survives_permutation"), guilty
    assert guilty.numbers["permuted_gain"] > 0.002 and guilty.numbers["z"] > 4
