"""Predictions of many combinations for a tile, and their scores: mixtures of models together, others one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pertstack._base.arrays import Float64
from pertstack._base.errors import InputError, first_few
from pertstack.data.rows import Float32
from pertstack.reduce.metrics.rows import TruthRows
from pertstack.reduce.scoring.mixtures import Mixes, Mixture, Mixtures
from pertstack.reduce.tile import Combine, Tile

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Combines = Mapping[str, Combine | Mapping[Any, Combine]]


def _combined(name: str, combine: Combine | Mapping[Any, Combine], tile: Tile) -> Float32:
    """The combination for a tile, by the tile's own fold if there is one per fold."""
    prediction = np.asarray(_of_fold(name, combine, tile)(tile), dtype=np.float32)
    if prediction.shape != tile.control.shape:
        raise InputError(f"{name!r} gave shape {prediction.shape} for a tile of {tile.control.shape} (rows, genes).")
    return prediction


def _of_fold(name: str, combine: Combine | Mapping[Any, Combine], tile: Tile) -> Combine:
    if not isinstance(combine, Mapping):
        return combine
    fold = tile.block.fold
    if fold not in combine:
        raise InputError(
            f"{name!r} has no combination for fold {fold} (it has {first_few(combine)}), so rows of block "
            f"{tile.block} could only be scored by one that has seen them. Fit it for every fold, or provide a "
            "single combination."
        )
    return combine[fold]


@dataclass(frozen=True)
class OfFold:
    """A combination under its name, by the tile's own fold if there is one per fold."""

    name: str
    combine: Combine | Mapping[Any, Combine]

    def __call__(self, tile: Tile) -> Float32:
        return _combined(self.name, self.combine, tile)


def mixture_of(combine: Combine, tile: Tile) -> Mixture | None:
    """The mixture that a combination is for the rows of a tile; None if it is something else."""
    mine = _of_fold(combine.name, combine.combine, tile) if isinstance(combine, OfFold) else combine
    return mine.mixture(tile) if isinstance(mine, Mixes) else None


class Made:
    """Predictions of every combination for a tile, in one array that is kept from tile to tile: fresh memory is slow.

    Mixtures of models are made a few rows at a time, just before these are scored; other combinations at once.
    """

    def __init__(self, named: Combines, n_given: int) -> None:
        self.named = dict(list(named.items())[n_given:])
        self.given = bool(n_given)
        self._space = np.zeros(0, dtype=np.float32)
        self._mixtures: tuple[Any, Mixtures] | None = None

    @property
    def n(self) -> int:
        return len(self.named)

    def score(self, tile: Tile, truth: TruthRows) -> tuple[Float64, Mask]:
        """Values (names, n_metrics, n) of base models, if they are asked for, and combinations; and who predicted."""
        mixing = self._mixing(tile)
        made = self._room(tile)
        for c, (name, combine) in enumerate(self.named.items()):
            if c not in mixing:
                made[c] = _combined(name, combine, tile)
        mixtures = self._packed(tile, list(mixing.values()))
        places = np.array(list(mixing), dtype=np.int64)
        lacking: Mask = np.asarray(~tile.available.all(axis=0) | (not tile.gene_available.all()))

        def make(start: int, stop: int) -> None:
            mixtures.mix(tile, start, stop, out=made, places=places)
            if lacking[start:stop].any():
                rows = start + np.flatnonzero(lacking[start:stop])
                some = tile.take(rows)
                for c, combine in mixing.items():
                    made[c, rows] = combine(some)

        given = tile.predictions if self.given else tile.predictions[:0]
        return truth.score_all(given, made, make=make if mixing else None)

    def score_less(self, tile: Tile, truth: TruthRows, less: Callable[[Float32], Float32]) -> Float64:
        """Values (names, n_metrics, n) of the tile that was scored last when every prediction has lost something linear
        in it, such as the mean of its plate; a mixture loses the same mixture of what its models lose.

        Parameters
        ----------
        tile : all models predict all of it.
        truth : has lost it.
        less : from profiles (n, n_genes) to what is left of them.
        """
        mixing = self._mixing(tile)
        made = self._room(tile)  # holds what ``score`` made
        for c in range(self.n):
            if c not in mixing:
                made[c] = less(made[c])
        predictions, nothing = np.empty_like(tile.predictions), np.zeros_like(tile.pooled)
        for m, prediction in enumerate(tile.predictions):
            predictions[m] = less(prediction)
        left = replace(tile, predictions=predictions, control=less(tile.control), pooled=nothing)
        mixtures = self._packed(tile, list(mixing.values())).without_shift()
        places = np.array(list(mixing), dtype=np.int64)

        def make(start: int, stop: int) -> None:
            mixtures.mix(left, start, stop, out=made, places=places)

        given = predictions if self.given else predictions[:0]
        return truth.score_all(given, made, make=make if mixing else None)[0]

    def _mixing(self, tile: Tile) -> dict[int, Mixes]:
        """Combinations that are mixtures of models, by their place."""
        found = (_of_fold(name, combine, tile) for name, combine in self.named.items())
        return {c: combine for c, combine in enumerate(found) if isinstance(combine, Mixes)}

    def _room(self, tile: Tile) -> Float32:
        shape = (self.n, *tile.control.shape)
        size = int(np.prod(shape))
        if self._space.size < size:
            self._space = np.empty(size, dtype=np.float32)
        return self._space[:size].reshape(shape)

    def _packed(self, tile: Tile, mixing: list[Mixes]) -> Mixtures:
        """The weights of a block, put together once for its tiles."""
        if self._mixtures is None or self._mixtures[0] != tile.block:
            found = [combine.mixture(tile) for combine in mixing]
            self._mixtures = tile.block, Mixtures(found, *tile.predictions.shape[::2])
        return self._mixtures[1]
