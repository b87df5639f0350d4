"""Other people's pickles and .pt files, read without running their code.

Only numpy arrays, pandas tables, torch storages (as numpy, torch itself is not needed) and plain containers are
admitted; torch_geometric's ``Data`` becomes a bag of attributes. Anything else is refused by name, because a pickle
can run any program. pertstack writes no pickles.
"""

from __future__ import annotations

import collections
import copyreg
import gzip
import io
import math
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from pertstack._base.errors import InputError, MissingFileError

_STORAGES = {
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
_BAGS = {
    ("torch_geometric.data.data", "Data"),
    ("torch_geometric.data.storage", "GlobalStorage"),
    ("torch_geometric.data.storage", "BaseStorage"),
    ("torch_geometric.data", "Data"),
    ("argparse", "Namespace"),
    ("types", "SimpleNamespace"),
}


MOST_REPEATED = 10**7
"""Numbers of a tensor that repeats those of its storage (a stride of 0); with more it is made to fill the memory."""


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


def _refuse(module: str, name: str, path: Path) -> pickle.UnpicklingError:
    mend = "Save the data as .h5ad, .npz or .parquet where it was made."
    if module.split(".")[0] == "anndata":
        mend = (
            f"Where you trust the file and anndata is installed, write its AnnData out, one file for each model:\n"
            f"python -c \"import pickle; d = pickle.load(open({str(path)!r}, 'rb')); d = d if isinstance(d, dict) else "
            f"{{{path.stem!r}: d}}; [a.write_h5ad(f'{{n}}.h5ad') for n, a in d.items()]\""
        )
    return pickle.UnpicklingError(
        f"{path} wants to load {module}.{name}. Only numpy arrays, pandas tables, torch tensors and plain containers "
        f"are read from pickles, because anything else could run a program. {mend}"
    )


class _Dtype:
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


class _Array(np.ndarray):
    """An array on its way out of a pickle: its bytes are taken only when they fit its shape and type."""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        real = dtype.real if isinstance(dtype, _Dtype) else None
        if real is None or not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise pickle.UnpicklingError("it holds an array without a type or shape")
        data = data.encode("latin1") if isinstance(data, str) else data
        held = len(data) if isinstance(data, list) else len(data) // max(1, real.itemsize)
        if isinstance(data, list) != real.hasobject or held != math.prod(shape):
            raise pickle.UnpicklingError(f"it holds an array whose values do not fill its shape {shape}")
        super().__setstate__((1, shape, real, bool(fortran), data))  # type: ignore[arg-type]


def _reconstruct_array(*_: Any) -> _Array:
    return np.ndarray.__new__(_Array, (0,), np.dtype("i1"))


def _scalar(dtype: Any, raw: Any = b"") -> Any:
    if not isinstance(dtype, _Dtype) or dtype.real.hasobject or not isinstance(raw, bytes | str):
        raise pickle.UnpicklingError("it holds a number of an unknown type")
    return np.frombuffer(raw if isinstance(raw, bytes) else raw.encode("latin1"), dtype.real, count=1)[0]


def _bare(value: Any, depth: int = 0) -> Any:
    """Plain numpy in the place of what stood for it on the way."""
    if isinstance(value, _Array):
        return value.view(np.ndarray)
    if isinstance(value, _Dtype):
        return value.real
    if depth > 20:
        return value
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(_bare(v, depth + 1) for v in value)
    if type(value) in (dict, collections.OrderedDict):
        return type(value)((k, _bare(v, depth + 1)) for k, v in value.items())
    return value


_InPython: Any = pickle._Unpickler  # every call and every state can be looked at


class _Restricted(_InPython):  # type: ignore[misc]
    """An unpickler that knows a short list of names, and lets them build nothing but data."""

    dispatch: ClassVar[dict[int, Any]] = dict(_InPython.dispatch)

    def __init__(self, stream: BinaryIO, path: Path, archive: TorchArchive | None, lazy: bool) -> None:
        super().__init__(stream, encoding="latin1" if archive is None else "utf-8")
        self._path, self._archive, self._lazy = path, archive, lazy
        self._names = _allowed()

    def load_build(self) -> None:
        """A state goes to an instance, never to a class or function, and brings no function with it."""
        instance, state = self.stack[-2], self.stack[-1]
        if isinstance(instance, type) or (callable(instance) and not isinstance(instance, Bag)):
            raise pickle.UnpicklingError(f"{self._path} changes {instance!r}, which is no data. It is not read.")
        if not isinstance(instance, _Array | _Dtype):
            state = self.stack[-1] = _bare(state)
            parts = state if isinstance(state, tuple) else (state,)
            if any(isinstance(p, dict) and any(map(callable, p.values())) for p in parts):
                raise pickle.UnpicklingError(f"{self._path} brings functions among its data. It is not read.")
        super().load_build()

    def _refuse_array(self, kind: Any) -> None:
        if kind is _Array:
            raise pickle.UnpicklingError(f"{self._path} builds an array in an unknown way. It is not read.")

    def load_reduce(self) -> None:
        function = self.stack[-2]
        self._refuse_array(function)
        if function not in (_scalar, _frombuffer, _reconstruct_array, self._tensor):
            self.stack[-1] = _bare(self.stack[-1])
        super().load_reduce()

    def load_newobj(self) -> None:
        self._refuse_array(self.stack[-2])
        self.stack[-1] = _bare(self.stack[-1])
        super().load_newobj()

    def load_newobj_ex(self) -> None:
        self._refuse_array(self.stack[-3])
        super().load_newobj_ex()

    def _instantiate(self, kind: Any, args: Any) -> None:  # of protocols 0 and 1
        self._refuse_array(kind)
        super()._instantiate(kind, _bare(args))

    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex
    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return self._tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return lambda tensor, *_: tensor
        if module in {"torch", "torch.storage"} and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) in _BAGS:
            return Bag
        if (module, name) == ("copyreg", "_reconstructor") or (module, name) == ("copy_reg", "_reconstructor"):
            return self._reconstruct
        found = self._names.get((module, name))
        if found is None:
            raise _refuse(module, name, self._path)
        return found()

    def persistent_load(self, pid: Any) -> Any:
        if self._archive is None or not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage":
            raise pickle.UnpicklingError(
                f"{self._path} refers to something outside itself ({type(pid).__name__}); that is refused."
            )
        _, dtype, key, _, numel = pid
        if dtype not in _STORAGES.values() or not str(key).isalnum():
            raise pickle.UnpicklingError(f"{self._path} holds a storage of unknown kind ({dtype!r}, {key!r}).")
        return Storage(self._archive, str(key), dtype, numel)

    def _tensor(self, storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Any:
        if not isinstance(storage, Storage):
            raise pickle.UnpicklingError(f"{self._path} builds a tensor from something that is no storage.")
        tensor = StoredTensor(storage, offset, tuple(size), tuple(stride))
        return tensor if self._lazy else tensor.read()

    def _reconstruct(self, kind: Any, base: Any, state: Any) -> Any:
        if kind is not Bag:
            raise _refuse("copyreg", "_reconstructor", self._path)
        return Bag()


def _allowed() -> dict[tuple[str, str], Callable[[], Any]]:
    """(module, name) -> what it becomes; looked up on use, so pandas is touched only when a pickle needs it."""

    names: dict[tuple[str, str], Callable[[], Any]] = {
        ("collections", "OrderedDict"): lambda: collections.OrderedDict,
        ("collections", "defaultdict"): lambda: collections.defaultdict,
        ("builtins", "slice"): lambda: slice,
        ("builtins", "set"): lambda: set,
        ("builtins", "frozenset"): lambda: frozenset,
        ("builtins", "bytearray"): lambda: _byte_array,
        ("builtins", "complex"): lambda: complex,
        ("builtins", "object"): lambda: object,
        ("builtins", "list"): lambda: list,
        ("builtins", "dict"): lambda: dict,
        ("__builtin__", "slice"): lambda: slice,
        ("__builtin__", "set"): lambda: set,
        ("__builtin__", "object"): lambda: object,
        ("_codecs", "encode"): lambda: _encode,
        ("copyreg", "__newobj__"): lambda: copyreg.__newobj__,  # type: ignore[attr-defined]
        ("numpy", "ndarray"): lambda: _Array,
        ("numpy", "dtype"): lambda: _Dtype,
        ("torch", "Size"): lambda: tuple,
    }
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        names[module, "_reconstruct"], names[module, "scalar"] = lambda: _reconstruct_array, lambda: _scalar
    for module in ("numpy.core.numeric", "numpy._core.numeric"):
        names[module, "_frombuffer"] = lambda: _frombuffer
    return names | _pandas_names()


def _encode(text: str, encoding: str = "latin1", errors: str = "strict") -> bytes:
    return text.encode(encoding if encoding in {"latin1", "latin-1", "utf-8", "ascii"} else "latin1", errors)


def _byte_array(content: Any = b"", encoding: str = "latin1") -> bytearray:
    """The bytes that stand in the file; a number would ask for so many zeros."""
    if not isinstance(content, bytes | str):
        raise pickle.UnpicklingError(f"a bytearray made of {type(content).__name__}")
    return bytearray(_encode(content, encoding) if isinstance(content, str) else content)


def _frombuffer(buffer: Any, dtype: Any, shape: tuple[int, ...], order: Any, axis_order: Any = None) -> Any:
    # numpy's pickles of protocol 5 name it and give four values by position
    if not isinstance(dtype, _Dtype) or dtype.real.hasobject:
        raise pickle.UnpicklingError("it holds an array without a plain type")
    return np.frombuffer(buffer, dtype=dtype.real).reshape(shape, order=order).copy()


def _pandas_names() -> dict[tuple[str, str], Callable[[], Any]]:
    """Names that pickled DataFrames, Series and Indexes of pandas 1 and 2 consist of."""
    import importlib

    def later(module: str, name: str) -> Callable[[], Any]:
        return lambda: getattr(importlib.import_module(module), name)

    same = {
        "pandas.core.frame": ["DataFrame"],
        "pandas.core.series": ["Series"],
        "pandas.core.internals.managers": ["BlockManager", "SingleBlockManager"],
        "pandas._libs.internals": ["_unpickle_block"],
        "pandas.core.indexes.base": ["_new_Index", "Index"],
        "pandas.core.indexes.range": ["RangeIndex"],
        "pandas.core.indexes.multi": ["MultiIndex"],
        "pandas.core.arrays.categorical": ["Categorical"],
        "pandas.core.dtypes.dtypes": ["CategoricalDtype"],
        "pandas.core.indexes.category": ["CategoricalIndex"],
        "pandas._libs.arrays": ["__pyx_unpickle_NDArrayBacked"],
        "pandas.core.arrays.string_": ["StringArray", "StringDtype"],
    }
    names = {(module, name): later(module, name) for module, listed in same.items() for name in listed}
    for old in ("Int64Index", "UInt64Index", "Float64Index"):
        names["pandas.core.indexes.numeric", old] = later("pandas.core.indexes.base", "Index")
    names["pandas.core.internals.blocks", "new_block"] = later("pandas.core.internals.blocks", "new_block")
    return names


def load_pickle(path: str | Path) -> Any:
    """What a pickle (perhaps gzipped) holds: numpy, pandas and plain containers only.

    Raises
    ------
    InputError
        The pickle is damaged, or wants to load anything else (named in the message).
    """
    path = _existing(path)
    with path.open("rb") as raw:
        stream: Any = gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == b"\x1f\x8b" else raw
        return _load(stream, path, None, False)


def load_torch(path: str | Path, *, lazy: bool = False) -> Any:
    """What ``torch.save`` wrote, without torch: tensors as numpy arrays, or as ``StoredTensor`` when ``lazy``."""
    path = _existing(path)
    if not zipfile.is_zipfile(path):
        raise InputError(
            f"{path} is not in torch's zip format (used since torch 1.6). Load it with torch where it was made and "
            f"save it again."
        )
    archive = TorchArchive(path)
    return _load(io.BytesIO(archive.member("data.pkl")), path, archive, lazy)


def load_object_array(stream: BinaryIO, path: Path) -> Any:
    """The pickle behind the header of an ``.npy`` of Python objects (texts, mostly), read as ``load_pickle`` reads."""
    return _load(stream, path, None, False)


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise MissingFileError(f"{path} does not exist. Check the path.")
    return path


def _load(stream: Any, path: Path, archive: TorchArchive | None, lazy: bool) -> Any:
    try:
        return _bare(_Restricted(stream, path, archive, lazy).load())
    except pickle.UnpicklingError as error:
        raise InputError(
            str(error) if str(path) in str(error) else f"{path} cannot be read as a pickle: {error}."
        ) from error
    except (
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
        IndexError,
        ImportError,
        MemoryError,
        AssertionError,
        OverflowError,
        RecursionError,
        struct.error,
        OSError,
        zlib.error,
    ) as error:
        raise InputError(
            f"{path} cannot be read as a pickle ({type(error).__name__}: {error}). It is damaged, or written by a "
            f"version of pandas or numpy too different from this one; save it as .parquet or .npz where it was made."
        ) from error
