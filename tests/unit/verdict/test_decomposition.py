"""The gain decomposition reads right in worlds where the right reading is known."""

from __future__ import annotations

import numpy as np
import pytest

from pertstack._stats.estimate import Difference
from pertstack.verdict.gain.decompose import decompose, effect_quartiles, panel_metrics
from pertstack.verdict.words import interval

N, PER_GROUP = 240, 4
GROUPS = np.repeat(np.arange(N // PER_GROUP), PER_GROUP)
METRICS = ("r2_top20", "r2_top20@pooled", "pearson_all@centroid", "rmse_all", "pearson_all@plate")


def compare(a, b, groups):
    """An independent interval: normal, from group means (all groups are equally large here)."""
    d = a - b
    fine = np.isfinite(d)
    d, groups = d[fine], groups[fine]
    if d.size == 0:
        return Difference(None)
    means = np.array([d[groups == g].mean() for g in np.unique(groups)])
    if len(means) < 5:
        return Difference(float(d.mean()), None, None, d.size, len(means))
    half = 1.96 * means.std(ddof=1) / np.sqrt(len(means))
    return Difference(float(d.mean()), (float(d.mean() - half), float(d.mean() + half)), None, d.size, len(means))


def world(primary="r2_top20@pooled", noise=0.01, strata=None, **shift):
    """Scores of two competitors that differ by a known shift per metric and by noise shared within groups."""
    rng = np.random.default_rng(3)
    scores = {}
    for metric, key in zip(METRICS, ("own", "pooled", "centroid", "rmse", "plate"), strict=True):
        if key == "plate" and key not in shift:
            continue
        best = rng.uniform(0.2, 0.8, N)
        bump = rng.normal(0, noise, N // PER_GROUP)
        scores[metric] = (best + (bump - bump.mean())[GROUPS] + shift.get(key, 0.0), best)
    return decompose("simplex", "biolord", scores, primary=primary, groups=GROUPS, compare=compare, strata=strata)


@pytest.mark.parametrize(
    ("shift", "reading", "words"),
    [
        ({"own": 0.02, "pooled": 0.018, "centroid": 0.01, "rmse": -0.01}, "win", "a real gain"),
        ({"own": 0.0, "pooled": 0.012, "centroid": 0.01}, "win", "a real gain"),
        ({"own": 0.016, "pooled": 0.005}, "win", "most of the number on own control is control noise"),
        (
            {"own": 0.016, "pooled": 0.001},
            "control_noise",
            "remains without the shared control, within noise: mostly control noise",
        ),
        ({"own": 0.05, "pooled": -0.16, "centroid": -0.14, "rmse": 0.07}, "artefact", "artefact of the shared control"),
        ({"own": 0.05, "pooled": 0.0, "rmse": 0.07}, "artefact", "artefact of the shared control (RMSE"),
        ({"own": 0.001, "pooled": 0.001}, "within_noise", "within noise, so no gain is shown (60 groups)"),
        ({"own": 0.0, "pooled": 0.0}, "no_gain", "no gain"),
        ({"own": -0.001, "pooled": -0.001}, "no_gain", "no gain"),
        ({"own": -0.02, "pooled": -0.03}, "harm", "worse than the best single model"),
        ({"own": 0.01, "pooled": 0.02, "rmse": 0.05}, "mixed", "the measures disagree (RMSE, all genes +0.050"),
        ({"own": -0.02, "pooled": 0.02}, "mixed", "the measures disagree"),
        ({"own": -0.1, "pooled": 0.0, "rmse": -0.5}, "mixed", "the measures disagree (RMSE, all genes −0.500"),
        ({"own": 0.02, "pooled": -0.02, "centroid": 0.2, "rmse": -0.02}, "mixed", "all genes, centroid +0.200"),
        ({"own": 0.0, "pooled": -0.02, "centroid": 0.2}, "mixed", "better)"),
        ({"own": 0.02, "pooled": 0.001, "rmse": -0.02}, "within_noise", "though other measures move (RMSE"),
        ({"own": 0.0, "pooled": 0.0, "centroid": 0.1, "rmse": 0.1}, "mixed", "the measures disagree"),
        ({"own": 0.02, "pooled": 0.02, "centroid": 0.02, "rmse": -0.01, "plate": 0.02}, "win", "a real gain"),
        (
            {"own": 0.02, "pooled": 0.02, "centroid": 0.02, "rmse": -0.01, "plate": 0.0},
            "plate",
            "not seen within plates",
        ),
        ({"own": 0.02, "pooled": 0.02, "centroid": 0.02, "plate": -0.02}, "mixed", "the measures disagree"),
    ],
)
def test_reading_of_known_worlds(shift, reading, words):
    found = world(**shift)
    assert found.reading == reading, found.headline
    assert words in found.headline
    assert found.headline.startswith("simplex against biolord on R² Top-20: ")


def test_the_sentence_of_the_design_comes_out_word_for_word():
    found = world(primary="r2_top20", own=0.016, pooled=0.005)
    assert found.reading == "control_noise"
    text = found.headline
    assert "+0.016 [" in text and "on own control, of which +0.005 [" in text
    assert text.endswith("remains without the shared control: mostly control noise.")
    assert found.caution == "most of the gain on own control is control noise"


def test_one_control_for_all_samples_is_said_and_never_called_a_remainder():
    """Where own and pooled control are the same row, nothing "remains without the shared control"."""
    rng = np.random.default_rng(0)
    best = rng.uniform(0.2, 0.8, N)
    gain = best + 0.02 + rng.normal(0, 0.01, N // PER_GROUP)[GROUPS]
    level = {"r2_top20": (gain, best), "r2_top20@pooled": (gain + 1e-7, best)}
    args = {"primary": "r2_top20@pooled", "groups": GROUPS, "compare": compare}
    found = decompose("simplex", "biolord", {**level, "rmse_all": (best, best)}, **args)
    assert found.one_control and found.reading == "win"
    assert "on own control, which the samples of a cell line share" in found.headline
    assert "remains" not in found.headline
    assert found.headline.endswith("nothing tells it from control noise.")
    supported = decompose("simplex", "biolord", {**level, "rmse_all": (best - 0.1, best)}, **args)
    assert supported.headline.endswith(": a real gain.")
    apart = decompose("simplex", "biolord", {**level, "r2_top20": (gain + 0.01, best)}, **args)
    assert not apart.one_control and "without the shared control" in apart.headline


def test_a_gain_that_the_plate_makes_is_not_called_a_win():
    """Gained against own and pooled control, lost against the other controls of the plate."""
    rng = np.random.default_rng(1)
    best = rng.uniform(0.2, 0.8, N)
    noise = rng.normal(0, 0.01, N // PER_GROUP)[GROUPS]
    scores = {"r2_top20": (best + 0.03 + noise, best), "r2_top20@pooled": (best + 0.02 + noise, best)}
    args = {"primary": "r2_top20@pooled", "groups": GROUPS, "compare": compare}
    assert decompose("simplex", "biolord", scores, **args).reading == "win"
    found = decompose("simplex", "biolord", {**scores, "r2_top20@matched": (best - 0.02 + noise, best)}, **args)
    assert found.reading == "mixed" and "R² Top-20, matched control −0.02" in found.headline
    assert [p.view for p in found.parts] == ["own", "pooled", "matched"]
    lost = {**scores, "r2_top20@pooled": (best + noise, best), "r2_top20@matched": (best - 0.02 + noise, best)}
    assert decompose("simplex", "biolord", lost, **args).reading == "artefact"


def test_a_combination_that_is_the_best_single_model_in_disguise_has_no_gain_to_judge():
    best = np.random.default_rng(0).uniform(size=N)
    scores = {m: (best, best.copy()) for m in METRICS}
    found = decompose("selector", "biolord", scores, primary="r2_top20", groups=GROUPS, compare=compare)
    assert found.reading == "none" and "scores as biolord on every sample" in found.headline


def test_a_bound_beyond_zero_is_never_printed_as_zero():
    found = world(own=0.02, pooled=0.018, rmse=-0.0004, noise=0.0004)
    part = found.part("rmse")
    assert part is not None and part.sign == 1 and part.difference.ci is not None
    text = interval(part.difference.ci, sign=True)
    assert "0.000]" not in text and float(text.split(", ")[1].rstrip("]").replace("−", "-")) < 0
    assert interval((-0.28, -1e-9)) == "[−0.280, 0.000]"
    assert interval((-0.0004, 0.0002)) == "[−0.0004, 0.0002]" and interval((0.01, 0.02)) == "[0.010, 0.020]"


def test_artefact_marks_the_row_and_a_win_does_not():
    assert "artefact" in (world(own=0.05, pooled=-0.1).caution or "")
    assert world(own=0.02, pooled=0.018).caution is None


def test_more_rmse_is_a_loss():
    part = world(rmse=0.05).part("rmse")
    assert part is not None and part.sign == -1 and part.gain == pytest.approx(-0.05, abs=1e-6)


def test_strata_agree_with_a_plain_loop_and_add_up():
    line = np.where(GROUPS % 2 == 0, "A375", "MCF7")
    line_or_none = [None if i == 0 else str(x) for i, x in enumerate(line)]
    rng = np.random.default_rng(0)
    best = rng.uniform(size=N)
    mine = best + np.where(line == "A375", 0.04, -0.02) + rng.normal(0, 0.01, N)
    mine[5] = np.nan
    found = decompose(
        "a",
        "b",
        {"r2_top20": (mine, best)},
        primary="r2_top20",
        groups=GROUPS,
        compare=compare,
        strata={"cell line": line_or_none},
    )
    for level in ("A375", "MCF7"):
        kept = [mine[i] - best[i] for i in range(N) if line_or_none[i] == level and i not in (0, 5)]
        part = found.part("cell line", level)
        assert part is not None
        assert part.difference.n == len(kept) and part.difference.value == pytest.approx(np.mean(kept))
    assert found.part("cell line", "A375").sign == 1 and found.part("cell line", "MCF7").sign == -1  # type: ignore[union-attr]


def test_a_stratum_without_a_valid_sample_says_so():
    nan = np.full(N, np.nan)
    found = decompose("a", "b", {"r2_top20": (nan, nan)}, primary="r2_top20", groups=GROUPS, compare=compare)
    assert found.reading == "none" and "nothing can be said" in found.headline


def test_the_best_single_itself_is_not_compared_with_itself():
    same = np.ones(N)
    found = decompose("b", "b", {"r2_top20": (same, same)}, primary="r2_top20", groups=GROUPS, compare=compare)
    assert found.reading == "none" and "no combination to judge" in found.headline


def test_few_groups_give_no_interval_and_no_claim():
    groups = np.repeat([0, 1, 2], N // 3)
    scores = {"r2_top20": (np.full(N, 0.6), np.full(N, 0.5))}
    found = decompose("a", "b", scores, primary="r2_top20", groups=groups, compare=compare)
    assert found.reading == "within_noise" and "too few groups (3 groups)" in found.headline


def test_panel_prefers_pearson_for_the_centroid_and_takes_what_there_is():
    assert panel_metrics(METRICS[:4], "r2_top20@pooled") == {
        "own": "r2_top20",
        "pooled": "r2_top20@pooled",
        "centroid": "pearson_all@centroid",
        "rmse": "rmse_all",
    }
    assert panel_metrics(["r2_top40@matched"], "r2_top40@matched") == {"matched": "r2_top40@matched"}


def test_quartiles_match_pandas_and_leave_the_unknown_out():
    import pandas as pd

    size = np.random.default_rng(1).gamma(2.0, size=101)
    size[7] = np.nan
    expected = pd.qcut(pd.Series(size), 4, labels=["Q1", "Q2", "Q3", "Q4"])
    assert effect_quartiles(size) == [None if pd.isna(x) else x for x in expected]
    tied = np.array([1, 1, 2, 2, 3, 3, 4, 4, 5.0])  # cut at 2, 3, 4: a value at a cut belongs to the weaker quarter
    assert effect_quartiles(tied) == ["Q1"] * 4 + ["Q2"] * 2 + ["Q3"] * 2 + ["Q4"]
    assert effect_quartiles(np.ones(5)) == [None] * 5
