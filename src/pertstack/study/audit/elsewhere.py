"""What a deep audit reads block by block, read on a cluster: every byte, and the sums that weights are learned from.

Findings are made in the process that asked: it passes over the bytes of blocks that a worker found whole, and reads
the others itself. So a damaged file is one finding with the same words, and a host that sees other files is another.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from pertstack._base.errors import StackingError
from pertstack._base.findings import Finding
from pertstack._base.machine.cluster import Cluster, here
from pertstack._base.machine.memory import parse_bytes
from pertstack._base.machine.progress import progress_bar
from pertstack.design.blocks import Block
from pertstack.predictions.store.verify import verify_block
from pertstack.reduce.sums.block_sums import BlockPart
from pertstack.reduce.sums.one_pass import keep_part, make_parts
from pertstack.study.development.learned import development_rows, stored_stack
from pertstack.study.development.rows import DevelopmentRows, Shared
from pertstack.study.folder import StudyFolder
from pertstack.study.truth.held_out import TRUTH, HeldOutTruth

DAMAGED = (
    StackingError,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    pa.ArrowException,
)
"""What reading a damaged file may raise; more than one reader is at work."""


@dataclass(frozen=True)
class Elsewhere:
    """What was read on a cluster; nothing, if there is none. Stores are named by their folder."""

    faults: dict[str, dict[Block, str]] = field(default_factory=dict)  # store -> block -> what is wrong; "" if nothing
    sums: Path | None = None

    def whole(self, store: str) -> set[Block]:
        """Blocks of a store whose bytes are right."""
        return {block for block, fault in self.faults.get(store, {}).items() if not fault}

    def only_there(self, folder: Path, found: Sequence[Finding]) -> Iterator[Finding]:
        """Blocks of the store in ``folder`` with a fault on a worker, and none among the findings made here."""
        for block, fault in self.faults.get(folder.name, {}).items():
            path = str(folder / "blocks" / f"{block.id}.zarr")
            if fault and not any(f.severity == "error" and f.where.startswith(path) for f in found):
                text = f"{path} is whole here and not on every worker: {fault} What is computed there may be of other "
                text += "files. Mount the same folder everywhere, then audit again."
                yield Finding("error", "block_elsewhere", text, where=path)


@dataclass(frozen=True)
class Asked:
    """What a worker needs to read a block: the study, and whose sums are wanted; None if nothing is stacked."""

    root: Path
    rows: Shared | None

    @cached_property
    def folder(self) -> StudyFolder:
        """Opened once for all pieces."""
        return StudyFolder.open(self.root)


def read_elsewhere(folder: StudyFolder, cluster: Cluster, sums: Path) -> Elsewhere:
    """Every block of a study, read on a cluster. Nothing is, if the study cannot be opened: the audit says why.

    Parameters
    ----------
    folder : of the study.
    cluster : where blocks are read.
    sums : an empty folder, for the sums.
    """
    try:
        blocks = StudyFolder.open(folder.root).store.blocks()
    except DAMAGED:
        return Elsewhere()
    rows = _stacked_rows(folder)
    asked = Asked(folder.root.resolve(), None if rows is None else rows.shared())
    read = Elsewhere({}, sums)
    with progress_bar() as bar:
        task = bar.add_task("reading blocks on the cluster", total=len(blocks))
        for block, (faults, part) in cluster.each(read_piece, asked, blocks):
            for store, fault in faults.items():
                read.faults.setdefault(store, {})[block] = fault
            if rows is not None and part is not None:
                keep_part(rows.source, folder.references, block, part=part, cache=sums)
            bar.advance(task)
    return read


def _stacked_rows(folder: StudyFolder) -> DevelopmentRows | None:
    """The rows whose sums are made anew; None if nothing is stacked, or nothing that fits the study."""
    try:
        stored = stored_stack(folder)
        rows = development_rows(folder, stored)
        _ = rows.source, folder.references
    except DAMAGED:
        return None
    return rows


def read_piece(asked: Asked, block: Block) -> tuple[dict[str, str], BlockPart | None]:
    """On a worker: what is wrong with a block in each store, and its sums if nothing is."""
    folder = asked.folder
    faults = {store: _fault(folder, store, block) for store in ("store", *([TRUTH] if block.role == "test" else []))}
    if asked.rows is None or block.role == "test" or any(faults.values()):
        return faults, None
    try:
        rows = asked.rows.opened
        parts = make_parts(rows.source, folder.references, [block], memory=parse_bytes(asked.rows.memory))
    except DAMAGED:
        return faults, None  # made here, where the audit says what is wrong
    return faults, parts[block]


def _fault(folder: StudyFolder, name: str, block: Block) -> str:
    """The first error in a block of a store, and the host that sees it; nothing if there is none."""
    try:
        truth = HeldOutTruth(folder).unread()
        found = verify_block(folder.store, block) if name == "store" else truth.verify_block(block)
        errors = [f.message for f in found if f.severity == "error"]
    except DAMAGED as error:
        errors = [str(error)]
    return f"{errors[0]} (On {here()}.)" if errors else ""
