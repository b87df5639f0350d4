"""The analysis plan: recognised by content, locked by the first look, exploratory for ever after a change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pertstack._base.digests import digest_json
from pertstack._base.errors import CorruptionError, InputError, MissingFileError, PlanLockedError, UnknownNameError
from pertstack.design.analysis_plan import AnalysisPlan, is_exploratory, lock, permit_look, require_unlocked_or_same
from pertstack.design.ledger import LOOK, Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl")


def test_the_file_comes_back_and_only_content_counts(tmp_path: Path) -> None:
    plan = AnalysisPlan(primary="r2_top40@own", combiners=("mean", "simplex"), looks=2, no_harm_level=0.1)
    plan.save(tmp_path / "plan.toml")
    assert AnalysisPlan.load(tmp_path / "plan.toml") == plan
    text = (tmp_path / "plan.toml").read_text()
    lines = [line.split(" #")[0] for line in reversed(text.splitlines()) if not line.startswith("#")]
    (tmp_path / "other.toml").write_text("\n".join(lines))
    assert AnalysisPlan.load(tmp_path / "other.toml").digest == plan.digest
    assert plan.changed(seed=1).digest != plan.digest
    (tmp_path / "empty.toml").write_text("")
    assert AnalysisPlan.load(tmp_path / "empty.toml") == AnalysisPlan()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"primry": "r2"}, "Did you mean 'primary'"),
        ({"reference": "poled"}, "Did you mean 'pooled'"),
        ({"looks": 0}, "looks 0"),
        ({"looks": "two"}, "looks of the analysis plan is 'two'"),
        ({"looks": True}, "looks of the analysis plan is True"),
        ({"no_harm_level": 0.7}, "no_harm_level is 0.7"),
        ({"combiners": "mean"}, "combiners of the analysis plan is 'mean'"),
        ({"combiners": ["mean", "mean"]}, "mean twice"),
        ({"primary": "best ever"}, "Unknown metric"),
    ],
)
def test_values_that_cannot_be_meant(value: dict[str, Any], message: str) -> None:
    with pytest.raises((InputError, UnknownNameError), match=message):
        AnalysisPlan.from_json(value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        AnalysisPlan.load(tmp_path / "plan.toml")
    (tmp_path / "plan.toml").write_text("primary = ")
    with pytest.raises(CorruptionError, match="not valid TOML"):
        AnalysisPlan.load(tmp_path / "plan.toml")


def test_choice_metric_takes_the_plans_reference() -> None:
    assert AnalysisPlan(primary="r2_top20").choice_metric == "r2_top20@pooled"
    with pytest.raises(InputError, match="pertstack calibrate"):
        _ = AnalysisPlan(primary="auto").choice_metric
    settled = AnalysisPlan(primary="auto", settled="pearson_all@centroid", settled_by="BDS 0.8")
    assert settled.choice_metric == "pearson_all@centroid" and settled.digest != AnalysisPlan(primary="auto").digest
    assert settled.changed(seed=3).settled and not settled.changed(primary="rmse_all").settled
    assert AnalysisPlan(primary="r2_top40@own", reference="own").choice_metric == "r2_top40@own"
    assert AnalysisPlan(primary="r2_top40@own").choice_metric == "r2_top40@pooled"


def test_a_primary_against_the_centroid_is_also_chosen_by() -> None:
    assert AnalysisPlan(primary="pearson_all@centroid").choice_metric == "pearson_all@centroid"
    assert AnalysisPlan(primary="rmse_all@pooled", reference="own").choice_metric == "rmse_all@pooled"


def test_a_locked_plan_cannot_be_edited_quietly(ledger: Ledger) -> None:
    plan = AnalysisPlan()
    assert require_unlocked_or_same(plan, ledger) is False
    lock(plan, ledger)
    lock(plan, ledger)
    assert len(ledger.of_kind("plan_locked")) == 1
    assert require_unlocked_or_same(AnalysisPlan(), ledger) is False
    with pytest.raises(PlanLockedError, match="primary: 'auto' -> 'pearson_all'"):
        require_unlocked_or_same(plan.changed(primary="pearson_all"), ledger)
    assert not is_exploratory(ledger)


def test_an_exploratory_change_marks_every_later_result(ledger: Ledger) -> None:
    plan, other = AnalysisPlan(), AnalysisPlan(primary="pearson_all")
    lock(plan, ledger)
    assert require_unlocked_or_same(other, ledger, exploratory=True) is True
    assert require_unlocked_or_same(other, ledger) is True
    assert require_unlocked_or_same(plan, ledger) is True
    assert len(ledger.of_kind("plan_changed")) == 1
    with pytest.raises(PlanLockedError):
        require_unlocked_or_same(AnalysisPlan(primary="rmse_all"), ledger)


def test_looks_are_numbered_and_end_when_the_plan_says_so(ledger: Ledger) -> None:
    plan = AnalysisPlan(looks=2)
    for number in (1, 2):
        permit = permit_look(plan, ledger)
        assert (permit.number, permit.planned, permit.exploratory) == (number, 2, False)
        assert permit.locked_digest == plan.digest
        ledger.append(LOOK)
    with pytest.raises(PlanLockedError, match="opened 2 times and the locked plan allows 2"):
        permit_look(plan, ledger)
    with pytest.raises(PlanLockedError, match="looks: 2 -> 5"):
        permit_look(plan.changed(looks=5), ledger)
    assert permit_look(plan, ledger, exploratory=True).exploratory
    assert is_exploratory(ledger)


def test_entries_that_came_later_leave_the_digest_of_older_plans_as_it_was() -> None:
    """A plan locked before there were rules of looks is still the locked one; a plan with a rule is another."""
    plan = AnalysisPlan()
    older = {k: v for k, v in plan.to_json().items() if k not in ("looks_rule", "settled", "settled_by")}
    assert plan.digest == digest_json(older)
    assert plan.changed(looks=2, looks_rule="ladder").digest != plan.changed(looks=2).digest


def test_the_least_that_a_plan_may_ask_for() -> None:
    assert AnalysisPlan().looks == 1
    assert AnalysisPlan(k=2, looks=1).k == 2
    for wrong in ({"k": 1}, {"looks": 0}):
        with pytest.raises(InputError, match="at least"):
            AnalysisPlan(**wrong)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_that_nothing_can_be_drawn_with_is_refused(seed: int) -> None:
    """`init` took it, and numpy refuses it in whatever draws first."""
    with pytest.raises(InputError, match=f"seed is {seed}; nothing can be drawn"):
        AnalysisPlan(seed=seed)
