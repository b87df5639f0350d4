"""Results as the last line of a notebook's cell: a few lines instead of a megabyte, tidy frames, pictures."""

from __future__ import annotations

import numpy as np
import pytest

import pertstack as ps
from copies import copied
from pertstack._base.errors import InputError, UnknownNameError

FIRST = ["name", "metric", "reference", "value", "low", "high"]
MOST = 20_000
"""Characters of a text that somebody reads."""


@pytest.fixture(scope="module")
def opened(study, tmp_path_factory):
    return ps.Study.open(copied(study, tmp_path_factory.mktemp("notebook") / "study"))


@pytest.fixture(scope="module")
def stacked(opened):
    return opened.stack()


@pytest.fixture(scope="module")
def fit():
    """Four models of known quality on 120 samples in 24 perturbations."""
    rng = np.random.default_rng(3)
    drug, fold = np.repeat(np.arange(24), 5), np.repeat(np.arange(24) % 3, 5)
    effect = rng.normal(0, 1, (24, 40))[drug]
    made = {m: effect + rng.normal(0, s, effect.shape) for m, s in zip("abcd", (0.8, 1.0, 1.2, 1.4), strict=True)}
    treated = effect + rng.normal(0, 0.3, effect.shape)
    return ps.stack(made, treated=treated, folds=fold, perturbation=[f"drug{d}" for d in drug])


@pytest.fixture(scope="module")
def evaluated(study, world, tmp_path_factory):
    files = {m: tmp_path_factory.mktemp("evaluated") / f"{m}.npz" for m in ("ridge", "low_rank")}
    for model, path in files.items():
        ps.Study.open(study).export(path, models=[model])
    return ps.evaluate(world, files)


def results(request, opened):
    named = {n: request.getfixturevalue(n) for n in ("opened", "stacked", "fit", "evaluated")}
    fits = opened.cross_fit(["ridge"])
    return named | {"verdict": opened.leaderboard(), "judged": named["evaluated"].verdict, "cross_fit": fits}


def test_every_result_is_a_few_lines_as_text_and_as_html(request, opened):
    for name, result in results(request, opened).items():
        text, page = repr(result), result._repr_html_()
        assert 10 < len(text) < MOST and 10 < len(page) < MOST, (name, len(text), len(page))
        assert "object at 0x" not in text and "array(" not in text, name
    for result in (opened.status(), opened.calibrate(), opened.plan, opened.predictions, opened.reduce()):
        assert len(repr(result)) < MOST, type(result)


def test_frames_are_tidy_and_hold_what_the_result_holds(request, opened):
    for name in ("stacked", "fit", "evaluated"):
        result = request.getfixturevalue(name)
        scores = result.scores
        frame = result.to_frame()
        assert list(frame.columns[:6]) == FIRST and not frame.duplicated(["name", "metric", "reference"]).any()
        assert len(frame) == len(scores.names) * len(scores.metrics)
        for line in frame.sample(12, random_state=1).itertuples():
            value = scores.mean(line.name, f"{line.metric}@{line.reference}").value
            assert line.value == pytest.approx(value, abs=1e-12, nan_ok=True)
            assert not line.low > line.value and not line.high < line.value
    board = opened.leaderboard()
    assert list(board.to_frame().columns[:6]) == FIRST
    assert set(board.to_frame()["split"]) == {"test"} and set(board.to_frame("oof")["split"]) == {"oof"}


def test_the_stack_says_what_was_chosen_and_marks_the_same_names(stacked, fit):
    for result in (stacked, fit):
        assert repr(result).startswith(result.headline) and result.choice.best_single in result.headline
        shown = [line for line in repr(result).splitlines() if line.startswith("▸")]
        assert len(shown) == 1 and result.choice.chosen in shown[0]
    assert "out-of-fold rows" in repr(stacked) and "opened 1 time" in repr(stacked)


def lines_of(figure):
    """Label of every dot of the first panel with its place."""
    axes = figure.axes[0]
    labels = [t.get_text() for t in axes.get_yticklabels()]
    dots = [line for line in axes.lines if line.get_marker() not in ("", "None", None)]
    places = [place for d in dots for place in zip(d.get_xdata(), d.get_ydata(), strict=True)]
    return {labels[round(float(y))]: float(x) for x, y in places}


def test_the_picture_of_differences_shows_the_boards_numbers(request, opened):
    for name in ("stacked", "fit", "evaluated", "opened"):
        result = request.getfixturevalue(name)
        board = result.leaderboard() if name == "opened" else result._board()
        drawn = lines_of(result.plot_differences(every=True))
        assert drawn[board.best_single] == 0
        frame = board.to_frame()
        known = frame[frame["metric"] + "@" + frame["reference"] == board.primary].set_index("name")
        for row, at in drawn.items():
            if row != board.best_single:
                assert at == pytest.approx(known.loc[row, "difference"])
        assert len(result.plot_differences().axes[0].get_yticklabels()) <= 12


def test_the_picture_of_weights_and_of_slopes_shows_the_results_numbers(opened, stacked, fit, evaluated):
    weights = fit.weights["simplex"]
    assert lines_of(fit.plot_weights("simplex")) == pytest.approx(
        dict(zip(weights["models"], weights["mean"], strict=True))
    )
    assert lines_of(stacked.plot_weights("simplex")) == pytest.approx(lines_of(opened.plot_weights("simplex")))
    assert {t.get_text() for t in fit.plot_weights().axes[0].get_yticklabels()} >= {"mean", "simplex"}
    for result in (stacked, fit, evaluated):
        assert lines_of(result.plot_calibration()) == pytest.approx(dict(result.slopes))
    assert fit.slopes["a"] > fit.slopes["d"]
    assert lines_of(opened.plot_calibration()) == pytest.approx(stacked.slopes)
    with pytest.raises(UnknownNameError, match="simplex"):
        fit.plot_weights("simplx")
    with pytest.raises(InputError, match="no linear weights"):
        fit.plot_weights("median")


def test_failed_jobs_are_told_with_their_reason(opened):
    fits = opened.cross_fit(["mean_shift"], nested=False, time_limit=0.001)
    assert not any(r.ok for r in fits)
    assert f"{len(fits)} failed" in repr(fits) and "time limit" in fits._repr_html_()
    assert set(fits.to_frame()["status"]) == {"timeout"}


def test_a_name_cannot_break_out_of_the_html(fit):
    rng = np.random.default_rng(0)
    made = {"<script>x</script>": rng.normal(size=(30, 8)), "b": rng.normal(size=(30, 8))}
    drug = np.repeat(np.arange(10), 3)
    bad = ps.stack(made, treated=rng.normal(size=(30, 8)), folds=drug % 2, perturbation=drug, combiners=["mean"])
    assert "<script>" not in bad._repr_html_()
