"""The replicate predictor: what the other replicates of the same condition say about a sample.

A ceiling, never a candidate: it is made of truth. It shows how much of a score the noise of measurement leaves to be
won.
"""

from __future__ import annotations

import numpy as np

from pertstack.data.rows import Float32
from pertstack.design.blocks import Block
from pertstack.predictions.source import BlockSource
from pertstack.reduce.scoring.controls import condition_codes
from pertstack.reduce.scoring.line_means import add_differences
from pertstack.reduce.tile import Tile


class ReplicatePredictor:
    """A ``Combine`` over a source with truth: mean treated profile of the other replicates of a row's condition.

    Rows without another replicate in their block are NaN. Memory: one block's condition sums.
    """

    def __init__(self, source: BlockSource) -> None:
        self.source = source
        self._block: Block | None = None
        self._row: dict[str, int] = {}

    def __call__(self, tile: Tile) -> Float32:
        if tile.block != self._block:
            self._load(tile.block)
        rows = np.array([self._row[s] for s in tile.obs.index], dtype=np.int64)
        own = np.asarray(self.source.read(tile.block, "treated", start=int(rows.min()), stop=int(rows.max()) + 1))[
            rows - rows.min()
        ]
        codes = self._codes[rows]
        others = self._counts[codes] - 1
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = (self._sums[codes] - own) / others[:, None]
        mean[others < 1] = np.nan
        return np.asarray(mean, dtype=np.float32)

    def _load(self, block: Block) -> None:
        obs = self.source.obs(block)
        self._codes, n_conditions = condition_codes(obs)
        self._counts = np.bincount(self._codes, minlength=n_conditions)
        self._sums = np.zeros((n_conditions, len(self.source.gene_names)))
        nothing = np.zeros((1, self._sums.shape[1]))
        for start in range(0, len(obs), 512):
            stop = min(start + 512, len(obs))
            rows = self.source.read(block, "treated", start=start, stop=stop)
            add_differences(rows, nothing, self._codes[start:stop], self._sums)
        self._row = {str(s): i for i, s in enumerate(obs.index)}
        self._block = block

    @property
    def exists(self) -> bool:
        """Whether any block has a condition that was measured twice."""
        for block in self.source.blocks():
            codes, _ = condition_codes(self.source.obs(block))
            if len(codes) and np.bincount(codes).max() > 1:
                return True
        return False
