"""Audit of a store: is everything there, whole, where it belongs, and what its record says?

Names the exact file of each fault; what is wrong inside a chunk file is found in ``verify_chunks.py``. Repairs nothing;
``gc`` and ``retract`` do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pertstack._base.digests import OWN, digest_json, digest_names, own_digest_fits
from pertstack._base.errors import StackingError
from pertstack._base.files import read_json
from pertstack._base.findings import Finding
from pertstack.design.blocks import Block
from pertstack.predictions.store.files import durable, layout, skeleton
from pertstack.predictions.store.files.anchors import damaged_anchors
from pertstack.predictions.store.files.chunks import array_metadata
from pertstack.predictions.store.files.names import EMBEDDING_PREFIX, decode_name, encode_name
from pertstack.predictions.store.files.record import ATTRIBUTE, Kind
from pertstack.predictions.store.verify_chunks import Affected, chunk_faults

if TYPE_CHECKING:
    from pertstack.predictions.store.reader import StoreReader

SKELETON = {"zarr.json", "obs", "var", "obsm", "varm", "obsp", "varp", "layers", "uns", "raw", "X"}
ROOT_FILES = {"zarr.json", "genes.txt", *layout.FOLDERS}


def verify_store(store: StoreReader, *, deep: bool = False, whole: Collection[Block] = ()) -> list[Finding]:
    """Every fault found, worst kind of each file only.

    Parameters
    ----------
    store : to be verified.
    deep : read and hash every byte.
    whole : blocks whose bytes are not read: another process did, and found them right.
    """
    findings, read = list(_root(store)), {layout.block_folder(store.root, block) for block in whole}
    for path in sorted((store.root / "blocks").iterdir()):
        if path.name == "zarr.json":
            findings += _consolidated(path)
        else:
            findings += _block(store, path, deep and path not in read)
    findings += _staging(store)
    findings += _retracted(store)
    findings += _absent(store)
    findings += _named_by_digest(store)
    findings += [_error("anchors_damaged", p, why) for p, why in damaged_anchors(store.root, store.facts.uuid)]
    return findings


def verify_block(store: StoreReader, block: Block) -> list[Finding]:
    """Every fault of one block, each byte read and hashed."""
    store.block_facts(block)  # refused when there is no such folder, which ``_block`` would call an unknown file
    return list(_block(store, layout.block_folder(store.root, block), True))


def _error(code: str, where: Path, message: str, rows: Affected | None = None) -> Finding:
    if rows is None or not rows.rows:
        return Finding("error", code, message, examples=(str(where),), where=str(where))
    numbers = {"rows": list(rows.rows[:10])}
    return Finding(
        "error", code, message, count=len(rows.rows), examples=rows.samples[:10], where=str(where), numbers=numbers
    )


def _warning(code: str, where: Path, message: str) -> Finding:
    return Finding("warning", code, message, examples=(str(where),), where=str(where))


def _unknown(path: Path) -> Finding:
    return _warning("unknown_file", path, f"{path} is not part of a store and is never read. Move it out.")


def _root(store: StoreReader) -> Iterator[Finding]:
    try:
        facts, _ = layout.read_root(store.root)
    except StackingError as error:
        yield _error("root_damaged", store.root / "zarr.json", str(error))
        return
    if facts.uuid != store.facts.uuid:
        yield _error(
            "store_replaced",
            store.root / "zarr.json",
            f"{store.root} was another store when it was opened (id {store.facts.uuid}, now {facts.uuid}).",
        )
    yield from _consolidated(store.root / "zarr.json")
    for path in sorted(store.root.iterdir()):
        if path.name not in ROOT_FILES:
            yield _unknown(path)


def _consolidated(path: Path) -> Iterator[Finding]:
    if path.is_file() and "consolidated_metadata" in read_json(path):
        yield _error(
            "consolidated_metadata",
            path,
            f"{path} holds consolidated metadata: AnnData and xarray will not see models committed since. Something "
            f"wrote or consolidated a live block. Delete the key 'consolidated_metadata' from that file.",
        )


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
        store.rounding(block, "control")
    except (StackingError, KeyError, ValueError, OSError) as error:
        yield _error("block_damaged", path, f"{path}: {error}")
        return
    yield from _consolidated(path / "zarr.json")
    for extra in sorted(path.iterdir()):
        if extra.name not in SKELETON:
            yield _unknown(extra)
    yield from _arrays(store, block, path / "layers", kind="layer", deep=deep)
    yield from _arrays(store, block, path / "obsm", kind="embedding", deep=deep)


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
                "record_missing",
                path / "zarr.json",
                f"{path / 'zarr.json'} is missing: {path.name} holds data without a commit record, so what they are "
                f"is unknown. Restore the record from a copy, or move the folder out and predict again.",
            )
        else:
            yield from _array(store, block, name, kind=kind, path=path, deep=deep)


def _array(store: StoreReader, block: Block, name: str, *, kind: Kind, path: Path, deep: bool) -> Iterator[Finding]:
    try:
        store.forget(path / "zarr.json")
        record = store.record(block, name, kind)
    except (StackingError, KeyError, TypeError, ValueError) as error:
        yield _error("record_damaged", path / "zarr.json", f"{path / 'zarr.json'}: {error}")
        return
    fitted = record.fitted_on
    if fitted is not None and fitted.kind == "plan" and fitted.plan_digest not in store.facts.plan_digests:
        yield _error(
            "other_fold_plan",
            path / "zarr.json",
            f"{name!r} in block {block.id} was fitted on fold plan {(fitted.plan_digest or 'none')[:12]}, but this "
            f"store holds {(store.plan_digest or 'none')[:12]}: it may have seen what it predicts. Withdraw it.",
        )
    names = ("sample", "gene") if kind == "layer" else ("sample", f"{name}_dimension")
    written = read_json(path / "zarr.json")
    attributes = {ATTRIBUTE: written["attributes"][ATTRIBUTE]}
    differing = _differing(written, array_metadata(record.grid, names, attributes))
    if differing:
        yield _error(
            "record_damaged",
            path / "zarr.json",
            f"{path / 'zarr.json'}: {', '.join(differing)} is not what pertstack writes, so other readers may take "
            "the bytes for other numbers. Restore the file from a copy.",
        )
    expected = {path / "zarr.json", *(path / c.key for c in record.chunks)}
    for file in sorted(path.rglob("*")):
        if file.is_file() and file not in expected:
            yield _unknown(file)
    yield from (_error(*fault) for fault in chunk_faults(store, path, record, deep=deep))


def _differing(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Keys of a zarr.json whose values are not the expected ones."""
    return sorted(k for k in {*found, *expected} if found.get(k) != expected.get(k))


def _staging(store: StoreReader) -> Iterator[Finding]:
    folder = store.root / "staging"
    if not folder.is_dir():
        return
    dead = set(durable.dead_staging(store.root))
    for path in sorted(folder.iterdir()):
        if path in dead:
            yield _warning(
                "orphaned_staging",
                path,
                f"{path} was left by a writer that died. It is never read; `pertstack audit --clean` removes it.",
            )
        else:
            yield Finding("note", "live_staging", f"{path} belongs to a writer that may still run.", where=str(path))


def _retracted(store: StoreReader) -> Iterator[Finding]:
    folder = store.root / "retracted"
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if not (path / "retraction.json").is_file():
            yield _warning("retraction_without_reason", path, f"{path} holds no retraction.json (why, by whom).")
        elif not _whole(path / "retraction.json"):
            yield _note_changed(path / "retraction.json")


def _absent(store: StoreReader) -> Iterator[Finding]:
    """Marks that a model will not come, with the reason that reports print."""
    for path in sorted((store.root / "absent").glob("*/*.json")):
        if not _whole(path):
            yield _note_changed(path)


def _whole(path: Path) -> bool:
    """Whether a small JSON file is what was written; early stores wrote them without a digest."""
    try:
        value = read_json(path)
    except StackingError:
        return False
    return isinstance(value, dict) and (OWN not in value or own_digest_fits(value))


def _note_changed(path: Path) -> Finding:
    return _error(
        "reason_changed",
        path,
        f"{path} is not what was written: a reason that reports print was edited or damaged. Restore it from a copy.",
    )


def _named_by_digest(store: StoreReader) -> Iterator[Finding]:
    """Lists of fit rows and snapshots are named by the digest of what they hold."""
    for path in sorted((store.root / "provenance").glob("*.json")):
        try:
            ids = read_json(path)
        except StackingError:
            ids = None
        if not isinstance(ids, list) or digest_names(map(str, ids)) != path.stem:
            yield _error(
                "fit_rows_changed",
                path,
                f"{path} does not hold the list of samples it is named by, so what its "
                "models were fitted on is unknown. Restore it.",
            )
    for path in sorted((store.root / "snapshots").glob("*.parquet")):
        try:
            rows = pd.read_parquet(path)[["block", "model", "kind", "digest"]].to_numpy().tolist()
        except (OSError, ValueError, KeyError):
            rows = None
        if rows is None or digest_json(rows) != path.stem:
            yield _error(
                "snapshot_changed", path, f"{path} does not hold the list it is named by. Restore it from a copy."
            )
