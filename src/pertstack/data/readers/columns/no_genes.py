"""Which columns of numbers of a table are no genes, whatever stands beside them: metadata, counts and qualities."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import chain

from pertstack._base.errors import first_few
from pertstack._base.findings import Finding
from pertstack.data.readers.columns.aliases import ALIASES, AMOUNTS, CELL_EXTRAS, alias_names, is_alias, plain_name
from pertstack.data.readers.columns.beside import IDS
from pertstack.data.readers.control_rows import FLAGS

COUNTED = frozenset(
    [
        "n_counts",
        "ncounts",
        "total_counts",
        "n_genes",
        "ngenes",
        "n_genes_by_counts",
        "n_umi",
        "n_umis",
        "umi_count",
        "UMI_count",
        "nUMI",
        "nGene",
        "nCount_RNA",
        "nFeature_RNA",
        "percent_mito",
        "percent.mt",
        "percent_mt",
        "pct_counts_mt",
        "pct_counts_ribo",
        "mito_frac",
        "size_factor",
        "size_factors",
        "log1p_total_counts",
        "log1p_n_genes_by_counts",
        "guide_umi",
        "guide_umis",
        "n_cells",
        "core_scale_factor",
        "core_adjusted_UMI_count",
        "doublet_score",
        "S_score",
        "G2M_score",
        "z_gemgroup_UMI",
    ]
)
"""Columns of numbers that programs write about cells; they are no genes."""
MEASURED = frozenset(
    (
        "age",
        "auc",
        "bmi",
        "column",
        "confluence",
        "confluency",
        "day",
        "ec50",
        "gr50",
        "ic50",
        "lane",
        "od",
        "od590",
        "od600",
        "passage",
        "rin",
        "row",
        "viability",
        "volume",
        "week",
        "weight",
        "well",
    )
)
"""Columns of numbers that people write about samples and donors; no symbol of a human or mouse gene is among them."""
_SOUNDS_COUNTED = re.compile(
    r"(?i)^(n|num|pct|percent|frac|total|mean|median|log1p|log10|log2|log)[_.]|"
    r"[_.](scores?|counts?|umis?|pct|percent|frac|factors?)$"
)
"""The same under names that no list has: no symbol of a gene begins with ``pct_`` or ends with ``_score``."""
_NO_GENES = (
    frozenset(map(plain_name, (*IDS, *FLAGS, *COUNTED, *MEASURED, *chain(*CELL_EXTRAS.values())))) | alias_names()
)
_LOWER_GENE = re.compile(r"^(mt|hsa|mmu|rno)[-_.]")


def no_genes(columns: Collection[str], mapping: Mapping[str, str] | None) -> set[str]:
    """Columns that are no genes by their names.

    Parameters
    ----------
    columns : of the table.
    mapping : canonical column -> column; these are no genes.
    """
    told = {*(mapping or {}).values(), *IDS}
    return {c for c in columns if c in told or _by_name(c)}


def names_of_rows(columns: Collection[str], mapping: Mapping[str, str] | None) -> set[str]:
    """Of these, the columns whose cells are names, so text whatever they look like: all but amounts."""
    amounts = {(mapping or {}).get(n, "") for n in (*AMOUNTS, "time_h")}
    named = [n for n in ALIASES if n not in AMOUNTS]
    told = {*(mapping or {}).values()} - amounts
    known = alias_names(*named) | frozenset(map(plain_name, IDS))
    return {c for c in columns if c in told or (plain_name(c) in known and c not in amounts)}


def _by_name(column: str) -> bool:
    if plain_name(column) in _NO_GENES or any(is_alias(column, name) for name in AMOUNTS):
        return True
    return _SOUNDS_COUNTED.search(column) is not None


def unlike_genes(likely: Collection[str]) -> set[str]:
    """Columns in lower case among genes that are not: ``cell_cycle_phase`` among symbols is no gene.

    Parameters
    ----------
    likely : columns of numbers that may be genes.
    """
    lower = {c for c in likely if c == c.lower() != c.upper() and not _LOWER_GENE.match(c)}
    return lower if 3 * len(lower) < len(likely) else set()


def apart(where: str, columns: Collection[str]) -> list[Finding]:
    """A warning of columns of numbers that were not taken for genes without a name that says what they are."""
    if not columns:
        return []
    text = (
        f"{where}: {len(columns):,} columns of numbers are not taken for genes, because they stand apart from them or "
        f"are named unlike them: {first_few(columns)}. If they are genes, put them among the others and name them "
        f"alike."
    )
    return [Finding("warning", "columns_apart", text, len(columns), tuple(columns)[:10], where=where)]


def among_genes(
    where: str, columns: Sequence[str], genes: Collection[str], *, numeric: Collection[str], told: Collection[str]
) -> list[Finding]:
    """A warning of columns of numbers in capitals, between two genes, that were taken for metadata by their name alone.

    Parameters
    ----------
    where : the file, for messages.
    columns : of the table, in order.
    genes : columns taken for genes.
    numeric : columns of numbers.
    told : columns that ``--map`` names.
    """
    known, last = set(genes), len(columns) - 1
    odd = [
        c
        for i, c in enumerate(columns)
        if 0 < i < last and c.isupper() and c in numeric and c not in known and c not in told
        if columns[i - 1] in known and columns[i + 1] in known and _by_name(c)
    ]
    if not odd:
        return []
    text = (
        f"{where}: {len(odd):,} columns of numbers stand among the genes and are taken for metadata by their names: "
        f"{first_few(odd)}. If they are genes, call them by another name ({odd[0]}_GENE)."
    )
    return [Finding("warning", "metadata_among_genes", text, len(odd), tuple(odd)[:10], where=where)]
