"""Simulated worlds with known truth: how often does each combiner harm, and what does the no-harm rule make of it?

    make worlds                                                # 216 worlds
    python benchmarks/worlds.py --worlds 45 --out worlds.md

Each world has development rows (three folds, drugs kept together) and a large test of new drugs. Treated and control
share the sample's control noise, as on a plate. ``regret`` is the relative distance, on the primary metric on the test,
to the best answer in hindsight; ``harm`` the share of worlds in which an answer is worse than the best single model (as
chosen on the development rows) by more than the paired standard error over drugs. ``truth`` is agreement with the
noise-free effect; it never enters learning or choice.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack.arrays import StackFit, stack
from pertstack.predictions.array_source import ArraySource
from pertstack.reduce.score import score
from pertstack.stack.panel import Panel

PRIMARY = "r2_top20@pooled"
SHOWN = (PRIMARY, "r2_top20@own", "pearson_all@centroid", "rmse_all@own")


@dataclass
class World:
    """Arrays of development and test rows; ``effect`` is the noise-free truth."""

    kind: str
    predictions: dict[str, Any]
    treated: Any
    control: Any
    effect: Any
    drug: Any
    line: Any
    folds: Any  # -1 on test rows


@dataclass(frozen=True)
class Recipe:
    """Models by their error, scale and anchor; sizes of the study."""

    errors: tuple[float, ...]
    copies: tuple[int, ...] = ()  # model m is a near-copy of model copies[m] where >= 0
    scale: tuple[float, ...] = ()
    anchor: tuple[float, ...] = ()  # how much of the sample's own control noise the model carries along
    shared: float = (
        0.5  # share of the best model's error variance that all have in common: the higher, the less to gain
    )
    special: str = ""  # "genes" or "lines": every model is good on its share only
    harmful: int = -1  # a model that predicts the opposite
    n_drugs: int = 80
    n_lines: int = 3
    n_genes: int = 120


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


def make_world(kind: str, seed: int, n_test_drugs: int = 200) -> World:
    """One world; rows are every drug in every cell line, folds and test split by drug."""
    rng = np.random.default_rng([seed, sorted(KINDS).index(kind)])
    recipe = KINDS[kind](rng)
    drugs, lines, genes = recipe.n_drugs + n_test_drugs, recipe.n_lines, recipe.n_genes
    drug, line = (a.ravel() for a in np.meshgrid(np.arange(drugs), np.arange(lines), indexing="ij"))
    programs = rng.normal(0, 1, (8, genes)) * rng.gamma(2, 0.5, genes)
    activity = rng.normal(0, 1, (drugs, 8)) * rng.gamma(1.5, 0.35, (drugs, 1))
    response = activity @ programs
    effect = response[drug] * (1 + 0.3 * rng.normal(0, 1, (lines, genes)))[line]
    common = rng.normal(0, 0.25, (lines, genes))[line]  # what every treatment does in a line: vehicle, stress
    effect = effect + common
    basal = rng.normal(8, 1, (lines, genes))[line]
    noise = 0.45
    control = basal + rng.normal(0, noise, effect.shape)
    treated = basal + effect + rng.normal(0, noise, effect.shape)
    predictions = _models(recipe, effect, control, basal, drug, line, rng)
    folds = np.where(drug < recipe.n_drugs, drug % 3, -1)
    names = np.array([f"d{d:04d}" for d in drug])
    return World(kind, predictions, treated, control, effect, names, np.array([f"line{i}" for i in line]), folds)


def _models(recipe: Recipe, effect: Any, control: Any, basal: Any, drug: Any, line: Any, rng: Any) -> dict[str, Any]:
    n, genes = effect.shape
    size = effect.std()
    found: list[Any] = []

    def error_field() -> Any:
        return rng.normal(0, 1, (drug.max() + 1, genes))[drug] * 0.8 + rng.normal(0, 0.6, (n, genes))

    least = min((e for e in recipe.errors if e > 0), default=0.0)
    common = np.sqrt(recipe.shared) * least * size * error_field()  # the same for all, so that no mixture can remove it
    for m, error in enumerate(recipe.errors):
        wrong = error_field()
        copied = recipe.copies[m] if recipe.copies else -1
        if copied >= 0:
            delta = found[copied] + 0.15 * size * wrong
        elif error < 0:
            delta = size * error_field()
        else:
            amount: Any = error
            if recipe.special == "genes":
                amount = np.where(np.arange(genes) % len(recipe.errors) == m, 0.6, 1.2)
            if recipe.special == "lines":
                amount = np.where(line == m, 0.6, 1.1)[:, None]
            alone = np.sqrt(np.maximum(amount**2 - recipe.shared * least**2, 0.0))
            delta = effect + common + alone * size * wrong
        found.append(-delta if m == recipe.harmful else delta)
    scale = recipe.scale or (1.0,) * len(found)
    anchors = recipe.anchor or tuple(rng.choice([0.0, 0.5, 1.0], len(found)))
    return {
        f"m{m}": (basal + anchors[m] * (control - basal) + scale[m] * delta).astype(np.float32)
        for m, delta in enumerate(found)
    }


def fit_world(world: World) -> StackFit:
    """Everything that is learned or chosen, from development rows alone."""
    dev = world.folds >= 0
    return stack(
        {m: p[dev] for m, p in world.predictions.items()}, treated=world.treated[dev], control=world.control[dev],
        folds=world.folds[dev], perturbation=world.drug[dev], cell_line=world.line[dev], primary=PRIMARY,
        trust_partial=True,  # the models' errors know nothing of the folds
    )  # fmt: skip


def judge_world(world: World, fit: StackFit) -> pd.DataFrame:
    """Per answer on the test: scores, regret, difference to the best single model and its s.e., truth."""
    test = world.folds < 0
    arrays = {m: p[test] for m, p in world.predictions.items()}
    source = ArraySource(
        arrays, world.treated[test], world.control[test], folds=[None] * int(test.sum()),
        perturbation=world.drug[test], cell_line=world.line[test], role="test",
    )  # fmt: skip
    combines = fit.nested.final_combines()
    table = score(source, combines, fit.references, metrics=SHOWN)
    names = [n for n in table.names if n != "no_change"]
    panel = Panel.of(table, names, "best_single", [PRIMARY], level=0.05, n_draws=300, seed=0)
    truth = _truth_agreement(world, fit, test)
    rows = []
    for name in names:
        gain = panel.gains[name][0]
        means = {m: table.mean(name, m).value for m in SHOWN}
        rows.append({"answer": name, **means, "gain": gain.value, "se": gain.se, "truth": truth.get(name, np.nan)})
    frame = pd.DataFrame(rows)
    frame = pd.concat([frame, frame[frame.answer == fit.chosen].assign(answer="CHOSEN with no-harm")])
    frame["regret"] = 1 - frame[PRIMARY] / frame[PRIMARY].max()
    frame["harm"] = frame.gain < -frame.se
    singles = frame[frame.answer.isin(list(world.predictions))]
    frame["below_hindsight_single"] = frame[PRIMARY] < singles[PRIMARY].max() - frame.se.where(frame.se > 0, np.inf)
    return frame.assign(kind=world.kind, chosen=fit.chosen)


def _truth_agreement(world: World, fit: StackFit, test: Any) -> dict[str, float]:
    """Mean squared correlation with the noise-free effect on the 20 genes where it is largest, from pooled control."""
    effect, line = world.effect[test], world.line[test]
    pooled = np.stack([fit.references.pooled(one) for one in line])
    top = np.argsort(-np.abs(effect), axis=1)[:, :20]
    at = np.arange(len(top))[:, None]
    t = effect[at, top] - effect[at, top].mean(axis=1, keepdims=True)
    given = {m: p[test] for m, p in world.predictions.items()}
    found = {}
    for name in (*given, *fit.nested.names):
        if name == "no_change":
            continue
        out = given.get(name)
        if out is None:
            out = fit.predict(given, control=world.control[test], cell_line=line, combiner=name)
        p = (out - pooled)[at, top]
        p = p - p.mean(axis=1, keepdims=True)
        r2 = (p * t).sum(axis=1) ** 2 / np.maximum((p**2).sum(axis=1) * (t**2).sum(axis=1), 1e-12)
        found[name] = float(r2.mean())
    return found


def summary(frames: pd.DataFrame) -> pd.DataFrame:
    """One row per answer over all worlds, best regret first; base models differ between worlds and are left out."""
    rows = frames[~frames.answer.str.fullmatch(r"m[0-9]+")]
    table = rows.groupby("answer").agg(
        worlds=("regret", "size"), regret=("regret", "mean"), worst_regret=("regret", "max"), harm=("harm", "mean"),
        gain=("gain", "mean"), pooled=(PRIMARY, "mean"), own=("r2_top20@own", "mean"),
        centroid=("pearson_all@centroid", "mean"), rmse=("rmse_all@own", "mean"), truth=("truth", "mean"),
    )  # fmt: skip
    return table.sort_values("regret")


def direct_against_squared(frames: pd.DataFrame) -> pd.DataFrame:
    """By kind of world, what optimising the metric does against squared error: differences to the simplex answer."""
    columns = {PRIMARY: "pooled", "r2_top20@own": "own", "truth": "truth"}
    wide = frames.pivot_table(index=["kind", "world"], columns="answer", values=list(columns))
    parts = {
        f"{name}: {short}": (wide[metric][name] - wide[metric]["simplex"]).groupby("kind").mean()
        for name in ("direct_pooled", "direct_own", "nonneg")
        for metric, short in columns.items()
    }
    return pd.DataFrame(parts)


def markdown(table: pd.DataFrame, digits: int = 4) -> str:
    """A plain Markdown table."""
    head = "| " + " | ".join([table.index.name or "", *map(str, table.columns)]) + " |"
    lines = [head, "|" + "---|" * (len(table.columns) + 1)]
    for name, row in table.iterrows():
        cells = [v if isinstance(v, str) else f"{v:.0f}" if v == int(v) > 1 else f"{v:.{digits}f}" for v in row]
        lines.append("| " + " | ".join([str(name), *cells]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=216)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="also write the tables to this Markdown file")
    parser.add_argument("--raw", type=Path, default=None, help="also write every answer of every world to this CSV")
    args = parser.parse_args()
    started, frames, kinds = time.perf_counter(), [], sorted(KINDS)
    for i in range(args.worlds):
        world = make_world(kinds[i % len(kinds)], args.seed + i // len(kinds))
        frames.append(judge_world(world, fit_world(world)).assign(world=i))
    every = pd.concat(frames, ignore_index=True)
    chosen = every[every.answer == "CHOSEN with no-harm"]
    by_kind = chosen.groupby("kind").agg(
        worlds=("regret", "size"), regret=("regret", "mean"), harm=("harm", "mean"), gain=("gain", "mean"),
        shipped=("chosen", lambda s: ", ".join(f"{n} x{c}" for n, c in s.value_counts().items())),
    )  # fmt: skip
    text = "\n\n".join(
        [
            f"{args.worlds} worlds in {time.perf_counter() - started:.0f} s; primary {PRIMARY}; test of 200 new drugs.",
            markdown(summary(every)),
            "What ships, by kind of world:",
            markdown(by_kind),
            "Direct on the metric, and squared error with a free scale (nonneg), less the simplex on squared error:",
            markdown(direct_against_squared(every)),
        ]
    )
    print(text)
    if args.out is not None:
        args.out.write_text(text + "\n", encoding="utf-8")
    if args.raw is not None:
        every.to_csv(args.raw, index=False)


if __name__ == "__main__":
    main()
