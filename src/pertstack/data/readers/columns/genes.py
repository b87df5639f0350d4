"""Which name a gene goes by, if a file gives it two: the one that perturbations use, versions cut.

Single-cell files often hold Ensembl ids in the index of ``var`` and symbols in a column, or the other way round.
Perturbed genes, target tables and gene graphs name symbols, so a study of Ensembl ids would know nothing of them. The
names that were not taken stay in ``var`` and are kept in the study, for predictions that use them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.findings import Finding
from pertstack.data.readers.columns.aliases import column_of
from pertstack.data.side.targets import genes_of

SYMBOLS = (
    "gene_name",
    "gene_names",
    "gene_symbols",
    "gene_symbol",
    "symbol",
    "symbols",
    "feature_name",
    "hgnc_symbol",
    "gene_short_name",
    "hgnc",
    "pr_gene_symbol",
)
IDS = ("gene_ids", "gene_id", "ensembl_id", "ensembl_ids", "ensembl", "feature_id", "feature_ids")
GENE = "gene"
"""The name under which ``--map`` says which column of ``var`` names the genes (``index`` for the index)."""
INDEX = "index"
_VERSION = re.compile(r"^(ENS[A-Z]*G\d+)\.\d+$")
_ENSEMBL = re.compile(r"^ENS[A-Z]*G\d+(\.\d+)?(_PAR_Y)?$")
_NAMELESS = {"", "nan", "none", "na", "<na>", "-"}


def without_version(name: str) -> str:
    """An Ensembl gene id without its version; any other name as it is.

    >>> without_version("ENSG00000141510.17"), without_version("HLA-DRB1.2")
    ('ENSG00000141510', 'HLA-DRB1.2')
    """
    return _VERSION.sub(r"\1", name)


def named_genes(
    var: pd.DataFrame, perturbations: Iterable[object], mapping: Mapping[str, str] | None, *, where: str
) -> tuple[pd.DataFrame, list[Finding]]:
    """The gene table of a file, indexed by the names the study will use, and notes of what was taken.

    A column of symbols is taken if the index holds Ensembl ids or numbers, a column of either kind if it names
    more of the perturbed genes than the index does. Genes without such a name, or whose name others have too, go by the
    index; if names of the index itself are shared, by a column of ids.

    Parameters
    ----------
    var : gene table as the file has it.
    perturbations : names, some of which may be genes.
    mapping : ``gene`` -> column of ``var`` decides.
    where : the file, for messages.

    Raises
    ------
    InputError
        ``--map gene=COLUMN`` names no column of ``var``.
    """
    index = [str(g).strip() for g in var.index]
    source = _source(var, index, perturbations, asked=(mapping or {}).get(GENE), where=where)
    own = _cut(index)
    taken = own if source == INDEX else _column(var, source)
    spare = column_of(var.columns, IDS) if source == INDEX else INDEX
    known = pd.Series(taken, dtype=object)
    lacking = known.str.casefold().isin(_NAMELESS).to_numpy(dtype=bool) & (spare is not None)
    shared = known.duplicated(keep=False).to_numpy() & ~lacking & (spare is not None)
    second = own if spare in (INDEX, None) else _column(var, spare)
    names = [i if bad else n for n, i, bad in zip(taken, second, lacking | shared, strict=True)]
    table = var.set_axis(pd.Index(np.array(names, dtype=object), name=var.index.name or "gene"))
    if source != INDEX or names != index:
        table = table.assign(**{_column_for(index, var): index})
    found = _notes(source, index, own, where=where)
    if (bad := lacking | shared).any():
        found.append(_collision(source, spare, known[shared], int(bad.sum()), int(lacking.sum()), where=where))
    return table, found


def _column(var: pd.DataFrame, name: str) -> list[str]:
    """Names of genes in a column, without Ensembl versions."""
    return _cut([str(v).strip() for v in var[name]])


def other_names(var: pd.DataFrame) -> dict[str, str]:
    """Second name of a gene -> its name in the study; second names that several genes have, or that are names of the
    study themselves, are left out."""
    names = [str(n) for n in var.index]
    known = set(names)
    out: dict[str, str] = {}
    twice: set[str] = set()
    for column in (*second_columns(var), *(INDEX,) * (INDEX in var)):
        for second, name in zip(_cut([str(v).strip() for v in var[column]]), names, strict=True):
            if second in known or second.casefold() in _NAMELESS:
                continue
            if out.setdefault(second, name) != name:
                twice.add(second)
    return {second: name for second, name in out.items() if second not in twice}


def second_columns(var: pd.DataFrame) -> list[str]:
    """Columns of a gene table that hold another name of each gene, in any spelling: symbols before ids."""
    return list(dict.fromkeys(c for n in (*SYMBOLS, *IDS) if (c := column_of(var.columns, [n])) is not None))


def _source(var: pd.DataFrame, index: list[str], perturbations: Iterable[object], asked: str | None, where: str) -> str:
    if asked is not None:
        if asked != INDEX and asked not in var.columns:
            raise InputError(
                f"--map {GENE}={asked}: the gene table of {where} has no column {asked!r}. Its columns: "
                f"{first_few(var.columns, 40) if len(var.columns) else 'none'}. Write --map {GENE}={INDEX} for its "
                f"index ({first_few(index, 3)})."
            )
        return asked
    perturbed = {g for p in set(map(str, perturbations)) for g in genes_of(p)}
    columns = second_columns(var)
    columns += [str(c) for c in var.columns if c not in columns and not pd.api.types.is_numeric_dtype(var[c])]
    hits = {c: len(perturbed.intersection(_cut([str(v).strip() for v in var[c]]))) for c in columns}
    own = len(perturbed.intersection(_cut(index)))
    best = max(columns, key=lambda c: hits[c], default=INDEX)
    if best != INDEX and hits[best] > own:
        return best
    symbols = column_of(var.columns, SYMBOLS)
    return symbols if symbols is not None and own == 0 and _is_no_name(index) else INDEX


def _is_no_name(index: list[str]) -> bool:
    """Whether most names are Ensembl ids, or all are numbers."""
    some = index[:2000]
    return sum(bool(_ENSEMBL.match(n)) for n in some) > 0.8 * len(some) or all(n.isdigit() for n in some)


def _cut(names: list[str]) -> list[str]:
    """Names without Ensembl versions; two versions of one gene keep theirs."""
    plain = pd.Series([without_version(n) for n in names], dtype=object)
    twice = plain.duplicated(keep=False).to_numpy()
    return [n if bad else p for n, p, bad in zip(names, plain, twice, strict=True)]


def _column_for(index: list[str], var: pd.DataFrame) -> str:
    """A free column for the names of the index."""
    word = "gene_ids" if _ENSEMBL.match(index[0] if index else "") else INDEX
    return word if word not in var.columns else INDEX


def _notes(source: str, index: list[str], own: list[str], where: str) -> list[Finding]:
    found: list[Finding] = []
    if source == INDEX and index == [str(i) for i in range(len(index))]:
        found.append(
            Finding(
                "warning",
                "genes_without_names",
                f"Genes of {where} have no names but their positions (0, 1, 2, ...). Predictions can then be matched "
                f"by position only, and nothing is known of perturbed genes. Write the names into the file: "
                f"data.var_names = names; data.write_h5ad(...).",
                len(index),
                where=where,
            )
        )
    if own != index:
        n = sum(a != b for a, b in zip(own, index, strict=True))
        found.append(Finding("note", "versions_cut", f"Ensembl versions of {n:,} gene names of {where} were cut.", n))
    if source != INDEX:
        text = (
            f"Genes of {where} go by var[{source!r}], because its index ({first_few(index, 2)}) is not what "
            f"perturbations and gene tables use. --map {GENE}={INDEX} keeps the index."
        )
        found.append(Finding("note", "genes_by_column", text, len(index), where=where, numbers={"column": source}))
    return found


def _collision(
    source: str, spare: str | None, shared: pd.Series[Any], count: int, n_lacking: int, where: str
) -> Finding:
    names, place = sorted(set(shared)), {INDEX: "the index"}
    several = f"{len(shared):,} share a name with another ({first_few(names)})" if len(shared) else ""
    none = f"{n_lacking:,} have none" if n_lacking else ""
    return Finding(
        "warning",
        "gene_names_collide",
        f"Of the genes named by {place.get(source, f'var[{source!r}]')} in {where}, "
        f"{' and '.join(t for t in (several, none) if t)}: these go by {place.get(str(spare), f'var[{spare!r}]')}. "
        f"Tables that use the shared name do not reach them.",
        count=count,
        examples=tuple(names[:10]),
        where=where,
    )
