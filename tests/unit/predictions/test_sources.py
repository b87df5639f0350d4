"""Sources show aligned blocks and let no row through that its model may have seen."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import (
    CorruptionError,
    FoldPlanMismatchError,
    InputError,
    LeakError,
    MisalignedError,
    UnknownNameError,
)
from pertstack.design.blocks import Block
from pertstack.design.provenance import FittedOn
from pertstack.predictions import ArraySource, PredictionStore, StoreSource
from references.small_store import PLAN, World, make_world

LINE, OTHER, ODD, TEST = Block("A375", 0), Block("A375", 1), Block("HT 29/x.y", 0), Block("A375", None)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "store")


def test_a_model_of_this_fold_is_sound_and_of_another_fold_is_not(world: World) -> None:
    world.commit(LINE, "good")
    world.commit(LINE, "leaky", fitted_on=FittedOn.fold_of_plan(PLAN, 1))
    world.commit(LINE, "final", fitted_on=FittedOn.fold_of_plan(PLAN, None))
    world.commit(TEST, "final", fitted_on=FittedOn.fold_of_plan(PLAN, None))
    source = StoreSource(world.store, role="all")
    assert source.sound(LINE, "good").all()
    assert not source.sound(LINE, "leaky").any() and not source.sound(LINE, "final").any()
    assert source.sound(TEST, "final").all()


def test_listed_fit_rows_and_missing_rows_are_not_sound(world: World) -> None:
    ids = list(world.obs[LINE].index)
    values = world.prediction(LINE)
    world.store.commit(
        LINE,
        "m",
        values[:5],
        sample_ids=ids[:5],
        gene_names=world.genes,
        missing_samples=ids[5:],
        fitted_on=FittedOn.ids([ids[0], ids[6], "elsewhere"]),
    )
    assert StoreSource(world.store).sound(LINE, "m").tolist() == [False, True, True, True, True, False, False]


def test_unknown_provenance_needs_an_explicit_word(world: World) -> None:
    world.commit(LINE, "u", fitted_on=FittedOn.unknown())
    with pytest.raises(LeakError, match="are unknown"):
        StoreSource(world.store).sound(LINE, "u")
    assert StoreSource(world.store, accept_unverified=True).sound(LINE, "u").all()


def test_another_fold_plan_is_refused_until_the_store_was_extended_from_it(world: World) -> None:
    world.commit(LINE, "m", fitted_on=FittedOn.fold_of_plan("q" * 64, 0))
    with pytest.raises(FoldPlanMismatchError, match=r"qqqqqqqqqqqq.*pppppppppppp"):
        StoreSource(world.store).sound(LINE, "m")
    world.commit(OTHER, "m")
    world.store.extend_plan("r" * 64)
    again = PredictionStore.open(world.store.root)
    assert again.plan_digest == "r" * 64 and StoreSource(again).sound(OTHER, "m").all()


def test_a_block_without_the_model_reads_as_nan_and_is_not_sound(world: World) -> None:
    world.commit(LINE, "m")
    source = StoreSource(world.store)
    assert not source.sound(OTHER, "m").any() and not source.genes_of(OTHER, "m").any()
    assert np.isnan(source.read(OTHER, "m", start=0, stop=3)).all() and source.layer_digest(OTHER, "m") == "missing"
    with pytest.raises(UnknownNameError, match="Did you mean 'm'"):
        source.sound(LINE, "M")


def test_test_values_are_read_only_from_the_truth_store(world: World, tmp_path: Path) -> None:
    truth = PredictionStore.create(tmp_path / "test_truth", world.genes, PLAN)
    truth.add_block(TEST, world.obs[TEST])
    truth.commit(TEST, "treated", world.treated[TEST], fitted_on=None, **world.names(TEST))
    world.commit(TEST, "m")
    with pytest.raises(LeakError, match="held-out test"):
        StoreSource(world.store, role="test").read(TEST, "treated", start=0, stop=6)
    source = StoreSource(world.store, truth, role="test")
    assert source.blocks() == [TEST]
    np.testing.assert_array_equal(source.read(TEST, "treated", start=1, stop=4), world.treated[TEST][1:4])
    other = PredictionStore.create(tmp_path / "other_truth", world.genes, PLAN)
    other.add_block(TEST, world.obs[TEST].iloc[::-1])
    with pytest.raises(MisalignedError, match="different studies"):
        StoreSource(world.store, other, role="test").read(TEST, "treated", start=0, stop=1)


def test_groups_come_from_the_plan(world: World) -> None:
    world.commit(LINE, "m")
    groups = pd.Series({s: f"group of {s}" for b in world.obs for s in world.obs[b].index})
    assert StoreSource(world.store, groups=groups).obs(LINE)["group"].iloc[0] == f"group of {world.obs[LINE].index[0]}"
    with pytest.raises(MisalignedError, match="no group known"):
        StoreSource(world.store, groups=groups.iloc[:3]).obs(LINE)


def test_a_layer_digest_follows_the_content_alone(world: World) -> None:
    world.commit(LINE, "a", seed=1, meta={"run": 1})
    world.commit(LINE, "b", seed=1, meta={"run": 2})
    world.commit(LINE, "c", seed=2)
    digests = [StoreSource(world.store).layer_digest(LINE, m) for m in "abc"]
    assert digests[0] == digests[1] != digests[2]


def arrays(world: World) -> tuple[ArraySource, StoreSource, list[str]]:
    """The same blocks twice: in memory with rows shuffled, and on disk."""
    blocks = [LINE, OTHER, ODD]
    for block in blocks:
        world.commit(block, "m", seed=4)
    obs = pd.concat([world.obs[b] for b in blocks])
    order = np.random.default_rng(2).permutation(len(obs))
    fold = np.concatenate([[b.fold] * len(world.obs[b]) for b in blocks])[order]
    whole = [
        np.concatenate(parts)[order]
        for parts in (
            [world.prediction(b, 4) for b in blocks],
            [world.treated[b] for b in blocks],
            [world.control[b] for b in blocks],
        )
    ]
    obs = obs.iloc[order]
    source = ArraySource(
        {"m": whole[0]},
        whole[1],
        whole[2],
        fold,
        obs["perturbation"],
        obs["cell_line"],
        sample_ids=obs.index,
        gene_names=world.genes,
    )
    return source, StoreSource(world.store), list(obs.index)


def test_arrays_and_store_show_the_same_blocks(world: World) -> None:
    memory, disk, _ = arrays(world)
    assert memory.blocks() == disk.blocks() and memory.models == disk.models
    assert list(memory.gene_names) == list(disk.gene_names)
    for block in disk.blocks():
        here, there = memory.obs(block), disk.obs(block)
        rows = there.index.get_indexer(here.index)
        pd.testing.assert_frame_equal(here, there.iloc[rows][here.columns], check_dtype=False)
        for layer in ("treated", "control", "m"):
            n = len(here)
            np.testing.assert_array_equal(
                memory.read(block, layer, start=0, stop=n), disk.read(block, layer, start=0, stop=n)[rows]
            )
            np.testing.assert_array_equal(
                memory.read(block, layer, start=1, stop=3), disk.read(block, layer, start=0, stop=n)[rows][1:3]
            )
        assert memory.sound(block, "m").all() and memory.genes_of(block, "m").all()


def test_arrays_with_gaps_and_roles() -> None:
    rng = np.random.default_rng(0)
    treated, control = rng.normal(size=(2, 8, 4))
    full, gaps = rng.normal(size=(2, 8, 4))
    gaps[2], gaps[:, 1] = np.nan, np.nan
    folds = [0, 0, 0, 1, 1, 1, None, np.nan]
    source = ArraySource({"full": full, "gaps": gaps}, treated, control, folds, list("aabbccdd"), role="all")
    assert source.blocks() == [Block("all", 0), Block("all", 1), Block("all", None)]
    assert source.sound(Block("all", 0), "gaps").tolist() == [True, True, False]
    assert source.genes_of(Block("all", 1), "gaps").tolist() == [True, False, True, True]
    assert ArraySource({"full": full}, treated, control, folds, list("aabbccdd")).blocks() == source.blocks()[:2]
    zero = ArraySource({"full": full}, treated, None, folds, list("aabbccdd"))
    assert not zero.read(Block("all", 0), "control", start=0, stop=3).any()


def test_arrays_that_do_not_fit_are_refused() -> None:
    y = np.zeros((4, 3))
    for options, error, words in [
        ({"predictions": {"m": y[:3]}}, MisalignedError, "matched by position"),
        ({"predictions": {}}, InputError, "No predictions"),
        ({"folds": [0, 1]}, MisalignedError, "2 entries for 4"),
        ({"folds": None}, InputError, "folds= and perturbation="),
        ({"folds": [0.5, 1, 1, 0]}, InputError, "not a fold"),
        ({"predictions": {"m": np.where(np.eye(4, 3) > 0, np.nan, 1)}}, InputError, "NaN or infinite"),
        ({"predictions": {"treated": y}}, InputError, "cannot be called"),
        ({"sample_ids": ["a", "a", "b", "c"]}, MisalignedError, "more than once: 'a'"),
        ({"gene_names": ["a"]}, MisalignedError, "1 gene names for 3"),
    ]:
        given = {
            "predictions": {"m": y},
            "treated": y,
            "control": y,
            "folds": [0, 0, 1, 1],
            "perturbation": list("aabb"),
        }
        with pytest.raises(error, match=words):
            ArraySource(**{**given, **options})


def test_asking_ahead_changes_nothing_and_reaches_no_test_value(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int, int, int]] = []

    def note(opened: int, start: int, length: int, advice: int) -> None:
        asked.append((str(Path(f"/proc/self/fd/{opened}").readlink()), start, length, advice))

    monkeypatch.setattr(os, "posix_fadvise", note, raising=False)
    world.commit(LINE, "m")
    source = StoreSource(world.store, role="all")
    source.prefetch(LINE, "m", start=2, stop=5)
    source.prefetch(TEST, "m", start=0, stop=3)  # never predicted: nothing to ask for, nothing to raise
    source.prefetch(TEST, "treated", start=0, stop=3)
    row = 4 * len(world.genes)
    if sys.platform == "linux":
        ((path, start, length, advice),) = asked
        assert path.endswith("layers/m/c/0/0") and (start, length) == (2 * row, 3 * row)
        assert advice == os.POSIX_FADV_WILLNEED
        Path(path).unlink()
        source.prefetch(LINE, "m", start=2, stop=5)
        with pytest.raises(CorruptionError, match="missing"):
            source.read(LINE, "m", start=2, stop=5)


@pytest.mark.parametrize("holes", [[np.nan], [np.inf], [np.inf, -np.inf]])
def test_single_values_that_are_not_finite_are_refused_in_float32_too(holes: list[float]) -> None:
    rng = np.random.default_rng(0)
    treated, model = rng.normal(size=(2, 8, 4)).astype(np.float32)
    facts = {"folds": [0, 1] * 4, "perturbation": list("aabbccdd")}
    assert ArraySource({"m": model}, treated, **facts).sound(Block("all", 0), "m").all()
    model[5, : len(holes)] = holes
    with pytest.raises(InputError, match="row_5"):
        ArraySource({"m": model}, treated, **facts)
    huge = np.full((8, 4), 3e38, dtype=np.float32)  # finite, though their float32 sum is not
    assert ArraySource({"m": huge}, treated, **facts).sound(Block("all", 1), "m").all()
