"""References, tiles and the score table on a small world."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cityblock, cosine, euclidean

from pertstack._base.errors import CorruptionError, InputError, MissingFileError, UnknownNameError
from pertstack.design.blocks import Block
from pertstack.predictions.sources.array_source import ArraySource
from pertstack.reduce import References, ScoreTable, iter_tiles, samples_of, score
from references.memory_source import world
from references.metric_loops import centroid_loop, discrimination_loop, metric_loop


def stacked(source, layer, blocks=None):
    return np.concatenate([source.layers[(b, layer)] for b in sorted(blocks or source.tables)]).astype(float)


def test_references_are_means_over_development_rows_only():
    source = world(n=300, test=True)
    refs = References.collect(source)
    for line in ("A375", "MCF7"):
        blocks = [Block(line, 0), Block(line, 1)]
        np.testing.assert_allclose(refs.pooled(line), stacked(source, "control", blocks).mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(refs.centroid(line), stacked(source, "treated", blocks).mean(axis=0), rtol=1e-12)
        for fold in (0, 1):
            np.testing.assert_allclose(refs.centroid(line, fold), centroid_loop(source, line, fold), rtol=1e-12)
    assert not any(block.fold is None for block, _ in source.reads)


def test_a_fold_is_compared_with_the_centroid_of_the_others():
    """A constant per line, fitted outside the fold, scores 0 out of fold and on the test: nothing is left of it.

    Against a centroid that holds the scored fold it would be (others - fold) / n_folds, which anti-correlates with the
    fold's truth: -0.05 to -0.155 was printed in twelve of twelve studies.
    """
    rng = np.random.default_rng(0)
    source = world(n=12, n_genes=200, folds=(0, 1, 2), test=True, seed=4)
    for block in source.tables:
        shift = rng.normal(0, 1.0, 200)  # folds differ in level, as few perturbations make them
        source.layers[(block, "treated")] = (source.layers[(block, "treated")] + shift).astype(np.float32)
    for block in source.tables:
        level = centroid_loop(source, block.cell_line, block.fold)
        source.layers[(block, "m0")] = np.repeat(level[None], 12, axis=0).astype(np.float32)
    refs = References.collect(source)
    table = score(source, {}, refs, metrics=["pearson_all@centroid"])
    values, fold = table.values("m0", "pearson_all@centroid"), table.samples["fold"].to_numpy()
    assert abs(np.mean(values)) < 0.03 and {0, 1, 2} <= set(fold)
    blocks = sorted(b for b in source.tables if b.fold is not None)
    p, t = (np.concatenate([source.layers[(b, layer)] for b in blocks]) for layer in ("m0", "treated"))
    whole = np.concatenate([np.repeat(refs.centroid(b.cell_line)[None], 12, axis=0) for b in blocks])
    old = metric_loop("pearson", None, p, t, whole)
    assert np.mean(old) < -0.1  # the centroid of all folds: what was printed


DISTANCES = {"pds_l1": cityblock, "pds_cosine": cosine, "centroid_accuracy": euclidean}


@pytest.mark.parametrize("kind", ["pds_l1", "pds_cosine", "centroid_accuracy"])
def test_retrieval_against_the_centroid_takes_one_profile_from_everything(kind):
    """Truths that are told apart lose the centroid of the row that asks, not each its own."""
    source = world(n=18, n_genes=40, n_drugs=60, folds=(0, 1, 2), lines=("A375",), seed=8)
    for block, table in source.tables.items():  # two rows a perturbation, whole perturbations in a fold
        table["perturbation"] = [f"d{block.fold}.{i // 2}" for i in range(18)]
        source.layers[(block, "treated")] += np.float32(block.fold)
    got = score(source, {}, References.collect(source), metrics=[f"{kind}@centroid"]).values("m1", f"{kind}@centroid")
    blocks = sorted(source.tables)
    means = {
        x: np.concatenate([source.layers[(b, x)].astype(float).reshape(9, 2, 40).mean(axis=1) for b in blocks])
        for x in ("treated", "m1")
    }
    for i in range(27):
        less = centroid_loop(source, "A375", i // 9)
        fold = slice(9 * (i // 9), 9 * (i // 9) + 9)  # the others are those of the fold
        pair = means["treated"][fold] - less, means["m1"][fold] - less
        expected = discrimination_loop(*pair, DISTANCES[kind])[i % 9]
        np.testing.assert_allclose(got[2 * i : 2 * i + 2], expected, atol=1e-6)


def test_effect_level_scores_lose_the_centroid_of_the_other_folds():
    source = world(n=18, n_genes=40, n_drugs=60, folds=(0, 1, 2), lines=("A375",), seed=9)
    for block, table in source.tables.items():
        table["perturbation"] = [f"d{block.fold}.{i // 2}" for i in range(18)]
    name = "cod_heg40@centroid"  # all genes, equal weights
    got = score(source, {}, References.collect(source), metrics=[name]).values("m1", name)
    for b, block in enumerate(sorted(source.tables)):
        less = centroid_loop(source, "A375", block.fold)
        for i in range(0, 18, 2):
            t, p = (source.layers[(block, x)][i : i + 2].astype(float).mean(axis=0) - less for x in ("treated", "m1"))
            expected = 1 - ((t - p) ** 2).sum() / ((t - t.mean()) ** 2).sum()
            np.testing.assert_allclose(got[18 * b + i], expected, rtol=1e-4)


def test_references_of_an_older_version_give_no_centroid_of_a_fold(tmp_path):
    refs = References.collect(world())
    refs.save(tmp_path / "new.npz")
    with np.load(tmp_path / "new.npz") as z:
        np.savez(tmp_path / "old.npz", **{k: z[k] for k in z.files if not k.startswith("fold")})
    old = References.load(tmp_path / "old.npz")
    np.testing.assert_array_equal(old.centroid("A375"), refs.centroid("A375"))
    with pytest.raises(InputError, match=r"older version.*pertstack init"):
        old.centroid("A375", 0)


def test_references_do_not_depend_on_block_order():
    source = world()
    before = References.collect(source)
    source.order = sorted(source.tables)[::-1]
    assert References.collect(source).digest == before.digest


def test_references_of_an_unseen_line():
    refs = References.collect(world())
    with pytest.raises(InputError, match="add_controls"):
        refs.pooled("PC3")
    mean = np.arange(50.0)
    more = refs.add_controls("PC3", mean)
    shift = np.mean([refs.centroid(line) - refs.pooled(line) for line in ("A375", "MCF7")], axis=0)
    np.testing.assert_array_equal(more.pooled("PC3"), mean)
    np.testing.assert_allclose(more.centroid("PC3"), mean + shift)
    with pytest.raises(InputError, match="development rows"):
        refs.add_controls("A375", mean)
    with pytest.raises(InputError, match="finite"):
        refs.add_controls("PC3", np.full(50, np.nan))


def test_references_learn_the_controls_of_another_source():
    refs, other = References.collect(world()), world(lines=("PC3",), folds=(), test=True)
    more = refs.with_controls_of(other)
    np.testing.assert_allclose(more.pooled("PC3"), stacked(other, "control").mean(axis=0), rtol=1e-12)
    assert all(layer == "control" for _, layer in other.reads)


def test_references_come_back_from_disk(tmp_path):
    refs = References.collect(world()).add_controls("PC3", np.arange(50.0))
    refs.save(tmp_path / "references.npz")
    back = References.load(tmp_path / "references.npz")
    assert back.digest == refs.digest and back.cell_lines == refs.cell_lines
    with pytest.raises(MissingFileError):
        References.load(tmp_path / "no.npz")
    (tmp_path / "bad.npz").write_bytes(b"not a zip")
    with pytest.raises(CorruptionError):
        References.load(tmp_path / "bad.npz")


def test_references_need_development_rows():
    with pytest.raises(InputError, match="development"):
        References.collect(world(folds=(), test=True))


def test_tiles_show_each_row_once_in_plan_order_at_any_memory():
    source = world(n=37)
    refs = References.collect(source)
    for memory in (10**9, 40_000, 1):
        tiles = list(iter_tiles(source, refs, memory))
        ids = [i for tile, _ in tiles for i in tile.obs.index]
        assert ids == list(samples_of(source)["sample_id"])
        got = np.concatenate([tile.predictions[1] for tile, _ in tiles])
        np.testing.assert_array_equal(got, stacked(source, "m1").astype(np.float32))
    assert len(tiles) == 4 * 37


def test_unsound_rows_and_missing_genes_never_reach_a_tile():
    source = world()
    block = Block("MCF7", 1)
    source.unsound[(block, "m1")] = np.arange(20) < 5
    source.lacking[(block, "m2")] = np.arange(50) == 3
    tiles = {tile.block: tile for tile, _ in iter_tiles(source, References.collect(source))}
    tile = tiles[block]
    assert np.isnan(tile.predictions[1, :5]).all() and np.isfinite(tile.predictions[1, 5:]).all()
    assert np.isnan(tile.predictions[2, :, 3]).all() and np.isfinite(tile.predictions[2, :, 4:]).all()
    assert not tile.available[1, :5].any() and not tile.gene_available[2, 3]


METRICS = ("r2_top20", "r2_top20@pooled", "r2_top20_strict", "pearson_all@centroid", "rmse_all")


def test_scores_match_loops_for_models_combiners_and_no_change():
    source = world(n=15)
    refs = References.collect(source)
    combine = lambda tile: tile.predictions.mean(axis=0)  # noqa: E731
    table = score(source, {"mean": combine}, refs, metrics=METRICS, memory=100_000)
    assert table.names == ("m0", "m1", "m2", "mean", "no_change")
    treated = stacked(source, "treated")
    mean = np.mean([stacked(source, m) for m in source.models], axis=0)
    line = np.repeat(["A375", "MCF7", "A375", "MCF7"], 15)
    pooled = np.stack([refs.pooled(x) for x in line])
    centroid = np.stack([centroid_loop(source, x, k) for x, k in zip(line, np.repeat([0, 0, 1, 1], 15), strict=True)])
    for name, values in {"m1": stacked(source, "m1"), "mean": mean}.items():
        args = (values, treated)
        expected = metric_loop("r2", 20, *args, stacked(source, "control"))
        np.testing.assert_allclose(table.values(name, "r2_top20"), expected, atol=1e-5)
        np.testing.assert_allclose(
            table.values(name, "r2_top20", "pooled"), metric_loop("r2", 20, *args, pooled), atol=1e-5
        )
        centred = metric_loop("pearson", None, *args, centroid)
        np.testing.assert_allclose(table.values(name, "pearson_all@centroid"), centred, atol=1e-5)
        np.testing.assert_allclose(table.values(name, "rmse_all"), metric_loop("rmse", None, *args, pooled), atol=1e-5)
    assert table.mean("no_change", "r2_top20").n_valid == 0 and table.mean("no_change", "r2_top20").value == 0.0
    assert table.mean("no_change", "r2_top20_strict").n_valid == 60
    effect = np.sqrt(((treated - pooled) ** 2).mean(axis=1))
    np.testing.assert_allclose(table.samples["effect_rms"], effect, rtol=1e-6)


def test_each_row_meets_the_combination_of_its_own_fold():
    source = world(test=True)
    refs = References.collect(source)
    picks = {fold: (lambda tile, m=m: tile.predictions[m]) for m, fold in enumerate([0, 1, None])}
    table = score(source, {"by_fold": picks}, refs, metrics=["r2_top20"])
    fold = table.samples["fold"]
    for m, mask in enumerate([fold == 0, fold == 1, fold.isna()]):
        rows = mask.fillna(False).to_numpy(dtype=bool)
        got, want = table.values("by_fold", "r2_top20")[rows], table.values(f"m{m}", "r2_top20")[rows]
        np.testing.assert_array_equal(got, want)
    with pytest.raises(InputError, match="fold None"):
        score(source, {"by_fold": {0: picks[0], 1: picks[1]}}, refs, metrics=["r2_top20"])


def test_rows_a_model_has_seen_are_not_scored():
    source = world()
    source.unsound[(Block("A375", 0), "m0")] = np.arange(20) % 2 == 0
    table = score(source, {}, References.collect(source), metrics=METRICS)
    assert np.isnan(table.values("m0", "rmse_all")[:20:2]).all()
    assert table.predicted[0].sum() == 70 and table.predicted[1].all()
    assert table.mean("m0", "rmse_all").n_valid == 70 and table.mean("m0", "rmse_all").n == 80


def test_workers_change_nothing():
    source = world(n=100)
    refs = References.collect(source)
    one, two = (score(source, {}, refs, workers=w).values_by_name for w in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_the_oracle_takes_the_best_model_of_each_sample():
    table = score(source := world(), {}, References.collect(source), metrics=METRICS)
    oracle = table.with_oracle("r2_top20@pooled", source.models)
    each = np.stack([table.values(m, "r2_top20@pooled") for m in source.models])
    np.testing.assert_array_equal(oracle.values("oracle", "r2_top20@pooled"), each.max(axis=0))
    rmse = np.stack([table.values(m, "rmse_all") for m in source.models])
    np.testing.assert_array_equal(oracle.values("oracle", "rmse_all"), rmse[each.argmax(axis=0), np.arange(80)])
    lowest = table.with_oracle("rmse_all", source.models).values("oracle", "rmse_all")
    np.testing.assert_array_equal(lowest, rmse.min(axis=0))
    with pytest.raises(UnknownNameError):
        table.with_oracle("rmse_all", ["m7"])


def test_set_level_metrics_do_not_depend_on_memory_or_workers():
    source = world(n=40)
    source.unsound[(Block("A375", 0), "m0")] = np.arange(40) % 3 == 0
    refs = References.collect(source)
    names = ["pds_l1@pooled", "pds_cosine@own", "centroid_accuracy@pooled"]
    first = score(source, {}, refs, metrics=names)
    for more in ({"memory": 1}, {"workers": 2}):
        other = score(source, {}, refs, metrics=names, **more)
        np.testing.assert_allclose(other.values_by_name, first.values_by_name, atol=1e-6)
    assert (
        np.isnan(first.values("m0", "pds_l1@pooled")[:40:3]).all() and first.mean("m0", "pds_l1@pooled").n_valid == 146
    )


def test_set_level_metrics_score_perturbations_within_their_line():
    source = world(n=40)
    refs = References.collect(source)
    table = score(source, {}, refs, metrics=["pds_l1@pooled", "rmse_all"])
    samples = table.samples
    for line in ("A375", "MCF7"):
        rows = (samples["cell_line"] == line).to_numpy()
        drugs = sorted(set(samples["perturbation"][rows]))
        means = {
            layer: np.stack(
                [
                    (stacked(source, layer) - refs.pooled(line))[rows & (samples["perturbation"] == d)].mean(axis=0)
                    for d in drugs
                ]
            )
            for layer in ("treated", "m2")
        }
        expected = discrimination_loop(means["treated"], means["m2"], lambda a, b: np.abs(a - b).sum())
        got = table.values("m2", "pds_l1@pooled")[rows]
        np.testing.assert_allclose(got, [expected[drugs.index(d)] for d in samples["perturbation"][rows]], atol=1e-6)


def test_a_table_comes_back_from_disk_and_joins(tmp_path):
    source = world()
    refs = References.collect(source)
    table = score(source, {}, refs, metrics=METRICS)
    table.save(tmp_path / "oof.npz")
    back = ScoreTable.load(tmp_path / "oof.npz")
    np.testing.assert_array_equal(back.values_by_name, table.values_by_name)
    assert back.names == table.names and list(back.samples["sample_id"]) == list(table.samples["sample_id"])
    more = score(source, {"half": lambda t: t.predictions[0]}, refs, metrics=METRICS, base_models=False)
    joined = table.merge(more)
    assert joined.names[-1] == "half" and joined.to_frame().shape == (5, len(METRICS))
    with pytest.raises(InputError, match="cannot be joined"):
        table.merge(table)


def test_errors_name_the_values():
    source = world()
    refs = References.collect(source)
    with pytest.raises(InputError, match="landmark"):
        score(source, {}, refs, metrics=["r2_top20_landmark"])
    with pytest.raises(InputError, match="m0"):
        score(source, {"m0": lambda t: t.control}, refs)
    with pytest.raises(InputError, match="shape"):
        score(source, {"odd": lambda t: t.control[:, :3]}, refs)
    table = score(source, {}, refs, metrics=METRICS)
    with pytest.raises(UnknownNameError):
        table.values("m9", "rmse_all")
    with pytest.raises(UnknownNameError, match="mae_all"):
        table.values("m0", "mae_all")


def test_a_constant_fitted_outside_each_fold_retrieves_as_by_chance_out_of_fold_as_on_the_test():
    """Its level holds the truth of the other folds: held against them it scored 0.44, and -0.003 against the others'
    mean where it scores 0.16 on a test that nobody fitted on."""
    found = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        y = rng.normal(8, 1, 60) + rng.normal(0, 0.6, (60, 60))
        fold = np.arange(60) % 3
        mean = np.stack([y[fold != k].mean(axis=0) for k in range(3)])[fold]
        source = ArraySource(
            {"mean": mean}, y, np.full_like(y, 8.0), folds=fold, perturbation=[f"d{i:02d}" for i in range(60)]
        )
        metrics = ["centroid_accuracy@pooled", "pds_l1@pooled", "pds_cosine@centroid", "pearson_exp2@others"]
        table = score(source, {}, References.collect(source), metrics=metrics)
        assert [table.mean("mean", m).value for m in metrics[:2]] == pytest.approx([0.5, 0.5], abs=1e-6)
        found.append([table.mean("mean", m).value for m in metrics[2:]])
    assert np.mean(found, axis=0)[0] == pytest.approx(0.5, abs=0.01) and np.mean(found, axis=0)[1] > -0.02, found


def test_a_table_of_scores_survives_the_disk_its_digest_tells_every_bit_and_damage_is_named(tmp_path):
    samples = pd.DataFrame({"sample_id": ["a", "b"], "group": ["g", "h"], "fold": [0, 1], "cell_line": "A"})
    values = np.array([[[0.5, np.nan]]], dtype=np.float32)
    table = ScoreTable(samples, ("m",), ("cod_all@own",), values, np.array([[True, False]]))
    table.save(tmp_path / "scores.npz")
    assert ScoreTable.load(tmp_path / "scores.npz").digest == table.digest
    raw = (tmp_path / "scores.npz").read_bytes()
    for at in (30, raw.index(b"values.npy") + 90):  # the head of the archive, and a value: its checksum is wrong
        (tmp_path / "flipped.npz").write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        with pytest.raises(InputError, match=r"flipped\.npz"):
            ScoreTable.load(tmp_path / "flipped.npz")
    for part in (table.values_by_name, table.predicted):
        raw = part.reshape(-1).view(np.uint8)
        before, raw[0] = table.digest, raw[0] ^ 1
        assert table.digest != before
