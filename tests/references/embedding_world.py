"""A world in arrays whose embeddings know what the models miss, each fold's fit describing it in a frame of its own."""

from __future__ import annotations

import numpy as np

from pertstack.predictions.sources.embedding import ArrayEmbedding
from references.small_world import small_world


def spin(rng, d):
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


def knowing_world(**changes):
    """Embeddings know part of what the models err about: the residual is linear in what was done."""
    world = {**small_world(n=240, n_groups=48, errors=[0.3, 0.5], n_models=2, noise=0.3), **changes}
    rng = np.random.default_rng(9)
    known = rng.normal(0, 1, (48, 3))
    latent = known[np.arange(240) % 48]
    missed = latent @ rng.normal(0, 0.7, (3, 30))
    world["treated"] = (world["treated"] + missed).astype(np.float32)
    return world | {"latent": latent, "embeddings": embeddings_of(world, latent)}


def embeddings_of(world, latent, *, seed=1, aligned=True, models=("m0",)):
    """``latent`` turned, shifted and scaled in each fold's fit; anchors are the first 40 rows."""
    rng = np.random.default_rng(seed)
    values, anchors = np.zeros_like(latent), {}
    for fold in (0, 1, 2, None):
        basis, shift, scale = spin(rng, latent.shape[1]), rng.normal(0, 5, latent.shape[1]), rng.uniform(0.3, 3)
        mine = world["folds"] == fold
        values[mine] = latent[mine] @ basis * scale + shift
        anchors[fold] = latent[:40] @ basis * scale + shift
    return {m: ArrayEmbedding(values, anchors if aligned else {}) for m in models}
