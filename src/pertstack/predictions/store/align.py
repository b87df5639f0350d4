"""Alignment by identity: names are matched, positions and counts never trusted.

Gives the order in which handed-in rows or genes must be taken; says what differs, and the likely cause, when it cannot.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import MisalignedError, first_few

Take = np.ndarray[Any, np.dtype[np.intp]]


def as_names(names: Iterable[object]) -> list[str]:
    """Names as plain text; bytes are decoded."""
    return [n.decode() if isinstance(n, bytes) else str(n) for n in names]


def names_index(names: Iterable[str]) -> pd.Index[Any]:
    """Names as a pandas index of plain text."""
    index: pd.Index[Any] = pd.Index(np.asarray(list(names), dtype=object))
    return index


def match(
    kind: str, given: Sequence[str], own: Sequence[str], *, missing: Sequence[str] = (), where: str = ""
) -> Take | None:
    """Positions in ``given`` of every name in ``own``; -1 for those announced as missing; None when the order is the
    same.

    Parameters
    ----------
    kind : "sample" or "gene", for messages.
    given : names as they come.
    own : names as they are wanted.
    missing : announced. A name may be both given and announced; it then counts as given (the caller checks that it
        holds nothing).
    where : the file, for messages.

    Raises
    ------
    MisalignedError
        Duplicate, foreign or unannounced missing names; the first ten and the likely cause are shown.
    """
    if len(given) == len(own) and not missing and list(given) == list(own):
        return None
    index = names_index(given)
    where = f" in {where}" if where else ""
    if not index.is_unique:
        twice = index[index.duplicated()].unique()
        raise MisalignedError(
            f"{len(twice):,} {kind}s{where} occur more than once: {first_few(twice)}. Which row belongs to which "
            f"cannot be known. Remove or rename the duplicates."
        )
    own_index = names_index(own)
    foreign = index[own_index.get_indexer(index) < 0]
    take: Take = index.get_indexer(own_index)
    announced = own_index.isin(list(missing))
    absent = own_index[(take < 0) & ~announced]
    unknown = names_index(missing).difference(own_index)
    if len(foreign) or len(absent) or len(unknown):
        raise MisalignedError(_difference(kind, where, given, own, foreign, absent, unknown))
    return take


def _difference(
    kind: str, where: str, given: Sequence[str], own: Sequence[str], foreign: Any, absent: Any, unknown: Any
) -> str:
    parts = [f"The {kind}s{where} do not match the store: {len(given):,} given, {len(own):,} expected."]
    if len(foreign):
        parts.append(f"{len(foreign):,} given but not known here: {first_few(foreign)}.")
    if len(absent):
        parts.append(f"{len(absent):,} expected but not given: {first_few(absent)}.")
    if len(unknown):
        parts.append(f"{len(unknown):,} announced as missing but not known here: {first_few(unknown)}.")
    cause = likely_cause(given, own)
    if cause:
        parts.append(f"Likely cause: {cause}")
    elif len(absent) and not len(foreign):
        parts.append(f"If these {kind}s were really not predicted, announce them as missing.")
    else:
        parts.append(f"Pass exactly the {kind}s of this study, in any order.")
    return " ".join(parts)


_REPAIRS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("spaces around the names; strip them.", str.strip),
    ("upper and lower case differ; use the study's spelling.", str.casefold),
    ("numbers written as decimals (7157.0 for 7157); read the ids as text.", lambda s: re.sub(r"\.0+$", "", s)),
    ("a version suffix, as in ENSG00000141510.17; cut it off on both sides.", lambda s: re.sub(r"\.\d+$", "", s)),
    ("a suffix such as -1 or _0, as concatenation adds; cut it off.", lambda s: re.sub(r"[-_]\d+$", "", s)),
    ("dots, dashes or underscores written differently (R's make.names does this).", lambda s: re.sub(r"\W|_", ".", s)),
)

_STYLES: tuple[tuple[str, str], ...] = (
    ("Ensembl gene ids (ENSG...)", r"ENS[A-Z]*G\d+(\.\d+)?"),
    ("plain numbers (Entrez ids or row numbers)", r"\d+"),
    ("probe ids (..._at)", r"\S+_at"),
    ("gene symbols or other words", r"[A-Za-z][\w.\-]*"),
)


def likely_cause(given: Sequence[str], own: Sequence[str]) -> str | None:
    """Why two lists of names differ, in words; None when no simple cause explains it."""
    ours = set(own)
    before = len(ours.intersection(given))
    for words, repair in _REPAIRS:
        mended = {repair(n) for n in own}
        after = len(mended.intersection(repair(n) for n in given))
        if after > before and after >= 0.5 * min(len(mended), len(given)):
            return words
    if before == 0 and list(given) == [str(i) for i in range(len(given))]:
        return "row numbers instead of ids; store the ids as the index."
    theirs, here = _style(given), _style(own)
    if before < 0.1 * len(ours) and theirs != here:
        return f"another id style: {theirs} given, {here} expected. Map them to the study's names first."
    return None


def _style(names: Sequence[str]) -> str:
    sample = list(names)[:500]
    for words, pattern in _STYLES:
        if sample and sum(re.fullmatch(pattern, n) is not None for n in sample) > 0.8 * len(sample):
            return words
    return "mixed names"
