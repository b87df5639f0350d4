"""Chemical structures: canonical SMILES and Morgan fingerprints, when rdkit is there.

A structure that is missing or cannot be parsed is marked unknown; no other molecule is put in its place (pitfalls P9,
P10).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from pertstack._base.errors import NeedsExtraError
from pertstack.data.side.side import PerturbationFeatures

N_BITS, RADIUS = 2048, 2


def has_rdkit() -> bool:
    """Whether structures can be read here, without importing rdkit."""
    return find_spec("rdkit") is not None


def _chem() -> Any:
    if not has_rdkit():
        raise NeedsExtraError(
            "Reading chemical structures needs rdkit. Install it with: pip install 'pertstack[lincs]'"
        )
    from rdkit import Chem

    return Chem


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep rdkit from writing to stderr about molecules that we report ourselves."""
    from rdkit import rdBase

    block = rdBase.BlockLogs()
    try:
        yield
    finally:
        del block


@lru_cache(maxsize=100_000)
def canonical_smiles(smiles: str) -> str | None:
    """The one spelling rdkit gives a molecule, stereo included; None when it cannot be parsed.

    Two names with equal canonical SMILES are one compound, and must not be in different folds. Salts are kept.

    Raises
    ------
    NeedsExtraError
        rdkit is not installed.
    """
    chem = _chem()
    with _quiet():
        molecule = chem.MolFromSmiles(str(smiles).strip()) if str(smiles).strip() else None
        return None if molecule is None else str(chem.MolToSmiles(molecule))


@lru_cache(maxsize=100_000)
def inchi_key(smiles: str) -> str | None:
    """Standard InChIKey (tautomers that InChI knows of fall together); None when it cannot be made."""
    chem = _chem()
    with _quiet():
        molecule = chem.MolFromSmiles(str(smiles).strip()) if str(smiles).strip() else None
        key = None if molecule is None else chem.MolToInchiKey(molecule)
    return str(key) if key else None


@lru_cache(maxsize=100_000)
def parent_smiles(smiles: str) -> str | None:
    """Canonical SMILES of the compound without counter-ions, solvent and charge; None when it cannot be parsed.

    Equal for a free base and its salts. The largest piece with carbon that is no usual counter-ion is the parent.

    >>> parent_smiles("CN1CCCC1.Cl") == parent_smiles("C[NH+]1CCCC1.OC(=O)C(F)(F)F")  # doctest: +SKIP
    True
    """
    chem = _chem()
    from rdkit.Chem.MolStandardize import rdMolStandardize

    plain = canonical_smiles(smiles)
    if plain is None or not ("." in plain or "+" in plain or "-" in plain):
        return plain
    with _quiet():
        pieces = chem.GetMolFrags(chem.MolFromSmiles(plain), asMols=True)
        neutral = [rdMolStandardize.Uncharger().uncharge(p) for p in pieces]
        organic = [p for p in neutral if any(a.GetSymbol() == "C" for a in p.GetAtoms())] or neutral
        acting = [p for p in organic if chem.MolToSmiles(p) not in _counter_ions()] or organic
        return max((p.GetNumHeavyAtoms(), str(chem.MolToSmiles(p))) for p in acting)[1]


@lru_cache(maxsize=1)
def _counter_ions() -> frozenset[str]:
    """Acids that make salts of drugs, and solvents, as canonical SMILES."""
    written = (
        "CC(=O)O O=CO OC(=O)C(F)(F)F CS(=O)(=O)O Cc1ccc(cc1)S(=O)(=O)O OS(=O)(=O)c1ccccc1 OC(=O)C=CC(=O)O "
        "OC(=O)/C=C/C(=O)O OC(=O)/C=C\\C(=O)O OC(=O)CC(O)(CC(=O)O)C(=O)O OC(=O)C(O)C(O)C(=O)O "
        "O[C@H]([C@@H](O)C(=O)O)C(=O)O O[C@@H]([C@H](O)C(=O)O)C(=O)O OC(=O)CCC(=O)O OC(=O)CC(O)C(=O)O OC(=O)C(=O)O "
        "CC(O)C(=O)O OC(=O)CC(=O)O CCS(=O)(=O)O OCCS(=O)(=O)O OC(=O)c1cc2ccccc2c(Cc2c(O)c(cc3ccccc23)C(=O)O)c1O "
        "CCO CO CC(C)O CS(C)=O CC(C)=O CC#N CN(C)C=O"
    )
    return frozenset(s for s in map(canonical_smiles, written.split()) if s is not None)


def morgan_features(smiles: Mapping[str, str | None]) -> tuple[PerturbationFeatures, list[str]]:
    """Morgan fingerprints (radius 2, 2048 bits, 0 or 1) per perturbation, and perturbations whose SMILES cannot be
    parsed.

    ``smiles`` maps every perturbation to its SMILES, or None if there is none; those rows are unknown (mask False).
    Source: Rogers and Hahn 2010 (extended-connectivity fingerprints), as implemented by rdkit's
    ``rdFingerprintGenerator``.
    """
    chem = _chem()
    from rdkit.Chem import rdFingerprintGenerator

    generator = rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=N_BITS)
    names = tuple(sorted(smiles))
    matrix, known, unreadable = np.zeros((len(names), N_BITS), np.float32), np.zeros(len(names), bool), []
    with _quiet():
        for i, name in enumerate(names):
            text = (smiles[name] or "").strip()
            molecule = chem.MolFromSmiles(text) if text else None
            if molecule is None or molecule.GetNumAtoms() == 0:
                unreadable += [name] if text else []
                continue
            matrix[i] = generator.GetFingerprintAsNumPy(molecule)
            known[i] = True
    columns = tuple(f"morgan_{bit:04d}" for bit in range(N_BITS))
    return PerturbationFeatures("structure", names, columns, matrix=matrix, known=known), unreadable
