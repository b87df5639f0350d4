"""Level-one rows for scoring one fold: predictions by models that saw neither the row's own fold nor the scored one.

With ordinary cross-fitting the models behind fold j's predictions were fitted on fold k, and what they know of it (its
mean, gene by gene) can be read out of their predictions by weights learned on the other folds: the score of fold k is
then no longer honest (docs/decisions/0005-true-nesting.md). Here they were not.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pertstack.data.rows import Float32, Names
from pertstack.design.blocks import Block
from pertstack.predictions.source import Mask
from pertstack.predictions.sources.embedding import RowEmbeddings
from pertstack.predictions.sources.store_source import StoreSource
from pertstack.predictions.sources.training_distance import TrainingDistance
from pertstack.predictions.store.files.names import TRUTH_LAYERS, nested_name
from pertstack.predictions.store.store import PredictionStore


class WithoutFold:
    """A ``BlockSource`` over the development blocks outside one fold, with predictions that never met that fold."""

    def __init__(
        self,
        store: PredictionStore,
        models: Sequence[str],
        fold: int,
        groups: pd.Series | None = None,
        distance: TrainingDistance | None = None,
    ) -> None:
        self.fold = fold
        self._models = tuple(models)
        nested = [nested_name(m, fold) for m in self._models]
        self._inner = StoreSource(
            store, None, "development", nested, groups=groups, nested=True, distance=distance, without=fold
        )

    @property
    def gene_names(self) -> Names:
        return self._inner.gene_names

    @property
    def models(self) -> tuple[str, ...]:
        return self._models

    def blocks(self) -> list[Block]:
        return [b for b in self._inner.blocks() if b.fold != self.fold]

    def obs(self, block: Block) -> pd.DataFrame:
        return self._inner.obs(block)

    def read(self, block: Block, layer: str, *, start: int, stop: int, out: Float32 | None = None) -> Float32:
        return self._inner.read(block, self._layer(layer), start=start, stop=stop, out=out)

    def prefetch(self, block: Block, layer: str, *, start: int, stop: int) -> None:
        self._inner.prefetch(block, self._layer(layer), start=start, stop=stop)

    def sound(self, block: Block, model: str) -> Mask:
        return self._inner.sound(block, self._layer(model))

    def genes_of(self, block: Block, model: str) -> Mask:
        return self._inner.genes_of(block, self._layer(model))

    def embedding(self, block: Block, model: str, *, start: int, stop: int) -> RowEmbeddings | None:
        return self._inner.embedding(block, self._layer(model), start=start, stop=stop)

    def layer_digest(self, block: Block, layer: str) -> str:
        return self._inner.layer_digest(block, self._layer(layer))

    def _layer(self, name: str) -> str:
        return name if name in TRUTH_LAYERS else nested_name(name, self.fold)


def has_nested(store: PredictionStore, model: str) -> bool:
    """Whether every development block of a model that it predicts also has its nested predictions."""
    blocks = store.blocks("development")
    folds = sorted({b.fold for b in blocks if b.fold is not None})
    wanted = [(b, k) for b in blocks for k in folds if k != b.fold and store.status(b, model) == "committed"]
    return bool(wanted) and all(store.status(b, nested_name(model, k)) == "committed" for b, k in wanted)
