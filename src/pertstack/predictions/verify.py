"""Audit of a store: is everything there, whole, where it belongs, and what its record says?

Names the exact file of each fault. Repairs nothing; ``gc`` and ``retract`` do.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import crc32c
import xxhash

from pertstack._base.digests import digest_names
from pertstack._base.errors import StackingError
from pertstack._base.files import read_json
from pertstack._base.findings import Finding
from pertstack.design.blocks import Block
from pertstack.predictions import durable, layout, skeleton
from pertstack.predictions.chunks import PIECE
from pertstack.predictions.names import EMBEDDING_PREFIX, decode_name, encode_name
from pertstack.predictions.record import Kind, Record

if TYPE_CHECKING:
    from pertstack.predictions.reader import StoreReader

SKELETON = {"zarr.json", "obs", "var", "obsm", "varm", "obsp", "varp", "layers", "uns", "raw", "X"}
ROOT_FILES = {"zarr.json", "genes.txt", *layout.FOLDERS}


def verify_store(store: StoreReader, *, deep: bool = False) -> list[Finding]:
    """Every fault found, worst kind of each file only. ``deep`` reads and hashes every byte."""
    findings = list(_root(store))
    for path in sorted((store.root / "blocks").iterdir()):
        if path.name == "zarr.json":
            findings += _consolidated(path)
        else:
            findings += _block(store, path, deep)
    findings += _staging(store)
    findings += _retracted(store)
    return findings


def _error(code: str, where: Path, message: str) -> Finding:
    return Finding("error", code, message, examples=(str(where),), where=str(where))


def _warning(code: str, where: Path, message: str) -> Finding:
    return Finding("warning", code, message, examples=(str(where),), where=str(where))


def _unknown(path: Path) -> Finding:
    return _warning("unknown_file", path, f"{path} is not part of a store; nobody reads it. Move it out.")


def _root(store: StoreReader) -> Iterator[Finding]:
    try:
        facts, _ = layout.read_root(store.root)
    except StackingError as error:
        yield _error("root_damaged", store.root / "zarr.json", str(error))
        return
    if facts.uuid != store.facts.uuid:
        yield _error(
            "store_replaced", store.root / "zarr.json",
            f"{store.root} was another store when it was opened (id {store.facts.uuid}, now {facts.uuid}).",
        )  # fmt: skip
    yield from _consolidated(store.root / "zarr.json")
    for path in sorted(store.root.iterdir()):
        if path.name not in ROOT_FILES:
            yield _unknown(path)


def _consolidated(path: Path) -> Iterator[Finding]:
    if path.is_file() and "consolidated_metadata" in read_json(path):
        yield _error(
            "consolidated_metadata", path,
            f"{path} holds consolidated metadata: AnnData and xarray will not see models committed since. Something "
            f"wrote "
            f"or consolidated a live block. Delete the key 'consolidated_metadata' from that file.",
        )  # fmt: skip


def _block(store: StoreReader, path: Path, deep: bool) -> Iterator[Finding]:
    try:
        block = Block.from_id(path.name.removesuffix(".zarr"))
        if not path.name.endswith(".zarr") or not path.is_dir():
            raise ValueError(path.name)
    except ValueError:
        yield _unknown(path)
        return
    try:
        facts = skeleton.read_block_facts(path)
        if facts["block"] != block.id or facts["genes_sha256"] != store.facts.genes_sha256:
            raise StackingError(f"{path} says it is block {facts['block']}: renamed, or of another store.")
        ids = list(skeleton.read_obs(path).index)
        if digest_names(ids) != facts["samples_sha256"] or len(ids) != facts["n"]:
            raise StackingError(f"{path / 'obs'} does not hold the samples of block {block.id}: it was changed since.")
    except (StackingError, KeyError, ValueError, OSError) as error:
        yield _error("block_damaged", path, f"{path}: {error}")
        return
    yield from _consolidated(path / "zarr.json")
    for extra in sorted(path.iterdir()):
        if extra.name not in SKELETON:
            yield _unknown(extra)
    yield from _arrays(store, block, path / "layers", "layer", deep)
    yield from _arrays(store, block, path / "obsm", "embedding", deep)


def _arrays(store: StoreReader, block: Block, folder: Path, kind: Kind, deep: bool) -> Iterator[Finding]:
    prefix = "" if kind == "layer" else EMBEDDING_PREFIX
    for path in sorted(folder.iterdir()):
        if path.name == "zarr.json":
            yield from _consolidated(path)
            continue
        name = decode_name(path.name.removeprefix(prefix))
        if not path.is_dir() or not path.name.startswith(prefix) or path.name != prefix + encode_name(name):
            yield _unknown(path)
        elif not (path / "zarr.json").is_file():
            yield _error(
                "record_missing", path / "zarr.json",
                f"{path / 'zarr.json'} is missing: {path.name} holds data without a commit record, so nobody can say "
                f"what they "
                f"are. Restore the record from a copy, or move the folder out and predict again.",
            )  # fmt: skip
        else:
            yield from _array(store, block, name, kind, path, deep)


def _array(store: StoreReader, block: Block, name: str, kind: Kind, path: Path, deep: bool) -> Iterator[Finding]:
    try:
        store.forget(path / "zarr.json")
        record = store.record(block, name, kind)
    except (StackingError, KeyError, TypeError, ValueError) as error:
        yield _error("record_damaged", path / "zarr.json", f"{path / 'zarr.json'}: {error}")
        return
    fitted = record.fitted_on
    if fitted is not None and fitted.kind == "plan" and fitted.plan_digest not in store.facts.plan_digests:
        yield _error(
            "other_fold_plan", path / "zarr.json",
            f"{name!r} in block {block.id} was fitted on fold plan {(fitted.plan_digest or 'none')[:12]}, but this "
            f"store holds "
            f"{(store.plan_digest or 'none')[:12]}: it may have seen what it predicts. Withdraw it.",
        )  # fmt: skip
    expected = {path / "zarr.json", *(path / c.key for c in record.chunks)}
    for file in sorted(path.rglob("*")):
        if file.is_file() and file not in expected:
            yield _unknown(file)
    yield from _chunks(path, record, deep)


def _chunks(path: Path, record: Record, deep: bool) -> Iterator[Finding]:
    what = f"part of {record.model!r} in block {record.block.id}; withdraw and predict again, or restore the file."
    for chunk in record.chunks:
        file = path / chunk.key
        if not file.is_file():
            yield _error("chunk_missing", file, f"{file} is missing; other readers take its rows for NaN. It is {what}")
        elif file.stat().st_size != chunk.size:
            size = file.stat().st_size
            yield _error(
                "chunk_size", file, f"{file} has {size:,} bytes, not the {chunk.size:,} committed. It is {what}"
            )
        elif deep and not _same_bytes(file, chunk.crc32c, chunk.xxh3_128):
            yield _error("chunk_changed", file, f"{file} does not hold the bytes that were committed. It is {what}")


def _same_bytes(file: Path, crc_hex: str, xxh_hex: str) -> bool:
    digest, crc, left = xxhash.xxh3_128(), 0, file.stat().st_size - 4
    with file.open("rb", buffering=0) as stream:
        while left > 0:
            piece = stream.read(min(PIECE, left))
            if not piece:
                return False
            crc = crc32c.crc32c(piece, crc)
            digest.update(piece)
            left -= len(piece)
        trailer = int.from_bytes(stream.read(4), "little")
    return digest.hexdigest() == xxh_hex and f"{crc:08x}" == crc_hex and trailer == crc


def _staging(store: StoreReader) -> Iterator[Finding]:
    folder = store.root / "staging"
    if not folder.is_dir():
        return
    dead = set(durable.dead_staging(store.root))
    for path in sorted(folder.iterdir()):
        if path in dead:
            yield _warning(
                "orphaned_staging", path,
                f"{path} was left by a writer that died. Nobody reads it; `pertstack audit --clean` removes it.",
            )  # fmt: skip
        else:
            yield Finding("note", "live_staging", f"{path} belongs to a writer that may still run.", where=str(path))


def _retracted(store: StoreReader) -> Iterator[Finding]:
    folder = store.root / "retracted"
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if not (path / "retraction.json").is_file():
            yield _warning("retraction_without_reason", path, f"{path} holds no retraction.json (why, by whom).")
