"""Which names may be used: text that files, tables and other libraries keep as it is.

numpy drops trailing NUL characters, pandas compares text up to the first one, and lists of names are stored one a line.
So ``'0'`` and ``'0\\0'`` would become one group, half of it on each side of a fold. Such names are refused at the door.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote

from pertstack._base.errors import InputError, first_few

_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # control characters, halves of surrogate pairs


def unusable_names(names: Iterable[object]) -> list[str]:
    r"""The distinct names that hold a control character (NUL, tab, line break, ...) or text that is no UTF-8.

    Pass every name: ``pandas.unique`` takes ``'0\0'`` for ``'0'``.

    >>> unusable_names(["vorinostat", "0\0", "two\nlines"])
    ['0\x00', 'two\nlines']
    """
    return [name for name in dict.fromkeys(map(str, names)) if _CONTROL.search(name)]


def listed(names: str | Iterable[str]) -> list[str]:
    """Names as a list; a text is one name and not its letters.

    >>> listed("ridge"), listed(("ridge", "knn"))
    (['ridge'], ['ridge', 'knn'])
    """
    return [names] if isinstance(names, str) else list(names)


def refuse_unusable_names(names: Iterable[object], what: str) -> None:
    """Refuse names with control characters; ``what`` says in the plural what the names are.

    Raises
    ------
    InputError
        Shows the first of them, escaped.
    """
    if found := unusable_names(names):
        raise InputError(unusable_in_words(found, what))


def unusable_in_words(found: list[str], what: str) -> str:
    """The sentence for names that ``unusable_names`` found."""
    return (
        f"{len(found):,} {what} hold control characters (NUL, tab, line break) or broken text: {first_few(found)}. "
        f"Other libraries cut names there, so two names could become one. Remove these characters from the file, with "
        r"pandas for example: names.str.replace(r'[\x00-\x1f\x7f]', '', regex=True)."
    )


def undotted(name: str) -> str:
    """A name as a part of a file name whose parts are separated by dots; ``urllib.parse.unquote`` gives it back.

    >>> undotted("HT 29/x.y")
    'HT%2029%2Fx%2Ey'
    """
    return quote(name, safe="-_").replace(".", "%2E")
