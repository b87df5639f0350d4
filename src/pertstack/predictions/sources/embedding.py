"""Embeddings of rows, and what is needed to compare those of different fits: anchors, rows that every fit embedded.

Two fits of one model describe a row in their own frames (any rotation is as good as another), so an embedding
without its fit's anchors may never be put beside one of another fit. How frames are aligned is handled by
``stack/``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from pertstack._base.digests import digest_array, digest_names
from pertstack._base.errors import InputError, MisalignedError
from pertstack.data.rows import Float32
from pertstack.design.blocks import Block


@dataclass(frozen=True, eq=False)
class RowEmbeddings:
    """Rows as one fit of one model describes them, in that fit's own frame.

    ``anchors`` are the vectors of the rows that every fit embeds, or None if the fit embedded none: then nothing
    says how its frame lies to another's. ``anchor_ids`` is the digest of the anchors' names, in order.
    """

    values: Float32  # (n, d), NaN in rows without an embedding
    anchors: Float32 | None  # (a, d)
    anchor_ids: str
    fit: str  # by which one fit is told from another


@runtime_checkable
class EmbeddingSource(Protocol):
    """A ``BlockSource`` that also has embeddings."""

    def embedding(self, block: Block, model: str, *, start: int, stop: int) -> RowEmbeddings | None:
        """Embeddings of some rows; None when the model gave none.

        Parameters
        ----------
        block : of the source.
        model : name.
        start, stop : rows [start, stop) of the block, in plan order.
        """
        ...


@dataclass(frozen=True, eq=False)
class ArrayEmbedding:
    """One model's embeddings of rows in arrays.

    Parameters
    ----------
    values : array (n, d)
        One vector per row, each by the fit that predicted the row; NaN throughout if there is none.
    anchors : {fold: array (a, d)}, or array (a, d) for rows of one fit
        The same ``a`` rows, in the same order, as embedded by the fit without each fold (None: the final fit).
    """

    values: Any
    anchors: Any

    def of_fold(self, fold: int | None, rows: Any) -> RowEmbeddings:
        """Rows by position, all of one fold.

        Parameters
        ----------
        fold : the fold that the fit behind these rows left out; None for the final fit.
        rows : (k,) positions of the rows.

        Raises
        ------
        MisalignedError
            Values and anchors do not have the same number of dimensions.
        """
        values = np.asarray(np.asarray(self.values)[rows], dtype=np.float32)
        found = self.anchors.get(fold) if isinstance(self.anchors, Mapping) else self.anchors
        anchors = None if found is None else np.ascontiguousarray(found, dtype=np.float32)
        if anchors is None:
            return RowEmbeddings(values, None, "", f"fold {fold}")
        if anchors.ndim != 2 or anchors.shape[1] != values.shape[1] or not np.isfinite(anchors).all():
            raise MisalignedError(
                f"Anchors of fold {fold} have shape {anchors.shape} (or values that are not finite), the embeddings "
                f"{values.shape}. Both must come from the same fit: one finite vector of {values.shape[1]} numbers per "
                f"anchor row."
            )
        names = digest_names([f"anchor {i}" for i in range(len(anchors))])
        return RowEmbeddings(values, anchors, names, digest_array(anchors))


def check_array_embedding(model: str, embedding: Any, n: int) -> ArrayEmbedding:
    """Refuse what is not one vector per row.

    Parameters
    ----------
    model : for the message.
    embedding : as given.
    n : rows of the predictions.

    Raises
    ------
    InputError
        Not an ``ArrayEmbedding``, or another number of rows than the predictions.
    """
    if not isinstance(embedding, ArrayEmbedding):
        raise InputError(
            f"The embedding of {model!r} is a {type(embedding).__name__}. Vectors alone cannot be put beside those of "
            f"another fit: give ArrayEmbedding(values, anchors), anchors being the same rows embedded by every fit."
        )
    shape = np.shape(embedding.values)
    if len(shape) != 2 or shape[0] != n or shape[1] < 1:
        raise InputError(f"The embedding of {model!r} has shape {shape}; ({n:,}, dimensions) is expected.")
    return embedding
