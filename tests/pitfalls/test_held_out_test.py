"""The held-out test used to choose, or seen too often: pitfall 3; P1 to P3, L11; unverified models; looks rules."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import pertstack as ps
from pertstack._base.errors import InputError, LeakError, PlanLockedError, UnknownNameError
from pertstack.predictions.sources.store_source import StoreSource
from pertstack.reduce.scoring.score_table import ScoreTable
from pertstack.study import judged as room
from pertstack.study.truth.looks import PUBLISHED


def test_the_truth_of_the_test_is_out_of_reach_of_fitting_and_stacking(fitted):
    """P1, P2: no split name decides what is seen; the values are not there."""
    store = fitted.folder.store
    block = next(b for b in store.blocks() if b.role == "test")
    with pytest.raises(LeakError, match="held-out test: its treated values are opened by the verdict only"):
        StoreSource(store, role="test").read(block, "treated", start=0, stop=1)
    assert store.find(block, "treated") is None


def test_weights_do_not_change_when_the_truth_of_the_test_does(fitted, judged):
    """P2: every byte of the test's truth may be anything; what was learned and chosen is the same."""
    for path in sorted(fitted.folder.path("test_truth").rglob("c/*")):
        if path.is_file():
            path.write_bytes(b"\0" * path.stat().st_size)
    fitted.stack(["mean", "simplex"])
    for name in ("weights.json", "oof.json", "diversity.json"):
        assert (fitted.folder.results / name).read_bytes() == (judged.folder.results / name).read_bytes(), name


def test_choosing_again_after_the_look_is_refused_and_marked_when_insisted_on(judged):
    """The primary metric is changed to one that looks better on the test."""
    with pytest.raises(PlanLockedError, match=r"primary: 'auto' -> 'pearson_all'"):
        judged.change_plan({"primary": "pearson_all"})
    judged.change_plan({"primary": "pearson_all"}, exploratory=True)
    judged.stack(["mean"])
    board = judged.verdict(exploratory=True)
    assert board.exploratory and board.test_looks == 2
    assert any("Exploratory" in c for c in board.cautions)
    assert any("opened twice (1 planned)" in c and "too hopeful by about 0." in c for c in board.cautions)


def test_a_second_look_with_new_weights_is_refused(judged):
    """The plan is the same, the weights are not: still a second look at the same test."""
    judged.withdraw("ridge", "did not like it")
    judged.stack(["mean", "simplex"])
    with pytest.raises(PlanLockedError, match="opened 1 time and the locked plan allows 1"):
        judged.verdict()
    assert judged.folder.ledger.looks() == 1


def test_editing_the_plan_file_behind_the_lock_is_seen(judged):
    path = judged.folder.analysis_plan_file
    path.write_text(path.read_text().replace('"pooled"', '"own"', 1))
    judged.stack(["mean"])
    with pytest.raises(PlanLockedError, match="reference: 'pooled' -> 'own'"):
        judged.verdict()


def test_the_same_look_again_is_no_look(judged):
    before = (judged.folder.results / "leaderboard.json").read_bytes()
    judged.verdict()
    assert judged.folder.ledger.looks() == 1
    assert (judged.folder.results / "leaderboard.json").read_bytes() == before


def test_the_verdict_is_recalled_without_drawing_again_as_long_as_every_score_is_the_same(fitted, monkeypatch):
    fitted.stack(["mean"])
    fitted.verdict()
    drawn, judge = [], room.judge
    monkeypatch.setattr(room, "judge", lambda *given, **named: drawn.append(1) or judge(*given, **named))
    recalled = room.recall_verdict(fitted.folder)
    assert not drawn
    room._LAST.clear()
    again = room.recall_verdict(fitted.folder)
    assert drawn and again is not recalled and again.to_json() == recalled.to_json()
    assert again.leaderboard.to_dict() == recalled.leaderboard.to_dict()

    table = ScoreTable.load(fitted.folder.results / "oof_scores.npz")
    values = table.values_by_name.copy()
    values[-1, -1, -1] += 1e-6
    assert replace(table, values_by_name=values).digest != table.digest == replace(table).digest


def test_the_verdict_on_old_weights_is_refused(judged):
    """Predictions changed since the weights were learned: the board would mix two studies."""
    judged.withdraw("ridge", "stale")
    with pytest.raises(InputError, match="changed since the weights were learned"):
        judged.verdict()


# -- repeated looks under a rule ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["ladder", "thresholdout"])
def test_under_a_rule_one_number_leaves_the_test(rule, fitted):
    fitted.change_plan({"looks": 3, "looks_rule": rule})
    fitted.stack(["mean", "simplex"])
    board = fitted.verdict()
    shown = [r for r in board.rows if r.split == "test"]
    assert len(shown) == 1 and list(shown[0].scores) == [board.primary] and shown[0].scores[board.primary].ci is None
    assert not (fitted.folder.results / "test_scores.npz").exists()
    state = fitted.folder.ledger.of_kind(PUBLISHED)[-1].facts
    assert state["value"] == pytest.approx(shown[0].scores[board.primary].value)
    assert rule in board.headline
    assert fitted.report().exists()


def test_the_ladder_repeats_itself_for_a_submission_that_is_no_better(fitted):
    fitted.change_plan({"looks": 3, "looks_rule": "ladder"})
    fitted.stack(["mean"])
    first = fitted.verdict()
    fitted.withdraw("perturbation_knn", "trying another set")
    fitted.stack(["mean"])
    second = fitted.verdict()
    values = [next(r for r in b.rows if r.split == "test").scores[b.primary].value for b in (first, second)]
    assert values[0] == values[1] and fitted.folder.ledger.looks() == 2
    assert any("no improvement beyond the noise" in c for c in second.cautions)
    assert any("opened twice (3 planned)" in c for c in second.cautions)


def test_a_plan_written_before_there_were_rules_keeps_its_digest():
    from pertstack.design.analysis_plan import AnalysisPlan

    old = {k: v for k, v in AnalysisPlan().to_json().items() if k != "looks_rule"}
    assert AnalysisPlan.from_json(old).digest == AnalysisPlan().digest
    assert AnalysisPlan(looks_rule="ladder").digest != AnalysisPlan().digest


# -- models nobody can vouch for ---------------------------------------------------------------------------------------


def add_unknown(study: ps.Study, tmp_path) -> None:
    """A good model of unknown provenance: the truth with a little noise."""
    store, rng, parts = study.folder.store, np.random.default_rng(0), []
    for block in store.blocks():
        layer = "treated" if block.role == "development" else "control"
        values = store.read(block, layer, start=0, stop=store.n_samples(block))
        values = values + rng.normal(0, 0.2, values.shape)
        parts.append(pd.DataFrame(values, index=store.sample_ids(block), columns=store.gene_names))
    pd.concat(parts).to_parquet(tmp_path / "mystery.parquet")
    study.add("mystery", tmp_path / "mystery.parquet", fitted_on="unknown", scale="treated")


def test_unknown_provenance_is_never_stacked_in_silence(fitted, tmp_path):
    from pertstack.study.members import stack_warnings

    add_unknown(fitted, tmp_path)
    result = fitted.stack(["mean", "simplex"])
    assert "mystery" not in result.models and "training rows are unknown" in result.left_out["mystery"]
    written = json.loads((fitted.folder.results / "oof.json").read_text())
    assert list(written["left_out"]) == ["mystery"]
    assert any("mystery is not stacked" in w for w in stack_warnings(fitted.folder))


def test_accepted_unverified_it_carries_a_caution_on_every_row_it_touched(fitted, tmp_path):
    add_unknown(fitted, tmp_path)
    assert "mystery" in fitted.stack(["mean", "simplex"], accept_unverified=True).accused  # it holds the truth as well
    fitted.stack(["mean", "simplex"], accept_unverified=True, accept_accused=["mystery"])
    board = fitted.verdict()
    for split in ("oof", "test"):
        rows = {r.name: " ".join(r.cautions) for r in board.rows if r.split == split}
        assert "unverified: its training samples" in rows["mystery"]
        for name in ("mean", "simplex", "best_single", "median"):
            assert "learned beside unverified models: mystery" in rows[name], name
        assert "unverified" not in rows["ridge"]
    assert "unverified" in fitted.report().read_text()


def add_liar(study: ps.Study, tmp_path, name: str = "liar") -> None:
    """The same model, this time claiming the folds of the plan."""
    add_unknown(study, tmp_path)
    study.add(name, tmp_path / "mystery.parquet", fitted_on="plan", scale="treated")


def test_an_accused_model_is_not_stacked_and_cannot_be_the_best_single(fitted, tmp_path):
    """Issue 16, A7: its error on noise gives it away; it shipped as best single under a headline of "a real gain"."""
    add_liar(fitted, tmp_path)
    result = fitted.stack(["mean"])
    grave = {f.code: f for f in result.probes if f.where == "liar" and f.severity == "error"}
    assert grave["too_good_to_be_true"].numbers["error"] < 0.5 * grave["too_good_to_be_true"].numbers["noise"]
    assert grave["knows_replicate_noise"].numbers["mean_correlation"] > 0.5
    assert {f.where for f in result.probes if f.severity == "error"} == {"liar"}
    assert {f.where for f in fitted.audit() if f.code == "too_good_to_be_true"} == {"liar"}
    assert "liar" not in result.models and "Noise cannot be predicted" in result.left_out["liar"]
    assert result.choice.best_single != "liar" and "liar" in result.headline
    board = fitted.verdict()
    assert "liar" not in {r.name for r in board.rows} and "liar" not in board.headline
    assert any("Not stacked" in note and "liar" in note for note in board.decision.notes)
    assert not any("a probe accuses" in c for r in board.rows for c in r.cautions)
    assert "Noise cannot be predicted" in fitted.report().read_text()
    before = fitted.folder.ledger.looks()
    fitted.run()  # nothing is missing: the model that was left out is no reason to stack again
    assert fitted.folder.ledger.looks() == before


def test_an_accused_model_takes_part_when_accepted_by_name_and_every_headline_says_so(fitted, tmp_path):
    add_liar(fitted, tmp_path)
    with pytest.raises(InputError, match="No probe shows that ridge"):
        fitted.stack(["mean"], accept_accused=["ridge"])
    with pytest.raises(UnknownNameError, match="liars"):
        fitted.stack(["mean"], accept_accused=["liars"])
    result = fitted.stack(["mean"], accept_accused=["liar"])
    assert "liar" in result.models and result.choice.best_single == "liar" and "liar" in result.headline
    line = fitted.folder.ledger.of_kind("accusation_accepted")[-1].facts
    assert line["model"] == "liar" and "too_good_to_be_true" in line["codes"]
    board = fitted.verdict()
    assert board.headline.startswith("Do not trust this study: liar") and "--accept-accused: liar" in board.headline
    cautions = {r.name: " ".join(r.cautions) for r in board.rows if r.split == "test"}
    assert "Noise cannot be predicted" in cautions["liar"] and "a probe accuses: liar" in cautions["mean"]


def test_a_study_of_accused_models_alone_cannot_be_stacked(fitted, tmp_path):
    add_liar(fitted, tmp_path)
    for model in ("mean_treated", "ridge", "perturbation_knn"):
        fitted.withdraw(model, "only the liar is left")
    with pytest.raises(InputError, match="--accept-accused liar"):
        fitted.stack(["mean"])


# -- the truth of the test in a model's answers ------------------------------------------------------------------------


def add_oracle(study: ps.Study, tmp_path, *, means: bool = False) -> None:
    """Honest out of fold, and the truth of the test with little noise on the test rows (or means by perturbation)."""
    store, rng, parts = study.folder.store, np.random.default_rng(1), []
    truth = study.folder.open_store("test_truth")
    for block in store.blocks():
        n = store.n_samples(block)
        values = store.read(block, "ridge", start=0, stop=n)
        if block.role == "test":
            values = truth.read(block, "treated", start=0, stop=n)
            if means:
                drug = store.obs(block)["perturbation"].to_numpy()
                values = np.stack([values[drug == d].mean(axis=0) for d in drug])
        values = values + rng.normal(0, 0.02, values.shape)
        parts.append(pd.DataFrame(values, index=store.sample_ids(block), columns=store.gene_names))
    pd.concat(parts).to_parquet(tmp_path / "oracle.parquet")
    study.add("oracle_file", tmp_path / "oracle.parquet", fitted_on="plan", scale="treated")


@pytest.mark.parametrize("means", [False, True])
def test_a_model_that_holds_the_truth_of_the_test_is_flagged_after_the_look(fitted, tmp_path, means):
    """Issue 16, A6: R2 0.998 on the test was admitted, the audit was empty, check 15 advised to ship it alone."""
    add_oracle(fitted, tmp_path, means=means)
    result = fitted.stack(["mean"])
    assert not result.accused and "oracle_file" in result.models  # out of fold there is nothing to see
    board = fitted.verdict()
    codes = {f.code for f in fitted.audit() if f.where == "oracle_file"}
    assert "test_jumps_on_the_test" in codes and (means or "test_knows_replicate_noise" in codes)
    assert board.decision.light == "red" and board.headline.startswith("Do not trust this study: oracle_file")
    assert board.best_single != "oracle_file"
    rows = {r.name: r for r in board.rows if r.split == "test"}
    assert any("On the held-out test" in c for c in rows["oracle_file"].cautions)
    checks = json.loads((fitted.folder.results / "checks.json").read_text())
    assert "Consider oracle_file alone" not in json.dumps(checks)
    found = json.loads((fitted.folder.results / "test_probes.json").read_text())["findings"]
    assert {f["where"] for f in found if f["severity"] == "error"} == {"oracle_file"}  # no honest model


def test_under_a_rule_of_looks_the_probes_of_the_test_give_nothing_away(fitted, tmp_path):
    fitted.change_plan({"looks": 3, "looks_rule": "ladder"})
    fitted.stack(["mean"])
    fitted.verdict()
    assert not (fitted.folder.results / "test_probes.json").exists()
