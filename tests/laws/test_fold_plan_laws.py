"""Laws of the fold plan, over random designs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pertstack._base.errors import InputError
from pertstack.design.plan.assign import dealt_places, place_groups, salt_of
from pertstack.design.plan.folds import FoldPlan

letters = st.characters(exclude_categories=("Cc", "Cs"))
names = st.lists(
    st.text(letters, min_size=1, max_size=6).filter(lambda s: s.strip() != ""), min_size=8, max_size=80, unique=True
)


def design(groups: list[str], seed: int, prefix: str = "s") -> pd.DataFrame:
    """Every group once, then random repeats."""
    rng = np.random.default_rng(seed)
    drawn = [*groups, *rng.choice(np.array(groups, dtype=object), size=2 * len(groups))]
    return pd.DataFrame({"perturbation": drawn}, index=[f"{prefix}{i}" for i in range(len(drawn))])


@settings(max_examples=60, deadline=None)
@given(groups=names, seed=st.integers(0, 10**6), n_folds=st.integers(2, 3), share=st.sampled_from([0.0, 0.1, 0.2]))
def test_row_order_does_not_matter_and_groups_stay_whole(
    groups: list[str], seed: int, n_folds: int, share: float
) -> None:
    obs = design(groups, seed)
    plan = FoldPlan.make(obs, n_folds=n_folds, test_share=share, seed=seed)
    again = FoldPlan.make(obs.sample(frac=1, random_state=seed), n_folds=n_folds, test_share=share, seed=seed)
    assert again.digest == plan.digest
    assert (plan.table.groupby("group")["fold"].nunique(dropna=False) == 1).all()
    assert (plan.table["fold"].dropna() < n_folds).all()
    assert min(part["groups"] for part in plan.describe()["parts"] if part["fold"] is not None) >= 2


@settings(max_examples=30, deadline=None)
@given(groups=names, odd=st.sampled_from("\0\t\n\r\x1b\x7f"), at=st.integers(0, 6), seed=st.integers(0, 10**6))
def test_a_name_with_a_control_character_is_refused(groups: list[str], odd: str, at: int, seed: int) -> None:
    """numpy and pandas cut text at NUL: '0' and '0\\0' would be one group on both sides of a fold."""
    obs = design([*groups, groups[0][:at] + odd + groups[0][at:]], seed)
    with pytest.raises(InputError, match="control characters"):
        FoldPlan.make(obs, n_folds=2, seed=seed)
    with pytest.raises(InputError, match="control characters"):
        FoldPlan.make(design(groups, seed, prefix=f"s{odd}"), n_folds=2, seed=seed)


@settings(max_examples=40, deadline=None)
@given(groups=names, cut=st.floats(0.5, 0.9), seed=st.integers(0, 10**6))
def test_extension_changes_nothing_and_batches_do_not_matter(groups: list[str], cut: float, seed: int) -> None:
    first = max(8, int(cut * len(groups)))
    plan = FoldPlan.make(design(groups[:first], seed), n_folds=2, seed=seed)
    new = pd.concat([design(groups, seed + 1, "t"), design(groups[:first], seed + 2, "u")])
    at_once = plan.extend(new)
    one_by_one = plan.extend(new.iloc[: len(new) // 3]).extend(new)
    assert one_by_one.digest == at_once.digest
    old = at_once.table.iloc[: len(plan.table)]
    pd.testing.assert_frame_equal(old, plan.table)
    assert (at_once.table.groupby("group")["fold"].nunique(dropna=False) == 1).all()
    assert one_by_one.accepts(plan.digest)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(30, 400), extra=st.integers(1, 50), seed=st.integers(0, 10**6))
def test_hashed_places_do_not_depend_on_who_else_is_there(n: int, extra: int, seed: int) -> None:
    few, rule = place_groups([f"g{i}" for i in range(n)], salt=salt_of(seed), n_folds=2, test_share=0.2)
    more, rule_more = place_groups([f"g{i}" for i in range(n + extra)], salt=salt_of(seed), n_folds=2, test_share=0.2)
    assume((rule, rule_more) == ("hashed", "hashed"))  # few groups may be dealt out instead
    assert all(more[g] == place for g, place in few.items())


@settings(max_examples=60, deadline=None)
@given(groups=names, seed=st.integers(0, 10**6), n_folds=st.integers(2, 5))
def test_dealt_folds_differ_by_at_most_one_group(groups: list[str], seed: int, n_folds: int) -> None:
    places = list(dealt_places(groups, salt=salt_of(seed), n_folds=n_folds, test_share=0.2).values())
    counts = [places.count(f) for f in range(n_folds)]
    assert max(counts) - min(counts) <= 1
    assert places.count(None) == max(1, round(0.2 * len(groups)))


def test_shares_are_what_was_asked_for() -> None:
    """20,000 groups: test share and folds within 4 standard errors."""
    places, _ = place_groups(map(str, range(20_000)), salt=salt_of(1), n_folds=4, test_share=0.2)
    values = list(places.values())
    assert abs(values.count(None) / 20_000 - 0.2) < 4 * np.sqrt(0.2 * 0.8 / 20_000)
    for f in range(4):
        assert abs(values.count(f) / 20_000 - 0.2) < 4 * np.sqrt(0.2 * 0.8 / 20_000)
