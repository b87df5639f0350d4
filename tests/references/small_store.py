"""A small store with known content, for the tests of the prediction store."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from copies import copied
from pertstack.design.blocks import Block
from pertstack.design.provenance import FittedOn
from pertstack.predictions import PredictionStore
from pertstack.predictions.store.files.rounding import Rounding

PLAN = "p" * 64


@dataclass
class World:
    """A store, its blocks and the treated values that were committed."""

    store: PredictionStore
    genes: list[str]
    obs: dict[Block, pd.DataFrame]
    treated: dict[Block, np.ndarray[Any, Any]]
    control: dict[Block, np.ndarray[Any, Any]]

    def names(self, block: Block) -> dict[str, Any]:
        return {"sample_ids": self.obs[block].index, "gene_names": self.genes}

    def fitted(self, block: Block) -> FittedOn:
        return FittedOn.fold_of_plan(PLAN, block.fold)

    def prediction(self, block: Block, seed: int = 1) -> np.ndarray[Any, Any]:
        rng = np.random.default_rng(seed)
        noise = rng.normal(0, 0.3, self.treated[block].shape)
        return (0.5 * self.treated[block] + 0.5 * self.control[block] + noise).astype(np.float32)

    def commit(self, block: Block, model: str, seed: int = 1, **options: Any) -> Any:
        options = {"fitted_on": self.fitted(block), **self.names(block), **options}
        return self.store.commit(block, model, self.prediction(block, seed), **options)


_MADE: dict[Any, tuple[tempfile.TemporaryDirectory[str], World]] = {}
"""The folder goes when this process ends; held here alone, since forked processes forget what ``atexit`` holds."""


def make_world(
    root: Path, sizes: dict[Block, int] | None = None, n_genes: int = 23, seed: int = 0, *, rounded: bool = False
) -> World:
    """A store of its own with known content; made once for each shape, then copied."""
    key = (None if sizes is None else tuple(sizes.items()), n_genes, seed, rounded)
    if key not in _MADE:
        home = tempfile.TemporaryDirectory(prefix="pertstack-test-")
        _MADE[key] = (home, build_world(Path(home.name) / "store", sizes, n_genes, seed, rounded=rounded))
    home, world = _MADE[key]
    copied(Path(home.name) / "store", root)
    return replace(world, store=PredictionStore.open(root))


def build_world(
    root: Path, sizes: dict[Block, int] | None = None, n_genes: int = 23, seed: int = 0, *, rounded: bool = False
) -> World:
    """A store with treated and control of development blocks, control of test blocks; ``rounded``: in 16 bits."""
    rng = np.random.default_rng(seed)
    if sizes is None:
        sizes = {Block("A375", 0): 7, Block("A375", 1): 5, Block("HT 29/x.y", 0): 4, Block("A375", None): 6}
    genes = [f"ENSG{i:011d}" for i in range(n_genes)]
    store = PredictionStore.create(root, genes, plan_digest=PLAN)
    world = World(store, genes, {}, {}, {})
    for block, n in sizes.items():
        ids = [f"{block.cell_line}:{block.fold}:{i}" for i in range(n)]
        world.obs[block] = pd.DataFrame(
            {"perturbation": rng.choice(["vemurafenib", "DMSO?", "größe"], n), "cell_line": block.cell_line}, index=ids
        )
        world.control[block] = rng.normal(8, 1, (n, n_genes)).astype(np.float32)
        world.treated[block] = (world.control[block] + rng.normal(0, 1, (n, n_genes))).astype(np.float32)
        how = Rounding.of(np.full(n_genes, 8.0), np.full(n_genes, 1.4)) if rounded else None
        store.add_block(block, world.obs[block], rounding=how)
        store.commit(block, "control", world.control[block], fitted_on=None, **world.names(block))
        if block.role == "development":
            store.commit(block, "treated", world.treated[block], fitted_on=None, **world.names(block))
    return world
