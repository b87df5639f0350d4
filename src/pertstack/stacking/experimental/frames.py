"""Common frames: embeddings of different fits, turned so that one coordinate means one thing.

Every fit of a model embeds the same anchor rows; its frame is centred and scaled from them and turned onto a consensus
of the fits by orthogonal Procrustes. What is made of the aligned vectors is decided in ``embedding_ridge.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pertstack._base.errors import MisalignedError
from pertstack.predictions.sources.embedding import RowEmbeddings
from pertstack.stacking.sums import Array

RANK = 1e-5
"""Directions with less than this share of the largest singular value are noise of float32."""
_ROUNDS = 10  # more change the sum of squares by less than a thousandth


@dataclass(frozen=True, eq=False)
class OwnFrame:
    """A fit's own frame: its centre, scale and the directions its anchors span."""

    centre: Array  # (d,)
    scale: float  # root mean square distance of the anchors from their centre
    span: Array  # (d, k) orthonormal
    anchors: Array  # (a, k) centred, scaled, in the span

    @classmethod
    def of(cls, anchors: Any) -> OwnFrame:
        """The frame of anchors (a, d); k = 0 if they do not differ (or there are fewer than two)."""
        values = np.asarray(anchors, dtype=np.float64)
        centre = values.mean(axis=0) if len(values) else np.zeros(values.shape[1])
        rest = values - centre
        scale = float(np.sqrt(np.square(rest).sum() / max(len(values), 1)))
        if scale <= 1e-6 * max(float(np.abs(values).max(initial=0.0)), 1e-300):
            return cls(centre, 1.0, np.zeros((values.shape[1], 0)), np.zeros((len(values), 0)))
        left, size, right = np.linalg.svd(rest / scale, full_matrices=False)
        keep = size > RANK * size[0]
        return cls(centre, scale, right[keep].T, left[:, keep] * size[keep])

    def coordinates(self, values: Any) -> Array:
        """Rows (n, d) centred, scaled, in the directions the anchors span, (n, k); what lies outside is dropped,
        because nothing says how it is turned."""
        return np.asarray((np.asarray(values, dtype=np.float64) - self.centre) @ self.span / self.scale)


def turn(frame: Array, target: Array) -> Array:
    """The turn (k, D) that brings anchors (a, k) closest to the same anchors (a, D) in squared distance.

    Orthogonal Procrustes (Schoenemann 1966, Psychometrika 31, 1-10): U V' of the singular value decomposition of
    ``frame' target``. For k != D the smaller space goes into the larger; directions of the frame that have nothing to
    do with the target (no singular value) are dropped rather than turned at will.

    >>> quarter = np.array([[0.0, 1.0], [-1.0, 0.0]])
    >>> rows = np.array([[1.0, 0.0], [0.0, 2.0]])
    >>> bool(np.allclose(turn(rows, rows @ quarter), quarter))
    True
    """
    left, size, right = np.linalg.svd(frame.T @ target, full_matrices=False)
    if not size.size or size[0] <= 0:
        return np.zeros((frame.shape[1], target.shape[1]))
    keep = size > 1e-10 * size[0]
    return np.asarray(left[:, keep] @ right[keep])


def consensus(frames: Sequence[Array]) -> Array:
    """Anchors (a, D) that all frames agree on best: the mean of the frames, each turned onto it, until it stays.

    Generalised Procrustes analysis (Gower 1975, Psychometrika 40, 33-51), started at the first of the widest frames.
    """
    widest = max(f.shape[1] for f in frames)
    target = next(f for f in frames if f.shape[1] == widest)
    before = np.inf
    for _ in range(_ROUNDS):
        turned = [f @ turn(f, target) for f in frames]
        target = np.mean(turned, axis=0)
        apart = float(sum(np.square(t - target).sum() for t in turned))
        if before - apart <= 1e-7 * max(float(np.square(target).sum()), 1e-300):
            break
        before = apart
    return target


@dataclass(frozen=True, eq=False)
class CommonFrame:
    """One model's common frame: the consensus of its fits' anchors, along its leading directions."""

    model: str
    anchor_ids: str
    target: Array  # (a, D)
    axes: Array  # (D, r) principal directions, orthonormal
    misfit: float  # largest share of a fit's anchor variance that the turn does not bring onto the consensus

    @classmethod
    def of(cls, model: str, fits: Sequence[RowEmbeddings], width: int) -> CommonFrame:
        """The common frame of some fits; r = 0 if a fit embeds all anchors alike.

        Parameters
        ----------
        model : whose fits these are; for messages.
        fits : embeddings of the same anchors by different fits, at least one.
        width : the frame has at most this many directions.

        Raises
        ------
        MisalignedError
            The fits were never aligned: without anchors, or with other anchor rows.
        """
        for fit in fits:
            _refuse_unaligned(model, fit, fits[0].anchor_ids)
        frames = [OwnFrame.of(fit.anchors).anchors for fit in fits]
        if not all(f.shape[1] for f in frames):
            return cls(model, fits[0].anchor_ids, np.zeros((len(frames[0]), 0)), axes=np.zeros((0, 0)), misfit=0.0)
        target = consensus(frames)
        _, size, right = np.linalg.svd(target, full_matrices=False)
        kept = size[:width] > RANK * max(float(size[0]), 1e-300)
        apart = [np.square(f @ turn(f, target) - target).sum() / max(np.square(f).sum(), 1e-300) for f in frames]
        return cls(model, fits[0].anchor_ids, target, axes=right[:width][kept].T, misfit=float(np.round(max(apart), 6)))

    @property
    def width(self) -> int:
        return int(self.axes.shape[1])

    def align(self, rows: RowEmbeddings) -> Array:
        """Rows of any fit of the model in the common frame, (n, r); NaN if there is no embedding.

        Raises
        ------
        MisalignedError
            The fit was never aligned: without anchors, or with other anchor rows.
        """
        _refuse_unaligned(self.model, rows, self.anchor_ids)
        own = OwnFrame.of(rows.anchors)
        return np.asarray(own.coordinates(rows.values) @ (turn(own.anchors, self.target) @ self.axes))


def _refuse_unaligned(model: str, fit: RowEmbeddings, anchor_ids: str) -> None:
    if fit.anchors is None:
        raise MisalignedError(
            f"The embeddings of {model!r} were never aligned: its fits embedded no common rows (fitted before anchors "
            f"were kept, per cell line, or by an external program), so the same coordinate means another thing in "
            f"every fold. Fit again in a new study, pooled over cell lines, or provide anchors with the arrays."
        )
    if fit.anchor_ids != anchor_ids:
        raise MisalignedError(
            f"The fits of {model!r} embedded different anchor rows, so their frames cannot be compared. Fit all of "
            f"them again on one fold plan."
        )
