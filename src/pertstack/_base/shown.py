"""Text of strangers made harmless to look at. Data keep it exactly; only what a person sees goes through here.

A name may hold escape sequences that move a terminal's cursor, characters that turn the reading direction round
(Boucher and Anderson 2021, "Trojan Source") or are not seen at all (so that two names look alike), a megabyte of
letters, or a formula for a spreadsheet.
"""

from __future__ import annotations

import re

LONGEST = 200
"""Characters of one word that are shown; no real name is as long."""

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\ud800-\udfff"
    "\u00ad\u034f\u115f\u1160\u180e\u200b-\u200d\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # also of full width


def shown(text: str, *, longest: int = LONGEST) -> str:
    r"""Text to look at: what moves a cursor or turns the direction is spelt out, words of great length are cut.

    >>> print(shown("gene\x1b[2J\u202e"))
    gene\u001b[2J\u202e
    >>> shown("A" * 1000, longest=5)
    'AAAAA... (1,000 characters)'
    """
    text = spelt_out(text)
    if len(text) <= longest:
        return text
    return re.sub(rf"\S{{{longest + 1},}}", lambda m: f"{m[0][:longest]}... ({len(m[0]):,} characters)", text)


def spelt_out(text: str) -> str:
    r"""Control characters (but not line ends and tabs), direction marks and what is not seen as in JSON: ``\u202e``."""
    return _UNSEEN.sub(_spelt, text)


def _spelt(found: re.Match[str]) -> str:
    return json_escape(found[0])


def json_escape(text: str) -> str:
    r"""Every character as JSON spells it: ``\u03b2``, and two of these for an emoji."""
    units = text.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def spreadsheet_cell(text: str) -> str:
    """A text that a spreadsheet takes for text: one that would start a formula gets an apostrophe in front.

    >>> spreadsheet_cell("=1+1")
    "'=1+1"
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def count_of(n: int, one: str, many: str | None = None) -> str:
    """A count with its noun.

    Parameters
    ----------
    n : shown with separators of thousands.
    one : the noun for 1.
    many : the noun for all others; None appends an s.

    Examples
    --------
    >>> count_of(1, "perturbation"), count_of(1200, "cell line")
    ('1 perturbation', '1,200 cell lines')
    """
    return f"{n:,} {one if n == 1 else (many or one + 's')}"
