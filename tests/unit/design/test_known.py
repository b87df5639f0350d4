"""What fits knew of a combination, against plain loops; and in the verdict, out of fold and on the test."""

from __future__ import annotations

import dataclasses
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pertstack.design.plan.known import ALONE, JOINED, PARTS, SEEN, fitted_of, known_levels, telling
from pertstack.verdict.judge import judge
from pertstack.verdict.setting import Setting
from pertstack.verdict.several import several_in_words
from references.judged_world import KINDS, world
from references.plain_resampling import PlainResampling

GENES = [f"g{i}" for i in range(6)]
NAMES = [*GENES, *("+".join(p) for p in combinations(GENES, 2))]


@given(st.lists(st.sampled_from([-1, 0, 1, 2, None]), min_size=len(NAMES), max_size=len(NAMES)))
def test_levels_are_those_of_a_loop(folds):
    role = {None: "test", -1: "support"}
    table = pd.DataFrame({"perturbation": NAMES, "role": [role.get(f, "development") for f in folds]})
    table["fold"] = pd.array([None if f == -1 else f for f in folds], dtype="Int64")
    fitted = fitted_of(table)
    swapped = ["+".join(reversed(n.split("+"))) for n in NAMES]  # B+A is A+B
    found = known_levels(swapped, table["fold"], fitted)
    for i, (name, fold) in enumerate(zip(NAMES, folds, strict=True)):
        others = {n for n, f in zip(NAMES, folds, strict=True) if f is not None and (f != fold or f == -1)}
        parts = name.split("+")
        if len(parts) == 1:
            assert found[PARTS][i] == "single"
            continue
        if fold == -1:  # support is no scored row
            continue
        here = sum(any(g in n.split("+") for n in others) for g in parts)
        alone = sum(g in others for g in parts)
        assert found[SEEN][i] == ("seen" if name in others else "unseen")
        assert found[PARTS][i] == f"{here} of 2"
        joined = sum(any(g in n.split("+") for n in others if "+" in n) for g in parts)
        assert found[ALONE][i] == f"{alone} of 2" and found[JOINED][i] == f"{joined} of 2"


def test_other_spellings_and_plain_drugs():
    pair = known_levels(["A_B", "ctrl+A"], [0, 0], {1: ("A", "B+ctrl"), 0: ("A_B",)})
    assert pair[SEEN] == ["unseen", "seen"] and pair[PARTS] == pair[ALONE] == ["2 of 2", "single"]
    assert pair[JOINED] == ["0 of 2", "single"] and telling(pair) == [SEEN, PARTS, JOINED]
    drugs = known_levels(["aspirin", "NAD+"], [None, np.nan], {0: ("aspirin",)})
    assert drugs[SEEN] == ["seen", "unseen"] and telling(drugs) == [SEEN]
    assert telling(drugs, pair) == [SEEN, PARTS, JOINED]  # trained on singles, asked for combinations


def _combined(table, pairs, fold):
    samples = table.samples.assign(perturbation=pairs, group=pairs, fold=pd.array(fold, dtype="Int64"))
    return dataclasses.replace(table, samples=samples)


def test_the_verdict_tells_scores_by_parts_seen_out_of_fold_and_on_the_test():
    pairs = [f"a{i}+b{i}" for i in range(60)]
    test, oof = world(60, ("K562",), seed=3), world(60, ("K562",), seed=4)
    test = _combined(test, pairs, [None] * 60)
    oof = _combined(oof, [f"c{i}+d{i}" for i in range(60)], [i % 3 for i in range(60)])
    # first half of the test: one part measured; out of fold both parts of all are in their own fold, so none is seen
    singles = {k: tuple(p for i in range(k, 60, 3) for p in (f"c{i}", f"d{i}", f"c{i}+d{i}")) for k in range(3)}
    fitted = {-1: tuple(f"a{i}" for i in range(30)), **singles}
    setting = Setting(KINDS, chosen="direct_pooled", test_looks=1, fitted=fitted)
    verdict = judge(test, oof, setting, resampling=PlainResampling(200))
    rows = {(r["view"], r["level"]): r for r in verdict.leaderboard.several["known_at_fit"]["rows"]}
    values = test.values("direct_pooled", "r2_top20@pooled")
    one, none = rows[PARTS, "1 of 2"], rows[PARTS, "0 of 2"]
    assert one["oof"] is None and one["test"]["n"] == 30 and one["test"]["value"] == pytest.approx(values[:30].mean())
    outside = oof.values("direct_pooled", "r2_top20@pooled")
    assert none["oof"]["n"] == 60 and none["gap"]["difference"] == pytest.approx(values[30:].mean() - outside.mean())
    told = " ".join(several_in_words(verdict.leaderboard.several))
    assert "by parts seen" in told and "1 of 2: test" in told and "0 of 2: out of fold" in told
    assert verdict.decomposition.part(PARTS, "1 of 2").difference.n == 30
    same = dataclasses.replace(setting, fitted=dict.fromkeys(range(3), ()))
    assert "known_at_fit" not in judge(test, oof, same, resampling=PlainResampling(200)).leaderboard.several
