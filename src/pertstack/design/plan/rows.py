"""Rows of a fold plan: how they are laid out, counted and digested."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.digests import digest_json, digest_names
from pertstack._base.reading.tables import plain_texts
from pertstack.design.blocks import SUPPORT
from pertstack.design.plan.assign import Place

FORMAT = 1
COLUMNS = ("sample_id", "group", "role", "fold", "segment")


def digest_of(table: pd.DataFrame, group_by: str, n_folds: int) -> str:
    """Digest of assignments: sample id, group, role, fold, in order of sample id, and the grouping they stand for.

    Parameters
    ----------
    table : rows of the plan, in any order.
    group_by, n_folds : of the plan.
    """
    ordered = table.sort_values("sample_id", kind="stable")
    fold = ordered["fold"].astype("Int64").astype(object).where(ordered["fold"].notna(), "")
    columns = {"sample_id": ordered["sample_id"], "group": ordered["group"], "role": ordered["role"], "fold": fold}
    names = {name: digest_names(map(str, values)) for name, values in columns.items()}
    return digest_json({"format": FORMAT, "group_by": group_by, "n_folds": n_folds, **names})


def make_rows(groups: pd.Series[str], places: dict[str, Place], segment: int) -> pd.DataFrame:
    """Rows of the plan for samples with their groups, in their order.

    Parameters
    ----------
    groups : index = sample ids, values = groups.
    places : group -> fold, None for the test, ``SUPPORT`` for support.
    segment : number of the batch, from 0.
    """
    place = groups.map(places).astype("Int64")
    role = place.isna().map({True: "test", False: "development"}).where(place.fillna(0) != SUPPORT, "support")
    rows = pd.DataFrame(
        {
            "sample_id": groups.index.astype(str).to_numpy(dtype=object),
            "group": groups.to_numpy(dtype=object),
            "role": role.to_numpy(dtype=object),
            "fold": place.where(role == "development").to_numpy(),
            "segment": segment,
        }
    )
    return plain_texts(rows.astype({"fold": "Int64", "segment": "int64"}))


def groups_per_place(table: pd.DataFrame) -> Counter[Place]:
    """Number of groups in every fold, in the test (key None) and in support (key SUPPORT)."""
    pairs = table[["group", "role", "fold"]].drop_duplicates()
    return Counter(places_of(pairs))


def places_of(table: pd.DataFrame) -> list[Place]:
    """Fold of every row, None for the test, SUPPORT for support."""
    numbers = table["fold"].fillna(-1).astype("int64")
    kinds = {"test": None, "support": SUPPORT}
    return [kinds[role] if role in kinds else int(n) for role, n in zip(table["role"], numbers, strict=True)]


def counts_of(part: pd.DataFrame) -> dict[str, int]:
    return {"samples": len(part), "groups": int(part["group"].nunique())}


def counts_of_parts(table: pd.DataFrame, n_folds: int) -> list[dict[str, Any]]:
    """Samples and groups of every fold, of the test, and of support if there is some."""
    places = table["fold"].fillna(-1).to_numpy(dtype=np.int64)
    parts: list[dict[str, Any]] = [
        {"role": "development", "fold": fold} | counts_of(table[places == fold]) for fold in range(n_folds)
    ]
    parts.append({"role": "test", "fold": None} | counts_of(table[table["role"] == "test"]))
    if (table["role"] == "support").any():
        parts.append({"role": "support", "fold": None} | counts_of(table[table["role"] == "support"]))
    return parts
