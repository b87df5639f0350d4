"""Models without nested fits (files, arrays): what ships if flexible combiners are barred, trusted or truly nested?

    python benchmarks/user_splits.py DATA SPLITS
    python benchmarks/partial_nesting.py SPLITS --out partial.csv
    python benchmarks/partial_nesting.py --first 300 --worlds 60 --out worlds.csv

On the splits of ``user_splits.py`` (seeds 700 on), or in simulated worlds of every kind (of those numbers nobody had
looked at). ``nested``: nested fits of every base model, as in a study.
``barred``: none, and flexible combiners may not ship, the rule for added models and arrays. ``trusted``: none, and they
may. Gains are over the best single model out of fold, on the primary metric of ``against_users.py``, out of fold and on
the test, which is read once; ``beyond`` counts losses beyond the 95 % interval.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from against_users import N_FOLDS, NO_HARM, POOLED, Split, real_splits, simulated

from pertstack.design.metric_names import parse_metric
from pertstack.reduce.references import References
from pertstack.reduce.scoring.calibration import AUTO_ORDER, first_that_passes
from pertstack.reduce.scoring.controls import calibrate_source
from pertstack.reduce.scoring.score import score
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.choose import choose
from pertstack.stacking.combiner import FLEXIBLE
from pertstack.stacking.constants import constant_models
from pertstack.stacking.nested import fit_nested
from pertstack.stacking.panel import Panel
from pertstack.stacking.registry import COMBINERS


def judge(split: Split) -> list[dict[str, Any]]:
    """Three choices from the same rows, and what each gains on the test."""
    development = split.folds >= 0
    source = split.source(split.predictions, development)
    references = References.collect(source)
    calibration = calibrate_source(source, references, [*AUTO_ORDER, *NO_HARM])
    primary = parse_metric(first_that_passes(AUTO_ORDER, calibration) or POOLED).name
    ranges = {m: c.range for m, c in calibration.items() if c.range is not None}
    top = min(80, split.treated.shape[1])
    reduction = reduce_blocks(source, references, k=top)
    level_one = {}
    for k in range(N_FOLDS):
        rows = split.source(split.nested[k], development & (split.folds != k))
        level_one[k] = (reduce_blocks(rows, references, k=top), rows)
    names = [n for n, c in COMBINERS.items() if c.default]
    given = {"source": source, "references": references, "primary": primary}
    nested = fit_nested(names, reduction, **given, level_one=level_one)
    partial = fit_nested([n for n in names if COMBINERS[n].family in FLEXIBLE], reduction, **given)
    hopeful = replace(nested, fits={**nested.fits, **partial.fits})
    metrics = tuple(dict.fromkeys(parse_metric(m).name for m in (primary, *NO_HARM)))
    tables = {
        n: score(source, f.combines(), references, metrics=metrics)
        for n, f in (("nested", nested), ("partial", hopeful))
    }
    constants = constant_models(reduction)
    barred = replace(hopeful, settings={**hopeful.settings, "nesting": "partial"})
    usual = {"ranges": ranges, "constants": constants}
    choices = {
        "nested": choose(tables["nested"], nested, **usual),
        "barred": choose(tables["partial"], barred, **usual),
        "trusted": choose(tables["partial"], barred, **usual, trust_partial=True),
    }
    test = split.folds < 0
    asked = split.source(split.predictions, test, "test")
    combines = {n: f.combine for n, f in nested.final.items() if n != "no_change"}
    found = score(asked, combines, references.with_controls_of(asked), metrics=(primary,))
    rivals = [n for n in found.names if n in nested.final]
    fresh = Panel.of(found, rivals, "best_single", metrics=[primary], level=0.025).gains
    facts = {"split": split.name, "kind": split.kind, "primary": primary}
    sign = 1 if parse_metric(primary).higher_is_better else -1

    def line(rule: str, name: str, table: Any) -> dict[str, Any]:
        inside = sign * (table.mean(name, primary).value - table.mean("best_single", primary).value)
        gain = fresh[name][0]
        return {
            **facts,
            "rule": rule,
            "name": name,
            "oof": inside,
            "test": gain.value,
            "se": gain.se,
            "beyond": gain.upper < 0,
        }

    rows = [line(r, c.chosen, tables["nested" if r == "nested" else "partial"]) for r, c in choices.items()]
    for name in partial.names:
        if name in rivals and name in tables["partial"].names:
            rows += [line(f"each, {n}", name, tables[n]) for n in ("nested", "partial")]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("splits", type=Path, nargs="?")
    parser.add_argument("--first", type=int, default=300)
    parser.add_argument("--worlds", type=int, default=60)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for split in real_splits(args.splits) if args.splits else simulated(args.first, args.worlds):
        rows += judge(split)
        pd.DataFrame(rows).to_csv(args.out, index=False)
        print(split.name, {r["rule"]: r["name"] for r in rows if r["split"] == split.name}, flush=True)
    print(tables(pd.DataFrame(rows)))


def tables(frame: pd.DataFrame) -> str:
    """What ships by rule, over all and by kind, and every flexible combiner."""
    frame = frame.assign(harm=frame.test < -frame.se)
    columns = {
        "splits": ("test", "size"),
        "oof": ("oof", "mean"),
        "test": ("test", "mean"),
        "harm > 1 s.e.": ("harm", "sum"),
        "beyond 95 %": ("beyond", "sum"),
    }
    each = frame.rule.str.startswith("each")
    parts = [
        frame[~each].groupby("rule").agg(**columns),
        frame[~each].groupby(["kind", "rule"]).agg(**columns),
        frame[each].groupby(["name", "rule"]).agg(**columns),
    ]
    return "\n\n".join(part.round(4).to_string() for part in parts)


if __name__ == "__main__":
    main()
