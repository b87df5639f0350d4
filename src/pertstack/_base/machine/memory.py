"""Memory budgets in words, and how many rows of a tile fit into one."""

from __future__ import annotations

import re

from pertstack._base.errors import InputError

EXTRA_LAYERS = 6
"""Arrays of a tile beside its predictions: control, treated, and what is computed."""
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_bytes(text: str | int) -> int:
    """Bytes from a size such as ``"1 GB"``, ``"500MB"`` or a plain number.

    >>> parse_bytes("1.5 GB")
    1500000000
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-zA-Z]*)\s*", str(text))
    if match is None or match[2].casefold() not in _UNITS:
        raise InputError(f"{text!r} is not a size. Write a number with kB, MB or GB, such as '1 GB' or '500 MB'.")
    n_bytes = int(float(match[1]) * _UNITS[match[2].casefold()])
    if n_bytes < 1:
        raise InputError(f"{text!r} is no memory at all. Give at least a few MB, such as '500 MB'.")
    return n_bytes


def tile_memory(text: str | int, n_genes: int, n_models: int) -> int:
    """Bytes of a budget for tiles, which must hold at least one row of them.

    Parameters
    ----------
    text : such as ``"1 GB"``.
    n_genes, n_models : of the study.

    Raises
    ------
    InputError
        It is no size, or one row does not fit.
    """
    budget, need = parse_bytes(text), 2 * 4 * n_genes * (n_models + EXTRA_LAYERS)
    if budget < need:
        raise InputError(
            f"--memory {text} does not hold one sample: {n_genes:,} genes of {n_models} models and what is computed "
            f"from them take {need / 1e3:,.0f} kB. Give at least a few MB, such as --memory '500 MB'."
        )
    return budget


def rows_per_tile(n_genes: int, n_layers: int, budget: int, *, most: int = 512) -> int:
    """Rows of a float32 tile (n_layers, rows, n_genes) that fit in a budget: at least 1.

    Parameters
    ----------
    n_genes, n_layers : the other two axes.
    budget : bytes.
    most : rows at most.
    """
    return max(1, min(most, budget // max(1, 4 * n_genes * n_layers)))
