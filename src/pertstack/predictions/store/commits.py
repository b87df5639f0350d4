"""Committing into a store: names are matched, values staged, hashed and published; seen whole or not at all.

One array of one block at a time. The steps on disk are in ``commit.py`` and ``durable.py``, rows that come a few at a
time in ``predictions/store/writer.py``; blocks and the life of what was committed are handled by ``store.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from pertstack._base.errors import ConflictError, InputError, MisalignedError
from pertstack.design.blocks import Block
from pertstack.design.provenance import FittedOn
from pertstack.predictions.store.align import as_names, match
from pertstack.predictions.store.commit import (
    hash_chunks,
    ordered_chunks,
    same_or_conflict,
)
from pertstack.predictions.store.drafts import StoreDrafts
from pertstack.predictions.store.files import layout
from pertstack.predictions.store.files.anchors import Anchors, fit_name, fit_of, read_anchors, write_anchors
from pertstack.predictions.store.files.record import Kind, Record
from pertstack.predictions.store.writer import RowWriter


class StoreCommits(StoreDrafts):
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

    def anchors_of(self, record: Record) -> Anchors | None:
        """Anchor rows as the fit behind a record embeds them; None when it embedded none."""
        fit = fit_of(record)
        if fit is None:
            return None
        if fit not in self._anchors:
            self._anchors[fit] = read_anchors(self.root, self.facts.uuid, fit)
        return self._anchors[fit]

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
            grid, chunks = hash_chunks(draft.grid, chunk, rounding=self.rounding(block, model, kind))
            ours = replace(draft, grid=grid, chunks=chunks)
            return same_or_conflict(found, ours, layout.array_folder(self.root, block, model, kind=kind))
        return self._stage_and_publish(draft, chunk)

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
