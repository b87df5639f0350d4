"""Made-up but valid molecules: a scaffold with two positions, a linker, and a substituent on each position.

The parts a molecule is made of are what a structural fingerprint can see, so the simulated response can be driven by
them. Nothing here needs a chemistry package; tests check with one that every molecule is valid and all are different.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# Ring labels 5 and 6: the substituents use 1 and 2, and a label must not be used again while its ring is open.
SCAFFOLDS = (
    "c5cc({a})ncc5{b}",
    "c5c({a})cc6[nH]ccc6c5{b}",
    "c5nc({a})c6ccccc6c5{b}",
    "c5c({a})oc6cc({b})ccc56",
    "c5c({a})sc({b})n5",
    "n5c({a})nc(N)c({b})c5",
    "C5CN({a})CCN5{b}",
    "c5nn({a})c6c5cc({b})cc6",
    "O=C5N({a})Cc6cc({b})ccc56",
    "c5c({a})[nH]c({b})n5",
    "c5cc({a})cc6c5ncn6{b}",
    "O=c5cc({a})oc6cc({b})ccc56",
    "C5CC({a})CN(C5){b}",
    "c5cc({a})c6nccnc6c5{b}",
    "n5c({a})c6cc({b})sc6nc5",
    "O=C5NC(=O)C(S5)({a}){b}",
    "c5c({a})onc5{b}",
    "c5cc({a})c6c(c5)C({b})CCO6",
    "N5({a})c6ccccc6Sc6cc({b})ccc56",
    "c5c({a})n(C)nc5{b}",
    "c5nc({a})n6nc({b})cc6c5",
    "C5OC({a})CN5{b}",
    "c5c({a})cc(O)c(O)c5{b}",
    "O=C5C=C({a})C(=O)c6cc({b})ccc56",
)
LINKERS = ("", "C", "CC", "C(=O)N", "NC(=O)", "S(=O)(=O)N", "OC", "C=C")
# Short alkyls come last, because only the earlier of two substituents gets a linker: methylene + methyl would be ethyl.
SUBSTITUENTS = (
    "C1CC1",
    "CCO",
    "CC(=O)O",
    "CC#N",
    "C(F)(F)F",
    "CCN(C)C",
    "CC(N)=O",
    "c1ccccc1",
    "c1ccc(F)cc1",
    "c1ccc(Cl)cc1",
    "c1ccc(OC)cc1",
    "c1ccncc1",
    "c1cccs1",
    "c1ccco1",
    "c1ccc(C#N)cc1",
    "c1ccc(N(C)C)cc1",
    "c1cnn(C)c1",
    "c1ccc2OCOc2c1",
    "C1CCOCC1",
    "C1CCNCC1",
    "c1cc(Br)ccc1O",
    "c1ccc(cc1)[N+](=O)[O-]",
    "c1ccc(cc1)C(F)(F)F",
    "CC1CCCCC1",
    "c1nccs1",
    "C(C)C",
    "C",
    "CC",
)
N_PARTS = len(SCAFFOLDS) + len(LINKERS) + len(SUBSTITUENTS)


@dataclass(frozen=True)
class Molecules:
    """SMILES and what they are made of."""

    smiles: tuple[str, ...]  # (n,)
    parts: np.ndarray[Any, np.dtype[np.float32]]  # (n, N_PARTS) counts of scaffold, linker, substituents


def most_molecules() -> int:
    """How many different molecules can be made."""
    n = len(SUBSTITUENTS)
    return len(SCAFFOLDS) * len(LINKERS) * n * (n - 1) // 2


def make_molecules(n: int, rng: np.random.Generator) -> Molecules:
    """``n`` different molecules (at most ``most_molecules()``), the same for the same generator state."""
    n_sub = len(SUBSTITUENTS)
    pairs = np.array([(i, j) for i in range(n_sub) for j in range(i + 1, n_sub)])
    chosen = rng.choice(most_molecules(), size=n, replace=False)
    scaffold, rest = np.divmod(chosen, len(LINKERS) * len(pairs))
    linker, pair = np.divmod(rest, len(pairs))
    parts = np.zeros((n, N_PARTS), dtype=np.float32)
    parts[np.arange(n), scaffold] = 1
    parts[np.arange(n), len(SCAFFOLDS) + linker] = 1
    first, second = pairs[pair].T
    parts[np.arange(n), len(SCAFFOLDS) + len(LINKERS) + first] += 1
    parts[np.arange(n), len(SCAFFOLDS) + len(LINKERS) + second] += 1
    smiles = tuple(
        SCAFFOLDS[s].format(a=f"{LINKERS[k]}{SUBSTITUENTS[i]}", b=SUBSTITUENTS[j])
        for s, k, i, j in zip(scaffold, linker, first, second, strict=True)
    )
    return Molecules(smiles, parts)
