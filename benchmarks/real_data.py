"""The four real studies behind docs/real-data.md: run, print the leaderboards as Markdown, as found.

    python benchmarks/real_data.py DATA_FOLDER WORK_FOLDER [--networks] [--workers 2] [--seed 0]

DATA_FOLDER holds l1000_single_line/, l1000_multicell/ and norman_doubles/. What is there already in WORK_FOLDER is
looked up.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pertstack._base.errors import StackingError
from pertstack.design.metric_labels import metric_label
from pertstack.fit.registry import available, get_row
from pertstack.study.study import Study
from pertstack.verdict.words import interval, number

BASELINES = (
    "mean_treated",
    "mean_treated_cell_line",
    "mean_shift",
    "per_gene_linear",
    "perturbation_knn",
    "ridge",
    "ridge_treated",
    "low_rank",
    "low_rank_treated",
    "mlp",
    "additive",
)
NETWORKS = (
    "Biolord",
    "MultiDCP",
    "MultiDCP_CheMoE",
    "PDGrapher",
    "ChemCPA",
    "ChemCPASupervised",
    "scGen",
    "TranSiGen",
    "TranSiGen_SparseMoE",
    "TranSiGen_BalancedMoE",
    "CheMoE",
)
STUDIES = {
    "ht115": ("l1000_single_line/ht115_cpc006.h5ad", {"control_layer": "paired_control"}),
    "a375": ("l1000_single_line/a375_ljp005.h5ad", {}),
    "pairs": ("l1000_multicell/pairs_14compounds_43lines.h5ad", {"group": "cell_line"}),
    "norman": ("norman_doubles/pseudobulk.h5ad", {}),
}
COLUMNS = ("r2_top20@own", "r2_top20@pooled", "pearson_all@centroid", "rmse_all@own")


def run_study(root: Path, data: Path, choices: dict, models: tuple[str, ...], workers: int) -> tuple[Study, list[str]]:
    """Everything that is missing; models whose needs are not met are named with the reason."""
    study = Study.open(root) if root.exists() else Study.create(root, data=data, **choices)
    notes, runnable = [], []
    if missing := [f for f in study.findings() if f.code == "structures_missing"]:
        notes.append(f'{missing[0].message} The networks mask them (`on_missing_structure = "mask"` in models.toml).')
        tables = "".join(f'[{name}]\non_missing_structure = "mask"\n\n' for name in NETWORKS if name != "PDGrapher")
        (root / "models.toml").write_text(f'profile = "fast"\n\n{tables}')
    for name in models:
        why = available(get_row(name), study.folder.side, study.folder.samples)
        if why is None:
            runnable.append(name)
        else:
            notes.append(f"{name} was not run: it {why}.")
    profile = None if (root / "models.toml").exists() else "fast"
    by_model: dict[str, list] = {}
    for result in study.run(runnable, workers=workers, profile=profile):
        by_model.setdefault(result.job.model, []).append(result)
    notes += [f"{name} failed in {len(jobs)} jobs; the first: {jobs[0].error}" for name, jobs in by_model.items()]
    return study, notes


def markdown(study: Study) -> str:
    """The test leaderboard as a Markdown table, with the footer that belongs under it."""
    board = study.leaderboard()
    lines = [f"**{board.headline}**", "", board.footer(), ""]
    lines += [
        "| | name | kind | " + " | ".join(metric_label(c) for c in COLUMNS) + " | gain over best single | n valid / n |"
    ]
    lines += ["|---|---|---|" + "---|" * (len(COLUMNS) + 2)]
    for row in board.ranked():
        cells = [row.score(c) for c in COLUMNS]
        gain, main = row.versus(board.primary), row.score(board.primary)
        told = f"{number(gain.value, sign=True)} {interval(gain.ci, sign=True)}" if gain else ""
        values = [f"{number(c.value)} {interval(c.ci)}".strip() if c else "" for c in cells]
        lines.append(
            f"| {'▸' if row.name == board.chosen else ''} | {row.name} | {row.kind} | {' | '.join(values)} | {told} "
            f"| {main.n_valid} / {main.n} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--networks", action="store_true", help="also the ten networks, fast profile")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the fold plan and the fits: another seed, another test")
    parser.add_argument("--only", choices=list(STUDIES))
    args = parser.parse_args()
    models = (*BASELINES, *(NETWORKS if args.networks else ()))
    for name, (file, choices) in STUDIES.items():
        if args.only not in (None, name):
            continue
        print(f"\n## {name}: {file}\n")
        try:
            study, notes = run_study(
                args.work / name, args.data / file, {**choices, "seed": args.seed}, models, args.workers
            )
        except StackingError as error:
            print(f"Not run: {error}")
            continue
        print(markdown(study))
        print()
        for note in notes:
            print(f"- {note}")


if __name__ == "__main__":
    main()
