"""Protein identifiers to gene names: STRING's ``protein.info`` and ``protein.aliases`` tables, or any two columns.

STRING names a protein by species and Ensembl protein id (``9606.ENSP00000269305``); studies name genes. Reading the
edges themselves is handled by ``data/side/files.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.reading.dialects import BROKEN, open_bytes
from pertstack._base.reading.tables import as_texts, frame
from pertstack._base.reading.text_tables import text_table

Names = Mapping[str, tuple[str, ...]]

_IDS = ("#string_protein_id", "string_protein_id", "protein_external_id", "protein", "protein_id", "id")
_NAMES = ("preferred_name", "alias", "gene", "gene_name", "gene_symbol", "symbol", "name")


def names_beside(edges: Path) -> Path | None:
    """The ``protein.info`` file beside a ``protein.links`` one of the same species and version, if there is one."""
    for kind in (
        "links.full",
        "links.detailed",
        "links",
        "physical.links.full",
        "physical.links.detailed",
        "physical.links",
    ):
        if f"protein.{kind}." in edges.name:
            plain = edges.name.replace(f"protein.{kind}.", "protein.info.").removesuffix(".gz")
            found = [edges.with_name(n) for n in (plain, f"{plain}.gz") if edges.with_name(n).is_file()]
            return found[0] if found else None
    return None


def is_string(path: Path) -> bool:
    """Whether a file begins as STRING's tables of proteins do."""
    try:
        with open_bytes(path) as stream:
            return bytes(stream.read(18)) == b"#string_protein_id"
    except BROKEN:
        return False


def read_string(path: Path) -> pd.DataFrame:
    """The first two columns, as texts. STRING does not quote: a ``"`` in an annotation is a character like others."""
    table = text_table(path, blanks=False, quotes=False)
    return frame(table, table.columns[:2])


def names_of_table(table: pd.DataFrame, genes: tuple[str, ...], where: str) -> Names:
    """Protein id -> its names among the study's genes; an id with several of them stands for all.

    Parameters
    ----------
    table : two columns at least, ids and names, by usual headings or in this order.
    genes : of the study.
    where : the file, for messages.

    Raises
    ------
    InputError
        Fewer than two columns, or no name is a gene of the study.
    """
    if table.shape[1] < 2:
        raise InputError(f"{where} has {table.shape[1]} column; it needs protein ids and gene names.")
    protein = next((c for c in _IDS if c in table.columns), table.columns[0])
    rest = [c for c in table.columns if c != protein]
    name = next((c for c in _NAMES if c in rest), rest[0])
    pairs = as_texts(table[[protein, name]])
    inside = pairs[pairs[name].isin(set(genes))].drop_duplicates()
    if inside.empty:
        raise InputError(
            f"{where}: none of the names in its column {str(name)!r} ({first_few(pairs[name][:3])}) is a gene of the "
            f"study, whose genes look like {first_few(genes[:3])}. Provide a table with the study's gene names."
        )
    grouped = inside.groupby(protein, sort=True)[name]
    return {str(p): tuple(sorted(values)) for p, values in grouped}


def translate(table: pd.DataFrame, columns: tuple[object, object], names: Names) -> pd.DataFrame:
    """Edges with gene names for protein ids; one row per pair of names.

    Parameters
    ----------
    table : the edges.
    columns : the two that hold ids.
    names : id -> gene names; an id that is not there is kept.
    """
    out = table
    for column in columns:
        ids = as_texts(out[column])
        out = out.assign(**{str(column): ids.map(lambda i: names.get(i, (i,)))}).explode(str(column), ignore_index=True)
    return out


__all__ = ["Names", "is_string", "names_beside", "names_of_table", "read_string", "translate"]
