"""What every commit into a store begins and ends with: a record with its names checked, and a publication seen whole or
not at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pertstack._base.errors import InputError, MisalignedError, StorageError, first_few
from pertstack._base.files import storage_error
from pertstack.design.blocks import Block
from pertstack.design.provenance import FittedOn
from pertstack.predictions.store.align import Take, as_names, match
from pertstack.predictions.store.commit import (
    ChunkValues,
    publish_record,
    seal,
    stage_chunks,
    stamped,
)
from pertstack.predictions.store.files import durable, layout
from pertstack.predictions.store.files.chunks import Grid
from pertstack.predictions.store.files.names import TRUTH_LAYERS, encode_name
from pertstack.predictions.store.files.provenance import write_fit_ids
from pertstack.predictions.store.files.record import Kind, Record
from pertstack.predictions.store.views import StoreViews


class StoreDrafts(StoreViews):
    """The part of a store that drafts records and publishes what was staged."""

    def draft(
        self,
        block: Block,
        model: str,
        kind: Kind,
        *,
        width: int,
        fitted_on: FittedOn | None,
        meta: dict[str, Any],
        gone: list[str],
        gone_genes: list[str],
    ) -> Record:
        """A record without chunks, its names and provenance checked.

        Parameters
        ----------
        block : of the store.
        model : name.
        kind : "layer" or "embedding".
        width : columns, of an embedding.
        fitted_on : which rows the model was fitted on; needed, except for measured layers.
        meta : plain JSON.
        gone, gone_genes : samples and genes announced as missing.

        Raises
        ------
        InputError
            ``fitted_on`` is not said.
        MisalignedError
            Missing samples that are not in the block.
        """
        encode_name(model)
        if fitted_on is None and model not in TRUTH_LAYERS:
            raise InputError(
                f"Predictions of {model!r} need fitted_on=: which rows the model was fitted on decides whether they "
                f"may be stacked. Give FittedOn.fold_of_plan(...), FittedOn.ids(...), or FittedOn.unknown()."
            )
        facts, order = self.block_facts(block), {s: i for i, s in enumerate(self.sample_ids(block))}
        foreign = [s for s in gone if s not in order]
        if foreign:
            raise MisalignedError(f"{model!r}, missing_samples: not in block {block.id}: {first_few(foreign)}.")
        if kind == "layer":
            genes = set(gone_genes)
            gone_genes = [g for g in self._genes if g in genes]
        grid = Grid(int(facts["n"]), self.facts.n_genes if kind == "layer" else width)
        return Record(
            self.facts.uuid,
            block,
            model,
            kind=kind,
            grid=grid,
            samples_sha256=facts["samples_sha256"],
            genes_sha256=facts["genes_sha256"] if kind == "layer" else "",
            chunks=(),
            missing_samples=tuple(sorted(set(gone), key=order.__getitem__)),
            missing_genes=tuple(gone_genes),
            fitted_on=fitted_on,
            plan_digest=self.plan_digest,
            meta=dict(meta),
        )

    def _columns(
        self, block: Block, model: str, gene_names: Iterable[object], missing_genes: Iterable[object]
    ) -> tuple[list[str], list[str], Take | None]:
        """Names of the columns given, of the genes announced as missing, and how the columns must be taken."""
        genes, gone = as_names(gene_names), as_names(missing_genes)
        both = set(genes).intersection(gone)
        if both:
            raise MisalignedError(
                f"{model!r} for block {block.id}: {len(both):,} genes are passed and announced as missing: "
                f"{first_few(sorted(both))}. Leave out their columns, or do not announce them."
            )
        return genes, gone, match("gene", genes, self._genes, missing=gone, where=f"{model!r} for block {block.id}")

    def _stage_and_publish(self, draft: Record, chunk: ChunkValues) -> Record:
        target = layout.array_folder(self.root, draft.block, draft.model, kind=draft.kind)
        attempt = durable.new_attempt()
        with durable.staging(self.root, attempt) as folder:
            staged = folder / "array"
            try:
                staged.mkdir()
                rounding = self.rounding(draft.block, draft.model, draft.kind)
                grid, chunks = stage_chunks(staged, draft.grid, chunk, rounding=rounding)
                record = stamped(replace(draft, grid=grid, chunks=chunks), attempt)
                return self.seal_and_publish(staged, target, record)
            except OSError as error:
                raise error if isinstance(error, StorageError) else storage_error(error, staged) from error

    def seal_and_publish(self, staged: Path, target: Path, record: Record) -> Record:
        """Last steps of every commit: record, flush, rename; then the mark 'absent', if any, is lifted.

        Parameters
        ----------
        staged, target : folders.
        record : of the commit.
        """
        if record.fitted_on is not None:
            write_fit_ids(self.root, record.fitted_on)
        seal(staged, record)
        done = publish_record(staged, target, record, look=lambda: self.find(record.block, record.model, record.kind))
        if record.kind == "layer":
            layout.absent_file(self.root, record.block, record.model).unlink(missing_ok=True)
        return done

    def _writable(self) -> None:
        if self.read_only:
            raise StorageError(f"The store {self.root} was opened read-only. Open it with read_only=False to write.")
