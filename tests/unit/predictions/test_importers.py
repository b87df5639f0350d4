"""Every file format brings the same values to the same samples, whatever their order; what cannot be matched stays
out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pytest
import scipy.sparse

from pertstack._base.errors import (
    ConflictError,
    FoldPlanMismatchError,
    InputError,
    IntegrityError,
    MisalignedError,
    MissingFileError,
)
from pertstack.design.blocks import Block
from pertstack.design.provenance import FittedOn
from pertstack.predictions import StoreSource
from pertstack.predictions.importers import add_predictions, open_predictions
from references.small_store import PLAN, World, make_world

SIZES = {Block("A", 0): 40, Block("A", 1): 33, Block("B", 0): 21, Block("A", None): 17}
Write = Callable[[Path, pd.DataFrame], Path]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "store", SIZES, n_genes=31)


def table(world: World, *, delta: bool = False) -> pd.DataFrame:
    """All predictions of one model, shuffled in rows and genes."""
    parts = []
    for block in SIZES:
        values = world.prediction(block, seed=5) - (world.control[block] if delta else 0)
        parts.append(pd.DataFrame(values, index=world.obs[block].index, columns=world.genes))
    whole = pd.concat(parts)
    rng = np.random.default_rng(9)
    return whole.iloc[rng.permutation(len(whole)), rng.permutation(len(world.genes))]


def h5ad(path: Path, frame: pd.DataFrame) -> Path:
    anndata.AnnData(frame).write_h5ad(path / "p.h5ad", compression="gzip")
    return path / "p.h5ad"


def h5ad_layer(path: Path, frame: pd.DataFrame) -> Path:
    adata = anndata.AnnData(frame * 0)
    adata.layers["prediction"] = frame.to_numpy()
    adata.write_h5ad(path / "l.h5ad")
    return path / "l.h5ad"


def h5ad_sparse(path: Path, frame: pd.DataFrame) -> Path:
    adata = anndata.AnnData(scipy.sparse.csr_matrix(frame.to_numpy()), frame[[]], pd.DataFrame(index=frame.columns))
    adata.write_h5ad(path / "s.h5ad")
    return path / "s.h5ad"


def zarr(path: Path, frame: pd.DataFrame) -> Path:
    anndata.AnnData(frame).write_zarr(path / "p.zarr")
    return path / "p.zarr"


def npz(path: Path, frame: pd.DataFrame) -> Path:
    np.savez(
        path / "p.npz",
        predictions=frame.to_numpy(np.float64),
        sample_ids=np.array(frame.index, dtype=str),
        gene_names=np.array(frame.columns, dtype=str),
        model_version="1.2",
        timestamp="2024-05-01",
    )
    return path / "p.npz"


def npz_compressed(path: Path, frame: pd.DataFrame) -> Path:
    np.savez_compressed(
        path / "c.npz",
        predictions=frame.to_numpy(),
        sample_ids=np.array(frame.index, dtype=bytes),
        gene_names=np.array(frame.columns, dtype=str),
    )
    return path / "c.npz"


def parquet(path: Path, frame: pd.DataFrame) -> Path:
    frame.to_parquet(path / "p.parquet")
    return path / "p.parquet"


def parquet_first_column(path: Path, frame: pd.DataFrame) -> Path:
    frame.rename_axis("sig_id").reset_index().to_parquet(path / "f.parquet", index=False)
    return path / "f.parquet"


def feather(path: Path, frame: pd.DataFrame) -> Path:
    pa.feather.write_feather(pa.Table.from_pandas(frame), str(path / "p.arrow"))
    return path / "p.arrow"


def comma(path: Path, frame: pd.DataFrame) -> Path:
    frame.to_csv(path / "p.csv")
    return path / "p.csv"


def tab_gz(path: Path, frame: pd.DataFrame) -> Path:
    frame.to_csv(path / "p.tsv.gz", sep="\t")
    return path / "p.tsv.gz"


def pickled(path: Path, frame: pd.DataFrame) -> Path:
    frame.to_pickle(path / "p.pkl")
    return path / "p.pkl"


def pickled_with_gaps(path: Path, frame: pd.DataFrame) -> Path:
    return pickled(path, frame.astype("Float32"))


FORMATS = [
    h5ad,
    h5ad_layer,
    h5ad_sparse,
    zarr,
    npz,
    npz_compressed,
    parquet,
    parquet_first_column,
    feather,
    comma,
    tab_gz,
    pickled,
    pickled_with_gaps,
]


@pytest.mark.parametrize("write", FORMATS, ids=lambda f: f.__name__)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_every_format_brings_the_same_values(world: World, tmp_path: Path, write: Write) -> None:
    frame = table(world)
    report = add_predictions(
        world.store, "theirs", write(tmp_path, frame), fitted_on="plan", scale="treated", n_rows=13
    )
    assert report.n_samples == len(frame) and not report.missing and not report.not_covered
    for block in SIZES:
        np.testing.assert_array_equal(world.store.read(block, "theirs", verify=True), world.prediction(block, seed=5))
        assert world.store.record(block, "theirs").fitted_on == world.fitted(block)
    codes = {f.code for f in report.findings}
    assert {"scale_checked", "rows_belong"} <= codes and not world.store.verify(deep=True)


def test_delta_becomes_treated_by_the_stored_control(world: World, tmp_path: Path) -> None:
    path = parquet(tmp_path, table(world, delta=True))
    add_predictions(world.store, "d", path, fitted_on="plan", scale="delta")
    for block in SIZES:
        np.testing.assert_allclose(world.store.read(block, "d"), world.prediction(block, seed=5), atol=1e-5)


@pytest.mark.parametrize("scale", ["treated", "delta"])
def test_a_scale_declared_wrongly_is_refused(world: World, tmp_path: Path, scale: Any) -> None:
    path = parquet(tmp_path, table(world, delta=scale == "treated"))
    with pytest.raises(IntegrityError, match=f"was declared as '{scale}'"):
        add_predictions(world.store, "d", path, fitted_on="plan", scale=scale)
    assert world.store.models() == [] and not list((world.store.root / "staging").iterdir())


def test_values_on_another_scale_altogether_are_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="another scale"):
        add_predictions(world.store, "x", parquet(tmp_path, 2 ** table(world)), fitted_on="plan", scale="treated")


@pytest.mark.parametrize("step", [-2, -1, 1, 2])
@pytest.mark.parametrize("order", ["file", "store"])
def test_values_shifted_against_their_ids_are_refused(world: World, tmp_path: Path, step: int, order: str) -> None:
    """Names match and counts match; only the numbers moved by a row. This is the mistake that matching by name cannot
    see."""
    frame = table(world) if order == "file" else table(world).loc[[i for b in SIZES for i in world.obs[b].index]]
    moved = pd.DataFrame(np.roll(frame.to_numpy(), step, axis=0), frame.index, frame.columns)
    if order == "store":
        moved = moved.sample(frac=1, random_state=1)
    with pytest.raises(MisalignedError, match="look shifted against their ids"):
        add_predictions(world.store, "x", parquet(tmp_path, moved), fitted_on="plan", scale="treated")
    assert world.store.models() == []


def test_a_model_that_tells_samples_apart_by_nothing_passes_with_a_note(world: World, tmp_path: Path) -> None:
    frame = table(world)
    rng = np.random.default_rng(0)
    flat = pd.DataFrame(8 + rng.normal(0, 0.5, frame.shape), frame.index, frame.columns)
    report = add_predictions(world.store, "mean", parquet(tmp_path, flat), fitted_on="plan", scale="treated")
    assert "rows_unproven" in {f.code for f in report.findings}


def test_several_files_at_once(world: World, tmp_path: Path) -> None:
    frame = table(world)
    (tmp_path / "1").mkdir()
    paths = [parquet(tmp_path, frame.iloc[:50]), npz(tmp_path / "1", frame.iloc[50:])]
    report = add_predictions(world.store, "two", paths, fitted_on="plan", scale="treated")
    assert report.n_samples == len(frame)
    with pytest.raises(MisalignedError, match="more than one file"):
        add_predictions(world.store, "x", [paths[0], paths[0]], fitted_on="plan", scale="treated")


def test_a_model_may_come_block_by_block(world: World, tmp_path: Path) -> None:
    frame = table(world)
    test = world.obs[Block("A", None)].index
    report = add_predictions(world.store, "m", parquet(tmp_path, frame.drop(test)), fitted_on="plan", scale="treated")
    assert report.not_covered == (Block("A", None),)
    report = add_predictions(world.store, "m", comma(tmp_path, frame.loc[test]), fitted_on="plan", scale="treated")
    assert not report.not_covered and "scale_not_checked" in {f.code for f in report.findings}


def test_gaps_are_refused_or_recorded(world: World, tmp_path: Path) -> None:
    frame = table(world)
    holes = frame.copy()
    holes.iloc[3] = np.nan
    short = parquet(tmp_path, holes.drop(columns=world.genes[:4]).drop(index=holes.index[10:12]))
    with pytest.raises(MisalignedError, match=r"The genes .* do not match the store"):
        add_predictions(world.store, "m", short, fitted_on="plan", scale="treated")
    report = add_predictions(world.store, "m", short, fitted_on="plan", scale="treated", missing="record")
    assert set().union(*report.missing.values()) == {*frame.index[10:12], frame.index[3]}
    assert report.missing_genes == tuple(world.genes[:4]) and report.n_samples == len(frame) - 3
    source = StoreSource(world.store, role="all")
    assert sum(int(source.sound(b, "m").sum()) for b in source.blocks()) == len(frame) - 3
    for block in SIZES:
        want = world.prediction(block, seed=5)
        want[:, :4] = np.nan
        want[np.isin(world.obs[block].index, list(report.missing.get(block.id, ())))] = np.nan
        np.testing.assert_array_equal(world.store.read(block, "m", verify=True), want)
        assert source.genes_of(block, "m").sum() == 27
    with pytest.raises(MisalignedError, match=r"2 samples of \d blocks are not predicted"):
        add_predictions(
            world.store, "n", comma(tmp_path, frame.drop(index=frame.index[10:12])), fitted_on="plan", scale="treated"
        )


def test_a_single_nan_is_refused_even_when_gaps_are_recorded(world: World, tmp_path: Path) -> None:
    frame = table(world)
    frame.iloc[3, 4] = np.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        add_predictions(world.store, "m", parquet(tmp_path, frame), fitted_on="plan", scale="treated", missing="record")
    assert world.store.models() == []


def test_names_that_do_not_match_say_why(world: World, tmp_path: Path) -> None:
    frame = table(world)
    for bad, words in [
        (frame.rename(columns=str.lower), "upper and lower"),
        (frame.rename(index=lambda i: f"{i}-1"), "concatenation"),
        (frame.rename(index=lambda i: f"other {i}"), "not in this study"),
        (pd.concat([frame, frame.iloc[:1]]), "more than once"),
    ]:
        with pytest.raises(MisalignedError, match=words) as caught:
            add_predictions(world.store, "m", parquet(tmp_path, bad), fitted_on="plan", scale="treated")
        assert "p.parquet" in str(caught.value)


def test_ensembl_versions_are_cut(world: World, tmp_path: Path) -> None:
    versions = table(world).rename(columns=lambda g: f"{g}.7")
    report = add_predictions(world.store, "m", parquet(tmp_path, versions), fitted_on="plan", scale="treated")
    assert "without Ensembl versions" in next(f for f in report.findings if f.code == "genes_by_second_name").message
    add_predictions(world.store, "plain", parquet(tmp_path, table(world)), fitted_on="plan", scale="treated")
    for block in world.obs:
        a, b = (world.store.read(block, m, start=0, stop=world.store.n_samples(block)) for m in ("m", "plain"))
        np.testing.assert_array_equal(a, b)


def test_provenance_takes_every_form(world: World, tmp_path: Path) -> None:
    path = parquet(tmp_path, table(world))
    own = list(world.obs[Block("A", 0)].index)
    by_fold = {0: list(world.obs[Block("A", 1)].index), 1: own}

    report = add_predictions(world.store, "ids", path, fitted_on=own[:5], scale="treated")
    source = StoreSource(world.store)
    assert source.sound(Block("A", 0), "ids").sum() == 35 and source.sound(Block("B", 0), "ids").all()
    assert next(f for f in report.findings if f.code == "in_sample_rows").count == 5

    add_predictions(world.store, "table", path, fitted_on=by_fold, scale="treated")
    frame = pd.DataFrame([(f, s) for f, ids in by_fold.items() for s in ids], columns=["fold", "sample_id"])
    add_predictions(world.store, "frame", path, fitted_on=frame, scale="treated")
    for name in ("table", "frame"):
        assert StoreSource(world.store).sound(Block("A", 0), name).all()
        fitted = world.store.record(Block("A", None), name).fitted_on
        assert fitted == FittedOn.ids(by_fold[0] + by_fold[1])
    with pytest.raises(InputError, match="no line for fold 1"):
        add_predictions(world.store, "short", path, fitted_on={0: by_fold[0]}, scale="treated")

    report = add_predictions(world.store, "unknown", path, fitted_on="unknown", scale="treated")
    assert "unverified" in {f.code for f in report.findings}
    with pytest.raises(FoldPlanMismatchError, match="cross-fitted on fold plan"):
        add_predictions(world.store, "other", path, fitted_on="q" * 64, scale="treated")
    add_predictions(world.store, "same", path, fitted_on=PLAN, scale="treated")


def test_folds_in_the_file_must_be_those_of_the_plan(world: World, tmp_path: Path) -> None:
    frame = table(world)
    fold = {s: b.fold for b in SIZES for s in world.obs[b].index}
    own = np.array([-1 if fold[s] is None else 7 - fold[s] for s in frame.index])  # other numbers, same parts
    arrays = {
        "predictions": frame.to_numpy(),
        "sample_ids": np.array(frame.index, str),
        "gene_names": np.array(frame.columns, str),
    }
    np.savez(tmp_path / "good.npz", fold_assignments=own, **arrays)
    np.savez(tmp_path / "bad.npz", fold_assignments=np.arange(len(frame)) % 3, **arrays)
    add_predictions(world.store, "good", tmp_path / "good.npz", fitted_on="plan", scale="treated")
    with pytest.raises(FoldPlanMismatchError, match="fold_assignments part the samples otherwise"):
        add_predictions(world.store, "bad", tmp_path / "bad.npz", fitted_on="plan", scale="treated")


def merge_file(world: World, path: Path, blocks: list[Block], **changes: Any) -> Path:
    arrays = {
        "predictions": np.concatenate([world.prediction(b, 5) for b in blocks])[::-1],
        "treated_test": np.concatenate([world.treated[b] for b in blocks])[::-1],
        "diseased_test": np.concatenate([world.control[b] for b in blocks])[::-1],
        "test_indices": np.arange(sum(SIZES[b] for b in blocks)),
    }
    np.savez(path / "merge.npz", **{**arrays, **changes})
    return path / "merge.npz"


def test_merge_files_without_ids_are_recognised_by_their_measured_rows(world: World, tmp_path: Path) -> None:
    blocks = [Block("A", 0), Block("B", 0)]
    report = add_predictions(
        world.store, "m", merge_file(world, tmp_path, blocks), fitted_on="unknown", scale="treated"
    )
    assert report.n_samples == 61
    for block in blocks:
        np.testing.assert_array_equal(world.store.read(block, "m"), world.prediction(block, 5))


def test_merge_files_with_unknown_or_double_rows_are_refused(world: World, tmp_path: Path) -> None:
    blocks = [Block("A", 0)]
    control = world.control[blocks[0]][::-1].copy()
    control[4, 2] += 1
    path = merge_file(world, tmp_path, blocks, diseased_test=control)
    with pytest.raises(MisalignedError, match=r"1 match no sample \(rows '4'\)"):
        add_predictions(world.store, "m", path, fitted_on="unknown", scale="treated")
    twin = make_world(tmp_path / "twin", {Block("A", 0): 3, Block("A", 1): 3}, n_genes=31)
    for layer in ("control", "treated"):
        twin.store.retract(Block("A", 1), layer, "to make twins of two samples")
        values = twin.store.read(Block("A", 0), layer)
        twin.store.commit(Block("A", 1), layer, values, fitted_on=None, **twin.names(Block("A", 1)))
    arrays = {
        k: twin.store.read(Block("A", 0), v) for k, v in (("treated_test", "treated"), ("diseased_test", "control"))
    }
    np.savez(tmp_path / "twin.npz", predictions=arrays["treated_test"], **arrays)
    with pytest.raises(MisalignedError, match="3 match several samples"):
        add_predictions(twin.store, "m", tmp_path / "twin.npz", fitted_on="unknown", scale="treated")


def test_adding_again_is_harmless_and_other_values_are_a_conflict(world: World, tmp_path: Path) -> None:
    path = parquet(tmp_path, table(world))
    first = add_predictions(world.store, "m", path, fitted_on="plan", scale="treated")
    again = add_predictions(world.store, "m", path, fitted_on="plan", scale="treated")
    assert again.committed == first.committed
    with pytest.raises(ConflictError, match="first stays"):
        add_predictions(world.store, "m", comma(tmp_path, table(world) + 0.01), fitted_on="plan", scale="treated")


def test_a_conflict_in_the_last_block_leaves_the_others_untouched(world: World, tmp_path: Path) -> None:
    world.commit(Block("A", None), "m", seed=77)
    with pytest.raises(ConflictError):
        add_predictions(world.store, "m", parquet(tmp_path, table(world)), fitted_on="plan", scale="treated")
    assert [world.store.status(b, "m") for b in SIZES] == ["missing", "missing", "missing", "committed"]


@pytest.mark.parametrize("how", ["objects", "texts", "bytes"])
def test_names_in_npz_as_people_save_them(world: World, tmp_path: Path, how: str) -> None:
    """``sample_ids=adata.obs_names.values`` is an array of Python objects, which numpy pickles."""
    frame = table(world)
    kind = {"texts": str, "bytes": "S"}.get(how, object)
    np.savez(
        tmp_path / "p.npz",
        predictions=frame.to_numpy(),
        sample_ids=np.array(frame.index, dtype=kind),
        gene_names=np.array(frame.columns, dtype=kind),
    )
    chunks = list(open_predictions(tmp_path / "p.npz"))
    assert [i for c in chunks for i in c.sample_ids] == list(frame.index)
    assert chunks[0].gene_names == list(frame.columns)
    np.testing.assert_array_equal(np.concatenate([c.values for c in chunks]), frame.to_numpy(np.float32))


@pytest.mark.parametrize("n_rows", [1, 3, None])
def test_an_array_that_is_stored_column_by_column_is_turned(
    world: World, tmp_path: Path, n_rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``frame.to_numpy()`` of a table that was read from text is one."""
    frame = table(world)
    values = np.asfortranarray(frame.to_numpy())
    assert not values.flags.c_contiguous
    np.savez(tmp_path / "f.npz", predictions=values, sample_ids=list(frame.index), gene_names=list(frame.columns))
    chunks = list(open_predictions(tmp_path / "f.npz", n_rows=n_rows))
    assert [i for c in chunks for i in c.sample_ids] == list(frame.index)
    np.testing.assert_array_equal(np.concatenate([c.values for c in chunks]), frame.to_numpy(np.float32))
    monkeypatch.setattr("pertstack.predictions.importers.readers.npz.MODEST", 100)
    with pytest.raises(InputError, match=r"column by column.*ascontiguousarray"):
        list(open_predictions(tmp_path / "f.npz", n_rows=n_rows))


def test_damaged_and_unfit_files_are_named(world: World, tmp_path: Path) -> None:
    frame = table(world)
    whole = npz(tmp_path, frame).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    np.savez(
        tmp_path / "object.npz",
        predictions=frame.to_numpy(),
        sample_ids=np.array([{i} for i in frame.index], object),
        gene_names=["g"],
    )
    np.savez(tmp_path / "noids.npz", predictions=frame.to_numpy())
    frame.reset_index(drop=True).to_parquet(tmp_path / "rows.parquet")
    frame.assign(remark="A").to_parquet(tmp_path / "words.parquet")
    (tmp_path / "p.h5ad").write_bytes(b"not hdf5")
    (tmp_path / "p.csv").write_text("id,g1,g2\na,1,x\n")
    (tmp_path / "p.docx").write_bytes(b"?")
    for name, words in [
        ("cut.npz", "cannot be read as .npz"),
        ("object.npz", "other Python objects"),
        ("noids.npz", "lacks 'sample_ids'"),
        ("rows.parquet", "no sample ids"),
        ("words.parquet", "columns without numbers: 'remark'"),
        ("p.h5ad", "cannot be read as AnnData"),
        ("p.csv", "'x' in column 'g2'"),
        ("p.docx", "format of .* not known"),
    ]:
        with pytest.raises(InputError, match=words) as caught:
            list(open_predictions(tmp_path / name))
        assert name in str(caught.value)
    with pytest.raises(MissingFileError):
        list(open_predictions(tmp_path / "nowhere.npz"))
