"""No NaN or infinite value gets into a store unless it was announced as missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pertstack._base.errors import InputError, first_few
from pertstack._base.shown import count_of
from pertstack.data.rows import Float32


def check_finite(
    part: Float32,
    start: int,
    gone: np.ndarray[Any, Any] | None,
    *,
    drop: np.ndarray[Any, Any] | None,
    what: str,
    samples: Sequence[str] | None = None,
    genes: Sequence[str] | None = None,
) -> None:
    """Refuse NaN and Inf that were not announced: one cheap sum, and the exact test only when that is not finite.

    Parameters
    ----------
    part : (n, width), some rows.
    start : position of the first.
    gone : (n,) mask of rows announced as missing; None for none.
    drop : (width,) mask of such columns; None for none.
    what : the array, for messages.
    samples, genes : names of rows and columns, for messages.

    Raises
    ------
    InputError
        There are some; the first places are shown.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(part.sum(dtype=np.float64)):
            return
    bad = ~np.isfinite(part)
    if gone is not None:
        bad[gone] = False
    if drop is not None:
        bad[:, drop] = False
    if not bad.any():
        return
    first_rows, first_columns = np.nonzero(bad)
    places = [
        f"{_place('row', start + r, samples, r)}, {_place('column', c, genes, c)}: {part[r, c]}"
        for r, c in zip(first_rows[:10], first_columns[:10], strict=True)
    ]
    whole = int(bad.all(axis=1).sum())
    raise InputError(
        f"{what}: {count_of(int(bad.sum()), 'value')} NaN or infinite ({count_of(whole, 'whole row')}): "
        f"{first_few(places, 3)}. A missing prediction must be announced, so that it is never mistaken for a value. "
        f"Mend the model; or take these rows out of the file and say --missing record (in Python, name them in "
        f"missing_samples=, or genes in missing_genes=)."
    )


def _place(kind: str, number: int, names: Sequence[str] | None, at: int) -> str:
    word = {"row": "sample", "column": "gene"}[kind]
    return f"{kind} {number}" if names is None else f"{word} {names[at]!r}"
