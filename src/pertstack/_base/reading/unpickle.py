"""Other people's pickles and .pt files, read without running their code.

Only numpy arrays, pandas tables, torch storages (as numpy, torch itself is not needed) and plain containers are
admitted; torch_geometric's ``Data`` becomes a bag of attributes. Anything else is refused by name, because a pickle
can run any program. A file is read in a child process with limits before it is read here. pertstack writes no pickles.
"""

from __future__ import annotations

import collections
import copyreg
import gzip
import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from pertstack._base.errors import InputError, MissingFileError
from pertstack._base.reading.damage import require_modest_members
from pertstack._base.reading.tried_first import tried_first
from pertstack._base.reading.unpickle_pandas import pandas_names
from pertstack._base.reading.unpickle_parts import (
    STORAGES,
    Bag,
    Storage,
    StoredArray,
    StoredDtype,
    StoredTensor,
    TorchArchive,
    bare,
    byte_array,
    encode,
    frombuffer,
    reconstruct_array,
    scalar,
)

_BAGS = {
    ("torch_geometric.data.data", "Data"),
    ("torch_geometric.data.storage", "GlobalStorage"),
    ("torch_geometric.data.storage", "BaseStorage"),
    ("torch_geometric.data", "Data"),
    ("argparse", "Namespace"),
    ("types", "SimpleNamespace"),
}


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
        if isinstance(instance, type) or callable(instance) or type(instance).__name__ == "NAType":
            raise pickle.UnpicklingError(f"{self._path} changes {instance!r}, which is no data. It is not read.")
        if not isinstance(instance, StoredArray | StoredDtype):
            state = self.stack[-1] = bare(state)
            parts = state if isinstance(state, tuple) else (state,)
            if any(isinstance(p, dict) and any(map(callable, p.values())) for p in parts):
                raise pickle.UnpicklingError(f"{self._path} brings functions among its data. It is not read.")
        super().load_build()

    def _refuse_array(self, kind: Any) -> None:
        if kind is StoredArray:
            raise pickle.UnpicklingError(f"{self._path} builds an array in an unknown way. It is not read.")

    def load_reduce(self) -> None:
        function = self.stack[-2]
        self._refuse_array(function)
        if function not in (scalar, frombuffer, reconstruct_array, self._tensor):
            self.stack[-1] = bare(self.stack[-1])
        super().load_reduce()

    def load_newobj(self) -> None:
        self._refuse_array(self.stack[-2])
        self.stack[-1] = bare(self.stack[-1])
        super().load_newobj()

    def load_newobj_ex(self) -> None:
        self._refuse_array(self.stack[-3])
        super().load_newobj_ex()

    def _instantiate(self, kind: Any, args: Any) -> None:  # of protocols 0 and 1
        self._refuse_array(kind)
        super()._instantiate(kind, bare(args))

    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex
    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return self._tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return lambda tensor, *_: tensor
        if module in {"torch", "torch.storage"} and name in STORAGES:
            return STORAGES[name]
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
        if dtype not in STORAGES.values() or not str(key).isalnum():
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
        ("_codecs", "encode"): lambda: encode,
        ("copyreg", "__newobj__"): lambda: copyreg.__newobj__,  # type: ignore[attr-defined]
        ("numpy", "ndarray"): lambda: StoredArray,
        ("numpy", "dtype"): lambda: StoredDtype,
        ("torch", "Size"): lambda: tuple,
    }
    plain = {"bytearray": byte_array} | {k.__name__: k for k in (slice, set, frozenset, complex, object, list, dict)}
    for name, kind in plain.items():
        names["builtins", name] = names["__builtin__", name] = lambda kind=kind: kind  # type: ignore[misc]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        names[module, "_reconstruct"], names[module, "scalar"] = lambda: reconstruct_array, lambda: scalar
    for module in ("numpy.core.numeric", "numpy._core.numeric"):
        names[module, "_frombuffer"] = lambda: frombuffer
    return names | pandas_names()


def load_pickle(path: str | Path) -> Any:
    """What a pickle (perhaps gzipped) holds: numpy, pandas and plain containers only.

    Raises
    ------
    InputError
        The pickle is damaged, or wants to load anything else (named in the message).
    """
    path = _existing(path)
    tried_first(path, f"{__name__}:read_pickle")
    return read_pickle(path)


def read_pickle(path: Path) -> Any:
    """``load_pickle`` in this process at once."""
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
    require_modest_members(path)  # storages are read later, and here
    tried_first(path, f"{__name__}:read_torch")
    return read_torch(path, lazy)


def read_torch(path: Path, lazy: bool = True) -> Any:
    """``load_torch`` in this process at once."""
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
        return bare(_Restricted(stream, path, archive, lazy).load())
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
