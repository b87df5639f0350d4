"""Layers in 16 bits: no value moves by more than a 1024th of its gene's spread, and what was equal stays equal."""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pertstack._base.errors import CorruptionError
from pertstack.design.blocks import Block
from pertstack.predictions import PredictionStore
from pertstack.predictions.store.files import layout
from pertstack.predictions.store.files.rounding import BeyondCodesError, Rounding
from pertstack.predictions.store.sealed import SealedStore, seal_chunks
from references.small_store import World, make_world

LINE, TEST = Block("A375", 0), Block("A375", None)
STEP = 1.4 / 512
finite = st.floats(-1e4, 1e4, width=32)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "store", rounded=True)


@given(arrays(np.float32, (4, 3), elements=finite), arrays(np.float64, 3, elements=finite), st.floats(1e-6, 1e3))
def test_a_value_moves_by_at_most_a_1024th_of_the_spread(values: np.ndarray, centre: np.ndarray, spread: float) -> None:
    rounding = Rounding.of(centre, np.array([spread, 2 * spread, 0.0]))
    out = rounding.rounded(values)
    known = np.array([spread, 2 * spread, 1.5 * spread / 64])  # a gene that does not vary: a 64th of the median
    float32 = 4 * np.spacing(np.maximum(np.abs(values), np.abs(centre)).astype(np.float32))
    assert (np.abs(out.astype(np.float64) - values) <= known / 1024 + float32).all()
    np.testing.assert_array_equal(rounding.rounded(out), out)
    fits = rounding.fits(values)
    assert fits == rounding.fits(np.stack([values.min(axis=0), values.max(axis=0)]))
    if fits:
        read = np.empty_like(out)
        rounding.values(rounding.codes(values), read)
        np.testing.assert_array_equal(read, out)
    else:
        with pytest.raises(BeyondCodesError):
            rounding.codes(values)


def test_zero_stays_zero_and_equal_stays_equal() -> None:
    rng = np.random.default_rng(0)
    control = rng.gamma(1.0, 2.0, (40, 500)).astype(np.float32)
    control[rng.random(control.shape) < 0.3] = 0
    rounding = Rounding.of(control.mean(axis=0), control.std(axis=0))
    out = rounding.rounded(control)
    assert rounding.fits(control) and (out[control == 0] == 0).all()
    codes = rounding.codes(np.vstack([control[:1], control]))
    np.testing.assert_array_equal(codes[0], codes[1])


def test_no_step_is_finer_than_float32_can_tell() -> None:
    rounding = Rounding.of(np.array([1e4, 1e4]), np.array([1e-6, 1.0]))
    assert rounding.step[0] == 4 * np.spacing(np.float32(1e4)) and rounding.step[1] == rounding.step[0]
    assert Rounding.of(np.array([1.0]), np.array([1.0])).step == np.float32(1 / 512)


def test_the_measured_effect_of_cells_stays_exact(world: World) -> None:
    values = world.prediction(LINE) / 7
    world.store.commit(LINE, "effect", values, fitted_on=None, **world.names(LINE))
    np.testing.assert_array_equal(world.store.read(LINE, "effect"), values)
    assert world.store.record(LINE, "effect").grid.dtype == np.float32


def test_a_store_in_16_bits_takes_half_and_gives_back_rounded_values(world: World) -> None:
    record = world.commit(LINE, "m")
    read, wanted = world.store.read(LINE, "m", verify=True), world.prediction(LINE)
    assert np.abs(read - wanted).max() <= STEP / 2 + 1e-6 and not np.array_equal(read, wanted)
    assert record.n_bytes == 7 * 23 * 2 + 4
    np.testing.assert_array_equal(world.store.read(LINE, "m", start=2, stop=5, verify=True), read[2:5])
    assert not world.store.verify(deep=True)
    assert world.commit(LINE, "m").digest == record.digest  # the same again is no conflict


def test_rows_that_come_one_by_one_give_the_same_bytes(world: World) -> None:
    whole = world.commit(LINE, "whole", missing_samples=[], missing_genes=[])
    names, values = list(world.obs[LINE].index), world.prediction(LINE)
    with world.store.writer(LINE, "rows", gene_names=world.genes, fitted_on=world.fitted(LINE)) as writer:
        for i in (3, 0, 6, 1, 2, 5, 4):
            writer.append(values[i : i + 1], [names[i]])
        rows = writer.commit()
    assert [c.xxh3_128 for c in rows.chunks] == [c.xxh3_128 for c in whole.chunks]
    assert rows.grid == whole.grid


def test_gaps_are_nan(world: World) -> None:
    names, values = list(world.obs[LINE].index), world.prediction(LINE)
    world.store.commit(
        LINE,
        "m",
        values[1:, 2:],
        sample_ids=names[1:],
        gene_names=world.genes[2:],
        fitted_on=world.fitted(LINE),
        missing_samples=names[:1],
        missing_genes=world.genes[:2],
    )
    with world.store.writer(
        LINE, "w", gene_names=world.genes[2:], fitted_on=world.fitted(LINE), missing_genes=world.genes[:2]
    ) as writer:
        writer.announce_missing(names[:1])
        writer.append(values[1:, 2:], names[1:])
        writer.commit()
    for model in ("m", "w"):
        read = world.store.read(LINE, model)
        assert np.isnan(read[0]).all() and np.isnan(read[:, :2]).all() and np.isfinite(read[1:, 2:]).all()
    assert world.store.record(LINE, "m").grid.dtype == np.int16


@pytest.mark.parametrize("far", [64.1 * 1.4, -1e6])
def test_a_value_far_away_keeps_its_layer_in_float32(world: World, far: float) -> None:
    names, values = world.names(LINE), world.prediction(LINE)
    values[3, 5] = 8 + far
    record = world.store.commit(LINE, "m", values, fitted_on=world.fitted(LINE), **names)
    with world.store.writer(LINE, "w", gene_names=world.genes, fitted_on=world.fitted(LINE)) as writer:
        writer.append(values, names["sample_ids"])
        rows = writer.commit()
    assert record.grid.dtype == rows.grid.dtype == np.float32
    assert [c.xxh3_128 for c in rows.chunks] == [c.xxh3_128 for c in record.chunks]
    read = world.store.read(LINE, "m", verify=True)
    np.testing.assert_allclose(read, values, atol=STEP / 2 + 1e-6, rtol=1e-7)
    near = np.delete(np.arange(7), 3)
    world.store.commit(LINE, "near", world.prediction(LINE), fitted_on=world.fitted(LINE), **names)
    np.testing.assert_array_equal(world.store.read(LINE, "near")[near], read[near])  # equal in both forms
    assert not world.store.verify(deep=True)


def test_other_readers_find_what_codes_mean_in_var(world: World) -> None:
    world.commit(LINE, "m")
    adata = anndata.io.read_zarr(world.store.root / "blocks" / f"{LINE.id}.zarr")
    assert adata.layers["m"].dtype == np.int16
    step, offset = adata.var["step"].to_numpy(), adata.var["offset"].to_numpy()
    np.testing.assert_allclose(adata.layers["m"] * step + offset, world.store.read(LINE, "m"), rtol=1e-6)


def test_a_changed_step_is_found(world: World) -> None:
    world.commit(LINE, "m")
    file = world.store.root / "blocks" / f"{LINE.id}.zarr" / "var" / "step"
    meta = json.loads((file / "zarr.json").read_text())
    (file / "c" / "0").unlink()  # the fill value stands for all
    (file / "zarr.json").write_text(json.dumps({**meta, "fill_value": 0.01}))
    store = PredictionStore.open(world.store.root)
    with pytest.raises(CorruptionError, match="offsets and steps"):
        store.read(LINE, "m")
    assert "block_damaged" in [f.code for f in store.verify()]


def test_float32_may_not_be_called_16_bits(tmp_path: Path) -> None:
    world = make_world(tmp_path / "store")
    world.commit(LINE, "m")
    path = layout.array_folder(world.store.root, LINE, "m") / "zarr.json"
    meta = json.loads(path.read_text())
    path.write_text(json.dumps({**meta, "data_type": "int16"}))
    with pytest.raises(CorruptionError, match="in 16 bits"):
        PredictionStore.open(world.store.root).read(LINE, "m")


def test_a_sealed_store_in_16_bits(world: World) -> None:
    world.commit(LINE, "m")
    wanted = world.store.read(LINE, "m")
    seal_chunks(world.store, bytes(32))
    sealed = SealedStore.open(world.store.root)
    sealed.key = bytes(32)
    np.testing.assert_array_equal(sealed.read(LINE, "m"), wanted)
    np.testing.assert_array_equal(sealed.read(LINE, "m", start=2, stop=4), wanted[2:4])
