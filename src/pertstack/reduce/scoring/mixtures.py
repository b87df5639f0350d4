"""Weighted sums of models, many at once: ``reference + shift + sum_m w_m (prediction_m - reference)`` per gene.

All mixtures of a tile are made while a strip of its predictions lies in the cache. A value has the same bits whichever
mixtures are made beside it and however the rows are cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from pertstack._base.arrays import Float64
from pertstack._base.machine.compiled import kernel
from pertstack.data.rows import Float32
from pertstack.reduce.tile import Tile

STRIP = 256  # genes whose predictions and weights stay in the cache while every mixture is made of them


@dataclass(frozen=True)
class Mixture:
    """Weights of one mixture for the rows of a tile: (M,) for all genes, or (n_genes, M)."""

    models: list[int]  # (M,) positions in the tile
    weights: Float64
    shift: Float32  # (n_genes,) intercept
    own: bool  # against each row's control; else against the tile's pooled control


@runtime_checkable
class Mixes(Protocol):
    """A combination that is a mixture of models wherever all of them predict; elsewhere it says itself what it does."""

    def mixture(self, tile: Tile) -> Mixture: ...

    def __call__(self, tile: Tile) -> Float32: ...


@dataclass(frozen=True)
class Single:
    """A base model as a combination: its own predictions, NaN on rows it must not be scored on."""

    model: str

    def mixture(self, tile: Tile) -> Mixture:
        return Mixture([tile.models.index(self.model)], np.ones(1), _no_shift(tile), own=False)

    def __call__(self, tile: Tile) -> Float32:
        prediction: Float32 = tile.predictions[tile.models.index(self.model)]
        return prediction


class NoChange:
    """The prediction that nothing happens: each sample's own control."""

    def mixture(self, tile: Tile) -> Mixture:
        return Mixture([], np.zeros(0), _no_shift(tile), own=True)

    def __call__(self, tile: Tile) -> Float32:
        return tile.control


no_change = NoChange()


def single(model: str) -> Single:
    """A base model as a combination."""
    return Single(model)


def _no_shift(tile: Tile) -> Float32:
    return np.zeros(len(tile.gene_names), dtype=np.float32)


class Mixtures:
    """Mixtures as the loop wants them; weights of zero are left out, so that their models are never looked at."""

    def __init__(self, mixtures: Sequence[Mixture], n_models: int, n_genes: int) -> None:
        shape = (len(mixtures), n_models, n_genes)
        self.weights = np.zeros(shape, dtype=np.float32)
        self.rest, self.shift = np.zeros((2, shape[0], n_genes), dtype=np.float32)
        self.used, self.n_used = np.zeros(shape[:2], dtype=np.int64), np.zeros(shape[0], dtype=np.int64)
        self.own = np.array([m.own for m in mixtures], dtype=bool)
        for c, mixture in enumerate(mixtures):
            weights = np.broadcast_to(mixture.weights, (n_genes, len(mixture.models)))
            used = [j for j in range(len(mixture.models)) if np.any(mixture.weights[..., j] != 0)]
            self.n_used[c] = len(used)
            for place, j in enumerate(used):
                self.used[c, place] = mixture.models[j]
                self.weights[c, place] = weights[:, j]
            self.rest[c] = 1.0 - mixture.weights.sum(axis=-1)
            self.shift[c] = mixture.shift

    def without_shift(self) -> Mixtures:
        """The same weights without an intercept: of predictions that have lost one that all rows share."""
        other = copy(self)
        other.shift = np.zeros_like(self.shift)
        return other

    def mix(self, tile: Tile, start: int, stop: int, *, out: Float32, places: Any = None) -> None:
        """Mix some rows of a tile.

        Parameters
        ----------
        tile : predictions of all models.
        start, stop : rows [start, stop).
        out : (names, n, n_genes) float32, filled at the same rows.
        places : on the first axis, one per mixture; None for their order.
        """
        places = np.arange(len(self.own)) if places is None else places
        pooled = np.ascontiguousarray(tile.pooled, dtype=np.float32)
        packed = (self.weights, self.rest, self.shift, self.own, self.used, self.n_used)
        mix_strips(tile.predictions, np.ascontiguousarray(tile.control), pooled, *packed, start, stop, places, out)


def mixed(tile: Tile, mixture: Mixture) -> Float32:
    """One mixture of all rows of a tile, (n, n_genes); every model it weighs must predict."""
    out = np.empty((1, *tile.control.shape), dtype=np.float32)
    Mixtures([mixture], *tile.predictions.shape[::2]).mix(tile, 0, tile.n, out=out)
    made: Float32 = out[0]
    return made


@kernel
def mix_strips(  # type: ignore[no-untyped-def]
    predictions, control, pooled, weights, rest, shift, own, used, n_used, start, stop, places, out
):
    """Mixtures of rows [start, stop) into their places of out: ``rest * reference + shift``, then models in order."""
    n_genes = predictions.shape[2]
    for g in range(0, n_genes, STRIP):
        end = min(g + STRIP, n_genes)
        size = end - g
        for i in range(start, stop):
            for c in range(weights.shape[0]):
                o, remaining, shifted, w = out[places[c], i, g:end], rest[c, g:end], shift[c, g:end], weights[c]
                base = control[i, g:end] if own[c] else pooled[g:end]
                for q in range(size):
                    o[q] = remaining[q] * base[q] + shifted[q]
                n = n_used[c]
                m = 0
                while m + 3 < n:
                    p0, p1 = predictions[used[c, m], i, g:end], predictions[used[c, m + 1], i, g:end]
                    p2, p3 = predictions[used[c, m + 2], i, g:end], predictions[used[c, m + 3], i, g:end]
                    w0, w1, w2, w3 = w[m, g:end], w[m + 1, g:end], w[m + 2, g:end], w[m + 3, g:end]
                    for q in range(size):
                        o[q] += w0[q] * p0[q] + w1[q] * p1[q] + w2[q] * p2[q] + w3[q] * p3[q]
                    m += 4
                while m < n:
                    p, v = predictions[used[c, m], i, g:end], w[m, g:end]
                    for q in range(size):
                        o[q] += v[q] * p[q]
                    m += 1
