"""The audit names the exact file of every fault, and finds nothing in a store that is whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pertstack._base.errors import CorruptionError, StackingError
from pertstack.design.blocks import Block
from pertstack.design.provenance import FittedOn
from pertstack.predictions import PredictionStore
from references.small_store import World, make_world

LINE, OTHER = Block("A375", 0), Block("A375", 1)
LAYERS = f"blocks/{LINE.id}.zarr/layers"


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = make_world(tmp_path / "store")
    world.commit(LINE, "m", seed=1)
    world.commit(LINE, "k", seed=2)
    world.commit(OTHER, "m", seed=1)
    world.commit(LINE, "ids", fitted_on=FittedOn.ids(["x", "y"]))
    return world


def flip_bit(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 16
    path.write_bytes(raw)


def edit_json(path: Path, change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def swap(a: Path, b: Path) -> None:
    aside = a.with_name("aside")
    a.rename(aside)
    b.rename(a)
    aside.rename(b)


def reverse_lines(path: Path) -> None:
    path.write_text("\n".join(reversed(path.read_text().split())) + "\n")


def other_fold(value: dict) -> None:  # type: ignore[type-arg]
    value["attributes"]["prediction"]["block"] = OTHER.id


CHUNK = f"{LAYERS}/m/c/0/0"
RECORD = f"{LAYERS}/m/zarr.json"
FAULTS: list[tuple[str, Callable[[Path], object], str, str, bool]] = [
    # what happened, how, code, file named, only the deep audit sees it
    ("chunk truncated", lambda r: (r / CHUNK).write_bytes((r / CHUNK).read_bytes()[:-9]), "chunk_size", CHUNK, False),
    ("chunk deleted", lambda r: (r / CHUNK).unlink(), "chunk_missing", CHUNK, False),
    ("bit flipped in a row", lambda r: flip_bit(r / CHUNK, 40), "chunk_changed", CHUNK, True),
    ("bit flipped in the checksum", lambda r: flip_bit(r / CHUNK, -1), "chunk_changed", CHUNK, True),
    ("chunks swapped", lambda r: swap(r / CHUNK, r / f"{LAYERS}/k/c/0/0"), "chunk_changed", CHUNK, True),
    ("chunk renamed", lambda r: (r / CHUNK).rename(r / f"{LAYERS}/m/c/0/1"), "chunk_missing", CHUNK, False),
    ("record deleted", lambda r: (r / RECORD).unlink(), "record_missing", RECORD, False),
    ("record truncated", lambda r: (r / RECORD).write_text("{"), "record_damaged", RECORD, False),
    ("record swapped", lambda r: swap(r / RECORD, r / f"{LAYERS}/k/zarr.json"), "record_damaged", RECORD, False),
    ("record of another block", lambda r: edit_json(r / RECORD, other_fold), "record_damaged", RECORD, False),
    (
        "model renamed",
        lambda r: (r / f"{LAYERS}/m").rename(r / f"{LAYERS}/z"),
        "record_damaged",
        f"{LAYERS}/z/zarr.json",
        False,
    ),
    (
        "model copied from another block",
        lambda r: shutil.copytree(r / f"blocks/{OTHER.id}.zarr/layers/m", r / f"{LAYERS}/copy"),
        "record_damaged",
        f"{LAYERS}/copy/zarr.json",
        False,
    ),
    (
        "block renamed",
        lambda r: (r / "blocks/A375.f1.s000.zarr").rename(r / "blocks/A375.f9.s000.zarr"),
        "block_damaged",
        "blocks/A375.f9.s000.zarr",
        False,
    ),
    (
        "obs of another block",
        lambda r: swap(r / f"blocks/{LINE.id}.zarr/obs", r / f"blocks/{OTHER.id}.zarr/obs"),
        "block_damaged",
        f"blocks/{LINE.id}.zarr",
        False,
    ),
    ("genes reordered", lambda r: reverse_lines(r / "genes.txt"), "root_damaged", "zarr.json", False),
    (
        "fit rows changed",
        lambda r: next((r / "provenance").iterdir()).write_text('["x"]'),
        "record_damaged",
        f"{LAYERS}/ids/zarr.json",
        False,
    ),
    (
        "consolidated",
        lambda r: edit_json(r / f"blocks/{LINE.id}.zarr/zarr.json", lambda v: v.update(consolidated_metadata={})),
        "consolidated_metadata",
        f"blocks/{LINE.id}.zarr/zarr.json",
        False,
    ),
    (
        "block without its ending",
        lambda r: shutil.copytree(r / f"blocks/{LINE.id}.zarr", r / f"blocks/{LINE.id}"),
        "unknown_file",
        f"blocks/{LINE.id}",
        False,
    ),
    (
        "file in the place of a block",
        lambda r: (r / "blocks/A375.f9.s000.zarr").write_text("?"),
        "unknown_file",
        "blocks/A375.f9.s000.zarr",
        False,
    ),
    ("stray file", lambda r: (r / f"{LAYERS}/notes.txt").write_text("?"), "unknown_file", f"{LAYERS}/notes.txt", False),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f[0].replace(" ", "_"))
def test_every_fault_is_found_and_its_file_named(world: World, fault: tuple) -> None:  # type: ignore[type-arg]
    _, damage, code, file, deep_only = fault
    root = world.store.root
    assert PredictionStore.open(root).verify(deep=True) == []
    damage(root)
    if deep_only:
        assert world.store.verify() == [], "sizes alone cannot show this"
    found = {(f.code, f.where) for f in world.store.verify(deep=True)}
    assert (code, str(root / file)) in found, found


def test_reading_notices_what_it_touches(world: World) -> None:
    store = world.store
    flip_bit(store.root / CHUNK, 40)
    store.read(LINE, "m")
    with pytest.raises(CorruptionError, match="does not hold the bytes"):
        store.read(LINE, "m", start=3, stop=4, verify=True)
    (store.root / CHUNK).write_bytes(b"short")
    with pytest.raises(CorruptionError, match="bytes where"):
        store.read(LINE, "m")
    (store.root / CHUNK).unlink()
    with pytest.raises(CorruptionError, match="is missing"):
        store.read(LINE, "m")


def test_a_store_copied_elsewhere_is_whole(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.store.root, tmp_path / "elsewhere/store")
    copy = PredictionStore.open(tmp_path / "elsewhere/store")
    assert copy.verify(deep=True) == []
    np.testing.assert_array_equal(copy.read(LINE, "m", verify=True), world.prediction(LINE, 1))


def test_two_stores_mixed_are_told_apart(world: World, tmp_path: Path) -> None:
    """The same data, the same plan, the same names: only the store's own id differs."""
    twin = make_world(tmp_path / "twin", {LINE: 7}, seed=3)
    twin.obs[LINE].index = world.obs[LINE].index
    shutil.copytree(twin.store.root / LAYERS / "control", world.store.root / LAYERS / "mixed")
    (finding,) = world.store.verify()
    assert finding.code == "record_damaged" and "store_uuid" in finding.message
    with pytest.raises(CorruptionError, match="does not belong here"):
        world.store.read(LINE, "mixed")


def test_a_plan_changed_behind_the_stores_back_is_found(world: World) -> None:
    def change(value: dict) -> None:  # type: ignore[type-arg]
        value["attributes"]["pertstack_store"]["plan_digest"] = "q" * 64

    edit_json(world.store.root / "zarr.json", change)
    found = PredictionStore.open(world.store.root).verify()
    assert {f.code for f in found} == {"other_fold_plan"} and len(found) == 3


def test_an_unreadable_root_is_refused(world: World) -> None:
    (world.store.root / "zarr.json").write_text("{}")
    with pytest.raises(StackingError, match="is not a prediction store"):
        PredictionStore.open(world.store.root)
