"""Names of genes in tables beside the data, brought to those of the study: other spellings, second names, proteins.

STRING names a protein by species and Ensembl protein id (``9606.ENSP00000269305``); studies name genes. Reading the
edges themselves is handled by ``data/side/edges.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.findings import Finding
from pertstack._base.reading.dialects import BROKEN, open_bytes
from pertstack._base.reading.tables import as_texts, frame
from pertstack._base.reading.text_tables import text_table
from pertstack.data.readers.columns.genes import without_version

Names = Mapping[str, tuple[str, ...]]

_IDS = ("#string_protein_id", "string_protein_id", "protein_external_id", "protein", "protein_id", "id")
_NAMES = ("preferred_name", "alias", "gene", "gene_name", "gene_symbol", "symbol", "name")


class StudyGenes:
    """The genes of a study, found by any name: as they are written, without Ensembl version, by a second name of the
    data, and but for capitals where one gene alone is meant.

    >>> StudyGenes(["TP53", "MYC"], {"ENSG00000141510": "TP53"}).found(["ENSG00000141510.4", "myc", "EGFR"])
    ['TP53', 'MYC', None]
    """

    def __init__(self, names: Iterable[str], other: Mapping[str, str] | None = None) -> None:
        self.names = tuple(map(str, names))
        self.by_second: dict[str, str] = {}
        self.by_capitals: dict[str, str] = {}
        self._known = frozenset(self.names)
        self._other = dict(other or {})
        spelt = Counter(map(str.casefold, self.names))
        self._folded = {n.casefold(): n for n in self.names if spelt[n.casefold()] == 1}

    def found(self, names: Iterable[str]) -> list[str | None]:
        """The study's name for each name; None for what is no gene of the study."""
        asked = list(names)
        known = {name: self._find(name)[0] for name in dict.fromkeys(asked)}
        return [known[name] for name in asked]

    def taken(self, names: Iterable[str]) -> list[str | None]:
        """As ``found``, of names that are used: ``findings`` tells of them."""
        asked = list(names)
        for name in dict.fromkeys(asked):
            own, how = self._find(name)
            if own is not None and how is not None:
                how[name.strip()] = own
        return self.found(asked)

    def _find(self, name: str) -> tuple[str | None, dict[str, str] | None]:
        """The study's name, and where it is remembered how it was found."""
        text = name.strip()
        plain = without_version(text)
        if text in self._known or plain in self._known:
            return (text if text in self._known else plain), None
        second = self._other.get(text, self._other.get(plain))
        if second is not None:
            return second, self.by_second
        return self._folded.get(plain.casefold()), self.by_capitals

    def findings(self, where: str) -> list[Finding]:
        """What was taken by second names (a note) and but for capitals (a warning: a mouse's gene, perhaps)."""
        told: list[Finding] = []
        if found := self.by_second:
            text = f"{where}: {len(found):,} genes are matched by second names of the data: {_pairs(found)}."
            told.append(Finding("note", "genes_by_second_name", text, len(found), where=where))
        if found := self.by_capitals:
            text = (
                f"{where}: {len(found):,} genes are matched although their capitals differ: {_pairs(found)}. Capitals "
                f"tell species apart (Trp53, TP53); if these are other genes, take them out of the file."
            )
            told.append(Finding("warning", "genes_by_capitals", text, len(found), tuple(found)[:10], where=where))
        return told


def _pairs(found: Mapping[str, str]) -> str:
    return first_few([f"{theirs} = {own}" for theirs, own in sorted(found.items())], 5)


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


def names_of_table(table: pd.DataFrame, genes: StudyGenes, where: str) -> Names:
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
    own = np.array(genes.found(pairs[name]), dtype=object)
    exact = own == pairs[name].map(str.strip).to_numpy()
    spare = pd.notna(own) & ~pairs[protein].isin(set(pairs[protein][exact])).to_numpy()  # STRING lists many aliases
    inside = pairs.assign(**{str(name): pd.Series(own, index=pairs.index)})[exact | spare].drop_duplicates()
    genes.taken(pairs[name][spare])
    if inside.empty:
        raise InputError(
            f"{where}: none of the names in its column {str(name)!r} ({first_few(pairs[name][:3])}) is a gene of the "
            f"study, whose genes look like {first_few(genes.names[:3])}. Provide a table with the study's gene names."
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


__all__ = ["Names", "StudyGenes", "is_string", "names_beside", "names_of_table", "read_string", "translate"]
