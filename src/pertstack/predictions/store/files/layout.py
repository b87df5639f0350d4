"""Where things lie inside a store, and the facts its root holds. No data is read or written here beyond those facts."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pertstack._base.digests import digest_names
from pertstack._base.errors import CorruptionError, InputError, MissingFileError, first_few
from pertstack._base.files import read_json, require_plain, write_atomic, write_json
from pertstack.design.blocks import Block
from pertstack.predictions.store.files.names import EMBEDDING_PREFIX, decode_name, encode_name
from pertstack.predictions.store.files.record import FORMAT, Kind

STORE_ATTRIBUTE = "pertstack_store"
GROUP: dict[str, Any] = {"zarr_format": 3, "node_type": "group", "attributes": {}}
FOLDERS = ("blocks", "models", "absent", "retracted", "snapshots", "provenance", "staging", "anchors")


@dataclass(frozen=True)
class StoreFacts:
    """What the root of a store says: identity, gene list, fold plan."""

    uuid: str
    genes_sha256: str
    n_genes: int
    plan_digest: str | None
    earlier_plan_digests: tuple[str, ...] = ()

    @property
    def plan_digests(self) -> frozenset[str]:
        """Digests under which a model's provenance is accepted: the plan, and those it was extended from."""
        return frozenset((*self.earlier_plan_digests, *(() if self.plan_digest is None else (self.plan_digest,))))

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "store_uuid": self.uuid,
            "genes_sha256": self.genes_sha256,
            "n_genes": self.n_genes,
            "plan_digest": self.plan_digest,
            "earlier_plan_digests": list(self.earlier_plan_digests),
        }


def write_root(root: Path, facts: StoreFacts) -> None:
    write_json(root / "zarr.json", {**GROUP, "attributes": {STORE_ATTRIBUTE: facts.to_json()}})


def create_root(root: Path, gene_names: list[str], plan_digest: str | None) -> StoreFacts:
    """Folders, gene list and, last of all, the root's ``zarr.json``.

    Parameters
    ----------
    root : of the new store.
    gene_names : in the order of all columns.
    plan_digest : of the fold plan; None for a store without.

    Raises
    ------
    InputError
        No gene, an empty or repeated name, or one with a line break.
    """
    odd = [g for g in gene_names if not g or "\n" in g or "\r" in g]
    if odd:
        raise InputError(f"{len(odd)} gene names are empty or hold a line break: {first_few(odd)}. Rename them.")
    if len(set(gene_names)) != len(gene_names):
        twice = sorted({g for g in gene_names if gene_names.count(g) > 1}) if len(gene_names) < 50_000 else []
        raise InputError(
            f"Gene names occur more than once: {first_few(twice)}. Make them unique, for example with ids."
        )
    if not gene_names:
        raise InputError("A store needs at least one gene.")
    for name in FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    write_atomic(root / "genes.txt", "".join(f"{g}\n" for g in gene_names).encode())
    write_json(root / "blocks" / "zarr.json", GROUP)
    facts = StoreFacts(str(uuid.uuid4()), digest_names(gene_names), len(gene_names), plan_digest)
    write_root(root, facts)
    return facts


def read_root(root: Path) -> tuple[StoreFacts, list[str]]:
    """Facts and gene names of a store.

    Raises
    ------
    MissingFileError
        There is no store at ``root``.
    CorruptionError
        The gene list was changed, or the format is unknown.
    """
    if not (root / "zarr.json").is_file():
        raise MissingFileError(
            f"There is no prediction store at {root} (no zarr.json). Create one with `pertstack init`."
        )
    try:
        value = read_json(root / "zarr.json")["attributes"][STORE_ATTRIBUTE]
        if value["format"] != FORMAT:
            raise CorruptionError(f"{root} has store format {value['format']!r}; this version reads {FORMAT}.")
        facts = StoreFacts(
            value["store_uuid"],
            value["genes_sha256"],
            value["n_genes"],
            plan_digest=value["plan_digest"],
            earlier_plan_digests=tuple(value["earlier_plan_digests"]),
        )
    except (KeyError, TypeError) as error:
        raise CorruptionError(f"{root / 'zarr.json'} is not a prediction store of pertstack.") from error
    require_plain(root / "genes.txt")
    try:
        genes = (root / "genes.txt").read_text(encoding="utf-8").split("\n")[:-1]
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise CorruptionError(
            f"{root / 'genes.txt'} is missing or unreadable; restore it from any block's var."
        ) from error
    if digest_names(genes) != facts.genes_sha256:
        raise CorruptionError(
            f"{root / 'genes.txt'} does not hold the {facts.n_genes:,} genes this store was made with. Gene order "
            f"decides what every number means; restore the file from any block's var/_index."
        )
    return facts, genes


def block_folder(root: Path, block: Block) -> Path:
    return root / "blocks" / f"{block.id}.zarr"


@lru_cache(maxsize=4096)
def array_folder(root: Path, block: Block, model: str, *, kind: Kind = "layer") -> Path:
    """Folder of one committed array.

    Parameters
    ----------
    root : of the store.
    block : of the array.
    model : name, encoded for the file system.
    kind : "layer" or "embedding".
    """
    if kind == "layer":
        return block_folder(root, block) / "layers" / encode_name(model)
    return block_folder(root, block) / "obsm" / f"{EMBEDDING_PREFIX}{encode_name(model)}"


def absent_file(root: Path, block: Block, model: str) -> Path:
    """File that says that a model will not come for a block.

    Parameters
    ----------
    root : of the store.
    block, model : which.
    """
    return root / "absent" / block.id / f"{encode_name(model)}.json"


def list_blocks(root: Path) -> list[Block]:
    """Blocks in their fixed order, by name of folder."""
    found = []
    for path in (root / "blocks").iterdir():
        if path.name.endswith(".zarr") and (path / "zarr.json").is_file():
            try:
                found.append(Block.from_id(path.name.removesuffix(".zarr")))
            except ValueError as error:
                raise CorruptionError(f"{path} is not named as a block; move it out of the store.") from error
    return sorted(found)


def list_arrays(root: Path, block: Block, kind: Kind = "layer") -> Iterator[str]:
    """Names committed in a block, sorted; folders without a record are passed over (the audit names them).

    Parameters
    ----------
    root : of the store.
    block : which.
    kind : "layer" or "embedding".
    """
    folder = block_folder(root, block) / ("layers" if kind == "layer" else "obsm")
    prefix = "" if kind == "layer" else EMBEDDING_PREFIX
    names = []
    for path in folder.iterdir():
        if path.name.startswith(prefix) and (path / "zarr.json").is_file():
            names.append(decode_name(path.name.removeprefix(prefix)))
    return iter(sorted(names))
