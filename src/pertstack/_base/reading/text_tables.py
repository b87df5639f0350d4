"""How a table in plain text is written (encoding, separator, decimal mark), found from its bytes and then fixed.

Every CSV, TSV and list of ids of the package goes through here, so one file means the same wherever it is given.
Cells are text unless the caller names a column of numbers: nothing is guessed from the first rows, and nothing is
renamed. What is done with the cells is left to ``tables.py`` and its callers.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from pertstack._base.errors import InputError, first_few
from pertstack._base.reading.damage import damage_named
from pertstack._base.reading.dialects import (
    BLOCK,
    BROKEN,
    HEAD_LINES,
    ONE_COLUMN,
    cells_of,
    damaged,
    decimal_of,
    encoding_of,
    head_of,
    is_number,
    last_line_end,
    open_bytes,
    separator_of,
)

MISSING = ("", "NA", "N/A", "#N/A", "NaN", "nan", "NAN", "-nan", "-NaN", "NULL", "null", "na", "n/a", "None", "<NA>")
UNNAMED = "Unnamed: 0"  # a first column without a name, as pandas calls it


@dataclass(frozen=True)
class TextTable:
    """One table in text and how it is written. ``header`` is exactly what its first line says."""

    path: Path
    encoding: str
    separator: str  # " " is any run of blanks; ``ONE_COLUMN`` is none at all
    decimal: str  # "." or ","
    header: tuple[str, ...]
    skip: int  # lines before the first row
    quotes: bool = True
    carriage: bool = False  # lines end with a lone carriage return

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that have one; an unnamed first column is ``UNNAMED``."""
        named = [c or (UNNAMED if i == 0 else "") for i, c in enumerate(self.header)]
        return tuple(c for c in named if c)

    def batches(
        self, columns: Collection[str] | None = None, *, numbers: Collection[str] = (), kind: Any = None
    ) -> Iterator[Any]:
        """The rows as pyarrow tables, some lines at a time.

        Parameters
        ----------
        columns : to read; None for all that have a name.
        numbers : columns that are numbers; the others are text.
        kind : pyarrow type of the numbers; None for float32.

        Raises
        ------
        InputError
            A row of another length, a word among the numbers, a column without a name that is not empty, damage.
        """
        names = [c or (UNNAMED if i == 0 else f"\0{i}") for i, c in enumerate(self.header)]
        wanted = [c for c in self.columns if columns is None or c in columns]
        blank = [n for n in names if n.startswith("\0")]
        kinds = {c: pa.string() for c in names} | {c: kind or pa.float32() for c in numbers}
        convert = pa.csv.ConvertOptions(
            column_types=kinds,
            include_columns=[*wanted, *blank],
            null_values=list(MISSING),
            strings_can_be_null=False,
            decimal_point=self.decimal,
        )
        separator = "\t" if self.separator == " " else self.separator
        parse = pa.csv.ParseOptions(
            delimiter=separator, quote_char='"' if self.quotes else False, newlines_in_values=self.quotes
        )
        done = 0
        for lines in self._blocks():
            options = pa.csv.ReadOptions(use_threads=False, block_size=len(lines) + 1, column_names=names)
            try:
                table = pa.csv.read_csv(pa.BufferReader(lines), options, parse, convert)
            except pa.ArrowInvalid as error:
                raise self._refusal(error, lines, options, parse=parse, names=names, done=done) from error
            for column in blank:
                self._check_blank(table.column(column), int(column[1:]))
            done += table.num_rows
            yield table.select(wanted)

    def _blocks(self) -> Iterator[bytes]:
        """Whole lines behind the header, as UTF-8."""
        decoder = codecs.getincrementaldecoder(self.encoding)()
        rest, skip = "", self.skip
        with open_bytes(self.path) as stream:
            while True:
                try:
                    piece = stream.read(BLOCK)
                    text = decoder.decode(piece, final=not piece)
                except (*BROKEN, UnicodeDecodeError) as error:
                    raise damaged(self.path, error) from error
                rest += text.replace("\r", "\n") if self.carriage else text
                while skip and "\n" in rest:
                    rest, skip = rest[rest.index("\n") + 1 :], skip - 1
                cut = len(rest) if not piece else last_line_end(rest, self.quotes)
                if not skip and rest[:cut].strip():
                    yield self._plain(rest[:cut])
                if not piece:
                    return
                if not skip:
                    rest = rest[cut:]

    def _plain(self, lines: str) -> bytes:
        if self.separator == " ":
            lines = "\n".join("\t".join(line.split()) for line in lines.splitlines() if line.strip()) + "\n"
        return lines.encode("utf-8")

    def _check_blank(self, column: Any, at: int) -> None:
        held = [v for v in column.to_pylist() if v and v.strip()]
        if held:
            raise InputError(
                f"{self.path}: column {at + 1} has values ({first_few(held, 3)}) but no name. Name it in the first "
                f"line, or remove it."
            )

    def _refusal(
        self, error: Exception, lines: bytes, options: Any, parse: Any, names: list[str], done: int
    ) -> InputError:
        """Which row and column stopped the reading."""
        try:
            texts = pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
            table = pa.csv.read_csv(pa.BufferReader(lines), options, parse, texts)
        except pa.ArrowInvalid:
            told = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", str(error))
            if told is None:
                return InputError(f"{self.path} cannot be read as a table, after {done:,} rows: {error}.")
            row, wanted, got = (int(n) for n in told.groups())
            return InputError(
                f"{self.path}: row {done + row:,} has {got:,} cells, but the first line names {wanted:,} columns "
                f"({self.written()}). The file was cut or edited, or a cell holds the separator and is not quoted. "
                f"Write it again."
            )
        found = re.search(r"column #(\d+)", str(error))
        at = int(found[1]) if found else 0
        for i, word in enumerate(table.column(at).to_pylist()):
            if word not in MISSING and not is_number(word, self.decimal):
                return InputError(
                    f"{self.path}: row {done + i + 1:,} (first cell {table.column(0)[i].as_py()!r}) holds {word!r} in "
                    f"column {names[at]!r}, where a number is needed ({self.written()}). Correct it; write numbers "
                    f"with a decimal point and no thousands separator; take out columns that hold no numbers."
                )
        return InputError(f"{self.path}, after {done:,} rows: {error}. Write the numbers with a decimal point.")

    def written(self) -> str:
        """The dialect in words, for messages."""
        marks = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}
        between = marks.get(self.separator)
        parts = ["one column" if between is None else f"separated by {between}"]
        parts += ["decimal commas"] if self.decimal == "," else []
        parts += [] if self.encoding in ("utf-8", "utf-8-sig") else [f"encoding {self.encoding}"]
        return ", ".join(parts)


def text_table(path: Path, *, blanks: bool = True, quotes: bool = True) -> TextTable:
    """How a text file is written.

    Parameters
    ----------
    path
        Of the file, packed or not.
    blanks
        Whether runs of blanks may separate columns, if no tab, semicolon, comma or bar does.
    quotes
        Whether ``"`` quotes a cell; without, it is a character like others.

    Raises
    ------
    InputError
        Empty, not text, damaged, a column name that occurs twice, numbers that could mean two things.
    """
    with damage_named(path):
        return _text_table(path, blanks, quotes)


def _text_table(path: Path, blanks: bool, quotes: bool) -> TextTable:
    encoding = encoding_of(path)
    text, whole = head_of(path, encoding)
    carriage = "\n" not in text and "\r" in text
    lines = [line for line in re.split(r"(?<=\n)", text.replace("\r", "\n") if carriage else text) if line]
    if not whole and len(lines) > 1:
        lines.pop()  # the last one may be cut
    skip = 0
    told = re.fullmatch(r"sep=(.)\s*", lines[0]) if lines else None  # the first line that Excel understands
    while lines and (not lines[0].strip() or (told and not skip)):
        lines, skip = lines[1:], skip + 1
    comments = _comments(lines, blanks, quotes)
    lines, skip = lines[comments:], skip + comments
    if not lines:
        raise InputError(
            f"{path} cannot be read as a table: it is empty. A table has a first line with the names of its columns."
        )
    body = lines[:HEAD_LINES]
    separator = told[1] if told else separator_of(body, blanks, quotes)
    rows, ends = cells_of(body, separator, quotes)
    header = [name.strip() for name in rows[0]]
    if len(rows) > 1 and all(len(row) == len(header) + 1 for row in rows[1:]):
        header = ["", *header]  # names of rows without a name, as R writes them
    _refuse_repeats(path, header)
    decimal = "." if separator in (" ", ONE_COLUMN) else decimal_of(path, rows[1:])
    return TextTable(
        path,
        encoding,
        separator,
        decimal=decimal,
        header=tuple(header),
        skip=skip + ends,
        quotes=quotes,
        carriage=carriage,
    )


def _comments(lines: Sequence[str], blanks: bool, quotes: bool) -> int:
    """How many first lines begin with ``#`` and are none of the table: not the last of them if it has as many cells as
    the line below, which is then named by it (``#chrom``)."""
    n = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")), 0)
    if not n:
        return 0
    body = lines[n : n + HEAD_LINES]
    separator = separator_of(body, blanks, quotes)
    last, first = (cells_of([line], separator, quotes)[0][0] for line in (lines[n - 1], body[0]))
    return n - 1 if len(last) == len(first) else n


def _refuse_repeats(path: Path, header: Sequence[str]) -> None:
    repeated = [name for name, n in Counter(header).items() if n > 1 and name]
    if repeated:
        raise InputError(
            f"{path}: {len(repeated):,} column names occur more than once: {first_few(repeated)}. Which column is "
            f"which cannot be known (spreadsheets turn gene names such as MARCH1 and MARC1 into one date, 1-Mar). "
            f"Give every column a unique name."
        )
