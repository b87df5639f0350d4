"""Names that predict the same bits everywhere, such as the best single model and the model it is: scored once."""

from __future__ import annotations

from typing import Any

import numpy as np
import xxhash

from pertstack.design.blocks import Block
from pertstack.predictions.source import BlockSource
from pertstack.reduce.read_tiles import ordered_blocks, read_tile
from pertstack.reduce.references import References
from pertstack.reduce.scoring.made import Combines, OfFold, mixture_of
from pertstack.reduce.scoring.mixtures import Mixtures
from pertstack.reduce.tile import Tile


def first_of_same(source: BlockSource, references: References, named: Combines) -> np.ndarray[Any, np.dtype[np.intp]]:
    """(n_names,) position of the first name that is the same mixture of models in every block; its own if none is.

    Where some model lacks rows or genes every name is its own: what stands in for them is each combination's affair.

    Parameters
    ----------
    source, references : as in ``score``.
    named : name -> Combine, or name -> {fold: Combine}.
    """
    found = [xxhash.xxh3_128() for _ in named]
    for turn, block in enumerate(ordered_blocks(source)):
        if not is_whole(source, block):
            return np.arange(len(named))
        tile = read_tile(source, references, block, start=0, stop=min(1, len(source.obs(block))))
        for place, (name, combine) in enumerate(named.items()):
            found[place].update(_mark(name, combine, tile) or f"{turn}, {place}".encode())
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(mark.digest(), place) for place, mark in enumerate(found)], dtype=np.intp)


def is_whole(source: BlockSource, block: Block) -> bool:
    """Whether every model predicts every row and gene of a block."""
    return all(source.sound(block, m).all() and source.genes_of(block, m).all() for m in source.models)


def _mark(name: str, combine: Any, tile: Tile) -> bytes | None:
    """Digest of the arithmetic of a mixture, as the loop over rows does it; None of what is no mixture."""
    mixture = mixture_of(OfFold(name, combine), tile)
    if mixture is None:
        return None
    packed = Mixtures([mixture], *tile.predictions.shape[::2])
    own = packed.own & packed.rest.any()  # the control does not enter if nothing is left for it
    mark = xxhash.xxh3_128()
    for part in (packed.n_used, packed.used, packed.weights, packed.rest, packed.shift, own):
        mark.update(np.ascontiguousarray(part).data)
    return mark.digest()
