"""What ships after the look: settled against the best single model on the test, or between what was named before it.

    python benchmarks/between_named.py --worlds 100 --first 380 --drugs 20 --out named.csv

Worlds of ``against_users``: combinations are learned and one is chosen on development rows; a verdict is read on the
first test drugs, once by either rule; what either ships is scored on all other test drugs, which nothing has seen.
``gain``: primary metric there of what the new rule ships less that of what the old one ships, where they differ.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from against_users import N_FOLDS, POOLED, simulated

from pertstack.design.metric_names import DEFAULT_PANEL, parse_metric
from pertstack.reduce.references import References
from pertstack.reduce.scoring.calibration import AUTO_ORDER, first_that_passes
from pertstack.reduce.scoring.controls import calibrate_source
from pertstack.reduce.scoring.score import score
from pertstack.reduce.sums.one_pass import reduce_blocks
from pertstack.stacking.choose import choose
from pertstack.stacking.constants import constant_models
from pertstack.stacking.nested import fit_nested
from pertstack.stacking.panel import NO_HARM, Panel
from pertstack.stacking.registry import COMBINERS
from pertstack.verdict.judge import judge
from pertstack.verdict.resampling import GroupResampling
from pertstack.verdict.setting import Setting


def learned(split: Any) -> tuple[Any, Any, References]:
    """Nested fits, the choice, references."""
    development = split.folds >= 0
    source = split.source(split.predictions, development)
    references = References.collect(source)
    calibration = calibrate_source(source, references, [*AUTO_ORDER, *NO_HARM])
    primary = first_that_passes(AUTO_ORDER, calibration) or POOLED
    reduction = reduce_blocks(source, references, k=80)
    level_one = {}
    for k in range(N_FOLDS):
        rows = split.source(split.nested[k], development & (split.folds != k))
        level_one[k] = (reduce_blocks(rows, references, k=80), rows)
    names = [n for n, c in COMBINERS.items() if c.default]
    nested = fit_nested(names, reduction, source=source, references=references, primary=primary, level_one=level_one)
    metrics = tuple(dict.fromkeys(parse_metric(m).name for m in (primary, *NO_HARM)))
    table = score(source, nested.combines(), references, metrics=metrics)
    ranges = {m: c.range for m, c in calibration.items() if c.range is not None}
    return nested, choose(table, nested, ranges=ranges, constants=constant_models(reduction)), references


def both_rules(split: Any, n_drugs: int) -> dict[str, Any]:
    """What either rule ships, and what the difference is worth on other drugs."""
    nested, choice, references = learned(split)
    test = split.folds < 0
    order = {d: i for i, d in enumerate(dict.fromkeys(split.drug[test]))}
    rank = np.array([order.get(d, -1) for d in split.drug])
    tables = []
    for rows in (test & (rank < n_drugs), test & (rank >= n_drugs)):
        source = split.source(split.predictions, rows, "test")
        combines = {n: f.combine for n, f in nested.final.items() if n != "no_change"}
        metrics = tuple(dict.fromkeys([parse_metric(choice.primary).name, *DEFAULT_PANEL]))
        tables.append(score(source, combines, references.with_controls_of(source), metrics=metrics))
    kinds: dict[str, Any] = {n: "base" if n in split.predictions else "combiner" for n in tables[0].names}
    kinds |= {n: "reference" for n in ("best_single", "no_change") if n in kinds}
    alone = choice.best_single
    setting = Setting(kinds, choice.primary, choice.chosen, alone=alone, test_looks=1)
    found = {
        label: judge(tables[0], None, replace(setting, between_named=new), resampling=GroupResampling(0)).decision
        for label, new in (("old", False), ("new", True))
    }
    fact = {"split": split.name, "kind": split.kind, "chosen": choice.chosen, "alone": alone}
    fact |= {f"{label}_ships": d.ships for label, d in found.items()}
    ships = [found["new"].ships, found["old"].ships]
    if ships[0] == ships[1]:
        return fact
    panel = Panel.of(tables[1], ships, ships[1], metrics=[choice.primary], level=0.025)
    gain = panel.gains[ships[0]][0]
    return fact | {"gain": gain.value, "se": gain.se}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=100)
    parser.add_argument("--first", type=int, default=380)
    parser.add_argument("--drugs", type=int, default=20, help="of the test, on which the verdict is read")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = []
    for split in simulated(args.first, args.worlds):
        rows.append(both_rules(split, args.drugs))
        pd.DataFrame(rows).to_csv(args.out, index=False)
        print(*rows[-1].values(), flush=True)
    differ = pd.DataFrame([r for r in rows if "gain" in r])
    print(f"{len(rows)} worlds, {len(differ)} shipped otherwise")
    if len(differ):
        print(f"mean gain {differ.gain.mean():+.4f}, below zero in {(differ.gain < 0).sum()}")


if __name__ == "__main__":
    main()
