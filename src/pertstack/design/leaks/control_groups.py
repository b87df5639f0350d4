"""Controls that lie on both sides of a fold, by their ids."""

from __future__ import annotations

import pandas as pd

from pertstack._base.findings import Finding
from pertstack._base.shown import count_of


def across(key: pd.Series[str], place: pd.Series[int]) -> tuple[list[str], list[str]]:
    """Values of ``key`` on both sides of the test border, and those in several folds; missing values match no group."""
    pairs = pd.DataFrame({"key": key, "place": place}).dropna().drop_duplicates()
    held_out = set(pairs.loc[pairs["place"] < 0, "key"])
    development = pairs.loc[pairs["place"] >= 0, "key"]
    roles = sorted(map(str, held_out & set(development)))
    folds = sorted(map(str, development[development.duplicated()].unique()))
    return roles, folds


def affected(key: pd.Series[str], values: list[str]) -> int:
    """Number of samples that have one of the values."""
    return int(key.astype(str).isin(values).sum())


def controls_across(frame: pd.DataFrame) -> list[Finding]:
    """Controls by name, on both sides of the test; equal control rows without a name are found by ``leak_rows``."""
    if "control_id" not in frame:
        return []
    roles, _ = across(frame["control_id"].astype(object), frame["place"])
    return (
        [control_finding(roles, frame["control_id"].astype(str), frame["place"], how="by control_id")] if roles else []
    )


def control_finding(shared: list[str], key: pd.Series[str], place: pd.Series[int], *, how: str) -> Finding:
    """The warning for controls that serve development and test.

    Parameters
    ----------
    shared : keys of these controls.
    key : per sample, its control.
    place : per sample, fold or below 0 for the test.
    how : how they were found, in words.
    """
    held_out = place < 0
    n = int((key.isin(shared) & held_out).sum())
    share = n / max(1, int(held_out.sum()))
    return Finding(
        "warning",
        "control_across_roles",
        f"{count_of(len(shared), 'control row')} {'serves' if len(shared) == 1 else 'serve'} development and test "
        f"samples ({how}); {share:.0%} of the test samples ({n:,}) have such a control. The noise of a shared control "
        "is in truth and prediction alike, so metrics against the own control reward whoever reproduces that noise. "
        "Read the pooled reference beside them.",
        count=len(shared),
        examples=tuple(shared[:10]),
        numbers={"controls": len(shared), "test_samples": n, "test_share": share},
    )
