"""Committing into a store: names are matched, values staged, hashed and published; seen whole or not at all.

One array of one block at a time. The steps on disk are in ``commit.py`` and ``durable.py``, rows that come a few at a
time in ``predictions/store/writer.py``; blocks and the life of what was committed are handled by ``store.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pertstack._base.errors import ConflictError, InputError, MisalignedError, StorageError, first_few
from pertstack._base.files import storage_error
from pertstack.design.blocks import Block
from pertstack.design.provenance import FittedOn
from pertstack.predictions.store.align import Take, as_names, match
from pertstack.predictions.store.commit import (
    ChunkValues,
    hash_chunks,
    ordered_chunks,
    publish_record,
    same_or_conflict,
    seal,
    stage_chunks,
    stamped,
)
from pertstack.predictions.store.files import durable, layout
from pertstack.predictions.store.files.anchors import Anchors, fit_name, fit_of, read_anchors, write_anchors
from pertstack.predictions.store.files.chunks import Grid
from pertstack.predictions.store.files.names import TRUTH_LAYERS, encode_name
from pertstack.predictions.store.files.provenance import write_fit_ids
from pertstack.predictions.store.files.record import Kind, Record
from pertstack.predictions.store.views import StoreViews
from pertstack.predictions.store.writer import RowWriter


class StoreCommits(StoreViews):
    """The part of a store that takes predictions, embeddings and anchors; what was committed first stays."""

    def commit(
        self,
        block: Block,
        model: str,
        values: Any,
        *,
        sample_ids: Iterable[object],
        gene_names: Iterable[object],
        fitted_on: FittedOn | None,
        meta: dict[str, Any] | None = None,
        missing_samples: Iterable[object] = (),
        missing_genes: Iterable[object] = (),
    ) -> Record:
        """Commit one model's predictions for one block; values are in the treated scale.

        Parameters
        ----------
        block, model
            Where they belong; a name that is committed there is refused, unless the content is the same.
        values : array, shape (len(sample_ids), len(gene_names))
            Any row and gene order; cast to float32.
        sample_ids, gene_names
            Names of rows and columns. Together with ``missing_*`` they must be exactly those of the block.
        fitted_on
            Who the model was fitted on; None only for the measured layers 'treated', 'control' and 'effect'.
        meta
            Plain JSON, kept in the record.
        missing_samples, missing_genes
            What was not predicted; stored NaN and recorded. NaN anywhere else is refused.

        Raises
        ------
        MisalignedError, InputError, ConflictError, StorageError
            Nothing was committed and everything committed before is untouched.
        """
        genes, gone_genes, columns = self._columns(block, model, gene_names, missing_genes)
        return self._commit(
            block,
            model,
            "layer",
            values=values,
            ids=as_names(sample_ids),
            columns=columns,
            width=len(genes),
            fitted_on=fitted_on,
            meta=meta or {},
            gone=as_names(missing_samples),
            gone_genes=gone_genes,
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

    def commit_embedding(
        self,
        block: Block,
        model: str,
        values: Any,
        *,
        sample_ids: Iterable[object],
        fitted_on: FittedOn | None,
        meta: dict[str, Any] | None = None,
        missing_samples: Iterable[object] = (),
    ) -> Record:
        """Commit one model's embedding of a block's samples; the same rules as for predictions.

        Parameters
        ----------
        block : of the store.
        model : name.
        values : (n, d), finite.
        sample_ids : of the rows, in any order.
        fitted_on : which rows the model was fitted on; None is refused.
        meta : plain JSON, kept in the record.
        missing_samples : of the block, that have no embedding.

        Raises
        ------
        InputError
            Not an array of vectors, or a value is not finite.
        MisalignedError
            Samples are foreign, twice, or lacking unannounced.
        ConflictError
            Something else is committed under this name.
        """
        width = int(np.shape(values)[1]) if np.ndim(values) == 2 else 0
        if width < 1:
            raise InputError(
                f"The embedding of {model!r} has shape {np.shape(values)}; it must be (samples, dimensions)."
            )
        return self._commit(
            block,
            model,
            "embedding",
            values=values,
            ids=as_names(sample_ids),
            columns=None,
            width=width,
            fitted_on=fitted_on,
            meta=meta or {},
            gone=as_names(missing_samples),
            gone_genes=[],
        )

    def commit_anchors(
        self, model: str, values: Any, *, sample_ids: Iterable[object], job_digest: str, fit_ids_digest: str
    ) -> Anchors:
        """Keep the anchor rows as one fit embeds them; written before the fit's first block.

        Parameters
        ----------
        model : name.
        values : (a, d), finite.
        sample_ids : of the anchors, the same for every fit.
        job_digest, fit_ids_digest : by which the fit is known.

        Raises
        ------
        ConflictError
            Blocks of this very fit are committed beside other anchors: a second run gave another frame.
        """
        self._writable()
        ids = as_names(sample_ids)
        array = np.ascontiguousarray(values, dtype=np.float32)
        if array.ndim != 2 or len(array) != len(ids) or not np.isfinite(array).all():
            raise MisalignedError(
                f"Anchors of {model!r} have shape {array.shape} for {len(ids):,} rows, or values that are not finite. "
                f"One finite vector per row is needed."
            )
        anchors = Anchors(tuple(ids), array, model, fit_name(job_digest, fit_ids_digest))
        found = read_anchors(self.root, self.uuid, anchors.fit)
        if found is not None and found.ids_digest == anchors.ids_digest and np.array_equal(found.values, array):
            return found
        used = found is not None and any(fit_of(r) == anchors.fit for r in self.records() if r.kind == "embedding")
        if used:
            raise ConflictError(
                f"A second run of the same fit of {model!r} embeds the anchor rows otherwise than the first, whose "
                f"embeddings are committed: they would be turned wrongly. Withdraw the model and fit it under another "
                "name."
            )
        write_anchors(self.root, self.uuid, anchors)
        return anchors

    def _commit(
        self,
        block: Block,
        model: str,
        kind: Kind,
        values: Any,
        ids: list[str],
        columns: Any,
        width: int,
        fitted_on: FittedOn | None,
        meta: dict[str, Any],
        gone: list[str],
        gone_genes: list[str],
    ) -> Record:
        self._writable()
        what = f"{model!r} for block {block.id}"
        if np.shape(values) != (len(ids), width):
            raise MisalignedError(
                f"{what}: values have shape {np.shape(values)}, but {len(ids):,} sample ids and {width:,} columns "
                f"were named. Without one name per row and column nothing can be aligned. Pass the names that "
                f"belong to the values."
            )
        draft = self.draft(
            block, model, kind, width=width, fitted_on=fitted_on, meta=meta, gone=gone, gone_genes=gone_genes
        )
        rows = match("sample", ids, self.sample_ids(block), missing=gone, where=what)
        gone_mask = np.isin(np.asarray(self.sample_ids(block), dtype=object), gone)
        chunk = ordered_chunks(values, rows, columns, missing_rows=gone_mask, what=what)
        found = self.find(block, model, kind)
        if found is not None:
            ours = Record(**{**vars(draft), "chunks": hash_chunks(draft.grid, chunk)})
            return same_or_conflict(found, ours, layout.array_folder(self.root, block, model, kind=kind))
        return self._stage_and_publish(draft, chunk)

    def _stage_and_publish(self, draft: Record, chunk: ChunkValues) -> Record:
        target = layout.array_folder(self.root, draft.block, draft.model, kind=draft.kind)
        attempt = durable.new_attempt()
        with durable.staging(self.root, attempt) as folder:
            staged = folder / "array"
            try:
                staged.mkdir()
                chunks = stage_chunks(staged, draft.grid, chunk)
                record = stamped(Record(**{**vars(draft), "chunks": chunks}), attempt)
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

    def writer(
        self,
        block: Block,
        model: str,
        *,
        gene_names: Iterable[object],
        fitted_on: FittedOn | None,
        meta: dict[str, Any] | None = None,
        missing_samples: Iterable[object] = (),
        missing_genes: Iterable[object] = (),
    ) -> RowWriter:
        """A writer for predictions larger than memory: append rows in any order, ``commit()`` at the end.

        Parameters
        ----------
        block : of the store.
        model : name.
        gene_names : of the columns, in any order.
        fitted_on : which rows the model was fitted on.
        meta : plain JSON, kept in the record.
        missing_samples, missing_genes : announced: NaN, instead of refused.
        """
        self._writable()
        genes, gone_genes, columns = self._columns(block, model, gene_names, missing_genes)
        draft = self.draft(
            block,
            model,
            "layer",
            width=len(genes),
            fitted_on=fitted_on,
            meta=meta or {},
            gone=as_names(missing_samples),
            gone_genes=gone_genes,
        )
        return RowWriter(self, draft, len(genes), columns)

    def _writable(self) -> None:
        if self.read_only:
            raise StorageError(f"The store {self.root} was opened read-only. Open it with read_only=False to write.")
