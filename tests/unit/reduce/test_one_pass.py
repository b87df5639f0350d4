"""The one pass against plain numpy, whatever the order, the memory and the workers; and what it says of missing
rows.
"""

from __future__ import annotations

import numpy as np
import pytest

from pertstack._base.errors import CorruptionError, InputError, IntegrityError, UnknownNameError
from pertstack._base.machine import scratch
from pertstack.design.blocks import Block
from pertstack.reduce import Reduction, References, reduce_blocks, score, score_rows, top_kernels
from pertstack.reduce import gene_moments as gene_moments_alone
from pertstack.reduce.metrics import parse_metric
from pertstack.reduce.sums.moments import merge_moments
from pertstack.reduce.sums.part_files import load_part, save_part
from references.memory_source import MemorySource, world
from references.metric_loops import centroid_loop, metric_loop
from references.moment_loops import columns, gene_moments, sample_moments, top_genes

REFERENCES = ("own", "pooled", "centroid")


def arrays(reduction):
    """Every array of a reduction, by name."""
    found = {"complete": reduction.complete, "mean": reduction.sample.mean, "triangle": reduction.sample.triangle}
    for block in reduction.blocks:
        found |= {f"{block}.{f}": getattr(reduction.gene[block], f) for f in ("count", "mean", "scatter", "available")}
    for r in REFERENCES:
        found |= {f"{r}.{f}": getattr(reduction.slices[r], f) for f in ("genes", "y", "offset", "delta")}
    return found


def at(values, genes):
    return np.take_along_axis(values, genes, axis=1)


def same_bits(one, two):
    a, b = arrays(one), arrays(two)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name


@pytest.mark.parametrize("n_models", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("n_genes", [30, 256, 257, 1100])
def test_moments_match_plain_numpy(n_models, n_genes):
    source = world(n=19, n_genes=n_genes, n_models=n_models)
    refs = References.collect(source)
    reduction = reduce_blocks(source, refs, k=10)
    at = 0
    for block in reduction.blocks:
        v = columns(source, refs, block)
        count, mean, scatter = gene_moments(v, slice(None))
        ours = reduction.gene[block]
        np.testing.assert_array_equal(ours.count, count)
        np.testing.assert_allclose(ours.mean, mean, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(ours.scatter, scatter, rtol=1e-10, atol=1e-10)
        row_mean, row_scatter = sample_moments(v)
        got = reduction.sample.take(slice(at, at + 19))
        np.testing.assert_allclose(got.mean, row_mean, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(got.scatter, row_scatter, rtol=1e-10, atol=1e-10)
        at += 19


def test_slices_put_together_lie_in_files_and_not_in_memory_where_they_are_many(tmp_path, monkeypatch):
    source = world(n=15, n_genes=60)
    refs = References.collect(source)
    plain = reduce_blocks(source, refs, k=8)
    monkeypatch.setattr(scratch, "IN_MEMORY", 0)
    mapped = reduce_blocks(source, refs, k=8, cache=tmp_path)
    same_bits(mapped, plain)
    part = mapped.select(folds=[mapped.blocks[0].fold])
    for slices in (mapped.slices["own"], part.slices["own"]):
        assert all(isinstance(getattr(slices, f).base, np.memmap) for f in ("genes", "y", "offset", "delta"))
    assert not [f for f in tmp_path.iterdir() if f.is_file()], "the files have no name"


def test_slices_hold_the_top_genes_and_what_stands_on_them():
    source = world(n=15, n_genes=120)
    refs = References.collect(source)
    reduction = reduce_blocks(source, refs, k=20)
    for b, block in enumerate(reduction.blocks):
        control, treated = (source.layers[(block, x)].astype(float) for x in ("control", "treated"))
        base = {
            "own": control,
            "pooled": refs.pooled(block.cell_line),
            "centroid": centroid_loop(source, block.cell_line, block.fold),
        }
        for r in REFERENCES:
            profile = np.asarray(base[r], dtype=np.float32).astype(float)
            part = reduction.slices[r].take(slice(15 * b, 15 * b + 15))
            genes = top_genes(treated, profile, 20)
            np.testing.assert_array_equal(part.genes, genes)
            np.testing.assert_allclose(part.y, at(treated - control, genes), rtol=1e-6)
            np.testing.assert_allclose(part.offset, at(control - profile, genes), rtol=1e-5, atol=1e-6)
            for m, name in enumerate(source.models):
                np.testing.assert_allclose(
                    part.delta[:, m], at(source.layers[(block, name)] - control, genes), rtol=1e-5, atol=1e-6
                )


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("per_gene", [False, True])
def test_slices_give_the_row_path_r2_of_any_weighting(reference, per_gene):
    source = world(n=25, n_genes=150)
    refs = References.collect(source)
    reduction = reduce_blocks(source, refs)
    rng = np.random.default_rng(1)
    w = rng.normal(0.3, 0.4, (150 if per_gene else 1, 3)) * np.ones((150, 1))  # (n_genes, M)
    for k in (20, 40, 80):
        slices = reduction.slices[reference]
        mixed = np.einsum("nmk,nkm->nk", (slices.delta + slices.offset[:, None])[:, :, :k], w[slices.genes[:, :k]])
        truth = (slices.y + slices.offset)[:, :k]
        ours = np.array([np.corrcoef(a, b)[0, 1] ** 2 for a, b in zip(mixed, truth, strict=True)])
        rows = []
        for block in reduction.blocks:
            layer = {x: source.layers[(block, x)].astype(float) for x in (*source.models, "treated", "control")}
            base = {
                "own": layer["control"],
                "pooled": refs.pooled(block.cell_line),
                "centroid": centroid_loop(source, block.cell_line, block.fold),
            }
            base = np.asarray(base[reference], dtype=np.float32).astype(float)
            p = base + sum(w[:, m] * (layer[name] - base) for m, name in enumerate(source.models))
            rows.append(metric_loop("r2", k, p, layer["treated"], base))
        np.testing.assert_allclose(ours, np.concatenate(rows), atol=2e-6)


@pytest.mark.parametrize("reference", ["own", "pooled"])
def test_sample_moments_give_pearson_and_rmse_of_any_global_mixture(reference):
    source = world(n=25, n_genes=150)
    refs = References.collect(source)
    reduction = reduce_blocks(source, refs)
    w = np.array([0.7, -0.2, 0.4])
    r, e = [], []
    for block in reduction.blocks:
        layer = {x: source.layers[(block, x)].astype(float) for x in (*source.models, "treated", "control")}
        base = layer["control"] if reference == "own" else refs.pooled(block.cell_line).astype(np.float32).astype(float)
        p = base + sum(w[m] * (layer[name] - base) for m, name in enumerate(source.models))
        r.append(metric_loop("pearson", None, p, layer["treated"], base))
        e.append(metric_loop("rmse", None, p, layer["treated"], base))
    np.testing.assert_allclose(reduction.sample.pearson(w, reference), np.concatenate(r), atol=1e-10)
    np.testing.assert_allclose(reduction.sample.rmse(w, reference), np.concatenate(e), atol=1e-10)
    ours, _ = score_rows(
        source.layers[(reduction.blocks[0], "m1")],
        source.layers[(reduction.blocks[0], "treated")],
        {"own": source.layers[(reduction.blocks[0], "control")]},
        metrics=[parse_metric("pearson_all")],
    )
    np.testing.assert_allclose(reduction.sample.take(slice(0, 25)).pearson([0, 1, 0]), ours[0], atol=1e-10)


def test_bits_do_not_depend_on_workers_memory_or_block_order():
    source = world(n=300, n_genes=300)
    source.unsound[(Block("A375", 0), "m1")] = np.arange(300) % 7 == 0
    refs = References.collect(source)
    first = reduce_blocks(source, refs)
    same_bits(first, reduce_blocks(source, refs, workers=2))
    same_bits(first, reduce_blocks(source, refs, memory=1, workers=3))
    same_bits(first, reduce_blocks(source, refs, memory=700_000))
    source.order = sorted(source.tables)[::-1]
    again = reduce_blocks(source, refs, workers=2)
    same_bits(first, again)
    assert first.moments().scatter.tobytes() == again.moments().scatter.tobytes()


def test_every_layer_is_read_once():
    source = world(n=40)
    refs = References.collect(source)
    source.reads.clear()
    reduce_blocks(source, refs, memory=10_000)
    assert len(source.reads) == 4 * 5 and set(source.reads.values()) == {40}


def test_incomplete_rows_are_left_out_exactly_and_counted():
    source = world(n=30)
    block = Block("A375", 1)
    gone = np.arange(30) % 4 == 1
    source.unsound[(block, "m2")] = gone
    source.layers[(block, "m2")][gone] = np.nan
    refs = References.collect(source)
    reduction = reduce_blocks(source, refs)
    v = columns(source, refs, block)
    count, mean, scatter = gene_moments(v, ~gone)
    np.testing.assert_array_equal(reduction.gene[block].count, count)
    np.testing.assert_allclose(reduction.gene[block].mean, mean, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(reduction.gene[block].scatter, scatter, rtol=1e-10, atol=1e-10)
    (finding,) = reduction.findings
    assert finding.code == "rows_left_out" and finding.count == gone.sum() and finding.where == block.id
    assert finding.numbers["by_model"] == {"m2": int(gone.sum())}
    rows = np.flatnonzero((reduction.samples["block"] == block.id).to_numpy())
    np.testing.assert_array_equal(reduction.complete[rows], ~gone)
    np.testing.assert_array_equal(reduction.slices["own"].complete()[rows], ~gone)
    assert np.isfinite(reduction.sample.pearson([1, 1, 0])).all()  # what the others say is not lost
    assert np.isnan(reduction.sample.pearson([0, 0, 1])[rows[gone]]).all()
    assert np.isfinite(reduction.slices["own"].delta[rows[gone]][:, :2]).all()


def test_a_model_without_some_genes_is_marked_and_the_others_stay_exact():
    source = world(n=30)
    block, lacking = Block("MCF7", 0), np.arange(50) % 5 == 2
    source.lacking[(block, "m1")] = lacking
    source.layers[(block, "m1")][:, lacking] = np.nan
    refs = References.collect(source)
    reduction = reduce_blocks(source, refs)
    ours = reduction.gene[block]
    np.testing.assert_array_equal(ours.available[:, 1], ~lacking)
    assert ours.available[:, [0, 2]].all()
    assert (ours.mean[lacking, 1] == 0).all() and (ours.scatter[lacking, 1] == 0).all()
    assert (ours.scatter[lacking][:, :, 1] == 0).all()
    v = np.nan_to_num(columns(source, refs, block))
    _, mean, scatter = gene_moments(v, slice(None))
    np.testing.assert_allclose(ours.mean, mean, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(ours.scatter, scatter, rtol=1e-10, atol=1e-10)
    merged = reduction.moments()
    np.testing.assert_array_equal(merged.available[:, 1], ~lacking)
    assert (merged.scatter[lacking, 1] == 0).all() and merged.count[0] == 120
    assert "genes_lacking" in {f.code for f in reduction.findings}
    in_slice = lacking[reduction.slices["own"].genes[60:90]]
    assert np.array_equal(np.isnan(reduction.slices["own"].delta[60:90, 1]), in_slice) or block != reduction.blocks[2]


def test_a_block_that_one_model_never_predicted_counts_no_rows():
    source = world()
    block = Block("A375", 0)
    source.unsound[(block, "m0")] = np.ones(20, dtype=bool)
    reduction = reduce_blocks(source, References.collect(source))
    assert reduction.gene[block].count.max() == 0 and reduction.moments().count[0] == 60
    assert reduction.moments().available.all()


def test_rows_without_a_common_model_are_refused():
    source = world()
    for block in source.tables:
        source.unsound[(block, "m0")] = np.ones(20, dtype=bool)
    with pytest.raises(InputError, match="not one row"):
        reduce_blocks(source, References.collect(source))


@pytest.mark.parametrize("layer", ["m1", "treated"])
def test_nan_that_claims_to_be_predicted_is_refused(layer):
    source = world()
    refs = References.collect(source)
    source.layers[(Block("MCF7", 1), layer)][4, 3] = np.nan
    with pytest.raises(IntegrityError, match=layer):
        reduce_blocks(source, refs)


def test_the_held_out_test_is_never_read():
    source = world(test=True)
    refs = References.collect(source)
    reduction = reduce_blocks(source, refs)
    assert all(b.role == "development" for b in reduction.blocks)
    assert all(b.role == "development" for b, _ in source.reads)
    assert "test_blocks_unread" in {f.code for f in reduction.findings}


def test_select_sees_only_what_was_chosen():
    reduction = reduce_blocks(source := world(), References.collect(source))
    part = reduction.select(folds=[1])
    assert {b.fold for b in part.blocks} == {1} and set(part.samples["fold"]) == {1}
    assert part.sample.n == part.slices["pooled"].n == len(part.samples) == 40
    both = merge_moments([reduction.select(folds=[f]).moments() for f in (0, 1)], 50, 3)
    np.testing.assert_allclose(both.scatter, reduction.moments().scatter, rtol=1e-12)
    assert reduction.select(cell_lines=["MCF7"], folds=[0]).blocks == (Block("MCF7", 0),)
    with pytest.raises(UnknownNameError):
        reduction.select(folds=[3])
    with pytest.raises(UnknownNameError, match="MCF7"):
        reduction.select(cell_lines=["MCF8"])
    with pytest.raises(InputError, match="No block"):
        reduction.select(folds=[0], blocks=[Block("MCF7", 1)])


def test_the_cache_reads_only_what_is_new(tmp_path):
    source = world()
    refs = References.collect(source)
    first = reduce_blocks(source, refs, cache=tmp_path)
    same_bits(first, reduce_blocks(source, refs))
    source.reads.clear()
    same_bits(first, reduce_blocks(source, refs, cache=tmp_path))
    assert not source.reads
    changed = Block("A375", 1)
    source.layers[(changed, "m0")] = source.layers[(changed, "m0")] + 1
    reduce_blocks(source, refs, cache=tmp_path)
    assert {b for b, _ in source.reads} == {changed}
    source.reads.clear()
    source.unsound[(changed, "m0")] = np.arange(20) == 1  # the same values, but one row was seen
    assert reduce_blocks(source, refs, cache=tmp_path).complete.sum() == 79
    assert {b for b, _ in source.reads} == {changed}


def test_processes_can_share_the_blocks(tmp_path):
    source = world()
    refs = References.collect(source)
    for fold in (0, 1):
        part = reduce_blocks(source, refs, cache=tmp_path, blocks=(b for b in source.tables if b.fold == fold))
        assert {b.fold for b in part.blocks} == {fold}
    source.reads.clear()
    same_bits(reduce_blocks(source, refs, cache=tmp_path), reduce_blocks(source, refs, cache=tmp_path / "other"))
    assert set(source.reads.values()) == {20}  # only for the other cache


def test_large_slices_are_made_in_files_of_the_cache_and_leave_none_behind(tmp_path, monkeypatch):
    source = world()
    refs = References.collect(source)
    want = reduce_blocks(source, refs)
    monkeypatch.setattr("pertstack._base.machine.scratch.IN_MEMORY", 1)
    same_bits(want, reduce_blocks(source, refs, cache=tmp_path / "cache", workers=2))
    assert all(p.is_dir() for p in (tmp_path / "cache").iterdir())


def test_the_first_finished_part_stays(tmp_path):
    part = reduce_blocks(source := world(), References.collect(source)).parts[Block("A375", 0)]
    save_part(tmp_path / "x", part, {})
    before = (tmp_path / "x" / "part.json").stat().st_ino
    save_part(tmp_path / "x", part, {})
    assert (tmp_path / "x" / "part.json").stat().st_ino == before and load_part(tmp_path / "x") is not None
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_bytes_behind_an_array_of_a_part_are_noticed(tmp_path):
    """Its values are the same, and so is their digest."""
    part = reduce_blocks(source := world(), References.collect(source)).parts[Block("A375", 0)]
    save_part(tmp_path / "x", part, {})
    assert load_part(tmp_path / "x") is not None
    for path in (tmp_path / "x").glob("*.npy"):
        whole = path.read_bytes()
        path.write_bytes(whole + b"more")
        with pytest.raises(CorruptionError, match=f"{path.name} is not what was written"):
            load_part(tmp_path / "x")
        path.write_bytes(whole)


def test_an_array_of_a_part_whose_header_does_not_end_is_named(tmp_path):
    """NumPy reads a header that it cannot parse once more, word by word, and that error is of another kind."""
    part = reduce_blocks(source := world(), References.collect(source)).parts[Block("A375", 0)]
    save_part(tmp_path / "x", part, {})
    path = next((tmp_path / "x").glob("*.npy"))
    path.write_bytes(path.read_bytes().replace(b"}", b"(", 1))
    with pytest.raises(CorruptionError, match=f"{path.name} cannot be read"):
        load_part(tmp_path / "x")


def test_a_damaged_or_unfinished_cache_is_noticed(tmp_path):
    source = world()
    refs = References.collect(source)
    first = reduce_blocks(source, refs, cache=tmp_path)
    folders = sorted(p for p in tmp_path.iterdir() if p.is_dir())
    (folders[0] / "part.json").unlink()  # never finished: made again
    same_bits(first, reduce_blocks(source, refs, cache=tmp_path))
    path = folders[1] / "gene_scatter.npy"
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(bytes(raw))
    with pytest.raises(CorruptionError, match="digest differs"):
        reduce_blocks(source, refs, cache=tmp_path)


def test_a_reduction_comes_back_from_disk(tmp_path):
    source = world()
    source.unsound[(Block("A375", 0), "m1")] = np.arange(20) == 3
    reduction = reduce_blocks(source, References.collect(source))
    reduction.save(tmp_path / "kept")
    back = Reduction.load(tmp_path / "kept")
    same_bits(reduction, back)
    assert back.models == reduction.models and back.findings[0].message == reduction.findings[0].message
    assert back.samples.equals(reduction.samples)


def test_bad_input_is_named():
    source = world()
    refs = References.collect(source)
    source.models = ()
    with pytest.raises(InputError, match="no models"):
        reduce_blocks(source, refs)
    source = world()
    with pytest.raises(InputError, match="k is 1"):
        reduce_blocks(source, refs, k=1)
    source = world(folds=(), test=True)
    with pytest.raises(InputError, match="development"):
        reduce_blocks(source, refs)


@pytest.mark.parametrize("workers", [1, 2])
def test_gene_moments_alone_have_the_bits_of_the_whole_pass(workers):
    source = world(n=300, n_genes=300)
    source.unsound[(Block("A375", 0), "m1")] = np.arange(300) % 7 == 0
    source.lacking[(Block("MCF7", 0), "m2")] = np.arange(300) % 5 == 2
    source.layers[(Block("MCF7", 0), "m2")][:, np.arange(300) % 5 == 2] = np.nan
    refs = References.collect(source)
    whole = reduce_blocks(source, refs)
    alone = gene_moments_alone(source, refs, memory=700_000, workers=workers)
    assert list(alone) == list(whole.blocks)
    for block, found in alone.items():
        for name in ("count", "mean", "scatter", "available"):
            assert getattr(found, name).tobytes() == getattr(whole.gene[block], name).tobytes(), (block, name)
    assert set(gene_moments_alone(source, refs, blocks=[Block("MCF7", 0)])) == {Block("MCF7", 0)}
    source.layers[(Block("MCF7", 1), "m0")][4, 3] = np.nan
    with pytest.raises(IntegrityError, match="m0"):
        gene_moments_alone(source, refs)


class Announced(MemorySource):
    """A memory source that writes down what it is asked for, and when."""

    def prefetch(self, block, layer, start, stop):
        self.log.append(("ask", block, layer, start, stop))

    def read(self, block, layer, start, stop, out=None):
        self.log.append(("read", block, layer, start, stop))
        return super().read(block, layer, start=start, stop=stop, out=out)


@pytest.mark.parametrize("job", ["reduce", "score"])
def test_every_row_is_asked_for_once_and_before_it_is_read(job):
    plain = world(n=40)
    refs = References.collect(plain)
    source = Announced(plain.gene_names, plain.models, plain.layers, plain.tables)
    source.log = []
    if job == "reduce":
        reduce_blocks(source, refs, memory=10_000)
    else:
        score(source, {}, refs, metrics=["r2_top20@pooled"], memory=60_000)
    if job == "score":  # the first row of each block, by which names that are the same are known
        looks = 4 * len(source.tables)
        assert all(e[0] == "read" and e[3:] == (0, 1) for e in source.log[:looks])
        source.log = source.log[looks:]
    asked = [e[1:] for e in source.log if e[0] == "ask"]
    read = [e[1:] for e in source.log if e[0] == "read"]
    assert len(read) > 2 * 5 * 4 and len(set(asked)) == len(asked) and sorted(asked) == sorted(read)
    assert all(source.log.index(("ask", *e)) < source.log.index(("read", *e)) for e in read)
    first = read[-5:]  # the last tile was asked for before the one before it was read
    assert source.log.index(("ask", *first[0])) < source.log.index(("read", *read[-6]))


@pytest.mark.parametrize("n_genes", [80, 81, 319, 640, 978, 2_563, 5_120])
@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_top_genes_are_those_of_a_stable_sort_whatever_the_number_of_genes(n_genes, decimals):
    rng = np.random.default_rng(n_genes)
    treated, control = np.round(rng.normal(0, 2, (2, 6, n_genes)), decimals).astype(np.float32)
    treated[0] = control[0]  # nothing changed: all tied
    found = np.empty((6, 80), dtype=np.int32)
    top_kernels.top_genes(treated, control, 0, 6, found)
    size = np.abs(treated.astype(np.float64) - control)
    np.testing.assert_array_equal(found, np.argsort(-size, axis=1, kind="stable")[:, :80])
