"""Embedding stacking: turns against scipy, slopes against plain ridge on materialised rows, worlds of known answer."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from sklearn.linear_model import Ridge

from pertstack._base.errors import InputError, MisalignedError, UnknownNameError
from pertstack.arrays import stack
from pertstack.predictions.sources.embedding import ArrayEmbedding, RowEmbeddings
from pertstack.reduce.read_tiles import iter_tiles
from pertstack.reduce.scoring.score import score
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.experimental.embedding_ridge import STRENGTHS, EmbeddingRidge
from pertstack.stacking.experimental.embedding_sums import FeatureSums
from pertstack.stacking.experimental.frames import CommonFrame, OwnFrame, consensus, turn
from pertstack.stacking.experimental.reduced_rank import held_out_errors, low_rank_paths
from pertstack.stacking.nested import fit_nested
from references.embedding_world import embeddings_of, knowing_world, spin
from references.small_world import as_source, turned_embeddings


def fit_of(rows, anchors, name):
    return RowEmbeddings(np.float32(rows), np.float32(anchors), "same rows", name)


def evidence_of(world, folds=None):
    source, references = as_source(world)
    reduction = reduce_blocks(source, references)
    reduction = reduction if folds is None else reduction.select(folds=folds)
    return Evidence(reduction, source=source, references=references), source, references


def combined(fitted, source, references):
    """Predictions by row of the arrays given."""
    out = np.empty((sum(len(source.obs(b)) for b in source.blocks()), len(source.gene_names)), np.float32)
    for tile, _ in iter_tiles(source, references):
        out[source.rows_of(tile.block)] = fitted.combine(tile)
    return out


# -- turning -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_turn_is_scipys_orthogonal_procrustes(seed):
    rng = np.random.default_rng(seed)
    frame, target = rng.normal(size=(40, 6)), rng.normal(size=(40, 6))
    np.testing.assert_allclose(turn(frame, target), orthogonal_procrustes(frame, target)[0], atol=1e-12)


@pytest.mark.parametrize("rank", [2, 4])
def test_known_turns_between_fits_are_undone(rank):
    """Three fits see the same rows turned, mirrored, shifted, scaled, one in a wider space: one frame, to 1e-6."""
    rng = np.random.default_rng(3)
    latent = rng.normal(size=(90, rank)) @ rng.normal(size=(rank, 4))  # rank 2: two of four directions are empty
    fits = []
    for name, width in (("a", 4), ("b", 4), ("c", 7)):
        basis = spin(rng, width)[:4]
        rows = latent @ basis * rng.uniform(0.2, 4) + rng.normal(0, 1, width)
        fits.append(RowEmbeddings(rows, rows[:50], "same rows", name))  # float64: the turn itself is looked at
    frame = CommonFrame.of("net", fits, 32)
    aligned = [frame.align(f) for f in fits]
    assert frame.width == rank and frame.misfit < 1e-6
    for other in aligned[1:]:
        np.testing.assert_allclose(other, aligned[0], atol=1e-6)
    distances = [np.linalg.norm(r[:, None] - r[None], axis=2) for r in (latent, aligned[0])]
    np.testing.assert_allclose(distances[1] / distances[1].max(), distances[0] / distances[0].max(), atol=1e-6)


def test_what_the_anchors_do_not_span_is_dropped():
    """A direction in which no anchor differs cannot be turned: it must not come out as noise."""
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(60, 3))
    anchors = rows[:30].copy()
    anchors[:, 2] = 1.0
    frame = CommonFrame.of("net", [fit_of(rows, anchors, "a"), fit_of(rows, anchors, "b")], 32)
    assert frame.width == 2
    far = fit_of(rows * [1, 1, 99], anchors, "a")
    np.testing.assert_allclose(frame.align(fit_of(rows, anchors, "a")), frame.align(far), atol=1e-5)


def test_the_consensus_is_better_than_any_fit_alone():
    """Three noisy turned copies: the consensus is nearer to the truth (as distances between rows) than each copy."""
    rng = np.random.default_rng(5)
    truth = rng.normal(size=(80, 3))
    copies = [truth @ spin(rng, 3) + rng.normal(0, 0.4, truth.shape) for _ in range(3)]
    frames = [OwnFrame.of(c).anchors for c in copies]
    wanted = OwnFrame.of(truth).anchors
    errors = [np.square(f @ orthogonal_procrustes(f, wanted)[0] - wanted).sum() for f in (consensus(frames), *frames)]
    assert errors[0] < 0.7 * min(errors[1:])


# -- sums and slopes ---------------------------------------------------------------------------------------------------


def test_sums_merge_to_those_of_the_rows():
    rng = np.random.default_rng(0)
    x, y = rng.normal(5, 1, (50, 4)), rng.normal(-3, 1, (50, 7))
    whole = FeatureSums.of(x, y)
    merged = FeatureSums.empty(4, 7)
    for rows in np.split(np.arange(50), [3, 3, 20, 49]):
        merged = merged.merge(FeatureSums.of(x[rows], y[rows]))
    for name in ("count", "mean_x", "mean_y", "xx", "xy", "yy"):
        np.testing.assert_allclose(getattr(merged, name), getattr(whole, name), rtol=1e-10, atol=1e-10)
    xx, xy, yy = whole.around(np.ones(4), np.zeros(7))
    np.testing.assert_allclose(xx, (x - 1).T @ (x - 1), rtol=1e-10)
    np.testing.assert_allclose(xy, (x - 1).T @ y, rtol=1e-10)
    assert yy == pytest.approx(np.square(y).sum())


def plain_reduced_rank(x, y, penalty, rank):
    """Rows with the penalty's rows added, scikit-learn's ridge, then the leading right singular vectors of its fit."""
    slopes = Ridge(alpha=penalty, fit_intercept=False).fit(x, y).coef_.T
    augmented = np.vstack([x, np.sqrt(penalty) * np.eye(x.shape[1])])
    right = np.linalg.svd(augmented @ slopes, full_matrices=False)[2][:rank]
    return slopes @ right.T @ right


@pytest.mark.parametrize("rank", [1, 3, 5])
@pytest.mark.parametrize("strength", [0.01, 1.0, 100.0])
def test_slopes_are_ridge_on_the_rows_cut_to_rank(rank, strength):
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(70, 5)), rng.normal(size=(70, 9))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    ours = next(low_rank_paths(FeatureSums.of(x, y), [strength], 32)).cut(rank)
    expected = plain_reduced_rank(x, y, strength * np.square(x).sum() / 5, rank)
    np.testing.assert_allclose(ours.left @ ours.right, expected, rtol=1e-8, atol=1e-9)


def test_held_out_errors_are_those_of_the_rows():
    rng = np.random.default_rng(7)
    x, y, held_x, held_y = (rng.normal(1, 1, s) for s in ((60, 5), (60, 8), (25, 5), (25, 8)))
    path = next(low_rank_paths(FeatureSums.of(x, y), [0.5], 32))
    intercept = rng.normal(size=8)
    ours = held_out_errors(path, FeatureSums.of(held_x, held_y), intercept)
    plain = [np.square(held_y - intercept - path.cut(r).predict(held_x)).sum() for r in range(6)]
    np.testing.assert_allclose(ours, plain, rtol=1e-9)


def by_hand(world, fitted, folds):
    """The combiner again from materialised rows of the true latent: no turning, no sums; penalty and rank by loops."""
    treated, predictions = world["treated"].astype(float), [world["predictions"][m].astype(float) for m in ("m0", "m1")]
    mixture = sum(w * p for w, p in zip(fitted.offset.coefficients, predictions, strict=True))
    x, rest = world["latent"], treated - mixture

    def slopes(learn, strength, rank):
        inside = [np.flatnonzero(world["folds"] == k) for k in learn]
        xs = np.concatenate([x[i] - x[i].mean(axis=0) for i in inside])
        ys = np.concatenate([rest[i] - rest[i].mean(axis=0) for i in inside])
        mean = x[np.concatenate(inside)].mean(axis=0)
        return mean, plain_reduced_rank(xs, ys, strength * np.square(xs).sum() / x.shape[1], rank)

    errors = {}
    for strength in STRENGTHS:
        for rank in range(1, x.shape[1] + 1):
            total, better = 0.0, True
            for k in folds:
                mean, b = slopes([f for f in folds if f != k], strength, rank)
                held = world["folds"] == k
                error = np.square(rest[held] - (x[held] - mean) @ b).sum()
                total, better = total + error, better and error < np.square(rest[held]).sum()
            if better:
                errors[strength, rank] = total
    strength, rank = min(errors, key=errors.get)
    mean, b = slopes(folds, strength, rank)
    return mixture + (x - mean) @ b, strength, rank


@pytest.mark.parametrize("folds", [(0, 1, 2), (0, 2)])
def test_the_combiner_is_plain_ridge_on_the_true_latent(folds):
    """Turned, shifted and scaled by fold, summed in tiles: the same predictions as ridge on rows that never were."""
    world = knowing_world()
    evidence, source, references = evidence_of(world, folds)
    fitted = EmbeddingRidge(memory=100_000).fit(evidence)
    expected, strength, rank = by_hand(world, fitted, folds)
    assert (fitted.facts["strength"], fitted.facts["rank"]) == (strength, rank)
    np.testing.assert_allclose(combined(fitted, source, references), expected, atol=2e-5)


def test_an_offset_of_the_reference_alone_learns_the_whole_delta():
    world = knowing_world()
    evidence, source, references = evidence_of(world)
    fitted = EmbeddingRidge(offset="reference").fit(evidence)
    assert not fitted.offset.coefficients.any() and fitted.facts["rank"] > 0
    out = combined(fitted, source, references)
    pooled = np.stack([references.pooled(line) for line in world["cell_line"]])
    x = world["latent"] - world["latent"].mean(axis=0)
    delta = world["treated"] - pooled
    within = np.concatenate([delta[world["folds"] == k] - delta[world["folds"] == k].mean(axis=0) for k in range(3)])
    inside = np.concatenate([x[world["folds"] == k] - x[world["folds"] == k].mean(axis=0) for k in range(3)])
    penalty = fitted.facts["strength"] * np.square(inside).sum() / 3
    slopes = plain_reduced_rank(inside, within, penalty, fitted.facts["rank"])
    np.testing.assert_allclose(out, pooled + delta.mean(axis=0) + x @ slopes, atol=2e-5)


# -- worlds ------------------------------------------------------------------------------------------------------------


def oof_rmse(world, combiners):
    source, references = as_source(world)
    nested = fit_nested(combiners, reduce_blocks(source, references), source=source, references=references)
    table = score(source, nested.combines(), references, metrics=("rmse_all",))
    return {name: table.mean(name, "rmse_all").value for name in combiners}, nested


def test_what_embeddings_know_is_gained_out_of_fold():
    found, _ = oof_rmse(knowing_world(), ["simplex", "embedding_ridge"])
    assert found["embedding_ridge"] < 0.75 * found["simplex"]


def test_embeddings_that_know_nothing_gain_nothing():
    """The same vectors handed to other perturbations: no gain, and a cost of less than one percent on average."""
    world, ratios = knowing_world(), []
    for seed in range(6):
        order = np.random.default_rng(seed).permutation(48)[np.arange(240) % 48]
        wrong = np.random.default_rng(9).normal(0, 1, (48, 3))[order]
        found, nested = oof_rmse(world | {"embeddings": embeddings_of(world, wrong)}, ["simplex", "embedding_ridge"])
        ratios.append(found["embedding_ridge"] / found["simplex"])
        assert nested.final["embedding_ridge"].facts["held_out_gain"] < 0.01
    assert min(ratios) > 0.995 and max(ratios) < 1.02 and np.mean(ratios) < 1.01


def test_a_fold_that_is_scored_leaves_no_trace():
    """Fit without fold 1, bit for bit, after what was measured, predicted and embedded there was replaced."""
    world, rng = knowing_world(), np.random.default_rng(2)
    changed = {**world, "treated": world["treated"].copy()}
    rows = world["folds"] == 1
    changed["treated"][rows] += rng.normal(0, 3, (rows.sum(), 30)).astype(np.float32)
    old = world["embeddings"]["m0"]
    values, anchors = old.values.copy(), {**old.anchors, 1: rng.normal(size=old.anchors[1].shape)}
    values[rows] = rng.normal(size=values[rows].shape)
    changed["embeddings"] = {"m0": ArrayEmbedding(values, anchors)}
    _, references = as_source(world)
    fits = []
    for w in (world, changed):
        source, _ = as_source(w)
        nested = fit_nested(
            ["embedding_ridge"], reduce_blocks(source, references), source=source, references=references
        )
        fits.append(nested.fits["embedding_ridge"])
    for key, value in fits[0][1].arrays().items():
        np.testing.assert_array_equal(value, fits[1][1].arrays()[key], err_msg=key)
    assert not np.array_equal(fits[0][0].arrays()["right"], fits[1][0].arrays()["right"])


# -- who takes part ----------------------------------------------------------------------------------------------------


def test_models_without_embeddings_are_named():
    fitted = EmbeddingRidge().fit(evidence_of(knowing_world())[0])
    assert any("m1 gives no embeddings" in c for c in fitted.cautions)
    assert fitted.facts["left_out"] == ["m1"] and list(fitted.weights()["embeddings"]) == ["m0"]
    json.dumps(fitted.weights(), allow_nan=False)


def test_no_embeddings_at_all_is_said_clearly():
    with pytest.raises(InputError, match="No model has embeddings"):
        EmbeddingRidge().fit(evidence_of(knowing_world() | {"embeddings": {}})[0])


def test_a_model_with_a_flat_fit_is_left_out():
    world = knowing_world()
    flat = ArrayEmbedding(np.ones((240, 3)), {**world["embeddings"]["m0"].anchors, 1: np.ones((40, 3))})
    fitted = EmbeddingRidge().fit(evidence_of(world | {"embeddings": {**world["embeddings"], "m1": flat}})[0])
    assert any("A fit of m1 embeds every anchor row alike" in c for c in fitted.cautions)


def test_folds_that_were_never_aligned_are_refused():
    world = knowing_world()
    loose = embeddings_of(world, world["latent"], aligned=False)
    with pytest.raises(MisalignedError, match=r"never aligned.*Fit again"):
        EmbeddingRidge().fit(evidence_of(world | {"embeddings": loose})[0])
    both = {**embeddings_of(world, world["latent"]), "m1": loose["m0"]}
    fitted = EmbeddingRidge().fit(evidence_of(world | {"embeddings": both})[0])
    assert fitted.facts["left_out"] == ["m1"] and any("'m1' were never aligned" in c for c in fitted.cautions)


def test_rows_of_a_frame_that_was_never_aligned_are_not_corrected_but_refused():
    world = knowing_world()
    evidence, _, _ = evidence_of(world)
    fitted = EmbeddingRidge().fit(evidence)
    for embeddings, words in (
        (embeddings_of(world, world["latent"], aligned=False), "never aligned"),
        ({"m0": ArrayEmbedding(world["latent"], world["latent"][:7])}, "different anchor rows"),
        ({}, "gives no embedding"),
    ):
        source, references = as_source(world | {"embeddings": embeddings})
        with pytest.raises(MisalignedError, match=words):
            combined(fitted, source, references)


def test_rows_that_an_embedding_model_did_not_predict_get_the_mixture_alone():
    world = knowing_world()
    predictions = {m: p.copy() for m, p in world["predictions"].items()}
    predictions["m0"][::7] = np.nan
    evidence, source, references = evidence_of(world | {"predictions": predictions})
    fitted = EmbeddingRidge().fit(evidence)
    out = combined(fitted, source, references)
    np.testing.assert_array_equal(out[::7], combined(fitted.offset, source, references)[::7])
    np.testing.assert_allclose(out[::7], predictions["m1"][::7], atol=1e-5)
    rest = np.setdiff1d(np.arange(240), np.arange(0, 240, 7))
    assert np.abs(out[rest] - combined(fitted.offset, source, references)[rest]).max() > 0.1


def test_poor_alignment_is_told():
    """Folds that tell rows apart in wholly different ways cannot be turned onto each other."""
    world, rng = knowing_world(), np.random.default_rng(0)
    values = rng.normal(size=(240, 4))
    anchors = {fold: rng.normal(size=(40, 4)) for fold in (0, 1, 2)}
    fitted = EmbeddingRidge().fit(evidence_of(world | {"embeddings": {"m0": ArrayEmbedding(values, anchors)}})[0])
    assert any("stays off the other fits" in c for c in fitted.cautions)
    assert fitted.weights()["embeddings"]["m0"]["misfit"] > 0.5


def test_wrong_settings_are_refused():
    evidence = evidence_of(knowing_world())[0]
    with pytest.raises(UnknownNameError, match="simplex"):
        EmbeddingRidge(offset="simplx").fit(evidence)
    with pytest.raises(InputError, match="at least 1"):
        EmbeddingRidge(width=0).fit(evidence)


# -- arrays ------------------------------------------------------------------------------------------------------------


def test_arrays_with_anchors_can_be_stacked_and_predicted():
    world = knowing_world()
    kept = {k: world[k] for k in ("treated", "control", "folds", "perturbation", "cell_line")}
    fit = stack(world["predictions"], **kept, combiners=["embedding_ridge"], embeddings=world["embeddings"])
    new = {"m0": ArrayEmbedding(world["latent"] @ (q := spin(np.random.default_rng(8), 3)), world["latent"][:40] @ q)}
    asked = {"control": world["control"], "cell_line": world["cell_line"], "combiner": "embedding_ridge"}
    out = fit.predict(world["predictions"], **asked, embeddings=new)
    source, references = as_source(world)
    np.testing.assert_allclose(out, combined(fit.nested.final["embedding_ridge"], source, references), atol=1e-4)
    with pytest.raises(MisalignedError, match="provide its embeddings"):
        fit.predict(world["predictions"], **asked)


def test_bare_vectors_are_refused():
    world = knowing_world()
    with pytest.raises(InputError, match="anchors being the same rows"):
        as_source(world | {"embeddings": {"m0": world["latent"]}})
    with pytest.raises(InputError, match="240, dimensions"):
        as_source(world | {"embeddings": {"m0": ArrayEmbedding(world["latent"][:9], {})}})
    with pytest.raises(UnknownNameError, match="m1"):
        as_source(world | {"embeddings": turned_embeddings({**world, "predictions": {"m9": 0}})})
