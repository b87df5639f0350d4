"""The matched reference against a plain loop over plates, its limit cases, and what a study computes because of it."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest

from pertstack._base.errors import InputError
from pertstack.data.landmarks import landmarks_of
from pertstack.design.blocks import Block
from pertstack.reduce import DEFAULT_PANEL, References, matched, metric_names, parse_metrics, score
from pertstack.reduce.matched import LEAST_OTHERS
from pertstack.reduce.metrics import SET_LEVEL
from pertstack.reduce.scoring.panels import MATCHED_FULL, panel
from references.memory_source import world
from references.metric_loops import metric_loop


def plated(n=24, plates=2, test=True, wells=7, column="plate", **more):
    """A world whose rows lie on plates; each plate has a few vehicle wells, and rows share them."""
    source = world(n=n, test=test, **more)
    rng = np.random.default_rng(5)
    for block in sorted(source.tables):
        table = source.tables[block]
        table[column] = [f"P{i % plates}" for i in range(n)]
    for line in sorted({b.cell_line for b in source.tables}):
        for plate in range(plates):
            pool = rng.normal(7, 1, (wells, 50)).astype(np.float32)
            for block in [b for b in sorted(source.tables) if b.cell_line == line]:
                rows = np.flatnonzero(np.arange(n) % plates == plate)
                source.layers[(block, "control")][rows] = pool[rng.integers(0, wells, len(rows))]
    return source


def others_loop(source, blocks, column="plate"):
    """Per row the mean of the distinct other controls of its cell line and plate over ``blocks``; nan if too few."""
    answer = {}
    for block, table in source.tables.items():
        for i, name in enumerate(table.index):
            found = []
            for other in blocks:
                if other.cell_line != block.cell_line:
                    continue
                for j, plate in enumerate(source.tables[other][column]):
                    row = source.layers[(other, "control")][j]
                    if plate == table[column].iloc[i] and not any((row == f).all() for f in found):
                        found.append(row)
            mine = source.layers[(block, "control")][i]
            found = [f.astype(float) for f in found if not (f == mine).all()]
            answer[name] = np.mean(found, axis=0) if len(found) >= LEAST_OTHERS else np.full(50, np.nan)
    return answer


def profiles(source, refs):
    found = {}
    for block, table in source.tables.items():
        control = source.layers[(block, "control")]
        found.update(zip(table.index, refs.plates.profiles(table, block.cell_line, control), strict=True))
    return found


@pytest.mark.parametrize("column", ["plate", "control_id"])
def test_it_is_the_mean_of_the_other_distinct_controls_of_the_plate_over_development_rows(column):
    source = plated(column=column)
    refs = References.collect(source)
    assert refs.plates.by == column and not refs.plates.reason
    assert not any(block.fold is None for block, _ in source.reads)
    expected = others_loop(source, [b for b in source.tables if b.fold is not None], column)
    got = profiles(source, refs)
    assert sum(np.isfinite(v).all() for v in expected.values()) > 100
    for name, profile in expected.items():
        np.testing.assert_allclose(got[name], profile, rtol=1e-6, err_msg=name)


def test_a_plate_without_development_rows_is_known_by_the_controls_of_its_own_rows():
    source = plated()
    for block, table in source.tables.items():
        if block.fold is None:
            table["plate"] = "new " + table["plate"]
    refs = References.collect(source)
    test = Block("A375", None)
    assert np.isnan(refs.plates.profiles(source.tables[test], "A375", source.layers[(test, "control")])).all()
    more = refs.with_controls_of(source)
    expected = others_loop(source, list(source.tables))
    for name, profile in profiles(source, more).items():
        np.testing.assert_allclose(profile, expected[name], rtol=1e-6)
    assert more.plates.plates["A375", "P0"] is refs.plates.plates["A375", "P0"]


def test_own_control_alone_is_not_enough():
    for wells in (1, LEAST_OTHERS):
        refs = References.collect(plated(wells=wells, n=60))
        assert f"more than {wells} distinct control" in refs.plates.reason
        with pytest.raises(InputError, match=r"cannot be computed.*distinct control"):
            score(plated(wells=wells, n=60), {}, refs, metrics=["r2_top20@matched"])
    assert References.collect(plated(wells=LEAST_OTHERS + 1, n=60)).plates.reason == ""
    refs = References.collect(world())
    with pytest.raises(InputError, match="no row says on which plate"):
        score(world(), {}, refs, metrics=["pds_l1@matched"])
    assert panel(refs) == tuple(m.name for m in parse_metrics(DEFAULT_PANEL))
    assert set(MATCHED_FULL) <= set(panel(References.collect(plated()), full=True))


def test_metrics_against_it_are_the_loop_and_undefined_where_the_plate_is_not_known():
    source = plated(test=False)
    source.tables[Block("A375", 0)].loc["A375-0-3", "plate"] = None
    refs = References.collect(source)
    expected = others_loop(source, list(source.tables))
    reference = np.stack([expected[i] for b in sorted(source.tables) for i in source.tables[b].index])
    reference[3] = np.nan
    treated, p = (np.concatenate([source.layers[(b, x)] for b in sorted(source.tables)]) for x in ("treated", "m1"))
    every = parse_metrics([*MATCHED_FULL, "rmse_all@matched", "sign_acc_all@matched"])
    metrics = [m for m in every if m.scope == "sample"]
    table = score(source, {}, refs, metrics=metrics, memory=100_000)
    known = np.isfinite(reference).all(axis=1)
    for metric in metrics:
        got = table.values("m1", metric)
        want = metric_loop(metric.kind, metric.top, p[known], treated[known], reference[known], metric.strict)
        np.testing.assert_allclose(got[known], want, atol=2e-6, err_msg=metric.name)
        assert np.isnan(got[3]), metric.name
    assert table.predicted.all()
    assert table.mean("m1", "sign_acc_all@matched").n_valid == known.sum()


def test_set_level_against_it_leaves_out_only_perturbations_without_a_plate():
    source = plated(test=False, n=60)
    before = score(source, {}, References.collect(source), metrics=["pds_l1@matched"]).values("m0", "pds_l1@matched")
    assert np.isfinite(before).all() and before.mean() > 0.6
    for table in source.tables.values():
        table.loc[table["perturbation"] == "drug2", "plate"] = None
    table = score(source, {}, References.collect(source), metrics=["pds_l1@matched"])
    undefined = np.isnan(table.values("m0", "pds_l1@matched"))
    np.testing.assert_array_equal(undefined, (table.samples["perturbation"] == "drug2").to_numpy())


def test_it_comes_back_from_disk_and_older_files_know_no_plate(tmp_path):
    marks = np.arange(50) % 3 == 0
    refs = References.collect(plated()).with_landmarks(marks)
    refs.save(tmp_path / "new.npz")
    back = References.load(tmp_path / "new.npz")
    assert back.digest == refs.digest and back.plates.by == "plate"
    np.testing.assert_array_equal(back.landmarks, marks)
    for name, profile in profiles(plated(), refs).items():
        np.testing.assert_array_equal(profiles(plated(), back)[name], profile)
    with np.load(tmp_path / "new.npz") as z:
        old = {k: z[k] for k in z.files if not k.startswith("matched") and k != "landmarks"}
    np.savez(tmp_path / "old.npz", **old)
    older = References.load(tmp_path / "old.npz")
    assert older.plates.by is None and older.landmarks is None


def test_every_landmark_variant_is_the_loop_over_landmark_genes():
    source = world(test=True)
    marks = np.arange(50) % 2 == 0
    refs = References.collect(source).with_landmarks(marks)
    names = [f"{m}_landmark@{r}" for r in ("own", "pooled") for m in metric_names() if m not in SET_LEVEL]
    assert len(names) == 2 * (6 * 3 + 8 + 3 + 1)  # kinds x (20, 40, 80), kinds over all genes, strict forms
    assert sum("_landmark" in m for m in panel(refs, full=True)) == 2 * 16 - 2 - 1
    metrics = parse_metrics(names)
    table = score(source, {}, refs, metrics=metrics)
    stack = {x: np.concatenate([source.layers[(b, x)] for b in sorted(source.tables)]) for x in ("treated", "m1")}
    own = np.concatenate([source.layers[(b, "control")] for b in sorted(source.tables)])
    pooled = np.stack([refs.pooled(line) for line in table.samples["cell_line"]]).astype(np.float32)
    for metric in metrics:
        reference = {"own": own, "pooled": pooled}[metric.reference][:, marks]
        want = metric_loop(
            metric.kind, metric.top, stack["m1"][:, marks], stack["treated"][:, marks], reference, metric.strict
        )
        np.testing.assert_allclose(table.values("m1", metric), want, atol=2e-6, err_msg=metric.name)


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("is_landmark", [True, False, True], [True, False, True]),
        ("pr_is_lm", [1, 1, 0], [True, True, False]),
        ("pr_is_lm", ["1", "0", "1"], [True, False, True]),
        ("feature_space", ["landmark", "best inferred", "landmark"], [True, False, True]),
        ("pr_is_lm", [1, 1, 1], None),
        ("is_landmark", [True, False, False], None),
        ("symbol", ["a", "b", "c"], None),
    ],
)
def test_landmark_marks_of_the_wild(column, values, expected):
    found = landmarks_of(pd.DataFrame({column: values}))
    assert (None if found is None else found.tolist()) == expected


def test_more_plates_than_memory_holds_are_not_collected_and_the_reason_is_kept(tmp_path, monkeypatch) -> None:
    source = plated(n=60, plates=3, wells=LEAST_OTHERS + 1)
    n_groups = 3 * len({b.cell_line for b in source.tables if b.role == "development"})
    monkeypatch.setattr("pertstack.reduce.matched.MOST_BYTES", n_groups * 50 * 8)
    assert len(References.collect(source).plates.plates) == n_groups  # just fits
    monkeypatch.setattr("pertstack.reduce.matched.MOST_BYTES", n_groups * 50 * 8 - 1)
    refs = References.collect(source).with_controls_of(source)
    assert not refs.plates.plates and refs.plates.by is None
    assert f"{n_groups} groups of controls (by plate)" in refs.plates.reason
    refs.save(tmp_path / "references.npz")
    assert References.load(tmp_path / "references.npz").plates.reason == refs.plates.reason
    everything = np.concatenate([np.ravel(v) for v in profiles(source, refs).values()])
    assert np.isnan(everything).all()


def test_a_control_that_was_met_has_the_digest_it_had(monkeypatch) -> None:
    """Files of references hold them, so they stay blake2b of the float32 row; few are kept for the next row."""
    rows = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    wanted = [hashlib.blake2b(row.tobytes(), digest_size=12).hexdigest() for row in rows]
    monkeypatch.setattr(matched, "_MOST_MARKS", 4)
    matched._digests.clear()
    for order in (range(9), reversed(range(9)), [3, 3, 3, 0]):
        for i in order:
            assert matched._digest(rows[i].astype(np.float64)) == wanted[i]
            assert len(matched._digests) <= 4
