"""A small world in arrays for stack tests: known truth, control noise shared by treated and predictions, models as
wanted."""

from __future__ import annotations

import numpy as np

from pertstack.predictions.sources.array_source import ArraySource
from pertstack.predictions.sources.embedding import ArrayEmbedding
from pertstack.reduce.references import References


def small_world(
    *, n=120, n_genes=30, n_groups=24, n_models=4, folds=3, lines=2, noise=0.6, seed=0, errors=None, scale=None
):
    """Arrays of a study: dict with treated, control, predictions, folds, perturbation, cell_line, effect."""
    rng = np.random.default_rng(seed)
    group = np.arange(n) % n_groups
    line = np.array([f"line{i}" for i in rng.integers(0, lines, n)])
    basal = {name: rng.normal(8, 1, n_genes) for name in sorted(set(line))}
    signature = rng.normal(0, 1, (n_groups, 3)) @ rng.normal(0, 1, (3, n_genes)) / 1.5
    effect = signature[group]
    base = np.stack([basal[name] for name in line])
    control = base + rng.normal(0, noise, (n, n_genes))
    treated = base + effect + rng.normal(0, noise, (n, n_genes))
    errors = np.linspace(0.5, 1.0, n_models) if errors is None else errors
    scale = np.ones(n_models) if scale is None else scale
    common = rng.normal(0, 0.4, (n, n_genes))
    predictions = {
        f"m{m}": control + scale[m] * (effect + common + rng.normal(0, errors[m], (n, n_genes)))
        for m in range(n_models)
    }
    return {
        "treated": treated.astype(np.float32),
        "control": control.astype(np.float32),
        "predictions": {k: v.astype(np.float32) for k, v in predictions.items()},
        "folds": group % folds,
        "perturbation": np.array([f"d{g}" for g in group]),
        "cell_line": line,
        "effect": effect,
    }


def as_source(world, **changes):
    """The world as a ``BlockSource``, and its references."""
    w = {**world, **changes}
    source = ArraySource(
        w["predictions"],
        w["treated"],
        w["control"],
        folds=w["folds"],
        perturbation=w["perturbation"],
        cell_line=w["cell_line"],
        embeddings=turned_embeddings(w) if "embeddings" not in w else w["embeddings"],
    )
    return source, References.collect(source)


def turned_embeddings(world, *, d=5, seed=0, aligned=True):
    """Every model's embedding: what was done, turned, shifted and scaled otherwise in each fold's fit.

    Anchors are the first 20 rows. ``aligned`` False leaves them out.
    """
    rng = np.random.default_rng(seed)
    done = sorted(set(world["perturbation"]))
    known = dict(zip(done, rng.normal(0, 1, (len(done), d)), strict=True))
    rows = np.stack([known[p] for p in world["perturbation"]]) + rng.normal(0, 0.05, (len(world["folds"]), d))
    values, anchors = np.zeros_like(rows), {}
    for fold in sorted(set(world["folds"])):
        basis = np.linalg.qr(rng.normal(0, 1, (d, d)))[0]
        shift, scale = rng.normal(0, 3, d), rng.uniform(0.5, 2)
        mine = world["folds"] == fold
        values[mine] = (rows[mine] @ basis) * scale + shift
        anchors[int(fold)] = (rows[:20] @ basis) * scale + shift
    anchors[None] = anchors[min(anchors)]
    return {m: ArrayEmbedding(values, anchors if aligned else {}) for m in world["predictions"]}
