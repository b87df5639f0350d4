"""How a table in text is written: packing, encoding, separator, decimal mark; read from its first bytes and lines."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import lzma
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pertstack._base.errors import InputError

BLOCK = 4_000_000  # bytes of text parsed at once; more is faster and takes more memory
UNPACKED, PACKED_TEXT = 10**8, 100
"""Bytes of text that any packed file may hold, and how many for each packed one beyond that."""
PACKED = (".gz", ".bz2", ".xz")
BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError)  # what damaged compressed files raise
_HEAD = 1_000_000  # bytes looked at to find the separator; more if two lines need more
_MOST_HEAD = 64_000_000
HEAD_LINES = 60
ONE_COLUMN = "\x1f"  # a separator that no text holds: the table has one column
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


def open_bytes(path: Path) -> BinaryIO:
    """The bytes of a file, unpacked when they are gzip, bzip2 or xz, whatever the suffix says. Reading raises an
    InputError if a small file unpacks to far more than tables do."""
    with path.open("rb") as stream:
        start = stream.read(6)
    if start[:2] == b"\x1f\x8b":
        return _believable(gzip.open(path, "rb"), path)
    if start[:3] == b"BZh":
        return _believable(bz2.open(path, "rb"), path)
    if start == b"\xfd7zXZ\0":
        return _believable(lzma.open(path, "rb"), path)
    return path.open("rb")


def most_unpacked(path: Path) -> int:
    """Bytes of text that a packed file may stand for: numbers in text shrink to a fifth, repeated ones to a fiftieth,
    and one character a billion times over to nothing."""
    return max(UNPACKED, PACKED_TEXT * path.stat().st_size)


def _believable(stream: Any, path: Path) -> BinaryIO:
    return io.BufferedReader(_Believable(stream, path), buffer_size=1 << 16)


class _Believable(io.RawIOBase):
    """What a packed stream holds, up to ``most_unpacked``."""

    def __init__(self, stream: Any, path: Path) -> None:
        self._stream, self._path, self._left = stream, path, most_unpacked(path)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._stream.read(len(buffer))
        self._left -= len(piece)
        if self._left < 0:
            there = self._path.stat().st_size
            raise InputError(
                f"{self._path} has {there:,} bytes and unpacks to more than {most_unpacked(self._path):,}: it is "
                f"damaged, or made to fill the memory. If it is what you mean, unpack it first and name that file."
            )
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self._stream.close()
        super().close()


def damaged(path: Path, error: BaseException) -> InputError:
    """The refusal of a file whose bytes cannot be unpacked or decoded to the end."""
    return InputError(f"{path} is damaged or was cut: {error}. Copy it again from where it was made.")


def encoding_of(path: Path) -> str:
    """utf-8, utf-8-sig, utf-16, utf-32 or, if the bytes are none of these, cp1252 (Windows) or latin-1."""
    try:
        with open_bytes(path) as stream:
            start = stream.read(4096)
            for magic, what in _ARCHIVES.items():
                if start.startswith(magic):
                    raise InputError(
                        f"{path} is {what}, not a table in text. Name it by its own suffix, or save it as .csv (or "
                        f".parquet) and name that file."
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
    """utf-8 if every byte of the file is; else cp1252, or latin-1 if bytes occur that cp1252 lacks."""
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
    """HDF5 does not say how fixed-length texts are encoded: UTF-8 if they can be, else Windows-1252 or Latin-1."""
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


def head_of(path: Path, encoding: str) -> tuple[str, bool]:
    """The first lines of a file, at least three if it has as many, and whether that is all of it."""
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


def last_line_end(text: str, quotes: bool) -> int:
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


def cells_of(lines: Sequence[str], separator: str, quotes: bool) -> tuple[list[list[str]], int]:
    """Cells of the lines that are not empty, and how many lines the first of them takes.

    Parameters
    ----------
    lines : the first lines of a table.
    separator : one character; a blank stands for any run of blanks.
    quotes : whether ``"`` encloses cells.
    """
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


def separator_of(lines: Sequence[str], blanks: bool, quotes: bool) -> str:
    """The mark that cuts all lines into the same number of cells, the most of them; else that of the first line.

    Parameters
    ----------
    lines : the first lines of the table, not empty.
    blanks : whether runs of blanks may separate, if no mark does.
    quotes : whether ``"`` encloses cells.
    """
    for unnamed in (0, 1):  # R names no column of row names: its first line then has one cell less
        best, most = "", 1
        for mark in "\t;,|":
            rows, _ = cells_of(lines, mark, quotes)
            width = len(rows[-1])
            if {len(row) for row in rows[1:]} <= {width} and len(rows[0]) == width - unnamed and width > most:
                best, most = mark, width
        if best:
            return best
    if blanks:
        rows, _ = cells_of(lines, " ", quotes)
        if len({len(row) for row in rows}) == 1 and len(rows[0]) > 1:
            return " "
    counts = Counter({mark: lines[0].count(mark) for mark in "\t;,|"})
    mark, n = counts.most_common(1)[0]
    return mark if n else ONE_COLUMN


def decimal_of(path: Path, rows: Sequence[Sequence[str]]) -> str:
    """Comma if numbers have decimal commas and none has a point; refuses what could be thousands."""
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
