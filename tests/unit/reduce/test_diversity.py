"""Diversity from moments against the same numbers from the rows."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pertstack._base.errors import InputError
from pertstack.design.blocks import Block
from pertstack.reduce import Diversity, References, reduce_blocks
from pertstack.reduce.ambiguity import ambiguity, effective_number
from references.memory_source import world
from references.moment_loops import columns


def reduced(**more):
    source = world(n_genes=40, **more)
    refs = References.collect(source)
    return source, refs, reduce_blocks(source, refs)


def all_rows(source, refs, line=None):
    """(n, D, G) over all blocks."""
    return np.concatenate([columns(source, refs, b) for b in sorted(source.tables) if line in (None, b.cell_line)])


def correlation_of_rows(values):
    """values (n, M, G): centre each gene, then correlate everything pooled."""
    centred = values - values.mean(axis=0)
    return np.corrcoef(centred.transpose(1, 0, 2).reshape(values.shape[1], -1))


@pytest.mark.parametrize("line", [None, "A375", "MCF7"])
def test_correlations_match_the_rows(line):
    source, refs, reduction = reduced()
    diversity = Diversity.of(reduction)
    ours = diversity.overall if line is None else diversity.per_cell_line[line]
    v = all_rows(source, refs, line)
    np.testing.assert_allclose(ours.predictions, correlation_of_rows(v[:, :3]), rtol=1e-9)
    np.testing.assert_allclose(ours.errors, correlation_of_rows(v[:, 3:4] - v[:, :3]), rtol=1e-9)
    assert ours.n_rows == len(v)


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=2), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_ambiguity_is_an_identity_and_matches_the_rows(two, seed):
    source, refs, reduction = reduced(seed=seed)
    w = np.array([*two, 1 - sum(two)])
    parts = ambiguity(reduction.moments(), w)
    scale = max(parts.mean_error, parts.ensemble_error, abs(parts.ambiguity), 1.0)
    assert abs(parts.ensemble_error - (parts.mean_error - parts.ambiguity)) <= 1e-10 * scale
    v = all_rows(source, refs)
    f = np.einsum("m,nmg->ng", w, v[:, :3])
    np.testing.assert_allclose(parts.ensemble_error, ((v[:, 3] - f) ** 2).mean(), rtol=1e-9)
    np.testing.assert_allclose(
        parts.ambiguity, (w * ((v[:, :3] - f[:, None]) ** 2).mean(axis=(0, 2))).sum(), rtol=1e-8, atol=1e-9
    )


def test_near_copies_form_one_cluster():
    source = world(n_genes=40, n_models=4)
    for block in source.tables:
        base = source.layers[(block, "m1")]
        source.layers[(block, "m3")] = base + np.random.default_rng(1).normal(0, 0.05, base.shape).astype(np.float32)
    diversity = Diversity.of(reduce_blocks(source, References.collect(source)))
    assert diversity.clusters == (("m1", "m3"),)


def test_samples_of_disagreement_and_shared_failure_are_found():
    source = world(n_genes=40)
    block = Block("MCF7", 1)
    source.layers[(block, "m2")][7] += np.random.default_rng(0).normal(0, 20, 40).astype(np.float32)
    for m in source.models:  # every model predicts the opposite of what happens in row 3
        control, treated = source.layers[(block, "control")][3], source.layers[(block, "treated")][3]
        source.layers[(block, m)][3] = control - (treated - control)
    refs = References.collect(source)
    reduction = reduce_blocks(source, refs)
    diversity = Diversity.of(reduction)
    assert diversity.disagreement[0].sample_id == "MCF7-1-7"
    assert diversity.shared_failures[0].sample_id == "MCF7-1-3" and diversity.shared_failures[0].value < 0
    v = all_rows(source, refs)[:, :3]
    spread = np.sqrt(v.var(axis=1).mean(axis=1))
    np.testing.assert_allclose(diversity.disagreement[0].value, spread.max(), rtol=1e-9)
    assert diversity.share_failed >= 1 / 80


def test_effective_numbers_at_their_limits():
    alike = np.full((4, 4), 1.0)
    e = effective_number(np.full(4, 0.25), alike)
    assert e.kish == e.entropy == 4.0 and e.participation == pytest.approx(1) and e.equicorrelated == pytest.approx(1)
    assert e.best_linear is None  # singular
    e = effective_number(np.full(4, 0.25), np.eye(4))
    assert e.participation == pytest.approx(4) and e.best_linear == pytest.approx(4) and e.equicorrelated == 4
    rho = 0.3
    equal = np.full((4, 4), rho) + (1 - rho) * np.eye(4)
    e = effective_number(np.full(4, 0.25), equal)
    assert e.best_linear == pytest.approx(4 / (1 + 3 * rho)) == e.equicorrelated
    e = effective_number([1.5, -0.5], np.eye(2))
    assert e.entropy is None and e.kish == pytest.approx(1 / 2.5)


def test_one_model_and_a_constant_model():
    _, _, reduction = reduced(n_models=1)
    diversity = Diversity.of(reduction)
    assert diversity.overall.predictions.tolist() == [[1.0]] and diversity.ambiguity.ambiguity == pytest.approx(
        0, abs=1e-12
    )
    source = world(n_genes=40)
    for block in source.tables:
        source.layers[(block, "m2")] = source.layers[(block, "control")].copy()
    diversity = Diversity.of(reduce_blocks(source, References.collect(source)))
    assert np.isnan(diversity.overall.predictions[2]).all() and np.isfinite(diversity.overall.errors).all()
    text = json.dumps(diversity.to_json(), allow_nan=False)
    assert json.loads(text)["correlation"]["predictions"][2][0] is None


def test_genes_that_a_model_lacks_are_left_out_for_all():
    source = world(n_genes=40)
    for block in source.tables:
        source.lacking[(block, "m1")] = np.arange(40) < 10
    refs = References.collect(source)
    diversity = Diversity.of(reduce_blocks(source, refs))
    assert diversity.n_genes == 30
    v = all_rows(source, refs)[:, :, 10:]
    np.testing.assert_allclose(diversity.overall.predictions, correlation_of_rows(v[:, :3]), rtol=1e-9)
    for block in source.tables:
        source.lacking[(block, "m0")] = np.arange(40) >= 10
    with pytest.raises(InputError, match="No gene"):
        Diversity.of(reduce_blocks(source, refs))


def test_weights_must_sum_to_one():
    with pytest.raises(InputError, match="sum 1"):
        ambiguity(reduced()[2].moments(), [0.5, 0.5, 0.5])
