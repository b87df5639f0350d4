"""The mean of the other perturbations: the best answer that knows nothing of the one that is asked for.

It looks at the truth of the rows it is scored beside, but never at the perturbation it answers for. No model below it
has been shown to know single perturbations (Ahlmann-Eltze et al. 2025; Mejia et al. 2025).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pertstack.data.rows import Float32
from pertstack.predictions.source import BlockSource
from pertstack.reduce.read_tiles import ordered_blocks
from pertstack.reduce.tile import Tile

_CHUNK_ROWS = 256


class MeanOfOtherPerturbations:
    """A ``Combine``: mean treated profile of the row's cell line over all rows of other perturbations.

    NaN where a cell line has one perturbation. Memory: one sum per perturbation and cell line.
    """

    def __init__(self, source: BlockSource) -> None:
        self._sums: dict[tuple[str, str | None], list[Any]] = {}  # (line, perturbation; None: all) -> [rows, sum]
        for block in ordered_blocks(source):
            names = source.obs(block)["perturbation"].astype(str).to_numpy()
            for start in range(0, len(names), _CHUNK_ROWS):
                rows = source.read(block, "treated", start=start, stop=min(len(names), start + _CHUNK_ROWS)).astype(
                    np.float64
                )
                for name in np.unique(names[start : start + len(rows)]):
                    part = rows[names[start : start + len(rows)] == name]
                    for have in (self._of(block.cell_line, None, rows), self._of(block.cell_line, str(name), rows)):
                        have[0] += len(part)
                        have[1] += part.sum(axis=0)

    def _of(self, line: str, name: str | None, rows: Any) -> list[Any]:
        return self._sums.setdefault((line, name), [0, np.zeros(rows.shape[1])])

    def __call__(self, tile: Tile) -> Float32:
        out = np.full(tile.control.shape, np.nan, dtype=np.float32)
        n, total = self._sums[tile.block.cell_line, None]
        for name in tile.obs["perturbation"].astype(str).unique():
            own_n, own = self._sums[tile.block.cell_line, name]
            if n > own_n:
                out[(tile.obs["perturbation"].astype(str) == name).to_numpy()] = (total - own) / (n - own_n)
        return out
