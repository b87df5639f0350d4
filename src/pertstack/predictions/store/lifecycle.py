"""What happens to arrays after their commit: status, absence, retraction, snapshots, rubbish collection.

Nothing here changes a committed byte.
"""

from __future__ import annotations

import io
import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from pertstack._base.digests import digest_json, with_own_digest
from pertstack._base.errors import CorruptionError, unknown_name
from pertstack._base.files import fsync_directory, storage_error, write_atomic, write_json
from pertstack._base.machine.hosts import host_name
from pertstack.design.blocks import Block
from pertstack.predictions.store.files import durable, layout
from pertstack.predictions.store.files.names import TRUTH_LAYERS, decode_name, encode_name
from pertstack.predictions.store.files.record import Kind, Record, utc_now
from pertstack.predictions.store.files.rounding import CODES
from pertstack.predictions.store.files.skeleton import ROUNDING


def check_place(
    path: Path,
    record: Record,
    store: layout.StoreFacts,
    *,
    block_facts: dict[str, Any],
    block: Block,
    model: str,
    kind: Kind,
) -> None:
    """A record copied or renamed to the wrong place is refused.

    Parameters
    ----------
    path : of the record.
    record : as read.
    store : facts of the store it lies in.
    block_facts : digests and size of the block it lies in.
    block, model, kind : as its path says.

    Raises
    ------
    CorruptionError
        It says otherwise.
    """
    coded = record.grid.dtype == CODES
    expected = {
        "store_uuid": store.uuid,
        "block": block.id,
        "model": model,
        "kind": kind,
        "samples_sha256": block_facts["samples_sha256"],
        "genes_sha256": store.genes_sha256 if kind == "layer" else "",
        "rows": block_facts["n"],
        "columns": store.n_genes if kind == "layer" else record.grid.width,
        "in 16 bits": coded and kind == "layer" and model != "effect" and ROUNDING in block_facts,
    }
    found = {
        "store_uuid": record.store_uuid,
        "block": record.block.id,
        "model": record.model,
        "kind": record.kind,
        "samples_sha256": record.samples_sha256,
        "genes_sha256": record.genes_sha256,
        "rows": record.grid.n,
        "columns": record.grid.width,
        "in 16 bits": coded,
    }
    wrong = [name for name in expected if expected[name] != found[name]]
    if wrong:
        told = "; ".join(f"{name} is {found[name]!r} where {expected[name]!r} belongs" for name in wrong)
        raise CorruptionError(
            f"{path} does not belong here: {told}. It was copied or renamed from another place, so its rows may be "
            f"other samples. Move it out of the store."
        )


def extend_plan(root: Path, facts: layout.StoreFacts, new_digest: str) -> layout.StoreFacts:
    """Root facts with a new plan digest; the old one is remembered.

    Parameters
    ----------
    root : of the store.
    facts : as they are.
    new_digest : of the plan that extends the old one; the same one changes nothing.
    """
    if new_digest == facts.plan_digest:
        return facts
    earlier = facts.earlier_plan_digests + (() if facts.plan_digest is None else (facts.plan_digest,))
    changed = replace(facts, plan_digest=new_digest, earlier_plan_digests=tuple(dict.fromkeys(earlier)))
    layout.write_root(root, changed)
    return changed


def status_table(root: Path, blocks: Sequence[Block], models: Sequence[str] | None) -> pd.DataFrame:
    """Blocks × models: committed, absent or missing, from the folder names alone.

    Parameters
    ----------
    root : of the store.
    blocks : rows of the table.
    models : columns; None for all that are there or said to be absent.
    """
    committed = {block: set(layout.list_arrays(root, block)) for block in blocks}
    absent: dict[Block, set[str]] = {}
    for block in blocks:
        folder = root / "absent" / block.id
        absent[block] = {decode_name(p.stem) for p in folder.iterdir()} if folder.is_dir() else set()
    if models is None:
        models = sorted(set().union(*committed.values(), *absent.values()).difference(TRUTH_LAYERS))
    cells = [
        ["committed" if m in committed[b] else "absent" if m in absent[b] else "missing" for m in models]
        for b in blocks
    ]
    return pd.DataFrame(cells, index=pd.Index([b.id for b in blocks], name="block"), columns=list(models), dtype=object)


def mark_absent(root: Path, block: Block, model: str, *, reason: str) -> None:
    """Say on disk that a model will not come for a block.

    Parameters
    ----------
    root : of the store.
    block, model : which.
    reason : in words.
    """
    write_json(
        layout.absent_file(root, block, model),
        with_own_digest({"block": block.id, "model": model, "reason": reason, "host": host_name(), "time": utc_now()}),
    )


def retract(root: Path, block: Block, model: str, *, reason: str, kind: Kind) -> Path:
    """Take an array out of its block: reason first, then one rename. Its new folder.

    Parameters
    ----------
    root : of the store.
    block, model, kind : which.
    reason : in words, kept beside it.

    Raises
    ------
    UnknownNameError
        Nothing is committed there.
    """
    source = layout.array_folder(root, block, model, kind=kind)
    folder = root / "retracted" / uuid.uuid4().hex
    write_json(
        folder / "retraction.json",
        with_own_digest(
            {
                "block": block.id,
                "model": model,
                "kind": kind,
                "reason": reason,
                "host": host_name(),
                "pid": os.getpid(),
                "time": utc_now(),
            }
        ),
    )
    target = folder / encode_name(model)
    try:
        os.rename(source, target)  # noqa: PTH104
        fsync_directory(folder)
        fsync_directory(source.parent)
    except FileNotFoundError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise unknown_name(f"{kind} in block {block.id}:", model, layout.list_arrays(root, block, kind)) from error
    except OSError as error:
        raise storage_error(error, source) from error
    return target


def write_snapshot(root: Path, records: Sequence[Record]) -> str:
    """A pinned list of what was there; named by its digest, so writing it twice is harmless."""
    rows = sorted((r.block.id, r.model, r.kind, r.digest) for r in records)
    digest = digest_json(rows)
    path = root / "snapshots" / f"{digest}.parquet"
    if not path.exists():
        buffer = io.BytesIO()
        pd.DataFrame(rows, columns=["block", "model", "kind", "digest"]).to_parquet(buffer)
        write_atomic(path, buffer.getvalue())
    return digest


def gc(root: Path, lease_seconds: float) -> list[Path]:
    """Remove the staging folders of dead writers."""
    dead = durable.dead_staging(root, lease_seconds=lease_seconds)
    for path in dead:
        shutil.rmtree(path, ignore_errors=True)
    return dead
