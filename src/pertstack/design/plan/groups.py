"""Which samples must stay together, and what question that answers.

``group_ids`` turns a choice such as ``perturbation`` or ``perturbation+cell_line`` into one group name per sample;
``question`` says in plain words what a score on such held-out groups means. Where a group goes is handled by
``design/plan/assign.py``; whether other things leak between groups, of ``design/leaks/check_plan.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few, unknown_name
from pertstack._base.names import refuse_unusable_names
from pertstack.data.labels import one_spelling, perturbation_keys

STRUCTURE = "smiles"
SAMPLE = "sample"
PARTS = "parts"
"""Groups are perturbations, and no fit sees a combination that shares a part with what it predicts."""
_QUESTIONS = {
    "perturbation": "new perturbations in known cell lines",
    STRUCTURE: "new chemical structures in known cell lines",
    "cell_line": "known perturbations in new cell lines",
    "perturbation+cell_line": "new pairs of a known perturbation and a known cell line",
    "control_id": "new controls: samples whose control profile no model was fitted with",
    PARTS: "new combinations of parts that no fitted combination has",
    "plate": "new plates: samples measured apart from every plate a model was fitted on",
    SAMPLE: "new samples of known perturbations in known cell lines (replicates may be on both sides)",
}


def question(group_by: str) -> str:
    """The scientific question that held-out groups of this kind answer, in plain words.

    >>> question("perturbation")
    'new perturbations in known cell lines'
    """
    parts = split_columns(group_by)
    ordered = "+".join(sorted(parts, key=lambda p: (p != "perturbation", p)))
    if ordered in _QUESTIONS:
        return _QUESTIONS[ordered]
    return f"new values of {group_by}" if len(parts) == 1 else f"new combinations of {', '.join(parts)}"


def split_columns(group_by: str) -> tuple[str, ...]:
    """The columns of a choice such as ``perturbation+cell_line``."""
    parts = tuple(part.strip() for part in group_by.split("+"))
    if not all(parts):
        raise InputError(
            f"group_by is {group_by!r}, which names an empty column. Write one column, or several joined by '+', "
            f"such as 'perturbation' or 'perturbation+cell_line'."
        )
    return parts


def apart(group_by: str) -> bool:
    """Whether fits leave out development rows that share a part with what they predict.

    >>> apart("parts"), apart("perturbation")
    (True, False)
    """
    return PARTS in split_columns(group_by)


def group_ids(obs: pd.DataFrame, group_by: str) -> pd.Series[str]:
    """One group name per sample, in the order of ``obs``.

    Parameters
    ----------
    obs : DataFrame
        Index = sample ids (unique, not missing); columns as named by ``group_by``.
    group_by : str
        ``sample``, ``smiles`` (the canonical structure), ``parts`` (perturbations, whose parts are kept apart as well),
        a column of ``obs``, or several joined by ``+``.

    Raises
    ------
    UnknownNameError
        A column is not there.
    InputError
        A sample has no value in it: it would have to be guessed which group it belongs to. Or a value holds control
        characters.
    """
    check_sample_ids(obs)
    parts = split_columns(group_by)
    columns = [_one(obs, part) for part in parts]
    if len(columns) == 1:
        joined = columns[0]
    else:
        escaped = [c.str.replace("\\", "\\\\", regex=False).str.replace("|", "\\|", regex=False) for c in columns]
        joined = escaped[0]
        for column in escaped[1:]:
            joined = joined + "|" + column
    refuse_unusable_names(joined, f"values of {group_by}")
    return joined.rename("group")


def check_sample_ids(obs: pd.DataFrame) -> None:
    """Sample ids are the index of obs: present, each once, without control characters."""
    ids = obs.index
    refuse_unusable_names(ids, "sample ids")
    if ids.hasnans:
        raise InputError(
            f"{int(np.count_nonzero(ids.isna())):,} samples have no sample id. Give every sample a unique id."
        )
    if not ids.is_unique:
        twice = ids[ids.duplicated()].unique()
        raise InputError(
            f"{len(twice):,} sample ids occur more than once: {first_few(twice)}. A fold plan matches samples by id, "
            "so each sample needs a unique id."
        )


def _one(obs: pd.DataFrame, column: str) -> pd.Series[str]:
    """Group names from one column, as strings; refuses missing values."""
    if column in (SAMPLE, "sample_id"):
        return pd.Series(obs.index.astype(str), index=obs.index, dtype=object)
    if column == STRUCTURE:
        return structure_ids(obs)
    if column == PARTS:
        _refuse_nothing_joined(obs)
        column = "perturbation"
    if column not in obs.columns:
        raise unknown_name("column to group by", column, [*map(str, obs.columns), SAMPLE])
    values = obs[column]
    if column == "perturbation":
        values = values.astype(object).replace(one_spelling(values.dropna().unique()))  # B+A is A+B
    missing = values.isna() | (values.astype(str).str.strip() == "")
    if missing.any():
        raise InputError(
            f"{int(missing.sum()):,} of {len(obs):,} samples have no {column}: {first_few(obs.index[missing])}. A "
            "sample without a group could land on both sides of a fold. Fill in the column, or group by another one."
        )
    return values.astype(str).astype(object)


def parts_of_groups(obs: pd.DataFrame, groups: pd.Series[str]) -> dict[str, tuple[str, ...]]:
    """Parts of the perturbations of every group."""
    keys = perturbation_keys(obs["perturbation"])
    found: dict[str, tuple[str, ...]] = {}
    for group, name in zip(groups, obs["perturbation"].reindex(groups.index), strict=True):
        found[group] = tuple(dict.fromkeys((*found.get(group, ()), *keys[str(name)])))
    return found


def shared_parts(samples: pd.DataFrame, among: Iterable[object] = ()) -> dict[str, tuple[str, ...]] | None:
    """Group -> parts of the combination that it is, where some groups share a part; None elsewhere: where no name joins
    any, if a group has several perturbations (a cell line, a structure of salts).

    Parameters
    ----------
    samples : with ``group`` and ``perturbation``.
    among : other names of the same data, by which ``A_B`` is told to join A and B.

    >>> shared_parts(pd.DataFrame({"group": ["A+B", "B+C"], "perturbation": ["A+B", "B+C"]}))
    {'A+B': ('A', 'B'), 'B+C': ('B', 'C')}
    """
    pairs = samples[["group", "perturbation"]].drop_duplicates().astype(str)
    keys = perturbation_keys([*pairs["perturbation"], *among])
    found: dict[str, tuple[str, ...]] = {}
    for group, name in pairs.itertuples(index=False):
        if found.setdefault(group, keys[name]) != keys[name]:
            return None
    counted = Counter(part for key in found.values() for part in key)
    joins = any(len(key) > 1 for key in found.values())
    return found if joins and max(counted.values()) > 1 else None


def _refuse_nothing_joined(obs: pd.DataFrame) -> None:
    """Grouping by parts needs combinations; a column of that name is another thing."""
    if PARTS in obs.columns:
        raise InputError(
            f"The data have a column {PARTS!r}, and --group {PARTS} keeps the parts of combinations apart. It is not "
            "clear which is meant: rename the column."
        )
    names = obs["perturbation"].dropna().astype(str)
    if not any(len(key) > 1 for key in perturbation_keys(names).values()):
        raise InputError(
            f"--group {PARTS} keeps the parts of combinations apart, and no perturbation here joins parts "
            f"({first_few(names.unique())}). Use --group perturbation."
        )


def structure_ids(obs: pd.DataFrame) -> pd.Series[str]:
    """Canonical structure per sample; a sample without one is grouped by its perturbation (``name:...``).

    Salts and other forms of one parent compound are one structure: that of the first of them in the alphabet.

    A sample without a structure, whose perturbation has a structure elsewhere in the data, takes that one (the first in
    the alphabet if there are several). Without rdkit structures are compared as they are written.
    """
    for needed in (STRUCTURE, "perturbation"):
        if needed not in obs.columns:
            raise unknown_name("column to group by", needed, map(str, obs.columns))
    canonical, _ = canonical_structures(obs[STRUCTURE])
    parents = pd.DataFrame({"parent": parent_structures(obs[STRUCTURE]), "canonical": canonical})
    canonical = canonical.where(
        parents["parent"].isna(), parents["parent"].map(parents.dropna().groupby("parent")["canonical"].min())
    )
    known = pd.DataFrame({"perturbation": obs["perturbation"].astype(str), "structure": canonical})
    of_name = known.dropna().groupby("perturbation")["structure"].min()
    by_name = known["perturbation"].map(of_name)
    return canonical.where(canonical.notna(), by_name).where(
        canonical.notna() | by_name.notna(), "name:" + known["perturbation"]
    )


def canonical_structures(smiles: pd.Series[str]) -> tuple[pd.Series[str], bool]:
    """Canonical SMILES (None if missing or unreadable), and whether rdkit was there to make them canonical."""
    from pertstack.data.side.structures import canonical_smiles, has_rdkit

    made = has_rdkit()
    return _map_structures(smiles, canonical_smiles if made else str), made


def parent_structures(smiles: pd.Series[str]) -> pd.Series[str]:
    """SMILES without counter-ions and charge (None if missing or unreadable); None throughout without rdkit."""
    from pertstack.data.side.structures import has_rdkit, parent_smiles

    if not has_rdkit():
        return pd.Series(None, index=smiles.index, dtype=object)
    return _map_structures(smiles, parent_smiles)


def compound_keys(smiles: pd.Series[str]) -> tuple[pd.Series[str], str]:
    """What equal compounds share, and its name: the InChIKey (tautomers fall together), else the canonical SMILES."""
    from pertstack.data.side.structures import canonical_smiles, has_rdkit, inchi_key

    if not has_rdkit():
        how = "SMILES as written; rdkit is not installed, so other spellings were not seen"
        return _map_structures(smiles, str), how
    return _map_structures(smiles, lambda text: inchi_key(text) or canonical_smiles(text)), "InChIKey"


def _map_structures(smiles: pd.Series[str], key: Callable[[str], str | None]) -> pd.Series[str]:
    """A key for every structure that is written down; None if nothing is."""
    written = smiles.where(smiles.notna() & (smiles.astype(str).str.strip() != ""))
    table = {text: key(text) for text in {str(text).strip() for text in written.dropna()}}
    result = written.map(lambda text: None if pd.isna(text) else table[str(text).strip()]).astype(object)
    return result.where(result.notna(), None)
