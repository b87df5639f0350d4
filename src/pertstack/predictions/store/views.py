"""Convenient ways to look into a store: tiles with read-ahead, single samples, single genes, one lazy AnnData.

For people and notebooks; every one goes through the same checked reads. What is made of the values is left to others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import NeedsExtraError, first_few, unknown_name
from pertstack._base.machine.memory import rows_per_tile
from pertstack.data.rows import Float32
from pertstack.design.blocks import Block, Role
from pertstack.predictions.source import BlockSource
from pertstack.predictions.store.files.chunks import DTYPE
from pertstack.predictions.store.files.names import TRUTH_LAYERS
from pertstack.predictions.store.reader import StoreReader


@dataclass(frozen=True)
class LayerTile:
    """Some rows of one block in several layers. The arrays are reused: copy what should outlive the next tile but
    one."""

    block: Block
    start: int
    stop: int
    layers: tuple[str, ...]
    values: Float32  # (n_layers, rows, n_genes)


class StoreViews(StoreReader):
    """A store with views: ``study.predictions.tile()``, ``.rows(ids)``, ``.gene(name)``, ``.to_anndata()``."""

    def tile(
        self, layers: Sequence[str] | None = None, *, role: Role | None = "development", memory: int = 500_000_000
    ) -> Iterator[LayerTile]:
        """Every block in turn, all layers side by side, the next tile being read while this one is worked on; NaN where
        a model did not predict.

        Parameters
        ----------
        layers : names; None for all models.
        role : "development" or "test"; None for both.
        memory : bytes, of both buffers together.

        Raises
        ------
        UnknownNameError
            No such layer.
        """
        names = tuple(self.models() if layers is None else layers)
        known = [*self.models(), *TRUTH_LAYERS]
        for name in names:
            if name not in known:
                raise unknown_name("layer", name, known)
        rows = rows_per_tile(self.facts.n_genes, max(1, len(names)), memory // 2)
        yield from _read_ahead(self, names, self.blocks(role), rows)

    def rows(self, ids: Sequence[str], layers: Sequence[str] | None = None) -> dict[str, pd.DataFrame]:
        """Layer -> table of the named samples (rows in the order asked for) × genes; NaN where not predicted."""
        names = list(self.models() if layers is None else layers)
        place = {s: (b, i) for b in self.blocks() for i, s in enumerate(self.sample_ids(b))}
        strangers = [s for s in ids if s not in place]
        if strangers:
            what = f"sample ({len(strangers):,} of {len(ids):,} are unknown: {first_few(strangers)}), such as"
            raise unknown_name(what, strangers[0], list(place)[:50])
        tables = {}
        for name in names:
            values = np.full((len(ids), self.facts.n_genes), np.nan, DTYPE)
            for k in sorted(range(len(ids)), key=lambda k: (place[ids[k]][0].id, place[ids[k]][1])):
                block, row = place[ids[k]]
                if self.status(block, name) == "committed":
                    self.read(block, name, start=row, stop=row + 1, out=values[k : k + 1])
            tables[name] = pd.DataFrame(values, index=list(ids), columns=self.gene_names)
        return tables

    def gene(
        self, name: str, layers: Sequence[str] | None = None, *, role: Role | None = "development"
    ) -> pd.DataFrame:
        """One gene in all samples: samples × layers. Reads everything once, a tile at a time.

        Parameters
        ----------
        name : of the gene.
        layers : names; None for all models, control and treated.
        role : "development" or "test"; None for both.

        Raises
        ------
        UnknownNameError
            No such gene or layer.
        """
        genes = [str(g) for g in self.gene_names]
        if name not in genes:
            raise unknown_name("gene", name, genes)
        column = genes.index(name)
        names = tuple(layers) if layers is not None else (*self.models(), "control", "treated")
        index, parts = [], []
        for tile in self.tile(names, role=role):
            index += self.sample_ids(tile.block)[tile.start : tile.stop]
            parts.append(tile.values[:, :, column].T.copy())
        values = np.concatenate(parts) if parts else np.empty((0, len(names)), DTYPE)
        return pd.DataFrame(values, index=index, columns=list(names))

    def to_anndata(
        self, layers: Sequence[str] | None = None, *, lazy: bool = True, role: Role | None = "development"
    ) -> Any:
        """One AnnData over all blocks: obs with ``block`` and ``fold``, one layer per model, control and treated; NaN
        where a model did not predict.

        Parameters
        ----------
        layers : names; None for all.
        lazy : keep the values on the disk as dask arrays.
        role : "development" or "test"; None for both.

        Raises
        ------
        NeedsExtraError
            ``lazy`` without dask.
        """
        import anndata

        blocks = self.blocks(role)
        measured = [t for t in ("control", "treated", "effect") if any(t in self.layers(b) for b in blocks)]
        names = [*self.models(), *measured] if layers is None else list(layers)
        obs = pd.concat([self._labelled_obs(b) for b in blocks]) if blocks else pd.DataFrame()
        gather = self._lazy if lazy else self._eager
        var = pd.DataFrame(index=pd.Index(self.gene_names))
        return anndata.AnnData(obs=obs, var=var, layers={name: gather(blocks, name) for name in names})

    def _labelled_obs(self, block: Block) -> pd.DataFrame:
        fold = pd.array([block.fold], dtype="Int64")[0]
        return self.obs(block).assign(block=block.id, fold=pd.array([fold] * self.n_samples(block), "Int64"))

    def _eager(self, blocks: Sequence[Block], name: str) -> Float32:
        parts = [np.full((self.n_samples(b), self.facts.n_genes), np.nan, DTYPE) for b in blocks]
        for block, part in zip(blocks, parts, strict=True):
            if self.status(block, name) == "committed":
                self.read(block, name, out=part)
        return np.concatenate(parts)

    def _lazy(self, blocks: Sequence[Block], name: str) -> Any:
        try:
            import dask.array as da
        except ImportError as error:
            raise NeedsExtraError(
                "Lazy arrays need dask: pip install 'pertstack[dask]', or pass lazy=False."
            ) from error
        parts = []
        for block in blocks:
            shape = (self.n_samples(block), self.facts.n_genes)
            if self.status(block, name) == "committed":
                rows = self.record(block, name).grid.rows
                parts.append(da.from_array(_Stored(self, block, name, shape), chunks=(rows, shape[1]), asarray=True))
            else:
                parts.append(da.full(shape, np.nan, dtype=DTYPE, chunks=(512, shape[1])))
        return da.concatenate(parts, axis=0)


class _Stored:
    """A committed layer as dask wants it: shape, dtype, slices."""

    dtype, ndim = DTYPE, 2

    def __init__(self, store: StoreReader, block: Block, name: str, shape: tuple[int, int]) -> None:
        self._store, self._block, self._name, self.shape = store, block, name, shape

    def __getitem__(self, key: Any) -> Float32:
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        start, stop, step = rows.indices(self.shape[0])
        return np.asarray(
            self._store.read(self._block, self._name, start=start, stop=max(start, stop))[::step, columns]
        )


def _read_ahead(
    source: StoreReader | BlockSource, layers: Sequence[str], blocks: Sequence[Block], n_rows: int
) -> Iterator[LayerTile]:
    """Tiles of at most ``n_rows`` rows; a second thread fills one buffer while the caller works on the other."""
    names = tuple(layers)
    n_genes = len(source.gene_names)
    places = [(b, a, min(a + n_rows, n)) for b in blocks for n in [_n(source, b)] for a in range(0, n, n_rows)]
    buffers = [np.empty((len(names), n_rows, n_genes), DTYPE) for _ in range(2)]

    def fill(k: int) -> LayerTile:
        block, start, stop = places[k]
        buffer = buffers[k % 2].reshape(-1)[: len(names) * (stop - start) * n_genes]
        values = buffer.reshape(len(names), stop - start, n_genes)
        for m, name in enumerate(names):
            if isinstance(source, StoreReader) and source.status(block, name) != "committed":
                values[m] = np.nan
            else:
                source.read(block, name, start=start, stop=stop, out=values[m])
        return LayerTile(block, start, stop, layers=names, values=values)

    with ThreadPoolExecutor(1, thread_name_prefix="pertstack-read") as pool:
        coming = pool.submit(fill, 0) if places else None
        for k in range(len(places)):
            assert coming is not None
            tile = coming.result()
            coming = pool.submit(fill, k + 1) if k + 1 < len(places) else None
            yield tile


def _n(source: StoreReader | BlockSource, block: Block) -> int:
    return source.n_samples(block) if isinstance(source, StoreReader) else len(source.obs(block))
