"""One commit: chunk files and record into private staging, flushed, then renamed into the block.

Nothing is written before names and finiteness are checked, and nothing is visible before everything is on the disk.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from pertstack._base.errors import ConflictError, InputError
from pertstack._base.files import fsync_directory, storage_error
from pertstack._base.machine.hosts import host_name
from pertstack.data.rows import Float32
from pertstack.design.provenance import FittedOn
from pertstack.predictions.store.align import Take
from pertstack.predictions.store.files import durable
from pertstack.predictions.store.files.chunks import DTYPE, ChunkFacts, Grid, array_metadata, hash_chunk, write_chunk
from pertstack.predictions.store.files.record import ATTRIBUTE, Record
from pertstack.predictions.store.files.rounding import CODES, BeyondCodesError, Rounding
from pertstack.predictions.store.finite import check_finite

ChunkValues = Callable[[int, int], np.ndarray[Any, Any]]
"""From [start, stop) to those rows in the block's order, C-contiguous, as kept; NaN where announced as missing."""


def ordered_chunks(
    values: Any, rows: Take | None, columns: Take | None, *, missing_rows: np.ndarray[Any, Any], what: str
) -> ChunkValues:
    """Rows and columns of given values in the block's order, chunk by chunk; announced gaps become NaN, anything else
    must be finite.

    Parameters
    ----------
    values : (n given, genes given).
    rows, columns : positions in ``values``, -1 where announced as missing; None for the same order.
    missing_rows : mask over the block's rows.
    what : the array, for messages.

    Raises
    ------
    InputError
        A value is not finite (when its chunk is asked for).
    """
    drop_columns = None if columns is None or (columns >= 0).all() else columns < 0

    def chunk(start: int, stop: int) -> Float32:
        if rows is None:
            part = np.asarray(values[start:stop])
        else:
            part = np.asarray(values)[np.maximum(rows[start:stop], 0)]
        if columns is not None:
            part = np.take(part, np.maximum(columns, 0), axis=1)
        with np.errstate(over="ignore"):  # what does not fit into float32 becomes Inf and is refused below
            part = np.ascontiguousarray(part, dtype=DTYPE)
        gone = missing_rows[start:stop]
        if gone.any() or drop_columns is not None:
            part = part.copy() if np.shares_memory(part, np.asarray(values)) else part
            _refuse_announced_values(part, rows, start, stop=stop, gone=gone, what=what)
            part[gone] = np.nan
            if drop_columns is not None:
                part[:, drop_columns] = np.nan
        check_finite(part, start, gone, drop=drop_columns, what=what)
        return part

    return chunk


def _refuse_announced_values(
    part: Float32, rows: Take | None, start: int, *, stop: int, gone: np.ndarray[Any, Any], what: str
) -> None:
    """A row announced as missing may be passed only as NaN: numbers in it would be lost silently."""
    given = gone if rows is None else gone & (rows[start:stop] >= 0)
    if given.any() and np.isfinite(part[given]).any():
        raise InputError(f"{what}: rows announced as missing hold numbers. Leave them out, or do not announce them.")


Chunks = tuple[ChunkFacts, ...]


def _as_kept(
    grid: Grid, chunk: ChunkValues, rounding: Rounding | None, do: Callable[[Grid, ChunkValues], Chunks]
) -> tuple[Grid, Chunks]:
    """What is done with the chunks of an array, in the form in which they are kept, and its grid: with a rounding, 16
    bits if these are enough for all values, and float32 if not."""
    if rounding is None:
        return grid, do(grid, chunk)
    try:
        coded = replace(grid, dtype=CODES)
        return coded, do(coded, lambda start, stop: rounding.codes(chunk(start, stop)))
    except BeyondCodesError:
        return grid, do(grid, lambda start, stop: rounding.rounded(chunk(start, stop)))


def stage_chunks(folder: Path, grid: Grid, chunk: ChunkValues, *, rounding: Rounding | None) -> tuple[Grid, Chunks]:
    """Write every chunk file of an array; each is flushed by a second thread while the next is made. The grid is that
    of the files.

    Parameters
    ----------
    folder : staging.
    grid : of the array, in float32.
    chunk : gives the rows of each, in order; asked again from the start if 16 bits turn out to be too few.
    rounding : of the block; None keeps float32 as it is.
    """

    def write(grid: Grid, chunk: ChunkValues) -> Chunks:
        shutil.rmtree(folder / "c", ignore_errors=True)
        return _stage(folder, grid, chunk)

    return _as_kept(grid, chunk, rounding, write)


def _stage(folder: Path, grid: Grid, chunk: ChunkValues) -> Chunks:
    facts, flushing = [], []
    with ThreadPoolExecutor(1, thread_name_prefix="pertstack-flush") as pool:
        for i in range(grid.count):
            facts.append(write_chunk(folder, grid, i, values=chunk(*grid.span(i))))
            if i + 1 < grid.count:  # the last one is flushed with the record
                flushing.append(pool.submit(durable.flush_file, folder / grid.key(i)))
    for flushed in flushing:
        flushed.result()
    return tuple(facts)


def hash_chunks(grid: Grid, chunk: ChunkValues, *, rounding: Rounding | None) -> tuple[Grid, Chunks]:
    """What ``stage_chunks`` would record, without writing.

    Parameters
    ----------
    grid, chunk, rounding : as there.
    """

    def facts(grid: Grid, chunk: ChunkValues) -> Chunks:
        return tuple(hash_chunk(grid, i, chunk(*grid.span(i))) for i in range(grid.count))

    return _as_kept(grid, chunk, rounding, facts)


def seal(folder: Path, record: Record) -> None:
    """Write the record beside the chunks and flush the whole folder to the disk."""
    names = ("sample", "gene") if record.kind == "layer" else ("sample", f"{record.model}_dimension")
    meta = array_metadata(record.grid, names, {ATTRIBUTE: record.to_json()})
    text = json.dumps(meta, ensure_ascii=False, allow_nan=False)
    durable.write_new(folder / "zarr.json", text.encode())
    durable.flush_tree(folder)


def publish_record(staged: Path, target: Path, record: Record, *, look: Callable[[], Record | None]) -> Record:
    """Rename into place; when somebody was first, same content is success and other content a conflict.

    Parameters
    ----------
    staged : folder, flushed.
    target : where it belongs.
    record : that lies in ``staged``.
    look : reads the record at ``target``, None if there is none.

    Raises
    ------
    ConflictError
        Other content, or a folder without a record, was there first.
    """
    try:
        if durable.publish(staged, target):
            return record
    except OSError as error:
        found = look()  # on network file systems the answer to a rename can be lost
        if found is None or found.attempt != record.attempt:
            raise storage_error(error, target) from error
        fsync_directory(target.parent)
        return found
    found = look()
    if found is None:
        raise ConflictError(
            f"{target} exists but holds no record. Run the audit, then move that folder out of the store."
        )
    if found.attempt == record.attempt:
        fsync_directory(target.parent)
        return found
    return same_or_conflict(found, record, target)


def same_or_conflict(found: Record, ours: Record, target: Path) -> Record:
    """The committed record when ours says the same. The first one always stays.

    Parameters
    ----------
    found : committed.
    ours : that came later.
    target : its folder.

    Raises
    ------
    ConflictError
        Other values, or another claim of what the model was fitted on.
    """
    what = f"{ours.model!r} in block {ours.block.id}"
    if found.digest != ours.digest:
        raise ConflictError(
            f"Other predictions of {what} were already committed (content {found.digest[:12]}, at {found.time} by "
            f"process "
            f"{found.pid} on {found.host}); these have content {ours.digest[:12]}. The first stays, so that nothing "
            f"that was "
            f"scored can change. If they are wrong, withdraw them with a reason and add these again; or use another "
            f"name."
        )
    if not same_claim(found.fitted_on, ours.fitted_on):
        raise ConflictError(
            f"The same values of {what} are already committed, but as fitted on {describe_fitted(found)}; now they "
            f"are said "
            f"to be fitted on {describe_fitted(ours)}. One of the two is wrong. Withdraw the model to declare it anew: "
            f'pertstack withdraw STUDY {quote(ours.model)} --why "..."'
        )
    fsync_directory(target.parent)  # the winner may not have come to this yet
    return found


def same_claim(first: FittedOn | None, second: FittedOn | None) -> bool:
    """Whether two provenances say the same: the same fold of the same plan, even if only one lists the fit rows."""
    if first is None or second is None or first.kind != "plan":
        return first == second
    listed = None in (first.ids_digest, second.ids_digest) or first.ids_digest == second.ids_digest
    return listed and replace(first, ids_digest=None) == replace(second, ids_digest=None)


def describe_fitted(record: Record) -> str:
    """Provenance in a few words."""
    fitted = record.fitted_on
    if fitted is None:
        return "nothing (measured values)"
    if fitted.kind == "plan":
        fold = "all development rows" if fitted.held_out_fold is None else f"all folds but {fitted.held_out_fold}"
        also = "" if fitted.also_held_out is None else f" and {fitted.also_held_out}"
        rows = "" if fitted.ids_digest is None else f", fit rows {fitted.ids_digest[:12]}"
        return f"plan {(fitted.plan_digest or '')[:12]}, {fold}{also}{rows}"
    if fitted.kind == "ids":
        return f"{len(fitted.fit_ids):,} listed samples ({(fitted.ids_digest or '')[:12]})"
    return "unknown rows"


def stamped(record: Record, attempt: str) -> Record:
    """The record with who, where and when."""
    import os

    from pertstack.predictions.store.files.record import software_versions, utc_now

    return replace(
        record, attempt=attempt, host=host_name(), pid=os.getpid(), time=utc_now(), software=software_versions()
    )
