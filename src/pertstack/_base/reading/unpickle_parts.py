"""What arrays, dtypes and tensors of a foreign pickle become on the way: stand-ins that hold data and run nothing.

An array is made only of bytes that lie in the file and fit its shape; a dtype comes from a short list of words, and
what else its state says is not believed.
"""

from __future__ import annotations

import collections
import math
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from pertstack._base.errors import InputError

STORAGES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_DTYPES = re.compile(r"[|<>=]?(?:[?bBhHiIlLqQefdgFDGO]|[biufc]\d{1,2}|[SU]\d{1,7}|O8|[mM]8(?:\[\w+\])?)")
MOST_REPEATED = 10**7
"""Numbers of a tensor that repeats those of its storage (a stride of 0); with more it is made to fill the memory."""


class StandIn:
    """Holds what a pickle says of an array, in the place of a class whose own way out of a pickle is not trusted."""

    def real(self) -> Any:
        """The array itself.

        Raises
        ------
        UnpicklingError, ValueError, TypeError
            Its parts do not fit each other.
        """
        raise NotImplementedError


class Bag:
    """A plain holder of attributes, in the place of an object whose class is not imported."""

    def __setstate__(self, state: Any) -> None:
        parts = state if isinstance(state, tuple) else (state,)
        for part in parts:
            if isinstance(part, dict):
                self.__dict__.update({str(k): v for k, v in part.items()})

    def attributes(self) -> dict[str, Any]:
        """The attributes, those of a torch_geometric store included."""
        store = self.__dict__.get("_store")
        inner = store.attributes() if isinstance(store, Bag) else {}
        mapping = self.__dict__.get("_mapping")
        own = {k: v for k, v in self.__dict__.items() if not k.startswith("_")}
        return {**own, **inner, **(mapping if isinstance(mapping, dict) else {})}


class StoredTensor:
    """A tensor whose numbers are still in the file; ``read()`` gives them as a numpy array."""

    def __init__(self, storage: Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.storage, self.offset, self.shape, self.stride = storage, int(offset), tuple(shape), tuple(stride)
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True)) + 1
        if any(n < 0 for n in self.shape) or any(s < 0 for s in self.stride) or self.offset < 0:
            raise pickle.UnpicklingError("a tensor with a negative size, stride or offset")
        if all(self.shape) and last > storage.numel:
            raise pickle.UnpicklingError(f"a tensor that reaches beyond its storage ({last} > {storage.numel})")
        if math.prod(self.shape) > max(storage.numel, MOST_REPEATED):
            raise pickle.UnpicklingError(f"a tensor of {math.prod(self.shape):,} numbers out of {storage.numel:,}")

    def read(self) -> np.ndarray[Any, Any]:
        """The numbers, as a separate array."""
        flat = self.storage.read()[self.offset :]
        if not all(self.shape):
            return np.zeros(self.shape, dtype=flat.dtype)
        strides = tuple(s * flat.itemsize for s in self.stride)
        return np.lib.stride_tricks.as_strided(flat, self.shape, strides, writeable=False).copy()


class Storage:
    """The numbers behind tensors: one member of a .pt file."""

    def __init__(self, archive: TorchArchive, key: str, dtype: str, numel: int) -> None:
        self.archive, self.key, self.dtype, self.numel = archive, key, dtype, int(numel)

    def read(self) -> np.ndarray[Any, Any]:
        raw = self.archive.member(f"data/{self.key}")
        dtype = np.dtype(self.dtype).newbyteorder(self.archive.byteorder)
        if len(raw) < self.numel * dtype.itemsize:
            raise InputError(f"{self.archive.path}: storage {self.key} is cut short. Copy the file again.")
        return np.frombuffer(raw, dtype=dtype, count=self.numel).astype(np.dtype(self.dtype), copy=False)


class TorchArchive:
    """The zip file that ``torch.save`` writes since version 1.6."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        names = self._file().namelist()
        pickles = [n for n in names if n.endswith("/data.pkl") or n == "data.pkl"]
        if len(pickles) != 1:
            raise InputError(f"{path} is a zip file, but not one that torch.save wrote (it has no data.pkl).")
        self.prefix = pickles[0].removesuffix("data.pkl")
        order = self.member("byteorder").decode() if f"{self.prefix}byteorder" in names else "little"
        self.byteorder: Any = "<" if order == "little" else ">"

    def _file(self) -> zipfile.ZipFile:
        if self._zip is None:
            self._zip = zipfile.ZipFile(self.path)
        return self._zip

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_zip": None}

    def member(self, name: str) -> bytes:
        return self._file().read(self.prefix + name)


class StoredDtype:
    """The type of numbers an array holds, from a short list of words: nothing of a pickle's own makes it."""

    def __init__(self, spec: Any, *_: Any) -> None:
        if not isinstance(spec, str) or not _DTYPES.fullmatch(spec):
            raise pickle.UnpicklingError(f"it holds an array of the type {spec!r}, which is none of numbers and texts")
        self.real = np.dtype(spec)

    def __setstate__(self, state: Any) -> None:
        """Byte order, and the unit of times; what else a state may say (flags, sizes) is not believed."""
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in "<>=|" or state[2:5] != (None,) * 3:
            raise pickle.UnpicklingError("it holds an array of a type with fields, which is none of numbers and texts")
        if self.real.kind in "mM" and len(state) > 8:
            self.real = np.dtype(f"{self.real.kind}8[{state[8][1][0].decode('ascii')}]")
        self.real = self.real.newbyteorder(state[1])


class StoredArray(np.ndarray):
    """An array on its way out of a pickle: its bytes are taken only when they fit its shape and type."""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        real = dtype.real if isinstance(dtype, StoredDtype) else None
        if real is None or not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise pickle.UnpicklingError("it holds an array without a type or shape")
        data = data.encode("latin1") if isinstance(data, str) else data
        held = len(data) if isinstance(data, list) else len(data) // max(1, real.itemsize)
        if isinstance(data, list) != real.hasobject or held != math.prod(shape):
            raise pickle.UnpicklingError(f"it holds an array whose values do not fill its shape {shape}")
        super().__setstate__((1, shape, real, bool(fortran), data))  # type: ignore[arg-type]


def reconstruct_array(*_: Any) -> StoredArray:
    return np.ndarray.__new__(StoredArray, (0,), np.dtype("i1"))


def scalar(dtype: Any, raw: Any = b"") -> Any:
    if not isinstance(dtype, StoredDtype) or dtype.real.hasobject or not isinstance(raw, bytes | str):
        raise pickle.UnpicklingError("it holds a number of an unknown type")
    return np.frombuffer(raw if isinstance(raw, bytes) else raw.encode("latin1"), dtype.real, count=1)[0]


def bare(value: Any, depth: int = 0) -> Any:
    """Plain numpy in the place of what stood for it on the way."""
    if isinstance(value, StoredArray):
        return value.view(np.ndarray)
    if isinstance(value, StoredDtype):
        return value.real
    if isinstance(value, StandIn):
        return value.real()
    if depth > 20:
        return value
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(bare(v, depth + 1) for v in value)
    if type(value) in (dict, collections.OrderedDict):
        return type(value)((k, bare(v, depth + 1)) for k, v in value.items())
    return value


def encode(text: str, encoding: str = "latin1", errors: str = "strict") -> bytes:
    """``_codecs.encode``, as pickles of protocol 2 call it for their bytes.

    Parameters
    ----------
    text : one character per byte.
    encoding : latin1, utf-8 or ascii; any other is read as latin1.
    errors : as of ``str.encode``.
    """
    return text.encode(encoding if encoding in {"latin1", "latin-1", "utf-8", "ascii"} else "latin1", errors)


def byte_array(content: Any = b"", encoding: str = "latin1") -> bytearray:
    """The bytes that stand in the file; a number would ask for so many zeros."""
    if not isinstance(content, bytes | str):
        raise pickle.UnpicklingError(f"a bytearray made of {type(content).__name__}")
    return bytearray(encode(content, encoding) if isinstance(content, str) else content)


def frombuffer(buffer: Any, dtype: Any, shape: tuple[int, ...], order: Any, axis_order: Any = None) -> Any:
    """An array of a pickle of protocol 5, copied. numpy's pickles name this function and give four values by position.

    Parameters
    ----------
    buffer : its bytes.
    dtype : a ``StoredDtype`` of numbers or texts, no objects.
    shape : of the array.
    order : "C" or "F".
    axis_order : not used; newer numpy names it.

    Raises
    ------
    UnpicklingError
        The type is not plain.
    """
    if not isinstance(dtype, StoredDtype) or dtype.real.hasobject:
        raise pickle.UnpicklingError("it holds an array without a plain type")
    return np.frombuffer(buffer, dtype=dtype.real).reshape(shape, order=order).copy()
