"""Metadata columns that a study cannot keep as they are: odd names, lists in cells. All are named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import first_few
from pertstack._base.findings import Finding

_RESERVED = ("", ".", "..", "_index")


def plain_columns(obs: pd.DataFrame, where: str) -> tuple[pd.DataFrame, list[Finding]]:
    """The table with names and cells that AnnData can store, and notes of what was changed."""
    notes: list[Finding] = []
    odd = [str(c) for c in obs.columns if "/" in str(c) or str(c) in _RESERVED]
    if odd:
        taken = {str(c) for c in obs.columns}
        new: dict[Any, str] = {}
        for name in odd:
            plain = name.replace("/", "_").strip("._") or "column"
            while plain in taken:
                plain += "_"
            taken.add(plain)
            new[name] = plain
        obs = obs.rename(columns=new)
        told = [f"{a!r} is {b!r}" for a, b in new.items()]
        message = (
            f"{len(odd):,} metadata columns of {where} have names that AnnData reserves or cannot store; in the study "
            f"{first_few(told)}."
        )
        notes.append(Finding("note", "columns_renamed", message, count=len(odd), examples=tuple(odd[:10])))
    listed = [str(c) for c in obs.columns if obs[c].dtype == object and any(map(_is_list, obs[c]))]
    if listed:
        obs = obs.assign(**{c: obs[c].map(_joined) for c in listed})
        message = f"Lists in the metadata columns {first_few(listed)} of {where} are kept as texts, joined by ';'."
        notes.append(Finding("note", "lists_joined", message, count=len(listed), examples=tuple(listed[:10])))
    return obs, notes


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | set | dict | np.ndarray)


def _joined(value: Any) -> Any:
    if not _is_list(value):
        return value
    parts = sorted(map(str, value)) if isinstance(value, set) else [str(v) for v in value]
    return ";".join(f"{k}={value[k]}" for k in value) if isinstance(value, dict) else ";".join(parts)


__all__ = ["plain_columns"]
