"""The reading half of the prediction store: blocks, records, status and rows; never writes a byte.

``PredictionStore`` adds the writing. Which rows may be used for learning is handled by ``store_source``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd

from pertstack._base.digests import digest_names
from pertstack._base.errors import CorruptionError, InputError, unknown_name
from pertstack._base.files import read_json
from pertstack._base.findings import Finding
from pertstack.data.rows import Float32, Names
from pertstack.design.blocks import Block, Role
from pertstack.predictions.store import lifecycle
from pertstack.predictions.store.files import layout, skeleton
from pertstack.predictions.store.files.anchors import Anchors
from pertstack.predictions.store.files.chunks import DTYPE, announce_rows, read_rows
from pertstack.predictions.store.files.names import NESTED_PREFIX, TRUTH_LAYERS
from pertstack.predictions.store.files.provenance import read_fit_ids
from pertstack.predictions.store.files.record import Kind, Record, read_record
from pertstack.predictions.store.files.rounding import Rounding
from pertstack.predictions.store.verify import verify_store

Status = Literal["committed", "absent", "missing"]


class StoreReader:
    """What can be known of a store without changing it."""

    sealed_bytes: ClassVar[int] = 0
    """How much longer its chunk files are than their records say, because they are encrypted; see ``sealed.py``."""

    def __init__(self, root: Path, facts: layout.StoreFacts, gene_names: Sequence[str], read_only: bool) -> None:
        self.root = Path(root)
        self.facts = facts
        self.read_only = read_only
        self._genes = list(gene_names)
        self._obs: dict[Block, pd.DataFrame] = {}
        self._ids: dict[Block, list[str]] = {}
        self._block_facts: dict[Block, dict[str, Any]] = {}
        self._roundings: dict[Block, Rounding | None] = {}
        self._anchors: dict[str, Anchors | None] = {}
        self._records: dict[Path, tuple[tuple[int, int, int], Record]] = {}

    @classmethod
    def open(cls, root: str | Path, read_only: bool = False) -> Self:
        """An existing store. Nothing is read but its root; damaged blocks are found when they are read, or by
        ``verify``."""
        facts, genes = layout.read_root(Path(root))
        return cls(Path(root), facts, genes, read_only)

    @property
    def gene_names(self) -> Names:
        return np.asarray(self._genes, dtype=object)

    @property
    def plan_digest(self) -> str | None:
        return self.facts.plan_digest

    @property
    def uuid(self) -> str:
        return self.facts.uuid

    # -- blocks ---

    def blocks(self, role: Role | None = None) -> list[Block]:
        """Registered blocks in their fixed order."""
        return [b for b in layout.list_blocks(self.root) if role is None or b.role == role]

    def block_facts(self, block: Block) -> dict[str, Any]:
        """n and digests of a block, checked against its folder and the store's genes."""
        if block not in self._block_facts:
            path = layout.block_folder(self.root, block)
            if not (path / "zarr.json").is_file():
                raise unknown_name("block", block.id, [b.id for b in self.blocks()])
            facts = skeleton.read_block_facts(path)
            if facts["block"] != block.id or facts["genes_sha256"] != self.facts.genes_sha256:
                raise CorruptionError(
                    f"{path} says it is block {facts['block']} over genes {facts['genes_sha256'][:12]}, but it stands "
                    f"as "
                    f"{block.id} in a store over genes {self.facts.genes_sha256[:12]}: it was copied or renamed here."
                )
            self._block_facts[block] = facts
        return self._block_facts[block]

    def n_samples(self, block: Block) -> int:
        return int(self.block_facts(block)["n"])

    def obs(self, block: Block) -> pd.DataFrame:
        """Metadata of a block, index = sample ids in the plan's order (a copy)."""
        if block not in self._obs:
            facts = self.block_facts(block)
            obs = skeleton.read_obs(layout.block_folder(self.root, block))
            if digest_names(obs.index) != facts["samples_sha256"]:
                raise CorruptionError(
                    f"{layout.block_folder(self.root, block) / 'obs'} does not hold the samples of block {block.id}: "
                    f"it was changed since. Restore it from a copy."
                )
            self._obs[block] = obs
        return self._obs[block].copy()

    def sample_ids(self, block: Block) -> list[str]:
        """Sample ids of a block in the plan's order."""
        if block not in self._ids:
            self._ids[block] = [str(i) for i in self.obs(block).index]
        return self._ids[block]

    def rounding(self, block: Block, layer: str, kind: Kind = "layer") -> Rounding | None:
        """How values of a layer are rounded; None if they are kept as they are: in blocks without a rounding,
        measured effects, embeddings.

        Parameters
        ----------
        block, layer, kind : as in ``find``.
        """
        if kind != "layer" or layer == "effect":
            return None
        if block not in self._roundings:
            folder = layout.block_folder(self.root, block)
            self._roundings[block] = skeleton.read_rounding(folder, self.block_facts(block))
        return self._roundings[block]

    # -- looking -----------------------------------------------------------------------------------------------------

    def find(self, block: Block, model: str, kind: Kind = "layer") -> Record | None:
        """The record of a committed array, checked against its place; None when there is none.

        Parameters
        ----------
        block : of the store.
        model : name, or a measured layer.
        kind : "layer" or "embedding".

        Raises
        ------
        CorruptionError
            The record is damaged, or of another place.
        """
        path = layout.array_folder(self.root, block, model, kind=kind) / "zarr.json"
        try:
            stat = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        key = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if path in self._records and self._records[path][0] == key:
            return self._records[path][1]
        value, grid = read_record(path)
        record = Record.from_json(value, grid, read_fit_ids(self.root, value))
        lifecycle.check_place(
            path, record, self.facts, block_facts=self.block_facts(block), block=block, model=model, kind=kind
        )
        self._records[path] = (key, record)
        return record

    def record(self, block: Block, model: str, kind: Kind = "layer") -> Record:
        """As ``find``, for an array that must be there.

        Parameters
        ----------
        block, model, kind : as in ``find``.

        Raises
        ------
        UnknownNameError
            Nothing is committed.
        """
        found = self.find(block, model, kind)
        if found is None:
            raise unknown_name(f"{kind} in block {block.id}:", model, layout.list_arrays(self.root, block, kind))
        return found

    def forget(self, path: Path) -> None:
        """Read a record afresh next time, as an audit must."""
        self._records.pop(path, None)

    def records(self, model: str | None = None) -> list[Record]:
        """Every committed array, block by block; measured layers included unless one model is asked for."""
        found = []
        for block in self.blocks():
            for kind in ("layer", "embedding"):
                for name in layout.list_arrays(self.root, block, kind):
                    if model is None or name == model:
                        found.append(self.record(block, name, kind))
        return found

    def layers(self, block: Block) -> list[str]:
        """Names of all layers committed in a block, measured ones included."""
        return list(layout.list_arrays(self.root, block))

    def models(self, *, nested: bool = False) -> list[str]:
        """Names of all models with a committed block, sorted; never 'treated', 'control' or 'effect'.

        ``nested``: the layers of nested fits instead (``names.nested_name``), which are no separate models.
        """
        names = {name for block in self.blocks() for name in layout.list_arrays(self.root, block)}
        return sorted(n for n in names.difference(TRUTH_LAYERS) if n.startswith(NESTED_PREFIX) == nested)

    def embeddings(self, block: Block) -> list[str]:
        """Models with an embedding of this block."""
        return list(layout.list_arrays(self.root, block, "embedding"))

    def status(self, block: Block, model: str) -> Status:
        """'committed', 'absent' (will not come, with a reason) or 'missing' (not yet)."""
        self.block_facts(block)
        if (layout.array_folder(self.root, block, model) / "zarr.json").is_file():
            return "committed"
        return "absent" if layout.absent_file(self.root, block, model).is_file() else "missing"

    def status_table(self, models: Sequence[str] | None = None) -> pd.DataFrame:
        """Blocks (rows, by id) × models (columns): committed, absent or missing."""
        return lifecycle.status_table(self.root, self.blocks(), models)

    def absent_reason(self, block: Block, model: str) -> str | None:
        path = layout.absent_file(self.root, block, model)
        return str(read_json(path)["reason"]) if path.is_file() else None

    # -- reading -----------------------------------------------------------------------------------------------------

    def read(
        self,
        block: Block,
        layer: str,
        *,
        start: int = 0,
        stop: int | None = None,
        out: Float32 | None = None,
        verify: bool = False,
    ) -> Float32:
        """Rows of one layer, float32 (rows, n_genes); those announced as missing, and such genes, are NaN.

        Parameters
        ----------
        block : of the store.
        layer : a model, "control", "treated" or "effect".
        start, stop : rows [start, stop); None for the end.
        out : array to fill (reuse it: fresh memory is slow); None makes one.
        verify : hash every chunk touched against the record.

        Raises
        ------
        UnknownNameError
            Nothing is committed.
        CorruptionError
            A file is missing or of another size; with ``verify``, of other bytes.
        """
        return self._read(self.record(block, layer), start, stop, out=out, verify=verify)

    def read_embedding(self, block: Block, model: str, *, start: int = 0, stop: int | None = None) -> Float32:
        """Rows of a model's embedding, float32 (rows, d).

        Parameters
        ----------
        block, model : of the store.
        start, stop : rows [start, stop); None for the end.
        """
        return self._read(self.record(block, model, "embedding"), start, stop, out=None, verify=False)

    def prefetch(self, block: Block, layer: str, *, start: int, stop: int) -> None:
        """Ask the disk for rows [start, stop) of a layer, if it is committed; ``read`` takes them then."""
        record = self.find(block, layer)
        if record is not None:
            folder = layout.array_folder(self.root, block, layer)
            announce_rows(folder, record.grid, start=max(start, 0), stop=min(stop, record.grid.n))

    def _read(self, record: Record, start: int, stop: int | None, out: Float32 | None, verify: bool) -> Float32:
        grid = record.grid
        stop = grid.n if stop is None else stop
        if not 0 <= start <= stop <= grid.n:
            raise InputError(f"Rows [{start}, {stop}) are outside block {record.block.id}, which has {grid.n:,} rows.")
        shape = (stop - start, grid.width)
        if out is None:
            out = np.empty(shape, DTYPE)
        if out.shape != shape or out.dtype != DTYPE or not out.flags.c_contiguous:
            raise InputError(f"out must be C-contiguous float32 of shape {shape}, not {out.dtype} {out.shape}.")
        self._fill(record, start, stop, out=out, verify=verify)
        return out

    def _fill(self, record: Record, start: int, stop: int, out: Float32, verify: bool) -> None:
        folder = layout.array_folder(self.root, record.block, record.model, kind=record.kind)
        kept = out if record.grid.dtype == DTYPE else np.empty(out.shape, record.grid.dtype)
        read_rows(folder, record.grid, start=start, stop=stop, out=kept, facts=record.chunks if verify else None)
        self._decode(record, kept, out)

    def _decode(self, record: Record, kept: np.ndarray[Any, Any], out: Float32) -> None:
        """Values of the codes that are kept; of float32 nothing is left to do."""
        if record.grid.dtype != DTYPE:
            rounding = self.rounding(record.block, record.model, record.kind)
            assert rounding is not None  # ``check_place`` has seen to it
            rounding.values(kept, out)

    def verify(self, deep: bool = False, whole: Collection[Block] = ()) -> list[Finding]:
        """Audit, naming the exact file of each fault. Every byte when ``deep``, but for blocks found ``whole``."""
        return verify_store(self, deep=deep, whole=whole)
