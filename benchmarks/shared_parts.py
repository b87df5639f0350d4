"""Intervals over combinations that share parts, where the truth is known (docs/lab/doubles.md).

    OMP_NUM_THREADS=1 python benchmarks/shared_parts.py --seed 20 --worlds 1000

The score of a double is the sum of an effect of each of its genes and one of its own, so two doubles that share a gene
have correlation ``rho``. Genes of a world are drawn; the truth is the mean over endless doubles of endless genes.
Counted: how often the 95 % interval holds it with groups as apart and with shared parts counted, for the mean of one
model (``score``), for the difference to a model named beforehand (``difference``: both models' scores share half of
the gene effects) and for that to the best of four models, all as good (``best``; its lower end is wrong by design
nearly never, so the share of false claims is printed beside). ``hubs``: half of the doubles are of four genes.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from typing import Any

import numpy as np

from pertstack._stats.intervals import difference_to_best, difference_to_fixed, interval

RESAMPLES = 600
WORLDS = [(g, n, rho, False) for g, n in ((14, 9), (20, 15), (26, 31), (40, 60), (40, 120)) for rho in (0.0, 0.2, 0.35)]
WORLDS += [(26, 31, 0.2, True), (40, 60, 0.2, True)]


def world(rng: np.random.Generator, n_genes: int, n: int, rho: float, *, hubs: bool) -> tuple[Any, Any, dict[str, Any]]:
    """Scores (5 models, n doubles), names of doubles, their parts."""
    genes = [f"g{i:02d}" for i in range(n_genes)]
    pairs = list(combinations(genes, 2))
    order = [pairs[i] for i in rng.permutation(len(pairs))]
    if hubs:
        central = [p for p in order if p[0] in genes[:4]]
        order = [*central[: n // 2], *(p for p in order if p not in central[: n // 2])]
    chosen = order[:n]
    common = {g: rng.normal(0, (rho / 2) ** 0.5) for g in genes}
    own = {g: rng.normal(0, (rho / 2) ** 0.5, 5) for g in genes}
    rest = (1 - 2 * rho) ** 0.5
    rows = [common[a] + common[b] + own[a] + own[b] + rng.normal(0, rest, 5) for a, b in chosen]
    names = [f"{a}+{b}" for a, b in chosen]
    return np.array(rows).T, np.array(names), dict(zip(names, chosen, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--worlds", type=int, default=1000)
    args = parser.parse_args()
    print("| genes, doubles, rho | counted as | score | width | difference | best | claims a gain |")
    print("|---|---|---|---|---|---|---|")
    for n_genes, n, rho, hubs in WORLDS:
        rng = np.random.default_rng([args.seed, n_genes, n, int(100 * rho), hubs])
        held = {kind: np.zeros(4) for kind in ("apart", "alike")}
        width: dict[str, list[float]] = {kind: [] for kind in held}
        for _ in range(args.worlds):
            values, names, parts = world(rng, n_genes, n, rho, hubs=hubs)
            for kind in held:
                how: dict[str, Any] = {"resamples": RESAMPLES, "parts": parts if kind == "alike" else None}
                one = interval(values[0], names, rng=np.random.default_rng(0), **how)
                two = difference_to_fixed(values[0], values[1], names, rng=np.random.default_rng(0), **how)
                pool = np.array([False, True, True, True, True])
                best = difference_to_best(values, pool, names, rng=np.random.default_rng(0), rows=[0], **how)[0]
                held[kind] += [*(e.lo <= 0 <= e.hi for e in (one, two, best)), best.lo > 0]
                width[kind].append(one.hi - one.lo)
        for kind, counts in held.items():
            score, difference, best_held, claims = counts / args.worlds
            print(
                f"| {n_genes}, {n}, {rho}{', hubs' if hubs else ''} | {kind} | {score:.3f} "
                f"| {np.median(width[kind]):.3f} "
                f"| {difference:.3f} | {best_held:.3f} | {claims:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
