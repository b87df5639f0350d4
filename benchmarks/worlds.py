"""Simulated worlds with known truth: how often does each combiner harm, and what does the no-harm rule make of it?

    make worlds                                                    # 216 worlds
    python benchmarks/worlds.py --seed 4100 --worlds 45 --out worlds.md

The worlds (``worlds_make.py``) have development rows in three folds, drugs kept together, a large test of new drugs,
and base models that are really fitted, without each fold and without each pair of folds; so flexible combiners are
scored on nested fits, as in a study. ``regret`` is the relative distance, on the primary metric on the test, to the
best answer in hindsight; ``harm`` the share of worlds in which an answer is worse than the best single model (as chosen
on the development rows) by more than the paired standard error over drugs. ``truth`` is agreement with the noise-free
effect; it never enters learning or choice.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from worlds_make import KINDS, N_FOLDS, STRESS, World, make_world

from pertstack.design.metric_names import parse_metric
from pertstack.predictions.sources.array_source import ArraySource
from pertstack.reduce.references import References
from pertstack.reduce.scoring.score import score
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.choice import Choice
from pertstack.stacking.choose import choose
from pertstack.stacking.combine_arrays import combine_arrays
from pertstack.stacking.combiner import FLEXIBLE, FittedCombiner
from pertstack.stacking.evidence import Evidence
from pertstack.stacking.nested import NestedFits, fit_nested
from pertstack.stacking.panel import NO_HARM, Panel
from pertstack.stacking.registry import COMBINERS, make_combiner

PRIMARY = "r2_top20@pooled"
SHOWN = (PRIMARY, "r2_top20@own", "pearson_all@centroid", "rmse_all@own")
CHOSEN, TRUSTING = "CHOSEN with no-harm", "CHOSEN if partial nesting were trusted"
EXTRA = ("direct_cell_line", "direct_gene", "shared_mlp")  # not fitted by default; shown, no candidates here


@dataclass
class Learned:
    """What was learned from the development rows of a world."""

    references: References
    final: dict[str, FittedCombiner]
    choice: Choice
    trusting: Choice  # the choice if flexible combiners were scored on ordinary out-of-fold rows
    oof: dict[str, tuple[float, float]]  # flexible combiner -> out-of-fold gain, truly and partially nested


def learn(world: World) -> Learned:
    """Everything that is learned or chosen, from development rows alone, as the stack step of a study does it."""
    source = _source(world, world.predictions, world.folds >= 0)
    references = References.collect(source)
    top = min(80, world.treated.shape[1])
    reduction = reduce_blocks(source, references, k=top)
    level_one = {}
    for k in range(N_FOLDS):
        rows = _source(world, world.nested[k], (world.folds >= 0) & (world.folds != k))
        level_one[k] = (reduce_blocks(rows, references, k=top), rows)
    nested = fit_nested(None, reduction, source=source, references=references, primary=PRIMARY, level_one=level_one)
    failed = [str(f) for f in nested.failures]
    assert not failed, failed
    flexible = [name for name in nested.names if COMBINERS[name].family in FLEXIBLE]
    partial = fit_nested(flexible, reduction, source=source, references=references, primary=PRIMARY)
    trusting = replace(nested, fits={**nested.fits, **partial.fits})
    choice, honest = _choose(source, references, nested)
    other, hopeful = _choose(source, references, trusting)
    evidence = Evidence(reduction, primary=PRIMARY, source=source, references=references)
    extra = {name: make_combiner(name).fit(evidence) for name in EXTRA}
    oof = {name: (honest[name], hopeful[name]) for name in flexible}
    return Learned(references, {**nested.final, **extra}, choice, other, oof)


def _source(world: World, predictions: dict[str, Any], rows: Any, role: str = "development") -> ArraySource:
    fold = [None if f < 0 else int(f) for f in world.folds[rows]]
    return ArraySource(
        {m: p[rows] for m, p in predictions.items()},
        world.treated[rows],
        world.control[rows],
        folds=fold,
        perturbation=world.drug[rows],
        cell_line=world.line[rows],
        role=role,
        sample_ids=[f"s{i}" for i in np.flatnonzero(rows)],
    )


def _choose(source: ArraySource, references: References, nested: NestedFits) -> tuple[Choice, dict[str, float]]:
    """The choice with its defaults, and every combiner's out-of-fold gain over the best single model."""
    metrics = tuple(dict.fromkeys([parse_metric(m).name for m in (PRIMARY, *NO_HARM)]))
    table = score(source, nested.combines(), references, metrics=metrics)
    single = table.mean("best_single", PRIMARY).value
    return choose(table, nested), {n: table.mean(n, PRIMARY).value - single for n in nested.names if n in table.names}


def judge_world(world: World, learned: Learned) -> pd.DataFrame:
    """Per answer on the test: scores, regret, difference to the best single model and its s.e., truth."""
    test = world.folds < 0
    source = _source(world, world.predictions, test, "test")
    combines = {name: fit.combine for name, fit in learned.final.items() if name != "no_change"}
    table = score(source, combines, learned.references, metrics=SHOWN)
    names = [n for n in table.names if n != "no_change"]
    panel = Panel.of(table, names, "best_single", metrics=[PRIMARY], level=0.05)
    truth = _truth_agreement(world, learned, test)
    rows = []
    for name in names:
        gain = panel.gains[name][0]
        nested, partial = learned.oof.get(name, (np.nan, np.nan))
        rows.append(
            {
                "answer": name,
                **{m: table.mean(name, m).value for m in SHOWN},
                "gain": gain.value,
                "se": gain.se,
                "truth": truth[name],
                "oof_nested": nested,
                "oof_partial": partial,
            }
        )
    frame = pd.DataFrame(rows)
    picked = [
        frame[frame.answer == choice.chosen].assign(answer=label, chosen=choice.chosen)
        for label, choice in ((CHOSEN, learned.choice), (TRUSTING, learned.trusting))
    ]
    frame = pd.concat([frame, *picked], ignore_index=True)
    frame["regret"] = 1 - frame[PRIMARY] / frame[PRIMARY].max()
    frame["harm"] = frame.gain < -frame.se
    return frame.assign(kind=world.kind)


def _truth_agreement(world: World, learned: Learned, test: Any) -> dict[str, float]:
    """Mean squared correlation with the noise-free effect on the 20 genes where it is largest, from pooled control."""
    effect, line = world.effect[test], world.line[test]
    pooled = np.stack([learned.references.pooled(one) for one in line])
    top = np.argsort(-np.abs(effect), axis=1)[:, :20]
    at = np.arange(len(top))[:, None]
    t = effect[at, top] - effect[at, top].mean(axis=1, keepdims=True)
    given = {m: p[test] for m, p in world.predictions.items()}
    control = world.control[test].astype(np.float32)
    answers = {
        name: combine_arrays(fit, given, control, references=learned.references, cell_line=line)
        for name, fit in learned.final.items()
        if name != "no_change"
    }
    found = {}
    for name, out in {**given, **answers}.items():
        p = (out - pooled)[at, top]
        p = p - p.mean(axis=1, keepdims=True)
        r2 = (p * t).sum(axis=1) ** 2 / np.maximum((p**2).sum(axis=1) * (t**2).sum(axis=1), 1e-12)
        found[name] = float(r2.mean())
    return found


def summary(frames: pd.DataFrame) -> pd.DataFrame:
    """One row per answer over all worlds, best regret first; base models differ between worlds and are left out."""
    rows = frames[~frames.answer.str.fullmatch(r"m[0-9]+")]
    table = rows.groupby("answer").agg(
        worlds=("regret", "size"),
        regret=("regret", "mean"),
        worst_regret=("regret", "max"),
        harm=("harm", "mean"),
        gain=("gain", "mean"),
        pooled=(PRIMARY, "mean"),
        own=("r2_top20@own", "mean"),
        centroid=("pearson_all@centroid", "mean"),
        rmse=("rmse_all@own", "mean"),
        truth=("truth", "mean"),
    )
    return table.sort_values("regret")


def by_kind(frames: pd.DataFrame, answer: str) -> pd.DataFrame:
    """What ships, by kind of world."""
    chosen = frames[frames.answer == answer]
    return chosen.groupby("kind").agg(
        worlds=("regret", "size"),
        regret=("regret", "mean"),
        harm=("harm", "mean"),
        gain=("gain", "mean"),
        shipped=("chosen", lambda s: ", ".join(f"{n} x{c}" for n, c in s.value_counts().items())),
    )


def leak(frames: pd.DataFrame) -> pd.DataFrame:
    """Flexible combiners: gain on the test, and what the out-of-fold score says of it with and without nested fits."""
    rows = frames[frames.oof_nested.notna() & ~frames.answer.isin([CHOSEN, TRUSTING])]
    means = rows.groupby("answer")[["gain", "oof_nested", "oof_partial"]].mean()
    return means.assign(
        nested_less_test=means.oof_nested - means.gain, partial_less_test=means.oof_partial - means.gain
    )


def direct_against_squared(frames: pd.DataFrame) -> pd.DataFrame:
    """By kind of world, what optimising the metric does against squared error: differences to the simplex answer."""
    columns = {PRIMARY: "pooled", "r2_top20@own": "own", "truth": "truth"}
    wide = frames.pivot_table(index=["kind", "world"], columns="answer", values=list(columns))
    parts = {
        f"{name}: {short}": (wide[metric][name] - wide[metric]["simplex"]).groupby("kind").mean()
        for name in ("direct_pooled", "direct_signed", "direct_own", "nonneg")
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


def report(every: pd.DataFrame, head: str) -> str:
    """All tables as printed."""
    return "\n\n".join(
        [
            head,
            markdown(summary(every)),
            "What ships, by kind of world:",
            markdown(by_kind(every, CHOSEN)),
            "What would ship if the out-of-fold scores of flexible combiners were taken from ordinary cross-fits:",
            markdown(by_kind(every, TRUSTING)),
            "Flexible combiners: gain over the best single model on the test, and as the out-of-fold rows have it:",
            markdown(leak(every)),
            "Direct on the metric, and squared error with a free scale (nonneg), less the simplex on squared error:",
            markdown(direct_against_squared(every)),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=216)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first world, to share a run out")
    parser.add_argument("--stress", choices=sorted(STRESS), default=None, help="worlds of this kind instead")
    parser.add_argument("--out", type=Path, default=None, help="also write the tables to this Markdown file")
    parser.add_argument("--raw", type=Path, default=None, help="also write every answer of every world to this CSV")
    parser.add_argument("--merge", type=Path, nargs="+", default=None, help="tables of these CSVs; nothing is run")
    args = parser.parse_args()
    started, frames = time.perf_counter(), list[pd.DataFrame]()
    kinds = sorted(KINDS) if args.stress is None else [args.stress]
    if args.merge:
        every = pd.concat([pd.read_csv(path) for path in args.merge], ignore_index=True)
        head = f"{every.world.nunique()} worlds, seeds from {args.seed}"
    else:
        for i in range(args.first, args.first + args.worlds):
            world = make_world(kinds[i % len(kinds)], args.seed + i // len(kinds))
            frames.append(judge_world(world, learn(world)).assign(world=i))
        every = pd.concat(frames, ignore_index=True)
        head = f"{args.worlds} worlds, seeds from {args.seed}, in {time.perf_counter() - started:.0f} s"
    text = report(every, f"{head}; primary {PRIMARY}; test of 200 new drugs.")
    print(text)
    if args.out is not None:
        args.out.write_text(text + "\n", encoding="utf-8")
    if args.raw is not None:
        every.to_csv(args.raw, index=False)


if __name__ == "__main__":
    main()
