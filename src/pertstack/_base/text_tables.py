"""How a table in plain text is written (encoding, separator, decimal mark), found from its bytes and then fixed.

Every CSV, TSV and list of ids of the package goes through here, so one file means the same wherever it is given.
Cells are text unless the caller names a column of numbers: nothing is guessed from the first rows, and nothing is
renamed. What is done with the cells is left to ``tables.py`` and its callers.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import lzma
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv

from pertstack._base.errors import InputError, first_few

BLOCK = 4_000_000  # bytes of text parsed at once; more is faster and takes more memory
MISSING = ("", "NA", "N/A", "#N/A", "NaN", "nan", "NAN", "-nan", "-NaN", "NULL", "null", "na", "n/a", "None", "<NA>")
PACKED = (".gz", ".bz2", ".xz")
UNNAMED = "Unnamed: 0"  # a first column without a name, as pandas calls it
BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError)  # what damaged compressed files raise

_HEAD = 1_000_000  # bytes looked at to find the separator; more where two lines need more
_MOST_HEAD = 64_000_000
_LINES = 60
_ONE_COLUMN = "\x1f"  # a separator that no text holds: the table has one column
_NUMBER = re.compile(r"\s*[+-]?(?:\d+(?P<mark>[.,])?\d*|(?P<lead>[.,])\d+)(?:[eE][+-]?\d+)?\s*")
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ARCHIVES = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\x89HDF": "an HDF5 file",
    b"PAR1": "a parquet file",
    b"ARROW1": "a feather file",
    b"\x93NUMPY": "a numpy file",
}


@dataclass(frozen=True)
class TextTable:
    """One table in text and how it is written. ``header`` is exactly what its first line says."""

    path: Path
    encoding: str
    separator: str  # " " is any run of blanks; ``_ONE_COLUMN`` is none at all
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
        """The rows as pyarrow tables, some lines at a time: text, except ``numbers`` (float32, or ``kind``).

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
                raise self._refusal(error, lines, options, parse, names, done) from error
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
                cut = len(rest) if not piece else _cut(rest, self.quotes)
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


def open_bytes(path: Path) -> BinaryIO:
    """The bytes of a file, unpacked when they are gzip, bzip2 or xz, whatever the suffix says."""
    with path.open("rb") as stream:
        start = stream.read(6)
    if start[:2] == b"\x1f\x8b":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if start[:3] == b"BZh":
        return bz2.open(path, "rb")  # type: ignore[return-value]
    if start == b"\xfd7zXZ\0":
        return lzma.open(path, "rb")  # type: ignore[return-value]
    return path.open("rb")


def damaged(path: Path, error: BaseException) -> InputError:
    """The refusal of a file whose bytes cannot be unpacked or decoded to the end."""
    return InputError(f"{path} is damaged or was cut: {error}. Copy it again from where it was made.")


def text_table(path: Path, *, blanks: bool = True, quotes: bool = True) -> TextTable:
    """How a text file is written.

    Parameters
    ----------
    blanks
        Whether runs of blanks may separate columns, where no tab, semicolon, comma or bar does.
    quotes
        Whether ``"`` quotes a cell; without, it is a character like others.

    Raises
    ------
    InputError
        Empty, not text, damaged, a column name that occurs twice, numbers that could mean two things.
    """
    encoding = encoding_of(path)
    text, whole = _head(path, encoding)
    carriage = "\n" not in text and "\r" in text
    lines = [line for line in re.split(r"(?<=\n)", text.replace("\r", "\n") if carriage else text) if line]
    if not whole and len(lines) > 1:
        lines.pop()  # the last one may be cut
    skip = 0
    told = re.fullmatch(r"sep=(.)\s*", lines[0]) if lines else None  # the first line that Excel understands
    while lines and (not lines[0].strip() or (told and not skip)):
        lines, skip = lines[1:], skip + 1
    if not lines:
        raise InputError(
            f"{path} cannot be read as a table: it is empty. A table has a first line with the names of its columns."
        )
    body = lines[:_LINES]
    separator = told[1] if told else _separator(body, blanks, quotes)
    rows, ends = _cells(body, separator, quotes)
    header = [name.strip() for name in rows[0]]
    if len(rows) > 1 and all(len(row) == len(header) + 1 for row in rows[1:]):
        header = ["", *header]  # names of rows without a name, as R writes them
    _refuse_repeats(path, header)
    decimal = "." if separator in (" ", _ONE_COLUMN) else _decimal(path, rows[1:])
    return TextTable(path, encoding, separator, decimal, tuple(header), skip + ends, quotes, carriage)


def encoding_of(path: Path) -> str:
    """utf-8, utf-8-sig, utf-16, utf-32 or, where the bytes are none of these, cp1252 (Windows) or latin-1."""
    try:
        with open_bytes(path) as stream:
            start = stream.read(4096)
            for magic, what in _ARCHIVES.items():
                if start.startswith(magic):
                    raise InputError(
                        f"{path} is {what}, not a table in text. Name it by its own suffix, or save it as .csv (or "
                        f".parquet) and hand that in."
                    )
            bom = next((encoding for mark, encoding in _BOMS if start.startswith(mark)), None)
            if bom is not None:
                return bom
            if b"\0" in start:
                pairs = len(start) // 2
                for encoding, zeros in (("utf-16-le", start[1::2]), ("utf-16-be", start[::2])):
                    if pairs and zeros.count(0) > 0.7 * pairs:
                        return encoding
                raise InputError(f"{path} is not text (it holds zero bytes). Tables are .parquet, .csv or .tsv.")
            return _of_bytes(stream, start)
    except BROKEN as error:
        raise damaged(path, error) from error


def _of_bytes(stream: BinaryIO, piece: bytes) -> str:
    """utf-8 where every byte of the file is; else cp1252, or latin-1 where bytes occur that cp1252 lacks."""
    decoder: Any = codecs.getincrementaldecoder("utf-8")()
    odd: set[int] = set()
    while piece:
        if decoder is not None and not piece.isascii():
            try:
                decoder.decode(piece)
            except UnicodeDecodeError:
                decoder = None
        elif decoder is not None and decoder.getstate()[0]:
            decoder = None  # a character broken off
        odd |= {0x81, 0x8D, 0x8F, 0x90, 0x9D} & set(piece) if not piece.isascii() else set()
        piece = stream.read(BLOCK)
    if decoder is not None and not decoder.getstate()[0]:
        return "utf-8"
    return "latin-1" if odd else "cp1252"


def text_of_bytes(raw: bytes) -> str:
    """HDF5 does not say how fixed-length texts are encoded: UTF-8 where they can be, else Windows-1252 or Latin-1."""
    for encoding in ("utf-8", "cp1252"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return raw.decode("latin-1")


def is_number(word: str, decimal: str = ".") -> bool:
    """Whether a cell is one number with this decimal mark, infinity included."""
    found = _NUMBER.fullmatch(word)
    if found is None:
        return word.strip().lstrip("+-").casefold() in ("inf", "infinity")
    return (found["mark"] or found["lead"] or decimal) == decimal


def _head(path: Path, encoding: str) -> tuple[str, bool]:
    """The first lines of a file, at least three where it has as many, and whether that is all of it."""
    decoder = codecs.getincrementaldecoder(encoding)()
    text, n_bytes = "", 0
    try:
        with open_bytes(path) as stream:
            while n_bytes < _HEAD or (text.count("\n") < 3 and n_bytes < _MOST_HEAD):
                piece = stream.read(_HEAD)
                n_bytes += len(piece)
                text += decoder.decode(piece, final=not piece)
                if not piece:
                    return text, True
    except (*BROKEN, UnicodeDecodeError) as error:
        raise damaged(path, error) from error
    return text, False


def _cut(text: str, quotes: bool) -> int:
    """Where the last whole line ends; a line break inside quotes ends no line."""
    cut = text.rfind("\n") + 1
    if not quotes or len(text) > _MOST_HEAD:  # a quote that is never closed
        return cut
    odd = text.count('"', 0, cut) % 2
    while odd and cut:
        before = text.rfind("\n", 0, cut - 1) + 1
        odd ^= text.count('"', before, cut) % 2
        cut = before
    return cut


def _cells(lines: Sequence[str], separator: str, quotes: bool) -> tuple[list[list[str]], int]:
    """Cells of the lines that are not empty, and how many lines the first of them takes."""
    if separator == " ":
        return [line.split() for line in lines if line.strip()], 1
    reader = csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE)
    limit = csv.field_size_limit(_MOST_HEAD)
    try:
        first = next(reader)
        ends = reader.line_num
        return [first, *(row for row in reader if row)], ends
    finally:
        csv.field_size_limit(limit)


def _separator(lines: Sequence[str], blanks: bool, quotes: bool) -> str:
    """The mark that cuts all lines into the same number of cells, the most of them; else that of the first line."""
    for unnamed in (0, 1):  # R names no column of row names: its first line then has one cell less
        best, most = "", 1
        for mark in "\t;,|":
            rows, _ = _cells(lines, mark, quotes)
            width = len(rows[-1])
            if {len(row) for row in rows[1:]} <= {width} and len(rows[0]) == width - unnamed and width > most:
                best, most = mark, width
        if best:
            return best
    if blanks:
        rows, _ = _cells(lines, " ", quotes)
        if len({len(row) for row in rows}) == 1 and len(rows[0]) > 1:
            return " "
    counts = Counter({mark: lines[0].count(mark) for mark in "\t;,|"})
    mark, n = counts.most_common(1)[0]
    return mark if n else _ONE_COLUMN


def _decimal(path: Path, rows: Sequence[Sequence[str]]) -> str:
    """Comma where numbers have decimal commas and none has a point; refuses what could be thousands."""
    cells = [cell.strip() for row in rows for cell in row]
    found = [_NUMBER.fullmatch(cell) for cell in cells]
    marks = Counter(m["mark"] or m["lead"] for m in found if m is not None)
    grouped = [cell for cell in cells if _GROUPED.fullmatch(cell)]
    if not marks[","] or marks["."]:
        return "."
    columns = {i for row in rows for i, cell in enumerate(row) if _GROUPED.fullmatch(cell.strip())}
    whole = [row[i] for row in rows for i in columns if i < len(row) and row[i].strip().isdigit()]
    if len(grouped) == marks[","] and whole:
        raise InputError(
            f"{path}: numbers such as {grouped[0]!r} beside {whole[0]!r} may have thousands separators or decimal "
            f"commas. Write numbers with a decimal point and without thousands separators (pandas: "
            f"to_csv(decimal='.'), R: write.csv)."
        )
    return ","


def _refuse_repeats(path: Path, header: Sequence[str]) -> None:
    repeated = [name for name, n in Counter(header).items() if n > 1 and name]
    if repeated:
        raise InputError(
            f"{path}: {len(repeated):,} column names occur more than once: {first_few(repeated)}. Which column is "
            f"which cannot be known (spreadsheets turn gene names such as MARCH1 and MARC1 into one date, 1-Mar). "
            f"Give every column a unique name."
        )


__all__ = [
    "BROKEN",
    "MISSING",
    "PACKED",
    "UNNAMED",
    "TextTable",
    "damaged",
    "encoding_of",
    "is_number",
    "open_bytes",
    "text_of_bytes",
    "text_table",
]
