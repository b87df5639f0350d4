"""The demo's study on seeds nobody has looked at: does what ships out of fold hold on the test? One line a seed.

    python benchmarks/fresh_seeds.py WORK_FOLDER --seeds 101 102 103 [--workers 2]

Every test is opened once, by this script, after everything is fixed. A seed that was looked at is used up: take others.
Printed as Markdown for docs/fresh-seeds.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pertstack.cli.demo import run_demo
from pertstack.design.metric_labels import metric_label
from pertstack.design.metric_names import parse_metric
from pertstack.study.study import Study
from pertstack.verdict.words import interval, number

SHOWN = ("r2_top20@own", "r2_top20@pooled", "pearson_all@centroid", "rmse_all@own")


def line(seed: int, study: Study) -> str:
    """One seed as a line of the table: what shipped, against the best single model of the test."""
    board = study.leaderboard()
    row = next(r for r in board.ranked() if r.name == board.chosen)
    cells = []
    for metric in SHOWN:
        versus = row.versus(parse_metric(metric).name)
        cells.append(f"{number(versus.value, sign=True)} {interval(versus.ci, sign=True)}" if versus else "")
    said = board.headline.rsplit(": ", 1)[-1].rstrip(".")
    return f"| {seed} | {board.chosen} | {board.best_single} | {' | '.join(cells)} | {said} | {board.test_looks} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    metrics = " | ".join(f"gain, {metric_label(m)}" for m in SHOWN)
    print(f"| seed | chosen out of fold | best single on the test | {metrics} | verdict | looks |")
    print("|---|---|---|" + "---|" * (len(SHOWN) + 2))
    for seed in args.seeds:
        print(line(seed, run_demo(args.work / f"seed{seed}", workers=args.workers, seed=seed)), flush=True)


if __name__ == "__main__":
    main()
