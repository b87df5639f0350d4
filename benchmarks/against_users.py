"""What ships against what a user would do instead: forty real splits with two sets of base models, 120 worlds.

    python benchmarks/user_splits.py DATA SPLITS                         # the real splits, once
    python benchmarks/against_users.py --splits SPLITS --out against.csv
    python benchmarks/against_users.py --merge against.csv               # the tables

Alternatives: the best single model out of fold; the plain mean; the simplex on squared error; scikit-learn's RidgeCV on
all genes at once, and gene by gene; greedy selection on pooled R2 Top-20. Everything is learned on development rows and
read once on the test. Seeds were fixed beforehand: 700 to 719 for the real splits, 7100 on for the worlds
(``worlds_make``).
``gain`` is over the best single model out of fold, in units of the metric, positive is better; ``harm`` is a loss
beyond one standard error (beyond the 95 % interval in brackets) between groups.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.linear_model import RidgeCV
from user_splits import N_FOLDS, SETS
from worlds import markdown
from worlds_make import KINDS, NOISY, STRESS, make_world

from pertstack.design.metric_names import parse_metric
from pertstack.predictions.sources.array_source import ArraySource
from pertstack.reduce.references import References
from pertstack.reduce.scoring.calibration import AUTO_ORDER, first_that_passes, without_vote
from pertstack.reduce.scoring.controls import calibrate_source
from pertstack.reduce.scoring.score import score
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.choose import choose
from pertstack.stacking.constants import constant_models
from pertstack.stacking.nested import fit_nested
from pertstack.stacking.panel import NO_HARM, Panel
from pertstack.stacking.registry import COMBINERS

POOLED = "r2_top20@pooled"
CLEAN = ("clean pearson_all@centroid", "clean rmse_all@own")
"""Worlds only: against the noise-free truth."""
SHOWN = (POOLED, "pearson_all@centroid", "rmse_all@own")
ALTERNATIVES = ("best_single", "mean", "simplex", "ridge_cv", "ridge_cv_per_gene", "greedy_r2")
PENALTIES = tuple(10.0 ** np.arange(-3, 6))
FIRST_WORLD = 7100


@dataclass
class Split:
    """Arrays of development and test rows; ``folds`` is -1 on test rows, ``nested[k]`` NaN on fold k."""

    name: str
    kind: str
    predictions: dict[str, Any]
    nested: dict[int, dict[str, Any]]
    treated: Any
    control: Any
    drug: Any
    line: Any
    folds: Any
    group: Any
    obs: pd.DataFrame
    clean: tuple[Any, Any] | None = None  # treated and control without noise, where they are known

    def source(self, predictions: dict[str, Any], rows: Any, role: str = "development") -> ArraySource:
        fold = [None if f < 0 else int(f) for f in self.folds[rows]]
        return ArraySource(
            {m: p[rows] for m, p in predictions.items()},
            self.treated[rows],
            self.control[rows],
            folds=fold,
            perturbation=self.drug[rows],
            cell_line=self.line[rows],
            role=role,
            group=self.group[rows],
            sample_ids=[f"s{i}" for i in np.flatnonzero(rows)],
            obs=self.obs[rows],
        )


def real_splits(folder: Path) -> Any:
    """Every stored split with both sets of base models."""
    for path in sorted(folder.glob("*_7??.npz"), key=lambda p: (p.stem[-3:], p.stem)):
        with np.load(path) as z:
            arrays = {k: z[k] for k in z.files}
        known = [m for m in SETS["nine"] if f"{m}/oof" in arrays]
        obs = pd.DataFrame({"plate": arrays["plate"]} if "plate" in arrays else {}, index=range(len(arrays["drug"])))
        obs["condition"] = arrays["condition"]
        for label, wanted in SETS.items():
            models = [m for m in wanted if m in known]
            yield Split(
                f"{path.stem}/{label}",
                path.stem[:-4],
                {m: arrays[f"{m}/oof"] for m in models},
                {k: {m: arrays[f"{m}/without_{k}"] for m in models} for k in range(N_FOLDS)},
                arrays["treated"],
                arrays["control"],
                arrays["drug"],
                arrays["line"],
                arrays["folds"],
                arrays["group"],
                obs,
            )


def simulated(first: int, count: int, noisy: bool = False) -> Any:
    """Worlds of every kind in turn."""
    kinds = sorted(NOISY) if noisy else [*sorted(KINDS), *sorted(STRESS)]
    for i in range(first, first + count):
        w = make_world(kinds[i % len(kinds)], FIRST_WORLD + i // len(kinds))
        obs = pd.DataFrame(index=range(len(w.drug)))
        arrays = (w.predictions, w.nested, w.treated, w.control, w.drug, w.line, w.folds, w.drug, obs)
        yield Split(f"world_{i}", w.kind, *arrays, clean=(w.basal + w.effect, w.basal))


def judge(split: Split) -> list[dict[str, Any]]:
    """Learn, choose, and look at the test once."""
    started, development = time.perf_counter(), split.folds >= 0
    source = split.source(split.predictions, development)
    references = References.collect(source)
    calibration = calibrate_source(source, references, [*AUTO_ORDER, *NO_HARM])
    primary = first_that_passes(AUTO_ORDER, calibration) or POOLED
    ranges = {m: c.range for m, c in calibration.items() if c.range is not None}
    top = min(80, split.treated.shape[1])
    reduction = reduce_blocks(source, references, k=top)
    level_one = {}
    for k in range(N_FOLDS):
        rows = split.source(split.nested[k], development & (split.folds != k))
        level_one[k] = (reduce_blocks(rows, references, k=top), rows)
    constants = constant_models(reduction)
    names = ["best_informed"] if constants else []
    names += [n for n, c in COMBINERS.items() if c.default]
    nested = fit_nested(names, reduction, source=source, references=references, primary=primary, level_one=level_one)
    metrics = tuple(dict.fromkeys(parse_metric(m).name for m in (primary, *NO_HARM)))
    table = score(source, nested.combines(), references, metrics=metrics)
    choice = choose(table, nested, ranges=ranges, constants=constants, rule="safe_gain")
    strict = choose(table, nested, ranges=ranges, constants=constants, rule="no_harm_ladder")
    no_vote = dict.fromkeys(without_vote(calibration, primary), "")
    voting = choose(table, nested, ranges=ranges, constants=constants, rule="no_harm_ladder", no_vote=no_vote)
    choices = {"SHIPPED": choice, "STRICT": strict, "VOTING": voting}
    return test_rows(split, references, nested, choices, primary, calibration, started)


def test_rows(split, references, nested, choices, primary, calibration, started):  # type: ignore[no-untyped-def]
    """One row per answer and metric."""
    test = split.folds < 0
    learned = {**ridge_cv(split, references)}
    given = {**split.predictions, **learned}
    source = replace(split, predictions=given).source(given, test, "test")
    known = references.with_controls_of(source)
    wanted = {*(c.chosen for c in choices.values()), *ALTERNATIVES}
    combines = {n: nested.final[n].combine for n in wanted if n in nested.final}
    metrics = tuple(dict.fromkeys(parse_metric(m).name for m in (primary, *SHOWN)))
    tables = {"": score(source, combines, known, metrics=metrics)}
    if split.clean is not None:
        noiseless = replace(split, treated=split.clean[0], control=split.clean[1]).source(given, test, "test")
        clean = references.with_controls_of(noiseless)
        tables["clean "] = score(noiseless, combines, clean, metrics=("pearson_all@centroid", "rmse_all@own"))
    names = [n for n in dict.fromkeys([*combines, *learned]) if n in tables[""].names]
    rows = []
    for label, metric in [(label, m) for label, t in tables.items() for m in t.metrics]:
        table = tables[label]
        panel = Panel.of(table, names, "best_single", metrics=[metric], level=0.025)
        for name in names:
            gain = panel.gains[name][0]
            fact = {
                "metric": f"{label}{metric}",
                "value": table.mean(name, metric).value,
                "gain": gain.value,
                "se": gain.se,
                "upper": gain.upper,
            }
            labels = [name] if name in ALTERNATIVES else []
            labels += [which for which, choice in choices.items() if name == choice.chosen]
            rows += [{**fact, "answer": answer} for answer in labels]
    cal = calibration[POOLED]
    facts = {
        "split": split.name,
        "kind": split.kind,
        "primary": primary,
        "chosen": choices["SHIPPED"].chosen,
        "strict": choices["STRICT"].chosen,
        "voting": choices["VOTING"].chosen,
        "no_vote": " ".join(choices["VOTING"].no_vote),
        **{f"{k.lower()}_constant": c.constant for k, c in choices.items()},
        "constant": choices["SHIPPED"].constant,
        "bds": cal.bds,
        "drf": cal.drf,
        "groups": len(set(split.group[test])),
        "seconds": round(time.perf_counter() - started, 1),
    }
    return [{**facts, **row} for row in rows]


def ridge_cv(split: Split, references: References) -> dict[str, Any]:
    """scikit-learn's RidgeCV on out-of-fold changes against the pooled control: all genes at once, and gene by gene."""
    pooled = np.zeros(split.treated.shape)
    known = references.with_controls_of(split.source(split.predictions, split.folds < 0, "test"))
    for line in np.unique(split.line):
        pooled[split.line == line] = known.pooled(str(line))
    models = list(split.predictions)
    x = np.stack([split.predictions[m] - pooled for m in models], axis=2)  # (n, n_genes, M)
    y, fit, ask = split.treated - pooled, split.folds >= 0, split.folds < 0
    whole, each = np.full(y.shape, np.nan, np.float32), np.full(y.shape, np.nan, np.float32)
    pick = np.random.default_rng(0).choice(fit.sum() * y.shape[1], min(fit.sum() * y.shape[1], 200_000), replace=False)
    flat = RidgeCV(PENALTIES).fit(x[fit].reshape(-1, len(models))[pick], y[fit].reshape(-1)[pick])
    whole[ask] = flat.predict(x[ask].reshape(-1, len(models))).reshape(-1, y.shape[1]) + pooled[ask]
    for g in range(y.shape[1]):
        one = RidgeCV(PENALTIES).fit(x[fit, g], y[fit, g])
        each[ask, g] = one.predict(x[ask, g]) + pooled[ask, g]
    return {"ridge_cv": whole, "ridge_cv_per_gene": each}


def summary(frame: pd.DataFrame, metric: str | None) -> pd.DataFrame:
    """Mean gain of every answer with its standard error over splits, harm and its upper bound; None: each primary."""
    rows = frame[frame.metric == (frame.primary if metric is None else metric)]
    found = {}
    for name in ("SHIPPED", "STRICT", "VOTING", *ALTERNATIVES):
        part = rows[rows.answer == name]
        if part.empty:
            continue
        n, harm = len(part), int((part.gain < -part.se).sum())
        sure = int((part.upper < 0).sum())
        bound = float(stats.beta.ppf(0.95, sure + 1, n - sure)) if sure < n else 1.0
        found[name] = {
            "splits": n,
            "mean value": part.value.mean(),
            "mean gain": part.gain.mean(),
            "s.e.": part.gain.std(ddof=1) / np.sqrt(n),
            "worst": part.gain.min(),
            "harm > 1 s.e.": f"{harm} of {n}",
            "harm beyond 95 %": f"{sure} of {n} (< {100 * bound:.0f} %)",
        }
    return pd.DataFrame(found).T


def tables(frame: pd.DataFrame) -> str:
    """All tables as printed: real and simulated, then by kind."""
    out = []
    real = ~frame.split.str.startswith("world_")
    for label, part in (("Real splits", frame[real]), ("Worlds", frame[~real])):
        if part.empty:
            continue
        for metric, words in ((None, "the calibrated primary"), *((m, m) for m in (*SHOWN, *CLEAN))):
            if metric is not None and not (part.metric == metric).any():
                continue
            out.append(f"**{label}, {words}** ({part.split.nunique()})\n\n{plain(summary(part, metric))}")
        lines = []
        for kind, some in part.groupby("kind"):
            one = some[(some.metric == some.primary) & (some.answer == "SHIPPED")]
            gains = {
                n: some[(some.metric == POOLED) & (some.answer == n)].gain.mean() for n in ("SHIPPED", *ALTERNATIVES)
            }
            ships = ", ".join(f"{k} x{v}" for k, v in one.chosen.value_counts().items())
            primaries = ", ".join(f"{k} x{v}" for k, v in one.primary.value_counts().items())
            best = max(gains, key=gains.get)  # type: ignore[arg-type]
            lines.append(
                {
                    "kind": kind,
                    "splits": len(one),
                    "gain": one.gain.mean(),
                    "pooled gain": gains["SHIPPED"],
                    "best on pooled": f"{best} {gains[best]:+.4f}",
                    "primary": primaries,
                    "ships": ships,
                    "constant": int(one.constant.sum()),
                }
            )
        out.append(f"**{label} by kind**\n\n{plain(pd.DataFrame(lines).set_index('kind'))}")
    return "\n\n".join(out)


def plain(table: pd.DataFrame) -> str:
    return markdown(table.map(lambda v: f"{v:+.4f}" if isinstance(v, float) else str(v)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=Path, default=None)
    parser.add_argument("--worlds", type=int, default=120)
    parser.add_argument("--first", type=int, default=0, help="number of the first world, to share a run out")
    parser.add_argument("--noisy", action="store_true", help="worlds with replicates, in which some metrics fail")
    parser.add_argument("--minutes", type=float, default=60, help="no further split is begun after this")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--merge", type=Path, nargs="+", default=None)
    args = parser.parse_args()
    if args.merge:
        print(tables(pd.concat([pd.read_csv(p) for p in args.merge], ignore_index=True)))
        return
    started = time.perf_counter()
    rows = pd.read_csv(args.out).to_dict("records") if args.out.exists() else []  # what is there is not run again
    done = {r["split"] for r in rows}
    splits = real_splits(args.splits) if args.splits else simulated(args.first, args.worlds, args.noisy)
    for split in splits:
        if split.name in done:
            continue
        if time.perf_counter() - started > 60 * args.minutes:
            print(f"stopped before {split.name}: {args.minutes} minutes are over", flush=True)
            break
        rows += judge(split)
        pd.DataFrame(rows).to_csv(args.out, index=False)
        print(split.name, rows[-1]["chosen"], rows[-1]["primary"], rows[-1]["seconds"], flush=True)


if __name__ == "__main__":
    main()
