"""New doubles of genes that no fitted double has: what ships against plain least squares (docs/lab/doubles.md).

    python benchmarks/doubles.py DATA_FOLDER WORK_FOLDER [--batches 0 1 2 3 4] [--group parts]
    python benchmarks/doubles.py DATA_FOLDER WORK_FOLDER --group parts --disjoint 1

From 75 measured doubles fifteen are the test, and every other double that shares a gene with them is left out; all
singles are support. Batch 0 takes the fifteen from doubles whose genes hardly occur in others, batches 1 to 4 grow from
a double drawn among the rest by adding the double that costs fewest. Ten base models, primary ``rmse_all``; the test is
opened once. ``--disjoint SEED``: five batches without a double in common, all 75, parted so that few doubles share
a gene with another batch. Plain least squares: sum of the singles, larger change, mean of the doubles fitted, without a
penalty or an intercept, learned on the doubles left for development. ``--group parts`` keeps genes apart in the folds
as well. RMSD per double over genes, then the mean.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd

from pertstack.study.new_rows.expected import expected_on
from pertstack.study.study import Study

SEED, FIFTEEN, EXCHANGES = 20261126, 15, 6000
MODELS = (
    "mean_treated",
    "mean_shift",
    "per_gene_linear",
    "perturbation_knn",
    "ridge",
    "low_rank",
    "additive",
    "mean_of_parts",
    "larger_change",
    "scaled_sum",
)


class Doubles:
    """Changes of singles and doubles, (n, n_genes), and which genes a double has."""

    def __init__(self, file: Path) -> None:
        self.data = anndata.read_h5ad(file)
        names = self.data.obs["perturbation"].astype(str).to_list()
        self.change = np.asarray(self.data.X, dtype=float) - np.asarray(self.data.layers["control"], dtype=float)
        self.single = {n.split("+")[0]: i for i, n in enumerate(names) if n.endswith("+ctrl")}
        self.genes = {i: frozenset(n.split("+")) for i, n in enumerate(names) if not n.endswith("+ctrl")}

    def sharing(self, chosen: list[int]) -> list[int]:
        """Other doubles that have a gene of the chosen ones."""
        taken = frozenset[str]().union(*(self.genes[i] for i in chosen))
        return [i for i in self.genes if i not in chosen and self.genes[i] & taken]

    def batch(self, number: int) -> list[int]:
        """Fifteen doubles to be held out."""
        rng, small = np.random.default_rng(SEED), [i for i in self.genes if len(self._connected(i)) < 20]
        first = [int(i) for i in rng.permutation(small)[:FIFTEEN]]
        if number == 0:
            return first
        chosen = [int(rng.permutation([i for i in self.genes if i not in small])[number - 1])]
        while len(chosen) < FIFTEEN:
            rest = [i for i in self.genes if i not in chosen]
            chosen.append(min(rest, key=lambda i: (len(self.sharing([*chosen, i])), i)))
        return chosen

    def disjoint(self, seed: int) -> list[list[int]]:
        """All doubles in five fifteens: random ones, two doubles exchanged where that leaves more for development."""
        rng = np.random.default_rng([SEED, seed])
        order = [int(i) for i in rng.permutation(list(self.genes))]
        batches = [order[k : k + FIFTEEN] for k in range(0, len(order), FIFTEEN)]
        lost = sum(len(self.sharing(b)) for b in batches)
        for _ in range(EXCHANGES):
            (a, b), (i, j) = rng.choice(len(batches), 2, replace=False), rng.integers(FIFTEEN, size=2)
            batches[a][i], batches[b][j] = batches[b][j], batches[a][i]
            now = sum(len(self.sharing(b)) for b in batches)
            if now <= lost:
                lost = now
            else:
                batches[a][i], batches[b][j] = batches[b][j], batches[a][i]
        return batches

    def _connected(self, start: int) -> list[int]:
        found = [start]
        while more := self.sharing(found):
            found += more
        return found

    def parts(self, i: int) -> list[Any]:
        """Sum of the singles, and gene by gene the larger of their changes."""
        both = np.stack([self.change[self.single[g]] for g in sorted(self.genes[i])])
        return [both.sum(axis=0), np.take_along_axis(both, np.abs(both).argmax(axis=0)[None], axis=0)[0]]

    def plain(self, development: list[int], test: list[int]) -> float:
        """RMSD of plain least squares."""
        x, y = [], []
        for i in development:
            others = self.change[[j for j in development if j != i]].mean(axis=0)
            x.append(np.stack([*self.parts(i), others], axis=1))
            y.append(self.change[i])
        weights = np.linalg.lstsq(np.concatenate(x), np.concatenate(y), rcond=None)[0]
        mean = self.change[development].mean(axis=0)
        left = [np.stack([*self.parts(i), mean], axis=1) @ weights - self.change[i] for i in test]
        return float(np.mean([np.sqrt(np.mean(e**2)) for e in left]))


def run(doubles: Doubles, number: int, test: list[int], *, work: Path, group: str) -> str:
    """One batch as a line of the table; its number is the seed of its study."""
    development = [i for i in doubles.genes if i not in {*test, *doubles.sharing(test)}]
    rows = {"support": list(doubles.single.values()), "test": test, "development": development}
    root, file, table = work / f"{group}{number}", work / f"b{number}.h5ad", work / f"b{number}.csv"
    if not root.exists():
        work.mkdir(parents=True, exist_ok=True)
        doubles.data[[i for some in rows.values() for i in some]].copy().write_h5ad(file)
        roles = [(doubles.data.obs_names[i], role) for role, some in rows.items() for i in some]
        pd.DataFrame(roles, columns=["sample_id", "role"]).to_csv(table, index=False)
        study = Study.create(root, data=file, plan=table, group=group, seed=number)
        study.change_plan({"primary": "rmse_all@own"})
        study.cross_fit(MODELS, engine="inline")
        study.stack()
    study = Study.open(root)
    board = study.verdict()
    ships = board.ships or board.chosen or ""
    of = {(r.name, r.split): r.score("rmse_all") for r in board.rows}
    asked = study.folder.samples[study.folder.samples["role"] == "test"]
    expected = expected_on(study.folder, asked, ships)
    own, fresh, chosen = of[ships, "oof"], of[ships, "test"], of[str(board.chosen), "test"]
    assert own is not None and own.ci is not None and fresh is not None and fresh.ci is not None and chosen is not None
    assert expected is not None and expected.ci is not None and expected.seen is not None
    return (
        f"| {number} | {len(development)} | {doubles.plain(development, test):.4f} | {board.chosen} {chosen.value:.4f} "
        f"| {ships} {fresh.value:.4f} [{fresh.ci[0]:.4f}, {fresh.ci[1]:.4f}] "
        f"| {own.value:.4f} [{own.ci[0]:.4f}, {own.ci[1]:.4f}] "
        f"| {expected.value:.4f} [{expected.ci[0]:.4f}, {expected.ci[1]:.4f}] "
        f"| [{expected.seen[0]:.4f}, {expected.seen[1]:.4f}] |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--group", default="perturbation", help="as pertstack init --group: perturbation, or parts")
    parser.add_argument("--batches", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--disjoint", type=int, default=None, help="seed of five batches without a double in common")
    args = parser.parse_args()
    doubles = Doubles(args.data / "norman_doubles/pseudobulk.h5ad")
    print(
        "| batch | doubles left | plain least squares | chosen out of fold | ships after the look | its own estimate "
        "| expected of the fifteen | what fifteen should show |"
    )
    print("|---|---|---|---|---|---|---|---|")
    if args.disjoint is None:
        tests = {number: doubles.batch(number) for number in args.batches}
    else:
        tests = {100 * args.disjoint + k: batch for k, batch in enumerate(doubles.disjoint(args.disjoint))}
    for number, test in tests.items():
        print(run(doubles, number, test, work=args.work, group=args.group), flush=True)


if __name__ == "__main__":
    main()
