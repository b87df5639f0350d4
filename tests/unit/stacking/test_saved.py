"""What ``weights.npz`` keeps is the fitted combiner: the same bits, and steps load it instead of learning."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

import numpy as np
import pytest

import pertstack as ps
from pertstack._base.errors import CorruptionError
from pertstack.reduce.read_tiles import iter_tiles
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.combiner import FittedCombiner
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.registry import COMBINERS, make_combiner
from pertstack.stacking.saved import STATES, load_fitted, save_fitted
from pertstack.study.audit.tables import weights_as_learned
from pertstack.study.development.learned import development_rows, final_fits, fold_fits, learn_again, stored_stack
from references.small_world import as_source, small_world


@pytest.fixture(scope="module")
def fits():
    source, references = as_source(small_world(seed=5))
    evidence = Evidence(reduce_blocks(source, references), source=source, references=references)
    return source, references, {name: make_combiner(name).fit(evidence) for name in COMBINERS}


def through_a_file(arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    buffer.seek(0)
    with np.load(buffer, allow_pickle=False) as file:
        return dict(file)


def test_every_combiner_comes_back_with_the_same_bits(fits):
    source, references, before = fits
    after = load_fitted(through_a_file(save_fitted(before)))
    assert sorted(after) == sorted(COMBINERS)
    for name, fit in before.items():
        assert after[name].weights() == fit.weights(), name
        assert type(after[name]) is type(fit) and after[name].cautions == fit.cautions
        for tile, _ in iter_tiles(source, references):
            np.testing.assert_array_equal(after[name].combine(tile), fit.combine(tile), err_msg=name)


def test_shared_arrays_are_kept_once_and_documented_names_stay(fits):
    arrays = save_fitted(fits[2])
    assert arrays["gene_eb/coefficients"].ndim == 2
    digests = [a.tobytes() for name, a in arrays.items() if name.startswith("state/")]
    assert len(digests) == len(set(digests))


def test_a_combiner_of_a_plug_in_has_no_state(fits):
    @dataclass(frozen=True)
    class Foreign(FittedCombiner):
        name: str
        models: tuple[str, ...]

        def combine(self, tile):
            return tile.predictions[0]

        def weights(self):
            return {}

    arrays = save_fitted({"foreign": Foreign("foreign", ("m0",)), "mean": fits[2]["mean"]})
    assert list(load_fitted(arrays)) == ["mean"]


def test_files_of_older_versions_have_no_states(fits):
    arrays = save_fitted(fits[2])
    del arrays[STATES]
    assert load_fitted(arrays) == {}


@pytest.fixture(scope="module")
def stacked(tmp_path_factory):
    from pertstack.data import SimulationConfig, simulate_to_file

    home = tmp_path_factory.mktemp("saved")
    path = simulate_to_file(
        home / "world.h5ad",
        SimulationConfig(samples=60, perturbations=18, genes=24, cell_lines=1, replicates=2, seed=3),
    )
    study = ps.Study.create(home / "study", data=path, seed=0)
    study.cross_fit(["mean_treated", "per_gene_linear"])
    study.stack(["simplex", "gene_ridge"])
    return study


def test_a_study_loads_what_it_learned_and_learns_nothing(stacked, monkeypatch):
    folder, stored = stacked.folder, stored_stack(stacked.folder)
    again = learn_again(folder, stored, list(stored.combiners), workers=1, memory="1 GB")
    monkeypatch.setattr("pertstack.study.development.learned.learn_again", lambda *a, **k: pytest.fail("learned again"))
    found = final_fits(folder, stored, workers=1, memory="1 GB")
    for name in stored.combiners:
        assert found[name].weights() == again[name].weights()
        for key, value in again[name].arrays().items():
            np.testing.assert_array_equal(found[name].arrays()[key], value)


def test_fits_without_each_fold_are_loaded_too(stacked, monkeypatch):
    folder, stored = stacked.folder, stored_stack(stacked.folder)
    again = development_rows(folder, stored).nested([make_combiner(stored.chosen)]).fits[stored.chosen]
    monkeypatch.setattr("pertstack.study.development.rows.fit_nested", lambda *a, **k: pytest.fail("learned again"))
    found = fold_fits(folder, stored, workers=1, memory="1 GB")
    assert sorted(found) == sorted(again) == [0, 1, 2]
    for fold, fit in found.items():
        for key, value in again[fold].arrays().items():
            np.testing.assert_array_equal(fit.arrays()[key], value)
    assert any((found[0].arrays()[k] != found[1].arrays()[k]).any() for k in found[0].arrays())


def test_without_a_seal_they_are_learned_again(stacked):
    folder, stored = stacked.folder, stored_stack(stacked.folder)
    seal = folder.path("seals", "stack.json")
    kept = seal.read_bytes()
    seal.unlink()
    try:
        assert set(final_fits(folder, stored, workers=1, memory="1 GB")) == set(stored.combiners)
        assert sorted(fold_fits(folder, stored, workers=1, memory="1 GB")) == [0, 1, 2]
    finally:
        seal.write_bytes(kept)


def test_edited_weights_are_refused(stacked):
    folder, stored = stacked.folder, stored_stack(stacked.folder)
    path = folder.results / "weights.npz"
    kept = path.read_bytes()
    with np.load(path) as file:
        arrays = dict(file)
    arrays["simplex/coefficients"] = arrays["simplex/coefficients"][::-1]
    np.savez_compressed(path, **arrays)
    try:
        with pytest.raises(CorruptionError, match=r"weights\.npz is not what the stack step wrote.*pertstack stack"):
            final_fits(folder, stored, workers=1, memory="1 GB")
        assert [f.code for f in weights_as_learned(folder)] == ["weights_not_learned"]
    finally:
        path.write_bytes(kept)
    assert list(weights_as_learned(folder)) == []
    json_path = folder.results / "weights.json"
    kept = json_path.read_bytes()
    value = json.loads(kept)
    value["combiners"]["simplex"]["weights"]["mean"][0] += 0.1
    json_path.write_text(json.dumps(value))
    try:
        with pytest.raises(CorruptionError, match="simplex"):
            final_fits(folder, stored_stack(folder), workers=1, memory="1 GB")
    finally:
        json_path.write_bytes(kept)
