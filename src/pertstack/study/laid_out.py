"""Profiles poured into blocks: one pass from the front of the data file to its end."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pertstack._base.findings import Finding
from pertstack._base.machine.memory import rows_per_tile
from pertstack._base.machine.progress import track
from pertstack.data import DataFile
from pertstack.data.choices import Precision
from pertstack.data.landmarks import landmarks_of
from pertstack.data.rows import Float32
from pertstack.design.blocks import Block
from pertstack.design.plan.folds import FoldPlan
from pertstack.predictions.importers.readers.merge import fingerprints, save_marks
from pertstack.predictions.sources.store_source import StoreSource
from pertstack.predictions.store.files.names import HALVES
from pertstack.predictions.store.files.rounding import Rounding
from pertstack.predictions.store.store import PredictionStore
from pertstack.predictions.store.writer import RowWriter
from pertstack.reduce.references import References
from pertstack.study.folder import MARKS

POUR_BYTES = 128 * 10**6


def lay_out_blocks(
    root: Path, file: DataFile, plan: FoldPlan, *, obs: pd.DataFrame, precision: Precision = "32"
) -> PredictionStore:
    """Controls of every block to ``store/``; treated values to ``store/`` or, for the test, to ``test_truth/``, whose
    store is returned. Marks and references go to ``plan/``.

    Parameters
    ----------
    root : of the study that is being made.
    file : read once, from its front to its end.
    plan : which row goes where.
    obs : the rows that the plan places, in its order.
    precision : bits of a stored value; for 16 the file is read once more before, for the spread of every gene.
    """
    store = PredictionStore.create(root / "store", file.gene_names, plan_digest=plan.digest)
    truth = PredictionStore.create(root / "test_truth", file.gene_names, plan_digest=plan.digest)
    blocks = plan.blocks(obs)
    rounding = _roundings(file, plan, obs) if precision == "16" else {}
    block_of = np.full(file.n_samples, -1, dtype=np.int64)
    with ExitStack() as stack:
        layouts: list[_Layout] = []
        for block, ids in track(blocks.items(), "making blocks", len(blocks)):
            block_of[file.positions(ids)] = len(layouts)
            how = rounding.get(block.cell_line)
            layouts.append(_Layout.of(block, obs.loc[ids], store, truth=truth, file=file, rounding=how, stack=stack))
        marks = _pour(file, block_of, layouts)
    save_marks(root / "plan" / MARKS, [marks[at] for at in file.positions(list(obs.index))])
    references = References.collect(StoreSource(store, role="development", models=(), groups=plan.groups))
    references = references.with_controls_of(StoreSource(store, role="test", models=(), groups=plan.groups))
    references.with_landmarks(landmarks_of(file.var)).save(root / "plan" / "references.npz")
    return truth


def rounding_findings(precision: Precision) -> list[Finding]:
    """What a reader of the study should know of its stored values."""
    if precision == "32":
        return []
    message = (
        "Values are stored in 16 bits: rounded to a 512th of each gene's standard deviation within cell lines, so that "
        "none moves by more than a 1024th of it. Genes that nearly tie may change places."
    )
    return [Finding("note", "stored_in_16_bits", message)]


@dataclass
class _Layout:
    """A block being laid out: a writer for each of its layers, and the rows that are still to come."""

    writers: dict[str, RowWriter]
    rows_left: int

    @classmethod
    def of(
        cls,
        block: Block,
        obs: pd.DataFrame,
        store: PredictionStore,
        *,
        truth: PredictionStore,
        file: DataFile,
        rounding: Rounding | None,
        stack: ExitStack,
    ) -> _Layout:
        """Registers the block and reserves room for its layers, so that a full disk shows before anything is read."""
        into = truth if block.role == "test" else store
        for each in {id(s): s for s in (store, into)}.values():
            each.add_block(block, obs, rounding=rounding)
        layers = {"control": store, "treated": into} | ({"effect": into} if file.has_effect else {})
        layers |= dict.fromkeys(HALVES, into) if file.halves is not None else {}
        return cls(
            {
                name: stack.enter_context(to.writer(block, name, gene_names=file.gene_names, fitted_on=None))
                for name, to in layers.items()
            },
            len(obs),
        )

    def take(self, values: dict[str, Float32], ids: np.ndarray) -> None:
        """Rows of the block with their names; after the last of them the block is committed."""
        for name, writer in self.writers.items():
            writer.append(values[name], ids)
        self.rows_left -= len(ids)
        if not self.rows_left:
            for writer in self.writers.values():
                writer.commit()


def _roundings(file: DataFile, plan: FoldPlan, obs: pd.DataFrame) -> dict[str, Rounding]:
    """Per cell line: offsets from the mean of its controls, and steps of a gene's standard deviation within the cell
    lines, over treated profiles of development rows."""
    lines, names = pd.factorize(obs["cell_line"])
    line_of = np.full(file.n_samples, -1, dtype=np.int64)
    line_of[file.positions(list(obs.index))] = lines
    learned = np.zeros(file.n_samples, dtype=bool)
    learned[file.positions(list(plan.table["sample_id"][plan.table["role"] != "test"]))] = True
    controls, treated = (_MeanAndSquares(len(names), file.n_genes) for _ in range(2))
    rows = rows_per_tile(file.n_genes, 10, POUR_BYTES)
    for chunk in track(file.chunks(rows), "spread of every gene", total=-(-file.n_samples // rows)):
        of, known = line_of[chunk.start : chunk.stop], learned[chunk.start : chunk.stop]
        for line in np.unique(of[of >= 0]):
            controls.add(line, chunk.control[of == line])
            treated.add(line, chunk.treated[(of == line) & known])
    spread = np.sqrt(treated.squares.sum(axis=0) / max(treated.count.sum(), 1))
    return {str(name): Rounding.of(controls.mean[i], spread) for i, name in enumerate(names)}


class _MeanAndSquares:
    """Count, mean and sum of squares about it, of every line and gene; rows come in pieces (Chan, Golub and LeVeque
    1983)."""

    def __init__(self, n_lines: int, n_genes: int) -> None:
        self.count = np.zeros(n_lines)
        self.mean, self.squares = np.zeros((n_lines, n_genes)), np.zeros((n_lines, n_genes))

    def add(self, line: int, values: Float32) -> None:
        if not len(values):
            return
        mean = values.mean(axis=0, dtype=np.float64)
        n, before = len(values), self.count[line]
        shift = mean - self.mean[line]
        self.squares[line] += np.square(values - mean).sum(axis=0) + shift**2 * (n * before / (n + before))
        self.mean[line] += shift * (n / (n + before))
        self.count[line] += n


def _pour(file: DataFile, block_of: np.ndarray, layouts: Sequence[_Layout]) -> list[bytes]:
    """One pass from the front of the file to its end, whatever the order of its rows; each row goes to its block.

    Returns the fingerprint of every row, in the order of the file.
    """
    marks: list[bytes] = []
    rows = rows_per_tile(file.n_genes, 10, POUR_BYTES)  # up to five layers, and the part of them that a block takes
    for chunk in track(file.chunks(rows, halves=True), "laying out blocks", total=-(-file.n_samples // rows)):
        ids, at = file.sample_ids[chunk.start : chunk.stop], block_of[chunk.start : chunk.stop]
        values = {"control": chunk.control, "treated": chunk.treated}
        if chunk.effect is not None:
            values["effect"] = chunk.effect
        if chunk.halves is not None:
            values |= dict(zip(HALVES, chunk.halves, strict=True))
        for number in np.unique(at):
            mine = at == number
            layouts[number].take({name: v if mine.all() else v[mine] for name, v in values.items()}, ids[mine])
        marks += fingerprints(chunk.control, chunk.treated)
    return marks
