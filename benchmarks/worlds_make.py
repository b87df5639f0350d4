"""Simulated studies for ``worlds.py``: nine kinds, base models that are really fitted, nested fits, a large test.

Every base model has a view of each sample (the true effect plus errors of its own and of all) and learns from its fit
rows how to turn it into a prediction: offsets per gene, offsets per gene and cell line, a slope per gene, or a ridge on
drug descriptors. What a model says of one fold therefore holds the means, gene by gene, of the folds it was fitted on,
which is the leak of partial nesting (docs/decisions/0005-true-nesting.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

N_FOLDS = 3
HOW = ("mean", "line_mean", "slope", "ridge")


@dataclass
class World:
    """Arrays of development and test rows; ``effect`` is the noise-free truth.

    ``predictions``: development rows by the fit without their fold, test rows by the fit on all development rows.
    ``nested[k]``: rows outside fold k by the fit without their own fold and without k; NaN elsewhere.
    """

    kind: str
    predictions: dict[str, Any]
    nested: dict[int, dict[str, Any]]
    treated: Any
    control: Any
    effect: Any
    drug: Any
    line: Any
    folds: Any  # -1 on test rows
    basal: Any = None  # the noise-free control


@dataclass(frozen=True)
class Recipe:
    """Models by the error of their view, scale and anchor; sizes of the study."""

    errors: tuple[float, ...]  # in units of the effect's spread; negative: a view of pure noise
    copies: tuple[int, ...] = ()  # model m is a near-copy of model copies[m] where >= 0
    scale: tuple[float, ...] = ()
    shared: float = (
        0.5  # share of the best model's error variance that all have in common: the higher, the less to gain
    )
    special: str = ""  # "genes" or "lines": every model is good on its share only
    harmful: int = -1  # a model that predicts the opposite
    how: tuple[str, ...] = ()  # how every model learns; drawn from ``HOW`` when empty
    n_drugs: int = 80
    n_lines: int = 3
    n_genes: int = 120
    noise: float = 0.45  # of one profile
    effect: float = 1.0  # scale of what drugs do
    common: float = 0.25  # what every treatment does in a line: vehicle, stress
    replicates: int = 1  # rows of every drug and line


def _seven(best: float, rest: float) -> tuple[float, ...]:
    return (best, *np.linspace(rest, 1.25 * rest, 6).round(3))


KINDS: dict[str, Callable[[np.random.Generator], Recipe]] = {
    "dominant": lambda rng: Recipe(_seven(0.5, 0.56), shared=rng.uniform(0.8, 0.98)),
    "near_copies": lambda rng: Recipe(
        (0.7, 0.72, 0.74, 0.9, 1.0), copies=(-1, 0, 0, -1, -1), shared=rng.uniform(0.3, 0.95)
    ),
    "all_equal": lambda rng: Recipe((0.8,) * 6, shared=rng.uniform(0.5, 0.99)),
    "one_harmful": lambda rng: Recipe((0.7, 0.8, 0.9, 1.0, 0.8), harmful=4, shared=rng.uniform(0.3, 0.95)),
    "scale_mismatch": lambda rng: Recipe(
        (0.7, 0.75, 0.8, 0.85, 0.9), scale=(1.0, 0.3, 2.5, 0.6, 1.5), shared=rng.uniform(0.3, 0.95)
    ),
    "sixty_samples": lambda rng: Recipe((0.7, 0.8, 0.85, 0.9, 1.0, 1.0), n_drugs=20, shared=rng.uniform(0.5, 0.98)),
    "gene_specialists": lambda rng: Recipe((0.7,) * 4, special="genes"),
    "line_specialists": lambda rng: Recipe((0.7,) * 3, special="lines"),
    "noise_beside_one": lambda rng: Recipe((0.7, *([-1.0] * 10))),
}

STRESS: dict[str, Callable[[np.random.Generator], Recipe]] = {
    "weak_models": lambda rng: Recipe(
        (2.2, 2.4, 2.6, 2.8, 3.0), how=("weak",) * 5, shared=rng.uniform(0.3, 0.95), n_drugs=60
    ),
}
"""Not one of the nine kinds: models that know little beyond the means of their fit rows, as on a real plate, so that
what they say of one fold is mostly the means of the others."""

_COMMON = {"noise": 1.0, "effect": 0.4, "common": 1.0, "replicates": 2, "n_drugs": 60}
_HOW = ("mean", "slope", "ridge", "line_mean", "constant")
NOISY: dict[str, Callable[[np.random.Generator], Recipe]] = {
    "common_response": lambda rng: Recipe(
        (0.8, 0.9, 1.0, 1.1, 1.0), how=_HOW, shared=rng.uniform(0.3, 0.95), **_COMMON
    ),
    "common_scale": lambda rng: Recipe(
        (0.8, 0.85, 0.9, 1.0, 1.0),
        how=_HOW,
        scale=(1.0, 0.3, 2.5, 1.5, 1.0),
        shared=rng.uniform(0.3, 0.95),
        **_COMMON,
    ),
    "common_weak": lambda rng: Recipe(
        (2.2, 2.4, 2.6, 2.8, 1.0), how=("weak",) * 4 + ("constant",), shared=rng.uniform(0.3, 0.95), **_COMMON
    ),
    "common_specialists": lambda rng: Recipe((0.7,) * 4, special="lines", how=_HOW[1:], **_COMMON),
}
"""Every condition twice, weak effects under a strong common response and much noise: a constant beats a replicate on
some metrics, as on HT115."""


def make_world(kind: str, seed: int, n_test_drugs: int = 200) -> World:
    """One world; rows are every drug in every cell line, folds and test split by drug."""
    stress = {**{k: 100 + i for i, k in enumerate(sorted(STRESS))}, **{k: 200 + i for i, k in enumerate(sorted(NOISY))}}
    place = sorted(KINDS).index(kind) if kind in KINDS else stress[kind]
    rng = np.random.default_rng([seed, place])
    recipe = (KINDS | STRESS | NOISY)[kind](rng)
    drugs, lines, genes = recipe.n_drugs + n_test_drugs, recipe.n_lines, recipe.n_genes
    drug, line = (a.ravel() for a in np.meshgrid(np.arange(drugs), np.arange(lines), indexing="ij"))
    programs = rng.normal(0, 1, (8, genes)) * rng.gamma(2, 0.5, genes)
    activity = recipe.effect * rng.normal(0, 1, (drugs, 8)) * rng.gamma(1.5, 0.35, (drugs, 1))
    effect = (activity @ programs)[drug] * (1 + 0.3 * rng.normal(0, 1, (lines, genes)))[line]
    effect = effect + rng.normal(0, recipe.common, (lines, genes))[line]
    of = np.repeat(np.arange(len(drug)), recipe.replicates)  # the condition of every row
    basal, noise = rng.normal(8, 1, (lines, genes))[line][of], recipe.noise
    conditions, effect = (effect, drug, line), effect[of]
    control = basal + rng.normal(0, noise, effect.shape)
    treated = basal + effect + rng.normal(0, noise, effect.shape)
    descriptors = np.column_stack([activity[:, :4], np.zeros((drugs, 2))]) + rng.normal(0, 0.7, (drugs, 6))
    views, how = _views(recipe, *conditions, rng)
    views, drug, line = [v[of] for v in views], drug[of], line[of]
    folds = np.where(drug < recipe.n_drugs, drug % N_FOLDS, -1)
    anchors = rng.choice([0.0, 0.5, 1.0], len(views))
    scale = np.array(recipe.scale or (1.0,) * len(views))
    scale[recipe.harmful] *= -1.0 if recipe.harmful >= 0 else 1.0

    def answers(fit_rows: Any) -> list[Any]:
        """Every model fitted on some rows, for all rows."""
        return [
            (
                basal
                + anchors[m] * (control - basal)
                + scale[m] * fitted(how[m], view, treated - control, line, descriptors[drug], fit_rows)
            ).astype(np.float32)
            for m, view in enumerate(views)
        ]

    predictions, nested = _crossed(answers, folds, (len(views), *effect.shape))
    names = np.array([f"d{d:04d}" for d in drug])
    lines_of = np.array([f"line{i}" for i in line])
    return World(kind, predictions, nested, treated, control, effect, names, lines_of, folds, basal)


def fitted(how: str, view: Any, delta: Any, line: Any, descriptors: Any, fit: Any) -> Any:
    """Predicted deltas of all rows (n, genes) by a model that learned from the rows ``fit`` (bool, (n,)).

    ``constant``: the mean of the fit rows of the cell line. ``weak``: a slope per gene on the view, pulled to 0.

    ``mean``: the view, shifted gene by gene to the mean of the fit rows. ``line_mean``: the same within each cell line.
    ``slope``: a slope per gene on the view, pulled to 1. ``ridge``: the view, corrected by ridge on drug descriptors.
    """
    if how == "constant":
        out = np.zeros(view.shape)
        for one in np.unique(line):
            out[line == one] = delta[fit & (line == one)].mean(axis=0)
        return out
    if how == "line_mean":
        out = np.array(view, dtype=np.float64)
        for one in np.unique(line):
            here = line == one
            out[here] += (delta - view)[fit & here].mean(axis=0)
        return out
    middle, seen = delta[fit].mean(axis=0), view[fit].mean(axis=0)
    if how == "mean":
        return middle + view - seen
    if how == "weak":
        v, d = view[fit] - seen, delta[fit] - middle
        return middle + (view - seen) * (v * d).sum(axis=0) / (1.5 * (v**2).sum(axis=0))
    if how == "slope":
        v, d = view[fit] - seen, delta[fit] - middle
        pull = 0.2 * (v**2).sum(axis=0)
        return middle + (view - seen) * ((v * d).sum(axis=0) + pull) / ((v**2).sum(axis=0) + pull)
    x, rest = descriptors[fit] - descriptors[fit].mean(axis=0), (delta - view)[fit] - (middle - seen)
    slopes = np.linalg.solve(x.T @ x + 0.5 * len(x) * np.eye(x.shape[1]), x.T @ rest)
    return middle + view - seen + (descriptors - descriptors[fit].mean(axis=0)) @ slopes


def _crossed(answers: Callable[[Any], list[Any]], folds: Any, shape: Any) -> tuple[dict[str, Any], dict[int, Any]]:
    """Cross-fits, final fits and nested pair fits."""
    whole = np.stack(answers(folds >= 0))
    nested = {k: np.full(shape, np.nan, dtype=np.float32) for k in range(N_FOLDS)}
    for k in range(N_FOLDS):
        without = np.stack(answers((folds >= 0) & (folds != k)))
        whole[:, folds == k] = without[:, folds == k]
    for j, k in combinations(range(N_FOLDS), 2):
        without = np.stack(answers((folds >= 0) & (folds != j) & (folds != k)))
        nested[k][:, folds == j], nested[j][:, folds == k] = without[:, folds == j], without[:, folds == k]
    named = {k: {f"m{m}": values[m] for m in range(shape[0])} for k, values in nested.items()}
    return {f"m{m}": whole[m] for m in range(shape[0])}, named


def _views(recipe: Recipe, effect: Any, drug: Any, line: Any, rng: Any) -> tuple[list[Any], list[str]]:
    """What every model can see of each sample, in delta units, and how it learns from its fit rows."""
    n, genes = effect.shape
    size, n_models = effect.std(), len(recipe.errors)

    def error_field() -> Any:
        return rng.normal(0, 1, (drug.max() + 1, genes))[drug] * 0.8 + rng.normal(0, 0.6, (n, genes))

    least = min((e for e in recipe.errors if e > 0), default=0.0)
    common = np.sqrt(recipe.shared) * least * size * error_field()  # the same for all: no mixture can remove it
    alike = len(set(recipe.errors)) == 1  # equal models learn alike, so that they stay equal
    drawn = [str(rng.choice(HOW))] * n_models if alike else [str(h) for h in rng.choice(HOW, n_models)]
    how = list(recipe.how) or drawn
    found: list[Any] = []
    for m, error in enumerate(recipe.errors):
        wrong, copied = error_field(), recipe.copies[m] if recipe.copies else -1
        if copied >= 0:
            how[m] = how[copied]
            found.append(found[copied] + 0.15 * size * wrong)
            continue
        amount: Any = error
        if recipe.special == "genes":
            amount = np.where(np.arange(genes) % n_models == m, 0.6, 1.2)
        if recipe.special == "lines":
            amount = np.where(line == m, 0.6, 1.1)[:, None]
        alone = np.sqrt(np.maximum(np.square(amount) - recipe.shared * least**2, 0.0))
        found.append(size * wrong if error < 0 else effect + common + alone * size * wrong)
    return found, how
