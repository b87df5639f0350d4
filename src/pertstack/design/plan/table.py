"""An explicit table of folds or roles, made by hand or by other software, read as a fold plan."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pertstack._base.errors import InputError, MissingFileError, first_few, unknown_name
from pertstack._base.reading import tables
from pertstack._base.reading.tables import as_names, as_texts, plain_texts, without_row_numbers
from pertstack._base.reading.text_tables import UNNAMED
from pertstack.design.plan.assign import LEAST_PER_FOLD, place_groups, too_few_groups
from pertstack.design.plan.groups import SAMPLE, apart, check_sample_ids, group_ids, parts_of_groups
from pertstack.design.plan.rows import groups_per_place

ROLES = ("development", "test", "support")


def load_table(path: Path) -> pd.DataFrame:
    """The table in a parquet, CSV or TSV file (comma, semicolon or tab), sample ids as text.

    Raises
    ------
    MissingFileError, InputError
        It is not there, or is none of these.
    """
    if not path.is_file():
        raise MissingFileError(
            f"The fold table {path} does not exist or is no file. Give a parquet, CSV or TSV file with --plan."
        )
    table = without_row_numbers(tables.read_table(path))
    return table.where(table != "", None) if tables.is_text(path) else table  # only an empty cell is missing


def read_table(
    table: pd.DataFrame, obs: pd.DataFrame | None, group_by: str | None, *, n_folds: int | None, salt: str
) -> tuple[pd.DataFrame, str, int]:
    """Rows of a plan from an explicit table; also what they are grouped by and the number of folds.

    Parameters
    ----------
    table : DataFrame
        ``sample_id`` (column or index), and ``fold`` (0, 1, ...; empty or "test" for held-out samples) or ``role``
        (development, test or support: always fitted on, never scored) or both, and optionally ``group``.
    obs : DataFrame, optional
        The samples of the study, index = sample ids. The table must name exactly these.
    group_by : str, optional
        What whole groups are, from columns of ``obs`` or else of the table. Intervals and leak checks go by it. Without
        it groups are perturbations, as in a plan of our own, or the table's ``group`` column if that holds several
        perturbations together (scaffolds, pathways). A table that splits a group is read as it is; the leak checks
        report it.
    n_folds : int, optional
        Only with a table that has no folds: development samples get one from the hash of their group (3 when not
        given).
    salt : str
        Of these hashes.

    Raises
    ------
    InputError
        Ids that do not match the data (the first ten are shown), folds that are not 0, 1, 2, ..., roles that contradict
        folds, or fewer than two groups per fold.
    """
    named = next((c for c in ("sample_id", "id", "index", UNNAMED) if c in table.columns), None)
    if named == "sample_id" or (named is not None and isinstance(table.index, pd.RangeIndex)):
        table = table.rename(columns={named: "sample_id"})
    else:
        table = table.reset_index(names="sample_id")
    table = table.assign(sample_id=as_names(table["sample_id"]).astype(str))
    check_sample_ids(table.set_index("sample_id"))
    if obs is not None:
        table = _match(table, obs)
    groups, group_by = _groups(table, obs, group_by)
    fold, role = _folds_and_roles(table)
    if fold is None:
        n_folds = 3 if n_folds is None else n_folds
        development = (role == "development").to_numpy()
        known = table.set_index("sample_id") if obs is None else obs.set_axis(obs.index.astype(str))
        parts = parts_of_groups(known, groups[development]) if apart(group_by) else None
        places, _ = place_groups(groups[development], parts=parts, salt=salt, n_folds=n_folds, test_share=0.0)
        drawn = [places[g] if keep else None for g, keep in zip(groups, development, strict=True)]
        fold = pd.Series(drawn, dtype="Int64")
    else:
        n_folds = _count_folds(fold, n_folds)
    read = pd.DataFrame(
        {
            "sample_id": table["sample_id"].to_numpy(object),
            "group": groups.to_numpy(object),
            "role": role.to_numpy(object),
            "fold": fold.to_numpy(),
            "segment": 0,
        }
    )
    read = plain_texts(read.astype({"fold": "Int64", "segment": "int64"}))
    _check_enough(read, n_folds)
    return read, group_by, n_folds


def _match(table: pd.DataFrame, obs: pd.DataFrame) -> pd.DataFrame:
    """The table in the order of the data; refuses ids that the other side does not know."""
    check_sample_ids(obs)
    ids, known = pd.Index(table["sample_id"]), pd.Index(obs.index.astype(str))
    strange, lost = ids[~ids.isin(known)], known[~known.isin(ids)]
    if len(strange) or len(lost):
        raise InputError(
            f"Fold table and data do not name the same samples: {len(strange):,} ids of the table are not in the "
            f"data{f' ({first_few(strange)})' if len(strange) else ''}, {len(lost):,} samples of the data are not in "
            f"the table{f' ({first_few(lost)})' if len(lost) else ''}. Samples are matched by id, never by position; "
            "correct the ids."
        )
    return table.set_index("sample_id").reindex(known).reset_index(names="sample_id")


def _groups(table: pd.DataFrame, obs: pd.DataFrame | None, group_by: str | None) -> tuple[pd.Series[str], str]:
    """Group of every row, and its name."""
    known = table.set_index("sample_id")
    if obs is not None:
        extra = known[[c for c in known.columns if c not in obs.columns]]
        known = obs.set_axis(obs.index.astype(str)).join(extra)
    group_by = _default_grouping(known) if group_by is None else group_by
    return group_ids(known, group_by), group_by


def _default_grouping(known: pd.DataFrame) -> str:
    """Perturbations, or groups of the table that hold whole perturbations together."""
    if "perturbation" not in known.columns:
        return "group" if "group" in known.columns else SAMPLE
    if "group" not in known.columns:
        return "perturbation"
    pairs = known[["perturbation", "group"]].astype(str).drop_duplicates()
    coarser = pairs["perturbation"].is_unique and not pairs["group"].is_unique
    return "group" if coarser else "perturbation"


def _folds_and_roles(table: pd.DataFrame) -> tuple[pd.Series[int] | None, pd.Series[str]]:
    """Fold (Int64, <NA> for test; None when the table has none) and role of every row."""
    if "fold" not in table.columns and "role" not in table.columns:
        raise unknown_name("column", "fold", map(str, table.columns))
    role = None
    if "role" in table.columns:
        role = as_texts(table["role"]).str.strip().str.casefold()
        odd = sorted(set(role) - set(ROLES))
        if odd:
            raise InputError(
                f"Roles {first_few(odd)} are not known. Write 'development', 'test' or 'support'; training and "
                "validation are both development (folds are what validates)."
            )
    if "fold" not in table.columns:
        assert role is not None
        return None, role
    text = table["fold"].astype(object).where(table["fold"].notna(), "").astype(str).str.strip().str.casefold()
    support = text == "support"
    if role is not None:
        support |= (role == "support") & text.isin(["", "nan", "<na>", "none"])
    held_out = text.isin(["", "test", "nan", "<na>", "none"]) & ~support
    number = pd.to_numeric(text.where(~held_out & ~support), errors="coerce")
    odd_fold = ~held_out & ~support & (number.isna() | (number < 0) | (number > len(text)) | (number % 1 != 0))
    if odd_fold.any():
        raise InputError(
            f"Folds {first_few(text[odd_fold].unique())} of samples {first_few(table['sample_id'][odd_fold])} are not "
            "whole numbers from 0. Number the folds 0, 1, 2, ... and leave held-out samples empty or write 'test'."
        )
    by_fold = held_out.map({True: "test", False: "development"}).where(~support, "support")
    if role is not None and (role != by_fold).any():
        clash = table["sample_id"][role != by_fold]
        raise InputError(
            f"{len(clash):,} samples have a role that contradicts their fold: {first_few(clash)}. Development samples "
            "have a fold, test samples have none."
        )
    return number.astype("Int64"), by_fold


def _count_folds(fold: pd.Series[int], n_folds: int | None) -> int:
    """Number of folds; refuses gaps such as folds 1, 2, 3 without a 0."""
    present = sorted(int(f) for f in fold.dropna().unique())
    expected = list(range(n_folds if n_folds is not None else len(present)))
    if present != expected or len(present) < 2:
        raise InputError(
            f"The folds of the table are {present}; expected {expected if len(expected) > 1 else [0, 1, 2]}. Folds "
            "count from 0 without gaps (a table that counts from 1 is off by one: subtract 1), and there are at "
            "least two."
        )
    return len(present)


def _check_enough(read: pd.DataFrame, n_folds: int) -> None:
    count = groups_per_place(read)
    if min(count[f] for f in range(n_folds)) < LEAST_PER_FOLD:
        raise too_few_groups(int(read["group"].nunique()), count, n_folds)
