"""Pitfall: embeddings of different fits put side by side as if one coordinate meant one thing in every fold.

Committed by hand it loses what the vectors hold; the package aligns, or refuses what was never aligned.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

import pertstack as ps
from copies import copied
from pertstack._base.errors import CorruptionError, LeakError, MisalignedError
from pertstack.fit.jobs.job import Job, JobRows
from pertstack.fit.jobs.worker import Setting, run_job
from pertstack.fit.profiles import hyper_parameters
from pertstack.predictions.sources.embedding import RowEmbeddings
from pertstack.predictions.sources.store_source import StoreSource
from pertstack.predictions.store.files.anchors import anchor_file, fit_of
from pertstack.reduce.read_tiles import iter_tiles
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.experimental.embedding_ridge import EmbeddingRidge
from pertstack.stacking.experimental.frames import CommonFrame
from pertstack.study.development.fit_rows import ANCHORS, StudyAnchors, StudyRows, anchor_ids, fit_rows
from pertstack.study.development.learned import final_fits, stored_stack
from pertstack.study.steps import predict as shipping
from pertstack.study.steps.fit import cross_fit_study
from references.embedding_world import embeddings_of, knowing_world
from references.small_world import as_source


def held_out_error(world, features, folds=(0, 1, 2)):
    """Root mean square of what plain ridge on ``features`` leaves of the first model's error, fold by fold."""
    rest = world["treated"] - world["predictions"]["m0"]
    left = []
    for k in folds:
        learn, held = world["folds"] != k, world["folds"] == k
        fit = RidgeCV(alphas=np.logspace(-3, 5, 17)).fit(features[learn], rest[learn])
        left.append(np.square(rest[held] - fit.predict(features[held])).mean())
    return float(np.sqrt(np.mean(left))), float(np.sqrt(np.mean(rest**2)))


def test_mixing_frames_is_garbage_and_aligning_is_not():
    """Plain ridge on the vectors as they are, each fold scaled to spread 1, and on those that the package turned."""
    world = knowing_world()
    known, alone = held_out_error(world, world["latent"])
    mixed, turned = [], []
    for seed in range(4):
        world["embeddings"] = embeddings_of(world, world["latent"], seed=seed)
        raw, source = world["embeddings"]["m0"].values, as_source(world)[0]
        scaled, aligned = np.zeros_like(raw), np.zeros_like(raw)
        for k in range(3):
            mine = world["folds"] == k
            scaled[mine] = (raw[mine] - raw[mine].mean(axis=0)) / raw[mine].std(axis=0)
        fits = {b: source.embedding(b, "m0", start=0, stop=len(source.obs(b))) for b in source.blocks()}
        frame = CommonFrame.of("m0", list(fits.values()), 32)
        for block, rows in fits.items():
            aligned[source.rows_of(block)] = frame.align(rows)
        mixed.append(held_out_error(world, scaled)[0])
        turned.append(held_out_error(world, aligned)[0])
    np.testing.assert_allclose(turned, known, rtol=0.02)
    assert known < 0.6 * alone
    assert alone - np.mean(mixed) < 0.1 * (alone - known)  # next to nothing of what the vectors hold


def test_frames_that_were_never_aligned_are_refused():
    world = knowing_world()
    source, references = as_source(world | {"embeddings": embeddings_of(world, world["latent"], aligned=False)})
    evidence = Evidence(reduce_blocks(source, references), source=source, references=references)
    with pytest.raises(MisalignedError, match="never aligned"):
        EmbeddingRidge().fit(evidence)


# -- in a study --------------------------------------------------------------------------------------------------------


def quick_fits(study: ps.Study, **how: Any) -> None:
    params = {"TranSiGen": hyper_parameters("TranSiGen", {"epochs": 4}, name="fast")}
    assert all(r.ok for r in cross_fit_study(study.folder, ["mean_treated", "TranSiGen"], params=params, **how))


@pytest.fixture(scope="module")
def network_study(world_file: Path, tmp_path_factory: pytest.TempPathFactory) -> ps.Study:
    pytest.importorskip("torch")
    study = ps.Study.create(tmp_path_factory.mktemp("network") / "study", data=world_file, seed=1)
    quick_fits(study, engine="inline")
    return study


@pytest.fixture
def network(network_study: ps.Study, tmp_path: Path) -> ps.Study:
    """A copy to do harm to."""
    return ps.Study.open(copied(network_study.folder.root, tmp_path / "study"))


WHOLE = EmbeddingRidge(offset="reference")  # learns the whole delta, so that there is something to compare


def test_every_fit_embeds_the_same_development_rows(network_study):
    """3 folds, 3 pairs and the final fit of the network; mean_treated has no embedding."""
    folder = network_study.folder
    store, ids = folder.store, anchor_ids(folder.plan)
    assert len(list((store.root / "anchors").iterdir())) == 7
    assert set(ids) <= set(folder.plan.sample_ids("development")) and len(ids) == min(ANCHORS, 240, len(set(ids)))
    for record in store.records():
        if record.kind == "embedding":
            found = store.anchors_of(record)
            assert found.sample_ids == tuple(ids) and found.values.shape == (len(ids), record.grid.width)


def test_frames_of_real_folds_differ_and_are_turned_onto_each_other(network_study):
    """Same rows, two fits: coordinates hardly agree as they are, and do after turning."""
    store = network_study.folder.store
    fits = [store.anchors_of(store.record(b, "TranSiGen", "embedding")) for b in store.blocks("development")]
    one, two = list({f.fit: f.values for f in fits}.values())[:2]
    rows = [RowEmbeddings(v, v, "same", str(i)) for i, v in enumerate((one, two))]
    frame = CommonFrame.of("TranSiGen", rows, 8)
    turned = [frame.align(r) for r in rows]

    def agreement(a, b):
        a, b = a - a.mean(axis=0), b - b.mean(axis=0)
        return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))

    assert abs(agreement(one, two)) < 0.5 and agreement(*turned) > 0.8


def test_a_study_of_before_anchors_still_stacks_and_says_why_not_with_embeddings(network):
    shutil.rmtree(network.folder.store.root / "anchors")
    stacked = ps.Study.open(network.folder.root).stack(["simplex", "embedding_ridge"])
    assert any("never aligned" in str(f) and "Fit again" in str(f) for f in stacked.nested.failures)
    assert "simplex" in stacked.nested.names and "embedding_ridge" not in stacked.nested.names
    assert ps.Study.open(network.folder.root).verdict().chosen


def test_changed_or_exchanged_anchors_are_found(network):
    store = network.folder.store
    records = [r for r in store.records("TranSiGen") if r.kind == "embedding"]
    first = anchor_file(store.root, fit_of(records[0]))
    other = anchor_file(store.root, next(fit_of(r) for r in records if fit_of(r) != first.stem))
    whole = first.read_bytes()
    for harm in (other.read_bytes(), whole[:-40], whole[:3000] + bytes([whole[3000] ^ 16]) + whole[3001:]):
        first.write_bytes(harm)
        fresh = ps.Study.open(network.folder.root).folder.store
        assert "anchors_damaged" in {f.code for f in fresh.verify()}
        with pytest.raises(CorruptionError, match="anchor file"):
            fresh.anchors_of(fresh.record(records[0].block, "TranSiGen", "embedding"))


def test_anchors_come_without_treated_values(network_study, tmp_path):
    """A loader that hands over fit rows as anchors is stopped before anything is embedded."""
    folder = network_study.folder
    job = Job.of("mean_treated", fold=0)
    rows = JobRows(fit_rows(folder, job), iter(()), fit_rows(folder, job))
    setting = Setting(lambda j: rows, lambda *a: None, tmp_path, 0, commit_anchors=lambda *a: None)
    result = run_job(job, setting)
    assert result.status == "failed" and result.error_type == LeakError.__name__


def test_predictions_do_not_depend_on_anchors(network_study, tmp_path):
    """The final fit once more, without anchors: bit for bit what the study holds."""
    folder = network_study.folder
    block = folder.store.blocks("test")[0]
    job = Job(**folder.store.record(block, "TranSiGen").meta["job"])
    kept = {}
    rows = StudyRows(folder.root)

    def without(j):
        found = rows(j)
        assert found.anchors is not None
        return JobRows(found.fit, found.blocks)

    setting = Setting(
        without,
        lambda j, b, predicted, embedded, r: kept.update({b: (predicted, embedded)}),
        tmp_path,
        int(folder.choices["seed"]),
        plan_digest=folder.plan.digest,
        commit_anchors=StudyAnchors(folder.root),
    )
    assert run_job(job, setting).ok
    np.testing.assert_array_equal(kept[block][0], folder.store.read(block, "TranSiGen"))
    np.testing.assert_array_equal(kept[block][1], folder.store.read_embedding(block, "TranSiGen"))


def test_a_second_run_that_gives_other_anchors_is_refused(network):
    store = network.folder.store
    record = next(r for r in store.records("TranSiGen") if r.kind == "embedding")
    found = store.anchors_of(record)
    facts = {"job_digest": record.meta["job_digest"], "fit_ids_digest": record.fitted_on.ids_digest}
    again = store.commit_anchors("TranSiGen", found.values, sample_ids=found.sample_ids, **facts)
    assert again.fit == found.fit
    with pytest.raises(ps.StackingError, match="otherwise than the first"):
        store.commit_anchors("TranSiGen", found.values + 1, sample_ids=found.sample_ids, **facts)


@pytest.mark.slow
def test_new_samples_get_the_answer_of_the_final_fit(network, world_file, tmp_path, monkeypatch):
    """``predict`` on the controls of the test rows: models fitted and anchors embedded again give what the store
    holds."""
    network.stack([WHOLE])
    study = ps.Study.open(network.folder.root)
    folder = study.folder
    monkeypatch.setattr(shipping, "stored_stack", lambda f: replace(stored_stack(f), chosen=WHOLE.name))
    ids = folder.plan.sample_ids("test")
    new, out = tmp_path / "new.h5ad", tmp_path / "out.h5ad"
    part = anndata.read_h5ad(world_file)[ids].copy()
    part.X = np.zeros_like(part.X)  # measured values are not to be looked at
    part.write_h5ad(new)
    shipping.predict_new(folder, new, out, predictions=(), workers=1)
    got = anndata.read_h5ad(out)
    fitted = final_fits(folder, stored_stack(folder), workers=1, memory="1 GB")[WHOLE.name]
    assert fitted.facts["rank"] > 0
    source = StoreSource(
        folder.store, folder.open_store("test_truth"), "test", fitted.models, groups=folder.plan.groups
    )
    for tile, _ in iter_tiles(source, folder.references):
        table = got[list(tile.obs.index), list(folder.gene_names)]
        np.testing.assert_allclose(np.asarray(table.X), fitted.combine(tile), atol=1e-4)
    with pytest.raises(MisalignedError, match="gives no embedding"):
        shipping.predict_new(folder, new, tmp_path / "other.h5ad", predictions=(f"TranSiGen={out}",), workers=1)


@pytest.mark.slow
def test_one_and_two_workers_give_the_same_bytes(network_study, world_file, tmp_path):
    other = ps.Study.create(tmp_path / "other", data=world_file, seed=1)
    quick_fits(other, workers=2)
    one = ps.Study.open(copied(network_study.folder.root, tmp_path / "one"))
    for study, workers in ((one, 1), (other, 2)):
        study.stack([WHOLE, "simplex"], workers=workers)
    files = [sorted((s.folder.store.root / "anchors").iterdir()) for s in (one, other)]
    assert [f.name for f in files[0]] == [f.name for f in files[1]]
    for name in ("weights.json", "weights.npz", "oof_scores.npz"):
        assert (one.folder.results / name).read_bytes() == (other.folder.results / name).read_bytes(), name
