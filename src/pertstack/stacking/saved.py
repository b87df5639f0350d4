"""Fitted combiners as arrays and plain JSON, and back: bit for bit, without pickle.

A fitted combiner is a frozen dataclass of names, numbers, arrays and other such dataclasses (``CLASSES``). An array is
kept once, however many combiners share it (gene names, the ranking of models). A combiner of any other class (of a
plug-in) has no state; it is learned again from the stored sums.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from pertstack._base.arrays import Array
from pertstack._base.digests import digest_array
from pertstack._base.errors import CorruptionError
from pertstack.stacking.combiner import FittedCombiner
from pertstack.stacking.combiners.linear_weights import LinearWeights
from pertstack.stacking.combiners.references.rank_average import RankMean
from pertstack.stacking.combiners.references.row_statistic import MiddleMean, RowStatistic
from pertstack.stacking.combiners.references.winsorised_mean import DrawnIn
from pertstack.stacking.combiners.row_weights.parts_shrunken import WeightsByParts
from pertstack.stacking.combiners.row_weights.sample_features import SampleFeatures
from pertstack.stacking.combiners.row_weights.selector import SelectedModel
from pertstack.stacking.combiners.row_weights.soft_gate import GatedWeights
from pertstack.stacking.experimental.embedding_ridge import EmbeddingCorrection
from pertstack.stacking.experimental.feature_weighted_sample import SampleWeights
from pertstack.stacking.experimental.frames import CommonFrame
from pertstack.stacking.experimental.reduced_rank import LowRank
from pertstack.stacking.experimental.shared_mlp import CorrectedMixture, Inputs

FORMAT = 1
CLASSES: dict[str, type[Any]] = {
    c.__name__: c
    for c in (
        CommonFrame,
        CorrectedMixture,
        DrawnIn,
        EmbeddingCorrection,
        GatedWeights,
        Inputs,
        LinearWeights,
        LowRank,
        MiddleMean,
        RankMean,
        RowStatistic,
        SampleFeatures,
        SampleWeights,
        SelectedModel,
        WeightsByParts,
    )
}
STATES = "fitted"
"""Name of the JSON text among the arrays of ``weights.npz``."""
_LONG = 32  # names from which a tuple of text is kept as an array


def save_fitted(fits: Mapping[str, FittedCombiner]) -> dict[str, Array]:
    """Arrays for ``weights.npz``: ``<combiner>/<array>`` for readers, the rest of each state, and ``fitted``.

    >>> from pertstack.stacking.combiners.references.row_statistic import MiddleMean, RowStatistic
    >>> arrays = save_fitted({"median": RowStatistic("median", ("a", "b"), MiddleMean(0.5))})
    >>> load_fitted(arrays)["median"].statistic
    MiddleMean(cut=0.5)
    """
    arrays = {f"{name}/{key}": np.asarray(a) for name, fit in fits.items() for key, a in fit.arrays().items()}
    names = {digest_array(a): name for name, a in arrays.items()}

    def keep(value: Array) -> str:
        digest = digest_array(value)
        if digest not in names:
            names[digest] = f"state/{digest}"
            arrays[names[digest]] = value
        return names[digest]

    def plain(value: Any) -> Any:
        if is_dataclass(value) and not isinstance(value, type):
            return {
                "class": type(value).__name__,
                "fields": {f.name: plain(getattr(value, f.name)) for f in fields(value)},
            }
        if isinstance(value, np.ndarray):
            return {"array": keep(value)}
        if isinstance(value, tuple):
            if len(value) >= _LONG and all(type(v) is str for v in value):
                return {"names": keep(np.asarray(value, dtype=str))}
            return {"tuple": [plain(v) for v in value]}
        if isinstance(value, Mapping):
            return {"mapping": [[str(k), plain(v)] for k, v in value.items()]}
        return {"json": value.item() if isinstance(value, np.generic) else value}

    known = {name: fit for name, fit in fits.items() if _is_known(fit)}
    states = {"format": FORMAT, "combiners": {name: plain(fit) for name, fit in known.items()}}
    arrays[STATES] = np.asarray(json.dumps(states, sort_keys=True))
    return arrays


def load_fitted(arrays: Mapping[str, Array]) -> dict[str, FittedCombiner]:
    """The fitted combiners of ``save_fitted``; none if they were written by a version that kept no states.

    Raises
    ------
    CorruptionError
        A state names an array or a class that is not there.
    """
    if STATES not in arrays:
        return {}
    states = json.loads(str(arrays[STATES]))
    if states["format"] != FORMAT:
        return {}

    def value_of(state: dict[str, Any]) -> Any:
        if "class" in state:
            return CLASSES[state["class"]](**{k: value_of(v) for k, v in state["fields"].items()})
        if "array" in state:
            return arrays[state["array"]]
        if "names" in state:
            return tuple(arrays[state["names"]].tolist())
        if "tuple" in state:
            return tuple(value_of(v) for v in state["tuple"])
        if "mapping" in state:
            return {k: value_of(v) for k, v in state["mapping"]}
        return state["json"]

    try:
        return {name: value_of(state) for name, state in states["combiners"].items()}
    except (KeyError, TypeError) as error:
        raise CorruptionError(
            f"The fitted combiners in weights.npz lack {error}; run `pertstack stack` again."
        ) from error


def _is_known(value: Any) -> bool:
    """Whether every dataclass in a fitted combiner is listed, and everything else is text, numbers or arrays."""
    if is_dataclass(value) and not isinstance(value, type):
        return type(value).__name__ in CLASSES and all(_is_known(getattr(value, f.name)) for f in fields(value))
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _is_known(v) for k, v in value.items())
    if isinstance(value, tuple | list):
        return all(_is_known(v) for v in value)
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biufU"
    return value is None or isinstance(value, str | int | float | bool | np.generic)
