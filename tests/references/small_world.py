"""A small world in arrays for stack tests: known truth, control noise shared by treated and predictions, models as
wanted."""

from __future__ import annotations

import numpy as np

from pertstack.predictions.array_source import ArraySource
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
        "treated": treated.astype(np.float32), "control": control.astype(np.float32),
        "predictions": {k: v.astype(np.float32) for k, v in predictions.items()},
        "folds": group % folds, "perturbation": np.array([f"d{g}" for g in group]), "cell_line": line, "effect": effect,
    }  # fmt: skip


def as_source(world, **changes):
    """The world as a ``BlockSource``, and its references."""
    w = {**world, **changes}
    source = ArraySource(
        w["predictions"], w["treated"], w["control"], folds=w["folds"], perturbation=w["perturbation"],
        cell_line=w["cell_line"],
    )  # fmt: skip
    return source, References.collect(source)
