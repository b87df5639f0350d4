"""The store gives back exactly what was committed, by name, and says what it holds."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import (
    ConflictError,
    InputError,
    MisalignedError,
    MissingFileError,
    StorageError,
    UnknownNameError,
)
from pertstack.design.blocks import Block
from pertstack.design.provenance import FittedOn
from pertstack.predictions import PredictionStore
from pertstack.predictions.store.files.chunks import Grid
from pertstack.predictions.store.files.names import decode_name, encode_name
from references.small_store import PLAN, World, make_world

LINE = Block("A375", 0)
ODD = Block("HT 29/x.y", 0)
ODD_NAMES = ["a/b", "..", ".hidden", "__init__", "naïve größe", "with space", "100%", "ridge_0.1", "*?|<>:", "模型"]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "store")


def test_rows_and_genes_in_any_order_come_back_in_the_stores_order(world: World) -> None:
    rng = np.random.default_rng(3)
    values = world.prediction(LINE)
    rows, columns = rng.permutation(len(values)), rng.permutation(values.shape[1])
    world.store.commit(
        LINE,
        "m",
        values[rows][:, columns].astype(np.float64),
        sample_ids=world.obs[LINE].index[rows],
        gene_names=[world.genes[c] for c in columns],
        fitted_on=world.fitted(LINE),
    )
    np.testing.assert_array_equal(world.store.read(LINE, "m", verify=True), values)
    np.testing.assert_array_equal(world.store.read(LINE, "m", start=2, stop=5, verify=True), values[2:5])


def test_reading_into_a_buffer_uses_that_buffer(world: World) -> None:
    world.commit(LINE, "m")
    out = np.zeros((3, 23), np.float32)
    assert world.store.read(LINE, "m", start=1, stop=4, out=out) is out
    np.testing.assert_array_equal(out, world.prediction(LINE)[1:4])
    with pytest.raises(InputError, match="float32 of shape"):
        world.store.read(LINE, "m", start=1, stop=4, out=np.zeros((4, 23), np.float32))
    with pytest.raises(InputError, match="outside block"):
        world.store.read(LINE, "m", start=1, stop=99)


@pytest.mark.parametrize("n", [1, 9, 511, 512, 513, 1024, 1025, 1537])
def test_chunks_are_balanced_and_cover_every_row_once(n: int) -> None:
    """r = ceil(n / ceil(n / 512)), with at most one padding row per chunk."""
    grid = Grid(n, 3)
    spans = [grid.span(i) for i in range(grid.count)]
    assert spans[0][0] == 0 and spans[-1][1] == n
    assert all(a[1] == b[0] for a, b in pairwise(spans))
    assert grid.rows <= 512 and grid.rows * grid.count - n < grid.count


def test_blocks_of_several_chunks_read_any_range(tmp_path: Path) -> None:
    block = Block("MCF7", 2)
    world = make_world(tmp_path / "s", {block: 1025}, n_genes=3)
    world.commit(block, "m")
    want = world.prediction(block)
    for start, stop in [(0, 1025), (0, 0), (341, 342), (342, 343), (100, 900), (1024, 1025)]:
        np.testing.assert_array_equal(
            world.store.read(block, "m", start=start, stop=stop, verify=True), want[start:stop]
        )


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_model_names_survive_the_round_trip(world: World, name: str) -> None:
    assert decode_name(encode_name(name)) == name and "/" not in encode_name(name)
    world.commit(LINE, name)
    assert world.store.models() == [name]
    assert world.store.status(LINE, name) == "committed"
    assert world.store.record(LINE, name).model == name
    assert not world.store.verify(deep=True)


def test_names_that_cannot_be_kept_are_refused(world: World) -> None:
    for name in ("", "x" * 201, "ü" * 60):
        with pytest.raises(InputError):
            world.commit(LINE, name)


def test_measured_layers_are_not_models(world: World) -> None:
    assert world.store.models() == []
    assert world.store.layers(LINE) == ["control", "treated"]
    with pytest.raises(InputError, match="fitted_on"):
        world.commit(LINE, "m", fitted_on=None)


def test_blocks_stand_in_their_order_and_keep_their_samples(world: World) -> None:
    assert [b.id for b in world.store.blocks()] == sorted(
        (b.id for b in world.obs), key=lambda i: Block.from_id(i).order
    )
    assert world.store.blocks("test") == [Block("A375", None)]
    again = PredictionStore.open(world.store.root, read_only=True)
    pd.testing.assert_frame_equal(again.obs(ODD), world.obs[ODD], check_dtype=False, check_index_type=False)
    assert list(again.gene_names) == world.genes and again.plan_digest == PLAN


def test_obs_columns_of_every_kind_survive(world: World) -> None:
    block = Block("PC3", 0)
    obs = pd.DataFrame(
        {
            "perturbation": ["a", None, "c"],
            "log10_dose": [1.0, np.nan, 2.0],
            "passage": pd.array([1, None, 3], "Int64"),
            "flag": [True, False, True],
            "plate": pd.Categorical(["p", "q", "p"]),
            "cell_line": "PC3",
        },
        index=["s1", "s2", "s3"],
    )
    world.store.add_block(block, obs)
    back = PredictionStore.open(world.store.root).obs(block)
    assert list(back["perturbation"].where(back["perturbation"].notna(), "-")) == ["a", "-", "c"]
    np.testing.assert_array_equal(back["log10_dose"], obs["log10_dose"])
    assert back["passage"].isna().tolist() == [False, True, False] and back["flag"].tolist() == [True, False, True]


def test_a_block_is_registered_once_and_for_ever(world: World) -> None:
    assert world.store.add_block(LINE, world.obs[LINE])
    with pytest.raises(ConflictError, match="already registered"):
        world.store.add_block(LINE, world.obs[LINE].iloc[::-1])
    with pytest.raises(ConflictError, match="are already in block"):
        world.store.add_block(Block("A375", 7), world.obs[LINE].iloc[:2])
    with pytest.raises(InputError, match="more than once"):
        world.store.add_block(Block("A375", 7), pd.DataFrame(index=["a", "a"]))
    assert not world.store.add_block(Block("A375", 8), world.obs[LINE].iloc[:0])
    assert Block("A375", 8) not in world.store.blocks()


def test_first_commit_stays(world: World) -> None:
    first = world.commit(LINE, "m", seed=1)
    assert world.commit(LINE, "m", seed=1) == first
    with pytest.raises(ConflictError, match="first stays"):
        world.commit(LINE, "m", seed=2)
    with pytest.raises(ConflictError, match="fitted on"):
        world.commit(LINE, "m", seed=1, fitted_on=FittedOn.unknown())
    np.testing.assert_array_equal(world.store.read(LINE, "m"), world.prediction(LINE, 1))


def test_what_is_missing_must_be_announced(world: World) -> None:
    values = world.prediction(LINE)
    ids = world.obs[LINE].index
    with pytest.raises(MisalignedError, match="expected but not given"):
        world.store.commit(
            LINE, "m", values[:5], sample_ids=ids[:5], gene_names=world.genes, fitted_on=world.fitted(LINE)
        )
    record = world.store.commit(
        LINE,
        "m",
        values[:5, 3:],
        sample_ids=ids[:5],
        gene_names=world.genes[3:],
        fitted_on=world.fitted(LINE),
        missing_samples=ids[5:],
        missing_genes=world.genes[:3],
    )
    assert record.missing_samples == tuple(ids[5:]) and record.missing_genes == tuple(world.genes[:3])
    want = values.copy()
    want[5:], want[:, :3] = np.nan, np.nan
    np.testing.assert_array_equal(world.store.read(LINE, "m", verify=True), want)


def test_a_gene_cannot_be_given_and_missing(world: World) -> None:
    with pytest.raises(MisalignedError, match="passed and announced as missing"):
        world.commit(LINE, "m", missing_genes=world.genes[:2])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_values_that_are_not_finite_in_float32_are_refused(world: World, bad: float) -> None:
    values = world.prediction(LINE).astype(np.float64)
    values[2, 5] = bad
    with pytest.raises(InputError, match="row 2, column 5"):
        world.store.commit(LINE, "m", values, fitted_on=world.fitted(LINE), **world.names(LINE))
    assert world.store.status(LINE, "m") == "missing"
    assert not list((world.store.root / "staging").iterdir())


def test_rows_announced_as_missing_must_not_hold_numbers(world: World) -> None:
    values = world.prediction(LINE)
    ids = world.obs[LINE].index
    with pytest.raises(InputError, match="hold numbers"):
        world.commit(LINE, "m", missing_samples=ids[:1])
    values[0] = np.nan
    world.store.commit(LINE, "m", values, fitted_on=world.fitted(LINE), missing_samples=ids[:1], **world.names(LINE))
    assert np.isnan(world.store.read(LINE, "m")[0]).all()


def test_a_status_has_three_states(world: World) -> None:
    world.commit(LINE, "m")
    world.store.mark_absent(ODD, "m", "out of memory")
    table = world.store.status_table()
    assert table.loc[LINE.id, "m"] == "committed" and table.loc[ODD.id, "m"] == "absent"
    assert world.store.status(Block("A375", 1), "m") == "missing"
    assert world.store.absent_reason(ODD, "m") == "out of memory"
    with pytest.raises(ConflictError):
        world.store.mark_absent(LINE, "m", "changed my mind")
    world.commit(ODD, "m")
    assert world.store.status(ODD, "m") == "committed"


def test_retract_then_commit_anew(world: World) -> None:
    world.commit(LINE, "m", seed=1)
    moved = world.store.retract(LINE, "m", "trained on the wrong genes")
    assert (moved / "zarr.json").is_file() and world.store.status(LINE, "m") == "missing"
    world.commit(LINE, "m", seed=2)
    np.testing.assert_array_equal(world.store.read(LINE, "m"), world.prediction(LINE, 2))
    with pytest.raises(UnknownNameError, match="Did you mean 'm'"):
        world.store.retract(LINE, "M", "typo")
    assert not world.store.verify(deep=True)


def test_embeddings_are_committed_like_predictions(world: World) -> None:
    values = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    ids = world.obs[LINE].index
    order = [3, 1, 0, 2, 6, 5, 4]
    world.store.commit_embedding(LINE, "a/b", values[order], sample_ids=ids[order], fitted_on=world.fitted(LINE))
    np.testing.assert_array_equal(world.store.read_embedding(LINE, "a/b"), values)
    assert world.store.embeddings(LINE) == ["a/b"] and world.store.models() == []
    assert not world.store.verify(deep=True)


def test_a_read_only_store_refuses_every_change(world: World) -> None:
    store = PredictionStore.open(world.store.root, read_only=True)
    for change in (
        lambda: store.commit(LINE, "m", world.prediction(LINE), fitted_on=world.fitted(LINE), **world.names(LINE)),
        lambda: store.add_block(Block("X", 0), world.obs[LINE]),
        lambda: store.mark_absent(LINE, "m", "x"),
        lambda: store.retract(LINE, "treated", "x"),
        lambda: store.writer(LINE, "m", gene_names=world.genes, fitted_on=world.fitted(LINE)),
        store.gc,
    ):
        with pytest.raises(StorageError, match="read-only"):
            change()


def test_what_is_not_there_is_said_plainly(world: World, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no prediction store"):
        PredictionStore.open(tmp_path / "nowhere")
    with pytest.raises(ConflictError, match="already holds"):
        PredictionStore.create(world.store.root, ["g"])
    with pytest.raises(UnknownNameError, match="Unknown block"):
        world.store.obs(Block("A375", 9))
    with pytest.raises(InputError, match="more than once"):
        PredictionStore.create(tmp_path / "twice", ["g", "g"])
    with pytest.raises(InputError, match="line break"):
        PredictionStore.create(tmp_path / "broken", ["g\n"])


def test_a_long_list_of_fit_rows_is_kept_beside_and_comes_back(world: World) -> None:
    fitted = FittedOn.ids([f"x{i}" for i in range(2000)])
    world.commit(LINE, "m", fitted_on=fitted)
    again = PredictionStore.open(world.store.root)
    assert again.record(LINE, "m").fitted_on == fitted
    assert (again.root / "blocks" / f"{LINE.id}.zarr/layers/m/zarr.json").stat().st_size < 4000


def test_a_snapshot_names_the_content(world: World) -> None:
    world.commit(LINE, "m")
    before = world.store.snapshot()
    assert world.store.snapshot() == before
    world.commit(ODD, "m")
    assert world.store.snapshot() != before
    pinned = pd.read_parquet(world.store.root / "snapshots" / f"{before}.parquet")
    assert world.store.record(LINE, "m").digest in set(pinned["digest"])
