"""Ladder and Thresholdout against the papers' algorithms in plain loops, and what they are for."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from pertstack._base.errors import InputError, PlanLockedError
from pertstack.verdict.looks import Ladder, Thresholdout, expected_maximum, looks_in_words, price_of_looks

Array = np.ndarray[Any, Any]


def ladder_by_hand(submissions: list[Array]) -> list[float]:
    """Blum and Hardt (2015), parameter-free Ladder, as printed: R_0 = infinity, loss vector of zeros."""
    published, out, last = float("inf"), [], [0.0] * len(submissions[0])
    for losses in submissions:
        n = len(losses)
        difference = [a - b for a, b in zip(losses, last, strict=True)]
        centre = sum(difference) / n
        s = (sum((d - centre) ** 2 for d in difference) / n) ** 0.5
        mean = sum(losses) / n
        if mean < published - s / n**0.5:
            published, last = round(mean * n) / n, list(losses)
        out.append(published)
    return out


def test_the_ladder_is_the_printed_algorithm() -> None:
    rng = np.random.default_rng(0)
    submissions = [rng.normal(1 - 0.03 * t, 0.3, 80) for t in range(60)]
    state, ours = Ladder(), []
    for losses in submissions:
        answer, state = state.look(losses)
        ours.append(answer.value)
        state = Ladder.from_json(json.loads(json.dumps(state.to_json())))
    np.testing.assert_allclose(ours, ladder_by_hand(submissions), rtol=1e-12)
    assert state.looks == 60
    assert 3 < state.releases < 60


def test_a_thousand_useless_looks_do_not_climb_the_ladder() -> None:
    """Submissions with truth 1.0: the best of them looks much better, the published one hardly does."""
    rng = np.random.default_rng(1)
    state, best = Ladder(), np.inf
    for _ in range(1000):
        losses = rng.normal(1, 0.5, 100)
        best = min(best, losses.mean())
        _, state = state.look(losses)
    assert state.published is not None
    assert best < 0.87
    assert state.published > best + 0.02
    assert state.releases < 8


def test_a_real_improvement_is_published_and_the_words_do_not_give_away_the_rest() -> None:
    rng = np.random.default_rng(2)
    base = rng.normal(1, 0.5, 200)
    first, state = Ladder().look(base)
    assert first.source == "new"
    worse, state = state.look(base + 0.123456)
    assert (worse.source, worse.value) == ("unchanged", first.value)
    assert f"{(base + 0.123456).mean():.4g}" not in worse.words
    better, state = state.look(base - 0.2)
    assert better.source == "new"
    assert better.value == pytest.approx((base - 0.2).mean(), abs=1 / 400)


@pytest.mark.parametrize("losses", [np.ones(3), np.array([1.0]), np.array([1.0, np.nan]), np.ones((2, 2))])
def test_losses_that_are_not_of_this_test(losses: Array) -> None:
    _, state = Ladder().look(np.arange(5.0))
    with pytest.raises(InputError):
        state.look(losses)


def thresholdout_by_hand(
    pairs: list[tuple[float, float]], tau: float, sigma: float, budget: int, seed: int
) -> list[float]:
    """Dwork et al. (2015), figure 1, with the noise drawn in the order it is needed."""
    rng = np.random.default_rng(seed)
    level, out = tau + rng.laplace(0, 2 * sigma), []
    for train, holdout in pairs:
        if budget < 1:
            break
        if abs(holdout - train) > level + rng.laplace(0, 4 * sigma):
            out.append(holdout + rng.laplace(0, sigma))
            level = tau + rng.laplace(0, 2 * sigma)
            budget -= 1
        else:
            out.append(train)
    return out


def test_thresholdout_is_the_printed_algorithm() -> None:
    draw = np.random.default_rng(3)
    pairs = [(float(a), float(a + d)) for a, d in zip(draw.normal(size=50), draw.normal(0, 0.05, 50), strict=True)]
    expected = thresholdout_by_hand(pairs, 0.04, 0.01, 8, 7)
    rng, state, ours = np.random.default_rng(7), Thresholdout(0.04, 0.01, 8), []
    for train, holdout in pairs[: len(expected)]:
        answer, state = state.look(train, holdout, rng)
        ours.append(answer.value)
        state = Thresholdout.from_json(json.loads(json.dumps(state.to_json())))
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
    assert state.questions == len(expected)
    assert state.answered_from_test == 8 - state.budget


def test_agreement_is_free_and_disagreement_spends_until_it_is_refused() -> None:
    rng, state = np.random.default_rng(0), Thresholdout(0.05, 0.001, 2)
    for _ in range(50):
        answer, state = state.look(0.6, 0.61, rng)
        assert (answer.source, answer.value) == ("out_of_fold", 0.6)
    for left in (1, 0):
        answer, state = state.look(0.9, 0.6, rng)
        assert answer.source == "test"
        assert answer.value == pytest.approx(0.6, abs=0.02)
        assert state.budget == left
    with pytest.raises(PlanLockedError, match="2 answers came from it in 52 questions"):
        state.look(0.6, 0.6, rng)


def test_thresholdout_keeps_an_overfitted_choice_from_looking_good() -> None:
    """The choice of the best of 500 useless features by out-of-fold rows is shown as useless by the test's answer."""
    draw = np.random.default_rng(5)
    train, test = draw.normal(0, 1, (500, 100)).mean(axis=1), draw.normal(0, 1, (500, 100)).mean(axis=1)
    best = int(np.argmax(train))
    answer, _ = Thresholdout(0.15, 0.01, 5).look(float(train[best]), float(test[best]), draw)
    assert train[best] > 0.25
    assert answer.source == "test"
    assert abs(answer.value) < 0.25


def test_choices_that_make_no_sense() -> None:
    for bad in ((0.0, 0.1, 1), (0.1, 0.0, 1), (0.1, 0.1, -1)):
        with pytest.raises(InputError):
            Thresholdout(*bad)  # type: ignore[arg-type]
    with pytest.raises(InputError):
        expected_maximum(0)


def test_the_price_of_looks() -> None:
    """Known means of the largest of k normals: 1/sqrt(pi), 3/(2 sqrt(pi)), and a simulation."""
    assert expected_maximum(1) == 0
    assert expected_maximum(2) == pytest.approx(1 / np.sqrt(np.pi), rel=1e-6)
    assert expected_maximum(3) == pytest.approx(1.5 / np.sqrt(np.pi), rel=1e-6)
    drawn = np.random.default_rng(0).normal(size=(20_000, 20)).max(axis=1)
    assert price_of_looks(20, 0.01) == pytest.approx(0.01 * drawn.mean(), rel=0.01)


def test_the_sentence_under_the_table() -> None:
    assert looks_in_words(1, 1) == "The held-out test was opened once, as planned."
    assert looks_in_words(3, 1, 0.01).startswith("The held-out test was opened 3 times (1 planned).")
    assert looks_in_words(3, 1, 0.01).endswith("too hopeful by about 0.0085.")
    assert looks_in_words(2, 2) == "The held-out test was opened twice, as planned."
