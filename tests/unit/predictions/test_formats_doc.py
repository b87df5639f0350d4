"""The Python examples of docs/formats.md run as they are printed, and give what a plain loop gives."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pertstack.design.blocks import Block
from references.small_store import World, make_world

DOC = Path(__file__).parents[3] / "docs" / "formats.md"
SIZES = {Block("A", 0): 9, Block("A", 1): 7, Block("B", 0): 5, Block("A", None): 4}


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = make_world(tmp_path / "store", SIZES, n_genes=13)
    for block in SIZES:
        world.commit(block, "ridge", seed=3)
    return world


def example(world: World, containing: str) -> dict[str, Any]:
    """The names an example leaves behind, ``study`` being a study with this store."""
    (code,) = [c for c in re.findall(r"```python\n(.*?)```", DOC.read_text("utf-8"), re.S) if containing in c]
    names: dict[str, Any] = {"study": SimpleNamespace(predictions=world.store)}
    exec(compile(code, str(DOC), "exec"), names)
    return names


def development(world: World) -> list[Block]:
    return [b for b in sorted(SIZES) if b.fold is not None]


def test_to_anndata(world: World) -> None:
    found = example(world, "to_anndata(lazy=True)")
    parts = [world.prediction(b, 3) - world.control[b] for b in development(world)]
    np.testing.assert_allclose(found["change"], np.concatenate(parts).mean(axis=0), rtol=1e-5, atol=1e-6)
    assert list(found["adata"].obs_names) == [s for b in development(world) for s in world.obs[b].index]


def test_tile(world: World) -> None:
    found = example(world, ".tile(")["total"]
    wanted = {b.id: float((world.prediction(b, 3) - world.control[b]).sum()) for b in development(world)}
    assert found == pytest.approx(wanted, rel=1e-4)


def test_rows(world: World) -> None:
    found, first = example(world, ".rows("), development(world)[0]
    wanted = world.prediction(first, 3)[:3][::-1]
    np.testing.assert_array_equal(found["tables"]["ridge"].to_numpy(), wanted)


def test_gene(world: World) -> None:
    table = example(world, ".gene(")["table"]
    parts = [np.column_stack([world.prediction(b, 3)[:, 0], world.treated[b][:, 0]]) for b in development(world)]
    np.testing.assert_array_equal(table.to_numpy(), np.concatenate(parts))
