"""Streaming writer: rows of one block arrive in any order, a few at a time, and become one commit at the end.

Rows go straight to their place in staged chunk files of float32; each chunk is brought to the form in which it is kept
and hashed when the writer commits, so memory stays at one chunk whatever the size. The bytes are those of an ordinary
commit.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from pertstack._base.errors import InputError, MisalignedError, StorageError, first_few
from pertstack._base.files import storage_error
from pertstack.predictions.store.align import Take, as_names
from pertstack.predictions.store.commit import same_or_conflict, stamped
from pertstack.predictions.store.files import durable, layout
from pertstack.predictions.store.files.chunks import DTYPE, ChunkFacts, Grid, as_bytes, hash_chunk
from pertstack.predictions.store.files.record import Record
from pertstack.predictions.store.files.rounding import CODES
from pertstack.predictions.store.finite import check_finite

if TYPE_CHECKING:
    from pertstack.predictions.store.commits import StoreCommits


class RowWriter:
    """Made by ``PredictionStore.writer``. Use as a context manager: leaving without ``commit()`` leaves nothing
    behind."""

    def __init__(self, store: StoreCommits, draft: Record, n_columns: int, columns: Take | None) -> None:
        self._store, self._draft, self._n_columns, self._columns = store, draft, n_columns, columns
        self._order = {s: i for i, s in enumerate(store.sample_ids(draft.block))}
        self._gone = np.zeros(draft.grid.n, dtype=bool)
        self._gone[[self._order[s] for s in draft.missing_samples]] = True
        self._written = np.zeros(draft.grid.n, dtype=bool)
        self._drop = None if columns is None or (columns >= 0).all() else columns < 0
        self._rounding = store.rounding(draft.block, draft.model)
        self._lowest, self._highest = (np.full(draft.grid.width, np.nan, DTYPE) for _ in range(2))
        self._target = layout.array_folder(store.root, draft.block, draft.model)
        self._prepared: Record | None = None
        self._found: Record | None = None
        self._attempt = durable.new_attempt()
        self._stack = ExitStack()
        folder = self._stack.enter_context(durable.staging(store.root, self._attempt))
        self._staged = folder / "array"
        try:
            self._reserve()
        except OSError as error:
            self._stack.close()
            raise storage_error(error, self._staged) from error

    @property
    def what(self) -> str:
        return f"{self._draft.model!r} for block {self._draft.block.id}"

    def _path(self, index: int) -> Path:
        return self._staged / self._draft.grid.key(index)

    def _reserve(self) -> None:
        grid = self._draft.grid
        for index in range(grid.count):
            self._path(index).parent.mkdir(parents=True)
            with durable.new_file(self._path(index), grid.file_size):
                pass
            os.truncate(self._path(index), grid.file_size)

    def append(self, values: Any, sample_ids: Iterable[object]) -> None:
        """Some rows, (k, n columns), with their names.

        Raises
        ------
        MisalignedError
            A name is foreign, came before, or was announced as missing; or names and rows differ in number.
        InputError
            NaN or Inf.
        """
        ids = as_names(sample_ids)
        if np.shape(values) != (len(ids), self._n_columns):
            raise MisalignedError(
                f"{self.what}: {np.shape(values)} values for {len(ids):,} sample ids and {self._n_columns:,} genes. "
                f"Each row and column needs its name."
            )
        rows = self._rows(ids)
        part = np.asarray(values)
        if self._columns is not None:
            part = np.take(part, np.maximum(self._columns, 0), axis=1)
        with np.errstate(over="ignore"):
            part = np.ascontiguousarray(part, dtype=DTYPE)
        if self._drop is not None:
            part = part.copy()
            part[:, self._drop] = np.nan
        names = self._store.gene_names
        genes = [str(g) for g in names] if names is not None and len(names) == part.shape[1] else None
        check_finite(part, 0, None, drop=self._drop, what=self.what, samples=ids, genes=genes)
        if self._rounding is not None:
            self._lowest = np.fmin(self._lowest, np.fmin.reduce(part, axis=0, initial=np.nan))
            self._highest = np.fmax(self._highest, np.fmax.reduce(part, axis=0, initial=np.nan))
        try:
            self._place(rows, part)
        except OSError as error:
            raise storage_error(error, self._staged) from error
        self._written[rows] = True

    def _rows(self, ids: list[str]) -> np.ndarray[Any, np.dtype[np.intp]]:
        foreign = [s for s in ids if s not in self._order]
        if foreign:
            raise MisalignedError(f"{self.what}: {len(foreign):,} samples are not in this block: {first_few(foreign)}.")
        rows = np.array([self._order[s] for s in ids], dtype=np.intp)
        again = [ids[i] for i in np.flatnonzero(self._written[rows] | self._gone[rows])]
        if again or len(np.unique(rows)) != len(rows):
            raise MisalignedError(
                f"{self.what}: samples come twice, or were announced as missing: {first_few(again or ids)}. "
                f"Pass every sample once."
            )
        return rows

    def _place(self, rows: np.ndarray[Any, np.dtype[np.intp]], part: Any) -> None:
        grid = self._draft.grid
        order = np.argsort(rows)
        rows, part = rows[order], part if np.array_equal(order, np.arange(len(order))) else part[order]
        cuts = np.flatnonzero((np.diff(rows) != 1) | (np.diff(rows // grid.rows) != 0)) + 1
        for run, values in zip(np.split(rows, cuts), np.split(part, cuts), strict=True):
            if not len(run):
                continue
            index, first = divmod(int(run[0]), grid.rows)
            with self._path(index).open("r+b", buffering=0) as stream:
                stream.seek(first * grid.row_bytes)
                _write_all(stream, as_bytes(np.ascontiguousarray(values)))

    def announce_missing(self, sample_ids: Iterable[object]) -> None:
        """Rows that turn out not to be predicted; they are stored NaN and named in the record."""
        rows = self._rows(as_names(sample_ids))
        self._gone[rows] = True

    def prepare(self) -> Record:
        """Finish the chunk files and look whether this commit would succeed; nothing becomes visible yet.

        Raises
        ------
        MisalignedError
            Rows are missing that were not announced.
        ConflictError
            Something else is committed under this name.
        """
        if self._prepared is not None:
            return self._prepared
        names = self._store.sample_ids(self._draft.block)
        absent = np.flatnonzero(~self._written & ~self._gone)
        if len(absent):
            raise MisalignedError(
                f"{self.what}: {len(absent):,} of {self._draft.grid.n:,} samples were never passed: "
                f"{first_few(names[i] for i in absent)}. Announce them in missing_samples= if they were not predicted."
            )
        gone = tuple(names[i] for i in np.flatnonzero(self._gone))
        try:
            kept = self._draft.grid
            if self._rounding is not None and self._rounding.fits(np.stack([self._lowest, self._highest])):
                kept = replace(kept, dtype=CODES)
            chunks = tuple(self._finish(i, kept) for i in range(kept.count))
        except OSError as error:
            raise storage_error(error, self._staged) from error
        record = stamped(replace(self._draft, grid=kept, chunks=chunks, missing_samples=gone), self._attempt)
        self._found = self._store.find(record.block, record.model)
        if self._found is not None:
            self._found = same_or_conflict(self._found, record, self._target)
        self._prepared = record
        return record

    def commit(self) -> Record:
        """Make all rows visible at once; raises as ``prepare`` does, and StorageError. Nothing is visible after an
        error."""
        try:
            record = self.prepare()
            if self._found is not None:
                return self._found
            return self._store.seal_and_publish(self._staged, self._target, record)
        except OSError as error:
            raise error if isinstance(error, StorageError) else storage_error(error, self._staged) from error
        finally:
            self._stack.close()

    def _finish(self, index: int, kept: Grid) -> ChunkFacts:
        """Gaps and padding become NaN, values are rounded in a block with a rounding, the checksum is appended; hashes
        are taken of what is really there."""
        low, high = kept.span(index)
        with self._path(index).open("r+b", buffering=0) as stream:
            values: np.ndarray[Any, Any] = np.empty((high - low, kept.width), DTYPE)
            _read_all(stream, as_bytes(values))
            values[self._gone[low:high]] = np.nan
            if self._rounding is not None:
                values = self._rounding.rounded(values) if kept.dtype == DTYPE else self._rounding.codes(values)
            facts = hash_chunk(kept, index, values)
            if self._rounding is not None or self._gone[low:high].any() or high - low < kept.rows:
                padded = np.full((kept.rows, kept.width), kept.no_value, kept.dtype)
                padded[: high - low] = values
                stream.seek(0)
                _write_all(stream, as_bytes(padded))
            stream.seek(kept.payload)
            _write_all(stream, memoryview(int(facts.crc32c, 16).to_bytes(4, "little")))
            stream.truncate(kept.file_size)
        return facts

    def abort(self) -> None:
        """Give up; staging is removed, nothing becomes visible."""
        shutil.rmtree(self._staged, ignore_errors=True)
        self._stack.close()

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


def _write_all(stream: Any, view: memoryview) -> None:
    done = 0
    while done < len(view):
        done += stream.write(view[done:])


def _read_all(stream: Any, view: memoryview) -> None:
    done = 0
    while done < len(view):
        got = stream.readinto(view[done:])
        if not got:
            raise InputError("A staged chunk file ended early: something else changed the staging folder.")
        done += got
