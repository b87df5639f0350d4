"""Writes the golden store of a format, once and never again: `python tests/golden/make_store.py store_v1`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from pertstack.design.blocks import Block
from pertstack.design.provenance import FittedOn
from pertstack.predictions import PredictionStore

PLAN = "0123456789abcdef" * 4
GENES = ["TP53", "naïve gene", "ENSG00000141510.17"]
LINE, TEST = Block("HT 29/x.y", 1), Block("HT 29/x.y", None)
SIZES = {LINE: 5, TEST: 2}


def values(block: Block, layer: int) -> np.ndarray:
    """Numbers that float32 holds exactly, different in every place."""
    n = SIZES[block]
    return np.arange(n * 3, dtype=np.float32).reshape(n, 3) / 8 + 100 * layer + (50 if block == TEST else 0)


def ids(block: Block) -> list[str]:
    return [f"{'t' if block == TEST else 's'}{i}" for i in range(SIZES[block])]


def make(root: Path) -> None:
    store = PredictionStore.create(root, GENES, PLAN)
    for block in SIZES:
        obs = {"perturbation": ["größe"] * SIZES[block], "cell_line": block.cell_line, "log10_dose": 0.5}
        store.add_block(block, pd.DataFrame(obs, index=ids(block)))
    names = {"sample_ids": ids(LINE), "gene_names": GENES}
    fitted = FittedOn.fold_of_plan(PLAN, 1, ["x", "y"])
    store.commit(LINE, "control", values(LINE, 0), fitted_on=None, **names)
    store.commit(LINE, "treated", values(LINE, 1), fitted_on=None, **names)
    store.commit(LINE, "deep/größe v2", values(LINE, 2), fitted_on=fitted, meta={"seed": 7}, **names)
    store.commit(
        LINE,
        "partial",
        values(LINE, 3)[1:, :2],
        sample_ids=ids(LINE)[1:],
        gene_names=GENES[:2],
        missing_samples=ids(LINE)[:1],
        missing_genes=GENES[2:],
        fitted_on=FittedOn.ids(["s4", "elsewhere"]),
    )
    store.commit_embedding(LINE, "deep/größe v2", values(LINE, 4)[:, :2], sample_ids=ids(LINE), fitted_on=fitted)
    store.commit(TEST, "control", values(TEST, 0), fitted_on=None, sample_ids=ids(TEST), gene_names=GENES)
    store.commit(LINE, "wrong", values(LINE, 5), fitted_on=FittedOn.unknown(), **names)
    store.retract(LINE, "wrong", "an example")
    store.mark_absent(TEST, "partial", "not predicted")
    store.snapshot()


if __name__ == "__main__":
    make(Path(__file__).parent / sys.argv[1])
