"""One compound under several names, on both sides of a plan: by canonical SMILES, by InChIKey, by skeleton.

Equal canonical SMILES are one molecule; equal InChIKeys are one compound (tautomers and other spellings fall
together); an equal first block of the InChIKey is one skeleton (stereoisomers, isotopes, charge states). The first two
contradict a plan that promises new perturbations, the third is worth knowing.
"""

from __future__ import annotations

import pandas as pd

from pertstack._base.findings import Finding, Severity
from pertstack._base.reading.tables import as_texts
from pertstack.design.leaks.control_groups import across, affected
from pertstack.design.plan.groups import (
    PARTS,
    STRUCTURE,
    canonical_structures,
    compound_keys,
    parent_structures,
    split_columns,
)

KEY_COLUMNS = ("inchi_key", "inchikey", "InChIKey")
"""Columns in which InChIKeys are looked for; they also serve data without SMILES."""
SKELETON = 14
"""Characters of the first block of an InChIKey, which holds the connections of the atoms."""
_INCHI_KEY = r"[A-Z]{14}-[A-Z]{10}-[A-Z]"


def structure_findings(frame: pd.DataFrame, group_by: str) -> list[Finding]:
    """Twins and near-twins among the compounds of a plan; nothing when it promises no new perturbations."""
    parts = split_columns(group_by)
    named = next((p for p in ("perturbation", PARTS, STRUCTURE) if p in parts), None)
    if named is None or "perturbation" not in frame:
        return []
    canonical, keys, how = _keys(frame)
    if keys is None:
        return []
    others = [p for p in parts if p != named and p in frame]
    spelling = canonical if named == STRUCTURE and canonical is not None else frame["perturbation"]
    real = keys.where(keys.astype(str).str.fullmatch(_INCHI_KEY))
    whole, skeleton = (_joined(k, frame, others) for k in (keys, real.str.slice(0, SKELETON)))
    twins, roles = _several(whole, spelling, frame)
    found = []
    if twins:
        several = "names" if named != STRUCTURE else "SMILES"
        same = 0 if canonical is None else len(_several(_joined(canonical, frame, others), spelling, frame)[0])
        n = affected(whole, list(twins))
        severity: Severity = "error" if named != STRUCTURE else "warning"
        examples = tuple(twins.values())[:10]
        mend = "Group by smiles, or give each one name." if named != STRUCTURE else "Give each one SMILES."
        found.append(
            Finding(
                severity,
                "structure_across",
                f"{len(twins):,} compounds occur under several {several} on both sides of the plan (equal {how}; "
                f"{same:,} of them also by canonical SMILES), {n:,} samples in all: {'; '.join(examples)}. A model "
                f"that saw one has seen the other. {mend}",
                count=len(twins),
                examples=examples,
                numbers={"structures": len(twins), "in_test": roles, "by_smiles": same, "samples": n},
            )
        )
    if STRUCTURE in frame:
        found += _salts(_joined(parent_structures(frame[STRUCTURE]), frame, others), whole, spelling, frame)
    if real.notna().any():
        found += _skeletons(frame, skeleton, whole, spelling)
    return found


def _keys(frame: pd.DataFrame) -> tuple[pd.Series[str] | None, pd.Series[str] | None, str]:
    """Canonical SMILES if there are SMILES, the key that equal compounds share, and what that key is."""
    given = next((frame[c] for c in KEY_COLUMNS if c in frame and frame[c].notna().any()), None)
    written = None if given is None else given.where(given.astype(str).str.fullmatch(_INCHI_KEY)).astype(object)
    if STRUCTURE not in frame:
        return None, written, "InChIKey as given"
    keys, how = compound_keys(frame[STRUCTURE])
    if written is not None and how == "InChIKey":
        keys = keys.where(keys.notna(), written)
    if keys.isna().all():
        return None, written, "InChIKey as given"
    return canonical_structures(frame[STRUCTURE])[0], keys, how


def _joined(key: pd.Series[str], frame: pd.DataFrame, others: list[str]) -> pd.Series[str]:
    for _, texts in as_texts(frame[others]).items():
        key = key.str.cat(" | " + texts)
    return key


def _several(key: pd.Series[str], spelling: pd.Series[str], frame: pd.DataFrame) -> tuple[dict[str, str], int]:
    """Keys on both sides that stand for several names, as ``a = b``; and how many of them are in the test."""
    names = pd.DataFrame({"key": key, "name": spelling.astype(str)}).dropna().drop_duplicates()
    several = set(names.loc[names["key"].duplicated(keep=False), "key"])
    roles, folds = across(key.where(key.isin(several)), frame["place"])
    values = sorted({*roles, *folds})
    by_key = names[names["key"].isin(values)].groupby("key")["name"].unique()
    return {v: " = ".join(sorted(by_key[v])) for v in values}, len(roles)


def _salts(
    parent: pd.Series[str], whole: pd.Series[str], spelling: pd.Series[str], frame: pd.DataFrame
) -> list[Finding]:
    """Salts, free bases and other forms of one parent compound on both sides; twins are reported elsewhere."""
    kinds = pd.DataFrame({"parent": parent, "key": whole}).dropna().drop_duplicates()
    several = set(kinds.loc[kinds["parent"].duplicated(keep=False), "parent"])
    forms, roles = _several(parent.where(parent.isin(several)), spelling, frame)
    if not forms:
        return []
    examples = tuple(forms.values())[:10]
    return [
        Finding(
            "warning",
            "salt_across",
            f"{len(forms):,} compounds are on both sides of the plan as a salt or another form of the same parent "
            f"structure ({roles:,} of them in the test): {'; '.join(examples)}. A model that saw one has as good as "
            "seen the other. Keep them together with --group smiles, or give them one name.",
            count=len(forms),
            examples=examples,
            numbers={"parents": len(forms), "in_test": roles},
        )
    ]


def _skeletons(
    frame: pd.DataFrame, skeleton: pd.Series[str], whole: pd.Series[str], spelling: pd.Series[str]
) -> list[Finding]:
    """Different compounds of one skeleton on both sides; twins are reported elsewhere."""
    kinds = pd.DataFrame({"skeleton": skeleton, "key": whole}).dropna().drop_duplicates()
    several = set(kinds.loc[kinds["skeleton"].duplicated(keep=False), "skeleton"])
    related, roles = _several(skeleton.where(skeleton.isin(several)), spelling, frame)
    if not related:
        return []
    examples = tuple(related.values())[:10]
    return [
        Finding(
            "warning",
            "skeleton_across",
            f"{len(related):,} compounds differ from one on the other side of the plan in stereochemistry, isotopes or "
            f"charge only (equal first block of the InChIKey): {'; '.join(examples)}. Their effects may be the same, "
            "so scores speak of new compounds a little too well. Give related ones one group if that matters.",
            count=len(related),
            examples=examples,
            numbers={"skeletons": len(related), "in_test": roles},
        )
    ]
