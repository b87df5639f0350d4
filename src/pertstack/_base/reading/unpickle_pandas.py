"""What pandas tables of a foreign pickle consist of, under the names of pandas 1 to 3.

Texts (in Arrow arrays, the default of pandas 3, or in arrays of objects) and numbers with gaps are not built by pandas'
or Arrow's own ways out of a pickle: stand-ins take their bytes, check them against each other, and hand plain texts and
numbers to pandas.
"""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from pertstack._base.reading.unpickle_parts import Bag, StandIn

_OFFSETS = {"string": "<i4", "large_string": "<i8", "utf8": "<i4", "large_utf8": "<i8"}


class StoredTexts(StandIn):
    """An array of texts: of Arrow's buffers, or of Python objects."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.texts, self.dtype = state.get("_pa_array"), state.get("_dtype")
        else:
            self.dtype, self.texts, *_ = state
        if not isinstance(self.texts, np.ndarray) or self.texts.dtype != object or self.texts.ndim != 1:
            raise pickle.UnpicklingError("it holds an array of texts in an unknown form")

    def real(self) -> Any:
        import pandas as pd

        if not isinstance(self.dtype, pd.StringDtype):
            raise pickle.UnpicklingError("it holds an array of texts of an unknown type")
        texts: Any = self.texts
        return pd.array(texts, dtype=self.dtype)


class StoredWithGaps(StandIn):
    """Numbers, or truths, some of them missing."""

    kind = ""

    def __setstate__(self, state: Any) -> None:
        self.values, self.missing = state["_data"], state["_mask"]

    def real(self) -> Any:
        import pandas as pd

        return getattr(pd.arrays, self.kind)(self.values, self.missing)


class StoredIntegers(StoredWithGaps):
    kind = "IntegerArray"


class StoredFloats(StoredWithGaps):
    kind = "FloatingArray"


class StoredTruths(StoredWithGaps):
    kind = "BooleanArray"


def arrow_type(alias: Any) -> str:
    if alias not in _OFFSETS:
        raise pickle.UnpicklingError(f"it holds an Arrow array of {alias!r}, and only texts are read from those")
    return str(alias)


def arrow_buffer(content: Any) -> bytes:
    if not isinstance(content, bytes | bytearray):
        raise pickle.UnpicklingError(f"it makes an Arrow buffer of {type(content).__name__}")
    return bytes(content)


def arrow_texts(parts: Any) -> Any:
    """The texts of an Arrow array; None if missing. Each is taken only when it lies within the bytes."""
    kind, length, _, offset, (valid, offsets, content), *_ = parts
    if not all(isinstance(n, int) and n >= 0 for n in (length, offset)) or length > len(offsets or b""):
        raise pickle.UnpicklingError(
            f"it holds an Arrow array of {length!r} texts from {offset!r} on, which are not there"
        )
    out = np.full(length, None, dtype=object)
    if not length:
        return out
    ends = np.frombuffer(offsets, _OFFSETS[arrow_type(kind)], count=offset + length + 1)[offset:]
    content = content or b""
    if ends[0] < 0 or (np.diff(ends) < 0).any() or ends[-1] > len(content):
        raise pickle.UnpicklingError("it holds an Arrow array whose texts do not lie within its bytes")
    present = np.ones(length, dtype=bool)
    if valid is not None:
        bits = np.unpackbits(np.frombuffer(valid, np.uint8), bitorder="little")
        present = bits[offset : offset + length].astype(bool)
    if len(present) < length:
        raise pickle.UnpicklingError("it holds an Arrow array that does not say which of its texts are missing")
    for i in np.flatnonzero(present):
        out[i] = content[ends[i] : ends[i + 1]].decode("utf-8")
    return out


def backed_array(kind: Any, checksum: Any, state: Any = None) -> Any:
    """``__pyx_unpickle_NDArrayBacked``, by which pandas makes an empty array that its state fills.

    Parameters
    ----------
    kind : the class of the array, or its stand-in.
    checksum : of the class's fields; pandas compares it with its own.
    state : mostly None, and set afterwards.
    """
    if isinstance(kind, type) and issubclass(kind, StandIn):
        return kind()
    made: Any = importlib.import_module("pandas._libs.arrays")
    return made.__pyx_unpickle_NDArrayBacked(kind, checksum, state)


def pandas_names() -> dict[tuple[str, str], Callable[[], Any]]:
    """(module, name) -> what it becomes, for pickled DataFrames, Series and Indexes."""

    def later(module: str, name: str) -> Callable[[], Any]:
        return lambda: getattr(importlib.import_module(module), name)

    same = {
        "pandas.core.frame": ["DataFrame"],
        "pandas.core.series": ["Series"],
        "pandas.core.internals.managers": ["BlockManager", "SingleBlockManager"],
        "pandas.core.internals.blocks": ["new_block"],
        "pandas._libs.internals": ["_unpickle_block"],
        "pandas._libs.missing": ["NA"],
        "pandas.core.indexes.base": ["_new_Index", "Index"],
        "pandas.core.indexes.range": ["RangeIndex"],
        "pandas.core.indexes.multi": ["MultiIndex"],
        "pandas.core.indexes.category": ["CategoricalIndex"],
        "pandas.core.arrays.categorical": ["Categorical"],
        "pandas.core.arrays.datetimes": ["DatetimeArray"],
        "pandas.core.arrays.timedeltas": ["TimedeltaArray"],
        "pandas.core.dtypes.dtypes": ["CategoricalDtype"],
        "pandas.core.arrays.string_": ["StringDtype"],
        "pandas.arrays": ["DatetimeArray", "TimedeltaArray"],
    }
    names = {(module, name): later(module, name) for module, listed in same.items() for name in listed}
    for old in ("Int64Index", "UInt64Index", "Float64Index"):
        names["pandas.core.indexes.numeric", old] = later("pandas.core.indexes.base", "Index")
    public = ("DataFrame", "Series", "Index", "RangeIndex", "MultiIndex", "Categorical", "CategoricalDtype")
    names |= {("pandas", name): later("pandas", name) for name in (*public, "CategoricalIndex", "StringDtype", "NA")}
    names["pandas._libs.arrays", "__pyx_unpickle_NDArrayBacked"] = lambda: backed_array
    return names | _stand_ins()


def _stand_ins() -> dict[tuple[str, str], Callable[[], Any]]:
    names: dict[tuple[str, str], Callable[[], Any]] = {
        ("pyarrow.lib", "type_for_alias"): lambda: arrow_type,
        ("pyarrow.lib", "py_buffer"): lambda: arrow_buffer,
        ("pyarrow.lib", "_restore_array"): lambda: arrow_texts,
    }
    arrays: dict[str, tuple[str, type[StandIn]]] = {
        "StringArray": ("string_", StoredTexts),
        "StringArrayNumpySemantics": ("string_", StoredTexts),
        "ArrowStringArray": ("string_arrow", StoredTexts),
        "ArrowStringArrayNumpySemantics": ("string_arrow", StoredTexts),
        "IntegerArray": ("integer", StoredIntegers),
        "FloatingArray": ("floating", StoredFloats),
        "BooleanArray": ("boolean", StoredTruths),
    }
    for name, (module, kind) in arrays.items():
        for place in ("pandas.arrays", f"pandas.core.arrays.{module}"):
            names[place, name] = lambda kind=kind: kind  # type: ignore[misc]
    types = [("integer", f"{sign}Int{bits}Dtype") for sign in ("", "U") for bits in (8, 16, 32, 64)]
    for module, name in (
        *types,
        ("floating", "Float32Dtype"),
        ("floating", "Float64Dtype"),
        ("boolean", "BooleanDtype"),
    ):
        for place in ("pandas", f"pandas.core.arrays.{module}"):
            names[place, name] = lambda: Bag  # it stands beside values that tell their type themselves
    return names
