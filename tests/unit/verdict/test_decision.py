"""One reconciled answer: every state of the headline, and that nothing beside it says otherwise."""

from __future__ import annotations

import dataclasses
import json

import jsonschema
import pytest

from pertstack.verdict.boards.board import Leaderboard, schema
from pertstack.verdict.case import Case
from pertstack.verdict.decision import CLOSED, DISAGREE, DOUBTED, IN_WORDS, Decision, decide
from pertstack.verdict.judge import judge
from pertstack.verdict.resampling import GroupResampling
from pertstack.verdict.setting import Setting
from references.judged_world import KINDS, shifts, world
from references.plain_resampling import PlainResampling

RESAMPLING = PlainResampling(60)
SETTING = Setting(kinds=KINDS, chosen="direct_pooled", test_looks=1, plan_digest="p1")


def board(setting=SETTING, n=60, **shift):
    return judge(world(n, by_name=shifts(**shift)), None, setting, resampling=RESAMPLING).leaderboard


def changed(**changes):
    return dataclasses.replace(SETTING, **changes)


def test_a_shown_gain_is_green_and_says_only_what_was_measured():
    found = board()
    assert found.decision.light == "green" and found.decision.action == "ship" and not found.decision.reasons
    assert found.headline.startswith("Ship direct_pooled: it beats mlp by 0.025 [0.0")
    assert "R² Top-20 (pooled control), in 60 held-out perturbations" in found.headline
    assert "the gain is not the control's or the constant's" in found.headline
    assert "plate" not in found.headline, "no view without the plates was computed"
    weaker = board(centroid=0.0)
    assert "the gain is not the control's." in weaker.headline and "constant" not in weaker.headline


def test_few_groups_stand_in_the_headline_itself_and_take_the_green_away():
    found = board(n=8)
    assert found.decision.light == "amber" and "Scored on 8 perturbations only" in found.headline


def test_only_scored_groups_are_counted():
    """All scored samples of one perturbation are one group, however many the test holds."""
    table = world(60)
    table.values_by_name[:, :, (table.samples["group"] != "cpd000").to_numpy()] = float("nan")
    found = judge(table, None, SETTING, resampling=GroupResampling(resamples=200)).leaderboard
    assert found.interval["n_units"] == {"test": 1} and found.several["best_of"] is None
    assert "Scored on 1 perturbation only" in found.headline


def test_a_planted_leak_never_leaves_the_headline_green():
    words = ("knn knows the noise of the rows it predicts (z = 104).",)
    found = board(changed(accused={"knn": words}, accused_gravely=frozenset({"knn"})))
    assert found.decision.light == "red" and found.decision.action == "distrust"
    assert found.headline.startswith("Do not trust this study: knn may have seen the rows it predicts")
    assert "z = 104" in found.headline and any("Ship direct_pooled" in note for note in found.decision.notes)
    warned = board(changed(accused={"knn": words}))
    assert warned.decision.light == "amber" and "A probe doubts knn: knn knows the noise" in warned.headline


def test_exploration_and_unplanned_looks_are_said():
    found = board(changed(exploratory=True, test_looks=3))
    assert found.decision.light == "amber"
    assert "exploration, not proof" in found.headline and "opened 3 times; 1 planned" in found.headline


def test_a_gain_that_does_not_stand_at_once_is_explained_rather_than_contradicted():
    gain = judge(world(), None, SETTING, resampling=RESAMPLING).decomposition
    case = Case("direct_pooled", "mlp", gain, "test", gain.primary, n_groups=60, at_once=((), 28))
    found = decide(case)
    assert found.light == "green" and "named before the test was opened" in found.notes[0]
    assert not decide(dataclasses.replace(case, at_once=(("direct_pooled",), 28))).notes


def test_a_constant_that_ships_and_simulated_data_are_named():
    found = board(changed(chosen="mean_treated", simulated=True))
    assert "mean_treated never sees what was done" in found.headline
    assert "The data are simulated" in found.decision.notes[0]


def test_a_doubted_gain_is_called_a_gain_and_a_doubt():
    assert board(n=8).decision.light_words == DOUBTED and board().decision.light_words == IN_WORDS["green"]
    assert board(own=0.0, pooled=0.0, centroid=0.0, rmse=0.0).decision.light_words == IN_WORDS["amber"]


def test_each_amber_answer_has_words_of_its_own():
    """ "No gain is shown, or read on" stood over a gain that was shown and over a test that was closed."""
    gain = judge(world(), None, SETTING, resampling=PlainResampling(60)).decomposition
    case = Case("direct_pooled", "mlp", gain, "test", gain.primary, n_groups=60)
    for reading in ("plate", "mixed"):
        found = decide(dataclasses.replace(case, gain=dataclasses.replace(gain, reading=reading)))
        assert (found.light, found.action, found.light_words) == ("amber", "alone", DISAGREE)
    closed = decide(dataclasses.replace(case, split="oof"))
    assert (closed.action, closed.light_words) == ("look", CLOSED)
    none = decide(dataclasses.replace(case, gain=None))
    assert (none.action, none.light_words) == ("alone", IN_WORDS["amber"])


def test_what_an_artefact_loses_has_a_minus():
    """The tile beside it says −0.150; the headline must not say 0.150."""
    found = board(changed(chosen="direct_own")).decision
    assert found.light == "red" and "is lost without it (−0.150 [−0.1" in found.sentence


@pytest.mark.parametrize("light", list(IN_WORDS))
def test_a_light_always_comes_with_words(light):
    assert len(IN_WORDS[light]) > 10


def test_the_decision_is_in_the_file_and_comes_back(tmp_path):
    found = board()
    text = found.to_json(tmp_path / "b.json")
    jsonschema.Draft202012Validator(schema()).validate(json.loads(text))
    again = Leaderboard.from_json(tmp_path / "b.json")
    assert again.decision == found.decision and again.headline == found.decision.text
    old = {k: v for k, v in json.loads(text).items() if k != "decision"}
    assert Leaderboard.from_dict(old).decision is None
    assert Decision.from_json(found.decision.to_json()) == found.decision


def test_a_metric_without_a_vote_contradicts_no_gain_and_supports_none():
    lost = {"own": -0.03}
    assert board(**lost).decision.light == "amber" and "disagree" in board(**lost).headline
    found = board(changed(no_vote=("r2_top20@own",)), **lost)
    assert found.decision.light == "green" and found.headline.startswith("Ship direct_pooled: it beats mlp by 0.025")
    assert any("R² Top-20" in n and "says less (−0.03" in n and "has no vote" in n for n in found.decision.notes)
    alone = board(changed(no_vote=("pearson_all@centroid",)))
    assert "the gain is not the control's." in alone.headline and "constant" not in alone.headline


def test_a_metric_that_cannot_decide_takes_the_green_away():
    doubt = "R² Top-20 cannot tell a replicate from a constant here (BDS 0.18)."
    found = board(changed(metric_doubt=doubt))
    assert found.decision.light == "amber" and doubt in found.headline


def test_both_gains_are_printed():
    """Over the best on the test, and over what would have shipped: the best single model out of fold."""
    verdict = judge(world(60, by_name=shifts()), None, changed(alone="ridge"), resampling=RESAMPLING)
    assert any(note.startswith("Against ridge, which would have shipped") for note in verdict.decision.notes)
    values = {r.name: r.score("r2_top20@pooled").value for r in verdict.leaderboard.ranked()}
    assert verdict.over_alone.value == pytest.approx(values["direct_pooled"] - values["ridge"], abs=1e-6)
    assert verdict.to_json()["over_best_out_of_fold"]["value"] == pytest.approx(verdict.over_alone.value)


def test_a_safe_bet_says_that_no_gain_is_shown():
    none = shifts(own=0.0005, pooled=0.0005, centroid=0.0, rmse=0.0)
    found = judge(world(60, by_name=none), None, changed(unproven=True), resampling=RESAMPLING).decision
    assert (found.light, found.action) == ("amber", "ship")
    assert "safe bet" in found.sentence and "no gain is shown" in found.sentence


@pytest.mark.parametrize(
    ("changes", "shift", "action", "ships"),
    [
        ({}, {}, "ship", "direct_pooled"),
        ({}, {"own": 0.0005, "pooled": 0.0005, "centroid": 0.0, "rmse": 0.0}, "alone", "mlp"),
        ({"unproven": True}, {"own": 0.0005, "pooled": 0.0005, "centroid": 0.0, "rmse": 0.0}, "ship", "direct_pooled"),
        ({"chosen": "best_single", "alone": "mlp"}, {}, "alone", "mlp"),
        ({"chosen": "ridge"}, {}, "alone", "ridge"),
        ({"accused_gravely": frozenset({"knn"}), "accused": {"knn": ("it knows",)}}, {}, "distrust", None),
    ],
)
def test_the_sentence_names_what_ships(changes, shift, action, ships):
    found = board(changed(**changes), **shift)
    assert (found.decision.action, found.ships) == (action, ships)
    if ships is not None:
        assert ships in found.decision.sentence.split(":")[0]


@pytest.mark.parametrize(
    ("shift", "said"),
    [
        ({"own": 0.0005, "pooled": 0.0005, "centroid": 0.0, "rmse": 0.0}, "(ridge out of fold, mlp on the test)"),
        ({"own": -0.03, "pooled": -0.03, "centroid": -0.05, "rmse": 0.05}, "(the best single model out of fold)"),
    ],
)
def test_alone_ships_the_best_out_of_fold_though_luck_made_another_best_on_the_test(shift, said):
    """The test names the model to be beaten; it does not pick the one that ships."""
    found = board(changed(alone="ridge"), **shift)
    assert found.best_single == "mlp" and found.ships == "ridge"
    assert "hip ridge alone" in found.headline and "hip mlp" not in found.headline and "mlp" in found.headline
    assert said in found.headline


def test_between_what_was_named_before_the_test_the_better_ships():
    """The best model in hindsight is its match, and cannot ship; the single model that could is beaten."""
    none = {"own": 0.0005, "pooled": 0.0005, "centroid": 0.0, "rmse": 0.0}
    found = board(changed(alone="ridge", between_named=True), **none)
    assert (found.decision.light, found.decision.action, found.ships) == ("amber", "ship", "direct_pooled")
    assert found.headline.startswith("Ship direct_pooled: it beats ridge, which would ship without it, by 0.0")
    assert "no gain is shown over mlp, the best single model there (" in found.headline
    assert not any("would have shipped" in n for n in found.decision.notes), "the sentence has said it"
    assert found.decision.light_words == DOUBTED and not any("at once" in n for n in found.decision.notes)
    same = board(changed(alone="mlp", between_named=True), **none)
    assert same.ships == "mlp", "the best on the test is the one that ships"
    alike = board(changed(alone="ridge", between_named=True), own=-0.0195, pooled=-0.0195, centroid=-0.02, rmse=0.02)
    assert alike.ships == "ridge", "no gain over the one that would ship is shown"
    bet = board(changed(alone="ridge", between_named=True, unproven=True), **none)
    assert "safe bet" in bet.headline and any(n.startswith("Against ridge, which would") for n in bet.decision.notes)
    lost = board(changed(alone="ridge", between_named=True), own=0.0, pooled=0.0, centroid=-0.05, rmse=0.0)
    assert lost.ships == "ridge", "a view contradicts"
    assert any(n.startswith("Against ridge") and n.endswith(": the measures disagree.") for n in lost.decision.notes)


def test_a_setting_comes_back_from_its_file_as_it_was():
    """Every field of it, so that whoever derives the verdict again is told the same."""
    full = changed(
        alone="ridge",
        no_vote=("r2_top20@own",),
        between_named=True,
        fitted={-1: ("c",), 0: ("a", "b")},
        accused={"knn": ("it knows",)},
        accused_gravely=frozenset({"knn"}),
        cautions={"mlp": ("one", "two")},
        refused=("x",),
        accepted=("knn",),
        versions={"numpy": "2"},
        unproven=True,
    )
    again = Setting.from_json(json.loads(json.dumps(full.to_json())))
    assert again == full and Setting.from_json(json.loads(json.dumps(SETTING.to_json()))) == SETTING
