"""Mean profiles of the perturbations of one cell line, of the truth and of many predictions, less a reference.

Where every model predicts every row, a mixture of models has the mixture of their mean profiles: its rows are never
made. What the means are compared by is in ``set_values.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pertstack._base.arrays import Float64
from pertstack._base.machine.compiled import kernel
from pertstack.data.rows import Float32
from pertstack.design.blocks import Block
from pertstack.design.metric_names import Reference
from pertstack.predictions.source import BlockSource
from pertstack.reduce.metrics.banks import banks
from pertstack.reduce.read_tiles import iter_tiles, read_tile
from pertstack.reduce.references import References
from pertstack.reduce.scoring.made import mixture_of
from pertstack.reduce.scoring.mixtures import Mixture
from pertstack.reduce.scoring.same import is_whole
from pertstack.reduce.tile import Combine, Tile

_BESIDE = 5
"""Mean profiles of as many names fit into what comparing them takes: truth, its copies, one prediction and its copy."""


def mixtures_of_line(
    source: BlockSource, references: References, blocks: Sequence[Block], combines: Mapping[str, Combine]
) -> dict[str, Mixture]:
    """The mixtures among some combinations, if a cell line is one block and every model predicts all of it; else
    none, for weights differ from block to block.

    Parameters
    ----------
    source, references : as in ``set_level_values``.
    blocks : of the line.
    combines : name -> from a tile to one prediction.
    """
    if len(blocks) != 1 or not is_whole(source, blocks[0]):
        return {}
    tile = read_tile(source, references, blocks[0], start=0, stop=min(1, len(source.obs(blocks[0]))))
    found = {name: mixture_of(combine, tile) for name, combine in combines.items()}
    return {name: mixture for name, mixture in found.items() if mixture is not None}


def turns(
    used: Sequence[Reference], names: Sequence[str], mixing: dict[str, Mixture], *, n_models: int, room: int
) -> list[tuple[list[Reference], list[str]]]:
    """References and names whose mean profiles are gathered in one read. ``mixing`` is emptied if the models' own
    mean profiles leave no room.

    Parameters
    ----------
    used : references.
    names : of combinations.
    mixing : those that are mixtures of models.
    n_models : of the source.
    room : how many mean profiles (n_perturbations, n_genes) may be kept.
    """
    free = room - _BESIDE - 1  # the truth's
    layers = _n_layers(n_models) if mixing else 0
    if free < layers + 1:
        mixing.clear()
        layers = 0
    alone = [name for name in names if name not in mixing]
    if (layers + len(alone) + 1) * len(used) - 1 <= free:
        return [(list(used), list(names))]
    first = free - layers if mixing else max(1, free)
    groups = [[*mixing, *alone[:first]]]
    groups += [alone[a : a + max(1, free)] for a in range(first, len(alone), max(1, free))]
    return [([reference], group) for reference in used for group in groups]


def _n_layers(n_models: int) -> int:
    return n_models + 2  # the control of each row, and that of the cell line


class LineMeans:
    """Mean profiles of the perturbations of one cell line: the truth and some predictions, against each reference.

    ``rows`` holds the perturbation of each row of the line (-1: none that takes part), ``predicted`` (n_names, n rows)
    which rows each name predicts, ``bank`` whom each perturbation is told apart from.
    """

    def __init__(
        self,
        source: BlockSource,
        references: References,
        blocks: Sequence[Block],
        *,
        where: Mapping[str, int],
        combines: Mapping[str, Combine],
        mixing: Mapping[str, Mixture],
        used: Sequence[Reference],
        memory: int,
    ) -> None:
        self.names, self.used = list(combines), list(used)
        self.mixing = {name: mixing[name] for name in self.names if name in mixing}
        alone = {name: combine for name, combine in combines.items() if name not in mixing}
        n_layers = self._n_layers = _n_layers(len(source.models)) if self.mixing else 0
        self._at = {name: 1 + n_layers + i for i, name in enumerate(alone)}
        shape = (1 + n_layers + len(alone), len(used), len(where), len(source.gene_names))
        self._means, counts = np.zeros(shape), np.zeros(shape[:3])
        in_fold = {fold: np.zeros(len(where)) for fold in dict.fromkeys(b.fold for b in blocks)}  # rows of each
        line = blocks[0].cell_line
        self._folds = {k: references.centroid(line, k) for k in in_fold} if "centroid" in used else {}
        rows, predicted = [], []
        for tile, treated in iter_tiles(source, references, memory // 2, blocks=blocks):
            drug = np.array([where.get(p, -1) for p in tile.obs["perturbation"]])
            in_fold[tile.block.fold] += np.bincount(drug[drug >= 0], minlength=len(where))
            rows.append(drug)
            models = [*tile.predictions, tile.control, np.broadcast_to(tile.pooled, tile.control.shape)]
            made = (np.asarray(combine(tile), dtype=np.float32) for combine in alone.values())
            finite = np.empty((shape[0], tile.n), dtype=bool)
            profiles = [np.atleast_2d(_profile(tile, references, r)).astype(np.float64) for r in used]
            known = [np.broadcast_to(np.isfinite(p).all(axis=1), tile.n) for p in profiles]
            for i, layer in enumerate((treated, *models[:n_layers], *made)):
                finite[i] = np.isfinite(layer.sum(axis=1, dtype=np.float64))
                for r, profile in enumerate(profiles):
                    to = np.where(finite[i] & known[r], drug, -1)
                    counts[i, r] += np.bincount(to[to >= 0], minlength=len(where))
                    add_differences(layer, profile, to, self._means[i, r])
            all_models = finite[1 : 1 + n_layers].all(axis=0)
            predicted.append([finite[self._at[n]] if n in self._at else all_models for n in self.names])
        self.rows = np.concatenate(rows)
        self.predicted = np.concatenate(
            [np.array(p, dtype=bool).reshape(len(self.names), -1) for p in predicted], axis=1
        )
        self._in_fold = np.stack(list(in_fold.values()), axis=1)  # (n_perturbations, n_folds)
        self.bank = banks(self._in_fold)
        with np.errstate(invalid="ignore"):
            self._means /= counts[..., None]

    def truth(self, reference: Reference) -> Float64:
        """(n_perturbations, n_genes) mean truth less a reference; NaN without rows that have it."""
        found: Float64 = self._means[0, self.used.index(reference)]
        return found

    def of(self, name: str, reference: Reference) -> Float64:
        """(n_perturbations, n_genes) mean prediction less a reference; NaN without predicted rows."""
        r = self.used.index(reference)
        if name in self._at:
            alone: Float64 = self._means[self._at[name], r]
            return alone
        mixture, layers = self.mixing[name], self._means[1 : 1 + self._n_layers, r]
        weights = np.asarray(mixture.weights, dtype=np.float32).astype(np.float64)  # as rows are mixed
        rest = (1.0 - mixture.weights.sum(axis=-1)).astype(np.float32)
        answer: Float64 = layers[-2 if mixture.own else -1] * rest
        answer += mixture.shift
        for j, model in enumerate(mixture.models):
            if weights[..., j].any():
                answer += weights[..., j] * layers[model]
        return answer

    def centroids(self) -> Iterator[tuple[Any, Any, Float64]]:
        """The centroid outside the own folds of some perturbations, which truth and prediction and all that these are
        told apart from lose alike: who they are, who the others are, the profile."""
        share = self._in_fold / self._in_fold.sum(axis=1, keepdims=True)
        kinds_of_share, which = np.unique(share, axis=0, return_inverse=True)
        for turn, weights in enumerate(kinds_of_share):
            mine = which.ravel() == turn
            yield mine, self.bank == self.bank[mine][0], weights @ np.stack(list(self._folds.values()))


def add_differences(rows: Float32, profile: Float64, to: Any, sums: Float64) -> None:
    """Add rows less a profile to rows of sums.

    Parameters
    ----------
    rows : (n, n_genes).
    profile : (n, n_genes), or (1, n_genes) for all.
    to : (n,) rows of sums; -1 for none.
    sums : (n_sums, n_genes).
    """
    order = np.argsort(to, kind="stable")  # a row of sums stays in the cache for all that is added to it
    add_in_order(np.ascontiguousarray(rows), profile, to, order[to[order] >= 0], sums)


@kernel
def add_in_order(rows, profile, to, order, sums):  # type: ignore[no-untyped-def]
    """Some rows, in this order, less their profile, added to the rows ``to`` of sums."""
    shared = profile.shape[0] == 1
    for i in order:
        into, row, less = sums[to[i]], rows[i], profile[0 if shared else i]
        for g in range(rows.shape[1]):
            into[g] += row[g] - less[g]


def _profile(tile: Tile, references: References, reference: Reference) -> Any:
    if reference == "own":
        return tile.control
    if reference == "matched":
        return references.plates.profiles(tile.obs, tile.block.cell_line, tile.control)
    if reference == "centroid":  # subtracted later: every perturbation has its own (``centroids``)
        return np.zeros(len(tile.pooled))
    return tile.pooled
