"""Predictions that do not belong to the rows or genes they stand at: pitfalls 4, 5, 12, 13; P5 to P8, P19, P28, L4,
L10, L15."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import pertstack as ps
from pertstack._base.errors import ConflictError, FoldPlanMismatchError, IntegrityError, MisalignedError
from pertstack.design.blocks import Block
from pertstack.design.plan.folds import FoldPlan
from pertstack.design.provenance import FittedOn
from pertstack.predictions import StoreSource
from pertstack.predictions.importers import add_predictions
from pertstack.predictions.sources.array_source import ArraySource
from pertstack.reduce.references import References
from pertstack.reduce.scoring.score import score
from references.small_store import World, make_world
from references.small_world import small_world

SIZES = {Block("A", 0): 40, Block("A", 1): 33, Block("B", 0): 21, Block("A", None): 17}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "store", SIZES, n_genes=31)


def table(world: World) -> pd.DataFrame:
    """All predictions of one model, named by sample and gene, in the order of the blocks."""
    parts = [pd.DataFrame(world.prediction(b, 5), index=world.obs[b].index, columns=world.genes) for b in SIZES]
    return pd.concat(parts)


def add(world: World, frame: pd.DataFrame, tmp_path: Path, name: str = "m", **options):
    frame.to_parquet(tmp_path / f"{name}.parquet")
    options = {"fitted_on": "plan", "scale": "treated", **options}
    return add_predictions(world.store, name, tmp_path / f"{name}.parquet", **options)


def stored(world: World, name: str = "m") -> pd.DataFrame:
    parts = [
        pd.DataFrame(world.store.read(b, name, start=0, stop=SIZES[b]), index=world.obs[b].index, columns=world.genes)
        for b in SIZES
    ]
    return pd.concat(parts)


# -- order -------------------------------------------------------------------------------------------------------------


def test_shuffled_rows_and_genes_find_their_places_by_name(world, tmp_path):
    """P8, L4, L10: a shuffled loader; order means nothing, names mean all."""
    frame, rng = table(world), np.random.default_rng(0)
    add(world, frame.iloc[rng.permutation(len(frame)), rng.permutation(31)], tmp_path)
    pd.testing.assert_frame_equal(stored(world), frame)


def test_values_shuffled_under_their_ids_are_refused(world, tmp_path):
    """P8: ids in one order, values in another (step 1 is the off-by-one of a header line)."""
    frame = table(world)
    with pytest.raises(MisalignedError, match=r"shifted|other rows|belong"):
        add(world, pd.DataFrame(np.roll(frame.to_numpy(), 1, axis=0), frame.index, frame.columns), tmp_path)
    assert world.store.models() == []


def test_the_same_row_count_with_other_rows_is_refused_with_the_first_of_them(world, tmp_path):
    """L15: frames compared by row count only."""
    frame = table(world)
    foreign = frame.rename(index={frame.index[3]: "somebody else"})
    with pytest.raises(MisalignedError, match="1 of 111 samples are not in this study: 'somebody else'"):
        add(world, foreign, tmp_path)


def test_truncation_and_dropped_rows_are_refused_with_their_number(world, tmp_path):
    """P7, P28: the shorter of two lengths; drop_last=True loses up to a batch."""
    frame = table(world)
    with pytest.raises(MisalignedError, match="11 samples of 1 blocks are not predicted"):
        add(world, frame.iloc[:100], tmp_path)
    report = add(world, frame.iloc[:100], tmp_path, missing="record")
    assert sum(map(len, report.missing.values())) == 11 and report.n_samples == 100


def test_arrays_of_another_length_are_refused():
    w = small_world(n=90, n_groups=18)
    short = {name: p[:-1] for name, p in w["predictions"].items()}
    with pytest.raises(MisalignedError, match=r"\(89, 30\), treated \(90, 30\)"):
        ps.stack(short, treated=w["treated"], control=w["control"], folds=w["folds"], perturbation=w["perturbation"])


# -- genes -------------------------------------------------------------------------------------------------------------


def test_a_gene_subset_is_partial_by_name_and_never_padded(world, tmp_path):
    """P19: genes that were not predicted are not filled with the control or with zeros."""
    frame = table(world).iloc[:, :25]
    with pytest.raises(MisalignedError, match=r"25 given, 31 expected. 6 expected but not given"):
        add(world, frame, tmp_path)
    report = add(world, frame, tmp_path, missing="record")
    assert len(report.missing_genes) == 6
    assert int(StoreSource(world.store, models=["m"]).genes_of(Block("A", 0), "m").sum()) == 25
    assert np.isnan(stored(world).to_numpy()[:, 25:]).all()


def test_first_n_columns_are_no_alignment(world, tmp_path):
    """P19: the right number of genes under other names."""
    frame = table(world)
    renamed = frame.rename(columns={g: f"X{i}" for i, g in enumerate(frame.columns)})
    with pytest.raises(MisalignedError, match="X0"):
        add(world, renamed, tmp_path)


# -- folds -------------------------------------------------------------------------------------------------------------


def test_folds_numbered_off_by_one_are_the_same_parts_and_other_parts_are_refused(world, tmp_path):
    """P6: one script counts folds from 0, the other from 1; what counts is which samples are together."""
    frame = table(world)
    fold = {s: b.fold for b in SIZES for s in world.obs[b].index}
    one_based = np.array([-1 if fold[s] is None else fold[s] + 1 for s in frame.index])
    other = np.roll(one_based, 1)
    names = {"sample_ids": np.array(frame.index, str), "gene_names": np.array(frame.columns, str)}
    for name, folds in (("same", one_based), ("other", other)):
        np.savez(tmp_path / f"{name}.npz", predictions=frame.to_numpy(), fold_assignments=folds, **names)
    add_predictions(world.store, "same", tmp_path / "same.npz", fitted_on="plan", scale="treated")
    with pytest.raises(FoldPlanMismatchError, match="part the samples otherwise"):
        add_predictions(world.store, "other", tmp_path / "other.npz", fitted_on="plan", scale="treated")


def test_models_on_different_folds_do_not_meet(world, tmp_path):
    """L3, L15: every base learner with folds of its own; a fold is a digest, not a name or a count."""
    with pytest.raises(FoldPlanMismatchError, match=r"fold plan"):
        add(world, table(world), tmp_path, fitted_on="q" * 64)
    block = Block("A", 0)
    world.store.commit(
        block, "late", world.prediction(block), fitted_on=FittedOn.fold_of_plan("q" * 64, 0), **world.names(block)
    )
    with pytest.raises(FoldPlanMismatchError, match="qqqqqqqqqqqq"):
        StoreSource(world.store, models=["late"]).sound(block, "late")


def test_folds_do_not_depend_on_the_process_the_order_or_later_samples():
    """Pitfall 13: Python's own hash changes between processes; ours is keyed and written out."""
    obs = pd.DataFrame(
        {"perturbation": [f"d{i // 4}" for i in range(480)], "cell_line": "A"}, index=map(str, range(480))
    )
    plan = FoldPlan.make(obs, seed=7)
    again = FoldPlan.make(obs.iloc[::-1], seed=7)
    place = plan.table.set_index("sample_id")["fold"]
    pd.testing.assert_series_equal(place, again.table.set_index("sample_id")["fold"].loc[place.index])
    assert place.fillna(-1).astype(int).to_numpy()[:12].tolist() == FIRST_FOLDS
    more = pd.concat(
        [obs, obs.rename(index=lambda i: f"new{i}").assign(perturbation=lambda d: d["perturbation"] + "x")]
    )
    grown = plan.extend(more).table.set_index("sample_id")["fold"]
    pd.testing.assert_series_equal(grown.loc[place.index], place)


FIRST_FOLDS: list[int] = [2, 2, 2, 2, -1, -1, -1, -1, 1, 1, 1, 1]
"""Of seed 7; written down, so that a change of hash would be seen in every process."""


# -- what was kept -----------------------------------------------------------------------------------------------------


def test_other_values_under_the_same_name_are_a_conflict(world, tmp_path):
    """Pitfall 12: predictions are kept, with who made them; the first stay."""
    add(world, table(world), tmp_path)
    with pytest.raises(ConflictError):
        add(world, table(world) + 0.5, tmp_path)
    record = world.store.record(Block("A", 0), "m")
    assert record.fitted_on is not None and record.fitted_on.held_out_fold == 0 and record.time and record.software


# -- missing and undefined ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_single_hole_is_refused_at_the_door(bad):
    """Pitfall 5: a NaN becomes zero, or a mean of what is left, without a word elsewhere."""
    w = small_world(n=90, n_groups=18)
    w["predictions"]["m1"][5, 3] = bad
    with pytest.raises(ValueError, match=r"NaN or infinite values in 1 samples of block .*'row_5'"):
        ps.stack(
            w["predictions"],
            treated=w["treated"],
            control=w["control"],
            folds=w["folds"],
            perturbation=w["perturbation"],
        )


def test_a_constant_prediction_counts_as_zero_and_is_counted():
    """P5: skipping undefined samples lets a model be averaged over the easy rest."""
    w = small_world(n=90, n_groups=18, noise=0.3)
    lazy = w["predictions"]["m0"].copy()
    lazy[:45] = w["control"][:45]  # no change on half of the samples: undefined correlation
    source = ArraySource(
        {"m0": w["predictions"]["m0"], "lazy": lazy},
        w["treated"],
        w["control"],
        folds=w["folds"],
        perturbation=w["perturbation"],
    )
    table = score(source, {}, References.collect(source), metrics=["r2_top20", "r2_top20_strict"])
    canonical, strict = table.mean("lazy", "r2_top20"), table.mean("lazy", "r2_top20_strict")
    assert (canonical.n_valid, canonical.n, strict.n_valid) == (45, 90, 90)
    assert strict.value == pytest.approx(canonical.value / 2, rel=1e-5)


def test_a_file_on_another_scale_is_refused(world, tmp_path):
    """Pitfall 8: deltas declared as treated values."""
    frame = table(world) - pd.concat([pd.DataFrame(world.control[b], world.obs[b].index, world.genes) for b in SIZES])
    with pytest.raises(IntegrityError, match="delta"):
        add(world, frame, tmp_path)
    assert world.store.models() == []
