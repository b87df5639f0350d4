"""Where samples of a plan go that a table or a hash did not place by itself: new ones, and support.

``folds.py`` keeps the plan; the hash is in ``assign.py``.
"""

from __future__ import annotations

import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.reading.tables import as_texts
from pertstack.design.plan.assign import Place, hashed_place, role_threshold
from pertstack.design.plan.rows import places_of


def places_of_new(
    new: pd.Series[str], table: pd.DataFrame, group_by: str, *, test_share: float | None, salt: str, n_folds: int
) -> dict[str, Place]:
    """Where the groups of new samples go.

    Parameters
    ----------
    new : group by sample id.
    table, group_by, test_share, salt, n_folds : of the plan.

    Raises
    ------
    InputError
        A group is split between folds; or the plan came from a table and a group is new to it.
    """
    old: dict[str, set[Place]] = {}
    wanted = table[table["group"].isin(set(new))]
    for group, place in zip(wanted["group"], places_of(wanted), strict=True):
        old.setdefault(group, set()).add(place)
    split = sorted(g for g, found in old.items() if len(found) > 1)
    if split:
        raise InputError(
            f"The plan has samples of the same {group_by} in several folds ({first_few(split)}), so it does "
            "not say where a new sample of them goes. Write the new samples into the table and make the plan "
            "from it."
        )
    unknown = sorted(set(new) - set(old))
    if unknown and test_share is None:
        raise InputError(
            f"The plan came from a table, which does not say where {len(unknown):,} new groups go: "
            f"{first_few(unknown)}. Write the new samples into the table and make the plan from it."
        )
    threshold = role_threshold(test_share or 0.0)
    places: dict[str, Place] = {g: next(iter(found)) for g, found in old.items()}
    for g in unknown:
        places[g] = hashed_place(g, salt=salt, n_folds=n_folds, threshold=threshold)
    return places


def with_support(table: pd.DataFrame, support: pd.Series[bool]) -> pd.DataFrame:
    """A fold table in which the rows of ``support`` (index = sample ids) have that role."""
    names = table["sample_id"] if "sample_id" in table.columns else table.index
    mine = pd.Series(names).astype(str).isin(support.index[support.to_numpy(dtype=bool)].astype(str)).to_numpy()
    answer = table.copy()
    if "fold" in table.columns:
        held = table["fold"].isna() | as_texts(table["fold"]).str.strip().str.casefold().isin(["", "test", "nan"])
    else:
        held = as_texts(table["role"]).str.strip().str.casefold() == "test"
    clash = pd.Series(names)[mine & held.to_numpy()]
    if len(clash):
        raise InputError(
            f"{len(clash):,} samples are the test by the table and support by --support: {first_few(clash)}. Support "
            "is fitted on, so it cannot be the test. Leave them out of one of the two."
        )
    if "fold" in table.columns:
        answer["fold"] = answer["fold"].astype(object).where(~mine, "support")
    if "role" in table.columns or "fold" not in table.columns:
        answer["role"] = answer["role"].astype(object).where(~mine, "support")
    return answer
