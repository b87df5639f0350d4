"""Blocks from arrays in memory, for notebooks: the same protocol as a store, without a disk.

The caller vouches that every prediction is out of fold; what can be checked (shapes, names, gaps) is checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.digests import digest_array
from pertstack._base.errors import InputError, MisalignedError, first_few, unknown_name
from pertstack.data.rows import Float32, Names
from pertstack.design.blocks import Block
from pertstack.predictions.source import Mask
from pertstack.predictions.sources.embedding import ArrayEmbedding, RowEmbeddings, check_array_embedding
from pertstack.predictions.store.align import as_names, names_index
from pertstack.predictions.store.files.names import TRUTH_LAYERS


class ArraySource:
    """A ``BlockSource`` over arrays.

    Parameters
    ----------
    predictions : {name: array (n, G)}
        Out-of-fold predictions in the treated scale. Rows or genes that are NaN throughout count as not predicted; NaN
        anywhere else is refused, and so is an infinite value.
    treated, control : array (n, G)
        Measured values; ``control`` None means the values are differential already (control zero).
    folds : array (n,)
        Fold of each row (0, 1, ...); NaN, None or 'test' marks held-out test rows.
    perturbation, cell_line : array (n,)
        What was done, and where (default: one cell line, 'all').
    sample_ids, gene_names
        Default: row_0..., gene_0....
    group : array (n,)
        What was kept together by the folds; default the perturbation.
    obs
        Further metadata, one row per sample in the same order.
    role
        Which blocks are shown: 'development', 'test' or 'all'.
    embeddings : {name: ArrayEmbedding}
        Embeddings of some models, with the anchors that make folds comparable.
    """

    def __init__(
        self,
        predictions: Mapping[str, Any],
        treated: Any,
        control: Any = None,
        folds: Any = None,
        perturbation: Any = None,
        cell_line: Any = None,
        sample_ids: Iterable[object] | None = None,
        gene_names: Iterable[object] | None = None,
        group: Any = None,
        obs: pd.DataFrame | None = None,
        role: str = "development",
        embeddings: Mapping[str, ArrayEmbedding] | None = None,
    ) -> None:
        shape = _shape_of("treated", treated)
        n, n_genes = shape
        if folds is None or perturbation is None:
            raise InputError(
                "folds= and perturbation= are needed: without them no score can be honest. Give one per row."
            )
        if not predictions:
            raise InputError("No predictions were given. Pass {name: array (samples, genes)}.")
        for name in predictions:
            if name in TRUTH_LAYERS:
                raise InputError(f"A model cannot be called {name!r}; that names measured values. Choose another name.")
        self._layers: dict[str, Any] = {"treated": treated, "control": control, **predictions}
        for name, values in self._layers.items():
            if values is not None and _shape_of(name, values) != shape:
                raise MisalignedError(
                    f"{name!r} has shape {np.shape(values)}, treated {shape}. Arrays without names are matched by "
                    f"position, so "
                    f"all must have the same rows and genes. Select the same ones, or use a study, which matches by "
                    f"name."
                )
        self._models = tuple(predictions)
        ids = [f"row_{i}" for i in range(n)] if sample_ids is None else as_names(sample_ids)
        self._genes = np.asarray(
            [f"gene_{g}" for g in range(n_genes)] if gene_names is None else as_names(gene_names), dtype=object
        )
        _one_name_each("sample", ids, n)
        _one_name_each("gene", list(self._genes), n_genes)
        self._obs = _table(ids, perturbation, cell_line, group=group, obs=obs)
        self._rows = _block_rows(folds, self._obs["cell_line"].to_numpy(), n, role)
        self._embeddings = {m: check_array_embedding(m, e, n) for m, e in (embeddings or {}).items()}
        for name in self._embeddings:
            if name not in predictions:
                raise unknown_name("model", name, list(predictions))
        self._obs_of: dict[Block, pd.DataFrame] = {}
        self._sound: dict[tuple[Block, str], Mask] = {}
        self._genes_of: dict[tuple[Block, str], Mask] = {}
        self._digests: dict[tuple[Block, str], str] = {}
        self._check()

    def _check(self) -> None:
        """Availability of every model, block by block; refuses holes."""
        whole = {layer for layer, values in self._layers.items() if values is not None and _all_finite(values)}
        for block, rows in self._rows.items():
            for layer, values in self._layers.items():
                if values is None:
                    continue
                if layer in whole:
                    self._sound[block, layer] = np.ones(len(rows), dtype=bool)
                    self._genes_of[block, layer] = np.ones(len(self._genes), dtype=bool)
                    continue
                found = np.asarray(values[rows], dtype=np.float32)
                finite: Mask = np.asarray(np.isfinite(found))
                in_rows, in_genes = np.asarray(finite.any(axis=1)), np.asarray(finite.any(axis=0))
                holes = (~finite & in_rows[:, None] & in_genes[None, :]) | np.isinf(found)
                if holes.any() or (layer in TRUTH_LAYERS and not finite.all()):
                    bad = np.flatnonzero((holes if layer not in TRUTH_LAYERS else ~finite).any(axis=1))
                    raise InputError(
                        f"{layer!r} has NaN or infinite values in {len(bad):,} samples of block {block.id}: "
                        f"{first_few(self._obs.index[rows[bad]])}. A model may leave out whole samples or whole genes "
                        f"(all NaN), not single values. Drop those samples, or mend the values."
                    )
                self._sound[block, layer] = in_rows
                self._genes_of[block, layer] = in_genes

    @property
    def gene_names(self) -> Names:
        return self._genes

    @property
    def models(self) -> tuple[str, ...]:
        return self._models

    def blocks(self) -> list[Block]:
        return sorted(self._rows)

    def rows_of(self, block: Block) -> np.ndarray[Any, np.dtype[np.intp]]:
        """Positions of a block's rows in the arrays that were given."""
        if block not in self._rows:
            raise unknown_name("block", block.id, [b.id for b in self._rows])
        return self._rows[block]

    def obs(self, block: Block) -> pd.DataFrame:
        if block not in self._obs_of:
            self._obs_of[block] = self._obs.iloc[self.rows_of(block)]
        return self._obs_of[block].copy()

    def read(self, block: Block, layer: str, *, start: int, stop: int, out: Float32 | None = None) -> Float32:
        rows = self.rows_of(block)[start:stop]
        out = np.empty((len(rows), len(self._genes)), np.float32) if out is None else out
        values = self._layer(layer)
        if values is None:
            out[...] = 0.0
        elif isinstance(values, np.ndarray) and values.dtype == np.float32 and values.flags.c_contiguous:
            np.take(values, rows, axis=0, out=out, mode="clip")  # straight into its place; rows are known to fit
        else:
            out[...] = np.asarray(values[rows])
        return out

    def _layer(self, layer: str) -> Any:
        if layer not in self._layers:
            raise unknown_name("layer", layer, self._layers)
        return self._layers[layer]

    def sound(self, block: Block, model: str) -> Mask:
        """(n,) rows the model predicted; that they are out of fold is the caller's word."""
        self._layer(model)
        self.rows_of(block)
        return self._sound[block, model].copy()

    def genes_of(self, block: Block, model: str) -> Mask:
        self._layer(model)
        self.rows_of(block)
        return self._genes_of[block, model].copy()

    def embedding(self, block: Block, model: str, *, start: int, stop: int) -> RowEmbeddings | None:
        """Rows [start, stop) of a model's embedding; None when none was given."""
        self._layer(model)
        if model not in self._embeddings:
            return None
        return self._embeddings[model].of_fold(block.fold, self.rows_of(block)[start:stop])

    def layer_digest(self, block: Block, layer: str) -> str:
        """xxh3-128 of the block's rows of a layer."""
        if (block, layer) not in self._digests:
            self._digests[block, layer] = digest_array(self.read(block, layer, start=0, stop=len(self.rows_of(block))))
        return self._digests[block, layer]


def _all_finite(values: Any) -> bool:
    """Whether a float32 array surely holds no NaN or infinity: then its sum is finite too. One cheap read."""
    if not isinstance(values, np.ndarray) or values.dtype != np.float32:
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.sum()))


def _shape_of(name: str, values: Any) -> tuple[int, int]:
    shape = np.shape(values)
    if len(shape) != 2:
        raise InputError(f"{name!r} has shape {shape}; samples × genes is expected.")
    return int(shape[0]), int(shape[1])


def _one_name_each(kind: str, names: Sequence[str], n: int) -> None:
    if len(names) != n:
        raise MisalignedError(
            f"{len(names):,} {kind} names for {n:,} {kind}s. Give exactly one each, in the same order."
        )
    index = names_index(names)
    if not index.is_unique:
        raise MisalignedError(f"{kind} names occur more than once: {first_few(index[index.duplicated()].unique())}.")


def _table(ids: list[str], perturbation: Any, cell_line: Any, group: Any, obs: pd.DataFrame | None) -> pd.DataFrame:
    n = len(ids)
    columns = {
        "perturbation": perturbation,
        "cell_line": ["all"] * n if cell_line is None else cell_line,
        "group": perturbation if group is None else group,
    }
    table = pd.DataFrame(index=pd.Index(ids, dtype=object))
    for name, values in columns.items():
        if len(values) != n:
            raise MisalignedError(f"{name} has {len(values):,} entries for {n:,} samples. Give one per row.")
        words = np.asarray(values, dtype=object)
        if pd.isna(words).any():
            raise InputError(f"{name} is empty for {int(pd.isna(words).sum()):,} samples. Name it for every row.")
        table[name] = [str(v) for v in words]
    if obs is not None:
        if len(obs) != n:
            raise MisalignedError(f"obs has {len(obs):,} rows for {n:,} samples. Give one per row, in the same order.")
        for name in obs.columns:
            if name not in table:
                table[name] = obs[name].to_numpy()
    return table


def _block_rows(folds: Any, cell_line: Any, n: int, role: str) -> dict[Block, np.ndarray[Any, np.dtype[np.intp]]]:
    if len(folds) != n:
        raise MisalignedError(f"folds has {len(folds):,} entries for {n:,} samples. Give one per row.")
    rows: dict[Block, list[int]] = {}
    for i, (fold, line) in enumerate(zip(list(folds), cell_line, strict=True)):
        block = Block(str(line), _fold(fold))
        if role in ("all", block.role):
            rows.setdefault(block, []).append(i)
    if not rows:
        raise InputError(f"No row has role {role!r}. Give development rows a fold number; test rows have fold None.")
    return {block: np.asarray(where, dtype=np.intp) for block, where in sorted(rows.items())}


def _fold(value: Any) -> int | None:
    if value is None or value is pd.NA or value == "test" or value != value:
        return None
    number = float(pd.to_numeric(value, errors="coerce"))
    if not number.is_integer():
        raise InputError(
            f"{str(value)!r} is not a fold. Number the folds 0, 1, 2, ..., each row by the fold that the fit behind "
            f"its prediction left out; test rows have None."
        )
    return int(number)
