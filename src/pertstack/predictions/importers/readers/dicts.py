"""Predictions as a dict from what was done to a profile, the way GEARS and the linear benchmarks write them.

``{"A+B": [..], ...}`` in JSON or a pickle, or ``{("A", "K562"): [..]}`` if cell lines are told apart. Their columns
are named by a list beside the file, or in it (``genes``, ``gene_names``), or by each profile (``{"A": {gene: 0.1}}``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.reading.dialects import open_bytes
from pertstack.data.rows import Float32
from pertstack.predictions.importers.readers.files import PredictionFile

LARGEST_JSON = 600_000_000
"""Bytes; a JSON text takes some ten times as much memory as the numbers in it."""
GENES = ("gene_names", "genes", "gene_name", "var_names")
PROFILES = ("predictions", "prediction", "pred", "predicted")


def open_json_predictions(path: Path) -> PredictionFile:
    """A JSON file of profiles by what was done.

    Raises
    ------
    InputError
        Too large, no JSON, or something else than profiles.
    """
    size = path.stat().st_size
    if size > LARGEST_JSON:
        raise InputError(
            f"{path} is a JSON text of {size / 1e9:.1f} GB, which would take some {size / 1e8:.0f} GB of memory to "
            f"read. Write the numbers as a table instead: pandas.DataFrame(predictions, index=genes).T.to_parquet("
            f"'{path.stem}.parquet')."
        )
    try:
        with open_bytes(path) as stream:
            text = stream.read(LARGEST_JSON + 1)
        if len(text) > LARGEST_JSON:
            raise InputError(f"{path} unpacks to more than {LARGEST_JSON:,} bytes of JSON. Write a table instead.")
        content = json.loads(text)
    except (ValueError, RecursionError, OSError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read as JSON: {error}. Was it written completely?") from error
    return from_dict(content, path)


def is_profiles(content: Any) -> bool:
    """Whether this is a dict from what was done to a profile."""
    if not isinstance(content, Mapping) or not content:
        return False
    inner = next((content[k] for k in PROFILES if isinstance(content.get(k), Mapping)), content)
    values = [v for k, v in inner.items() if k not in GENES]
    return bool(values) and all(_profile(v) is not None or _named(v) for v in values[:20])


def from_dict(content: Any, path: Path) -> PredictionFile:
    """Rows named by the keys; ``obs`` says perturbation, and cell line if keys are pairs."""
    if not is_profiles(content):
        held = first_few(content, 4) if isinstance(content, Mapping) else type(content).__name__
        raise InputError(
            f"{path} holds {held}. Expected: an object from each perturbation to its list of numbers, "
            f'{{"A+B": [0.1, ...], ...}}.'
        )
    genes = next((list(map(str, content[k])) for k in GENES if k in content), None)
    inner = next((content[k] for k in PROFILES if isinstance(content.get(k), Mapping)), content)
    if genes is None and all(_named(v) for v in inner.values()):
        table = pd.DataFrame({i: pd.Series(v) for i, v in enumerate(inner.values())}).T
        genes, inner = list(map(str, table.columns)), dict(zip(inner, table.to_numpy(), strict=True))
    pairs = [(k, _profile(v)) for k, v in inner.items() if k not in GENES]
    odd = [str(k) for k, v in pairs if v is None]
    if odd:
        raise InputError(f"{path}: {len(odd):,} entries are no lists of numbers: {first_few(odd, 4)}.")
    lengths = pd.Series([v.shape[-1] for _, v in pairs if v is not None])
    if lengths.nunique() > 1 or (genes is not None and len(genes) != lengths[0]):
        told = ", ".join(f"{n:,} x {count:,}" for n, count in lengths.value_counts().items())
        raise InputError(
            f"{path}: profiles have different lengths ({told})"
            + (f" and {len(genes):,} genes are named" if genes is not None else "")
            + ". Every profile needs one number per gene."
        )
    profiles = [(k, row) for k, v in pairs if v is not None for row in np.atleast_2d(v)]
    labels = [k for k, _ in profiles]
    obs = pd.DataFrame({"perturbation": [str(k[0] if isinstance(k, tuple) else k) for k in labels]})
    if all(isinstance(k, tuple) and len(k) == 2 for k in labels):
        obs["cell_line"] = [str(k[1]) for k in labels]
    values = np.stack([v for _, v in profiles]).astype(np.float32)
    ids = ["|".join(map(str, k)) if isinstance(k, tuple) else str(k) for k in labels]

    def rows(n_rows: int) -> Iterator[Float32]:
        for start in range(0, len(values), n_rows):
            yield values[start : start + n_rows]

    names = genes or [str(i) for i in range(values.shape[1])]
    return PredictionFile(path, ids, names, rows, obs=obs.set_axis(ids))


def _named(value: Any) -> bool:
    """Whether a profile names its genes: a Series, or a dict from gene to number."""
    if isinstance(value, pd.Series):
        return not pd.api.types.is_integer_dtype(value.index)
    return isinstance(value, Mapping) and bool(value) and all(isinstance(v, int | float) for v in value.values())


def _profile(value: Any) -> np.ndarray[Any, Any] | None:
    """A list or array of numbers, of one row or several (cells); None for anything else."""
    if isinstance(value, Mapping | str | bytes) or value is None:
        return None
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return array if array.ndim in (1, 2) and array.size else None
