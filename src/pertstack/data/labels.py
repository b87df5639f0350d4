"""Names of perturbations: which spellings are one perturbation, and which only look like it.

``A+B``, ``B+A`` and ``A + B`` are one perturbation, and so are ``A``, ``A+ctrl`` and ``ctrl+A``; ``A_B`` is one of them
when the data show that ``_`` joins names. Such spellings are brought to one, because a plan, a leak check or a table
of features that takes them for two is wrong. Names that differ in case, punctuation, salt or suffix may be two
compounds: they are listed for a person to decide.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache

from pertstack._base.findings import Finding

CONTROL_KINDS = {
    "vehicle": frozenset(
        (
            "dmso",
            "dmso-tf",
            "dimethyl-sulfoxide",
            "dimethylsulfoxide",
            "vehicle",
            "ctl-vehicle",
            "ctl-vehicle-cns",
            "pbs",
        )
    ),
    "non-targeting": frozenset(
        (
            "non-targeting",
            "nontargeting",
            "non-target",
            "nontarget",
            "no-target",
            "safe-targeting",
            "safe-target",
            "nt",
            "ntc",
            "sgnt",
            "sgntc",
            "sgctrl",
            "sgcontrol",
            "sint",
            "negctrl",
            "neg-ctrl",
            "neg-control",
            "scramble",
            "scrambled",
        )
    ),
    "control": frozenset(("control", "ctrl", "ctl", "mock", "negative-control")),
    "untreated": frozenset(
        (
            "untreated",
            "unperturbed",
            "unstimulated",
            "no-treatment",
            "not-treated",
            "no-drug",
            "ctl-untrt",
            "ctl-untrt-cns",
        )
    ),
}
"""Names of the control that are known without being told, by what was done to them: in lower case, with ``-`` for what
stands between words, without the words ``control`` and ``guide`` behind them."""
CONTROL_NAMES = frozenset().union(*CONTROL_KINDS.values())
_NUMBERED = re.compile(
    r"(neg-?ctrl|ntc|sgnt|non-?targeting|safe-?targeting|negative-control|ctrl|control|dmso|vehicle|untreated|mock)-?\d+"
)
"""NegCtrl0, non-targeting_12, control_1, DMSO_1."""
_CALLED_CONTROL = re.compile(r"-(?:control|ctrl|guide|sgrna|grna)s?$|-?[(\[](?:control|ctrl|vehicle)[)\]]$")
"""What may stand behind the name of a control: vehicle control, DMSO (vehicle)."""
_STRENGTH = re.compile(r"(?<=^dmso)-?\(?\d+(\.\d+)?-?%\)?$")
_DASHES = re.compile("[\u2010-\u2015\u2212]")
_UNSEEN = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
"""Characters without a shape: soft hyphen, blanks of no width, marks of direction and of byte order."""
_BLANKS = re.compile("[ \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+")
"""Blanks of any width; tabs and line breaks are none: such names are refused elsewhere."""
_JOINS = frozenset("+|;&,/\uff0b\ufe62\uff5c\uff1b\uff06\uff0c\uff0f")
"""Characters that join names, in full width and small too."""
_LOOSE = re.compile(
    r" (?:and|with|plus|x) | ?(?:_+|:+|[-\u2010-\u2015]+|[~\\*=^%#>]+|[.\u00b7\u2219\u2022\u00d7]) ?", re.IGNORECASE
)
"""What joins names if every piece is itself a name in the data: ``A_B``, ``A:B``, ``A and B``, ``A ~ B``."""
_WRAPPED = re.compile(r"[(\[{](.+)[)\]}]")
"""A pair written as Python does: ``('A', 'B')``."""
_LOCANTS = re.compile(r"(?<![^\s\-(\[{])(?:\d+[a-z]?'*|[NOSP]'*)(?:,(?:\d+[a-z]?'*|[NOSP]'*))+(?=-)")
"""Positions within a chemical name, whose commas join nothing: ``4,5`` in thia-4,5-diaza, ``N,N`` in N,N-dimethyl."""
_OPEN, _CLOSE = frozenset("([{"), frozenset(")]}")


def visible(text: object) -> str:
    """A name as one sees it: composed characters, plain blanks, none at its ends, nothing without a shape.

    >>> visible("T\\u00a0cell\\u200b ")
    'T cell'
    """
    return _BLANKS.sub(" ", _UNSEEN.sub("", unicodedata.normalize("NFC", str(text)))).strip(" ")


def control_kind(name: object) -> str | None:
    """The key of ``CONTROL_KINDS`` that a name of a control belongs to; None for other names.

    >>> control_kind("DMSO 0.1%"), control_kind("Safe Targeting"), control_kind("vehicle control"), control_kind("KLF1")
    ('vehicle', 'non-targeting', 'vehicle', None)
    """
    text = _DASHES.sub("-", visible(unicodedata.normalize("NFKC", str(name)))).casefold()
    pieces = [_control_word(p) for p in re.split(r"[+|;,]|_(?=_?neg_?ctrl\d)", text)]
    if not all(p in CONTROL_NAMES or _NUMBERED.fullmatch(p) for p in pieces):
        return None
    first = _NUMBERED.sub(r"\1", pieces[0])
    return next((kind for kind, names in CONTROL_KINDS.items() if first in names), "non-targeting")


def _control_word(name: str) -> str:
    """One name as ``CONTROL_KINDS`` has it."""
    word = _STRENGTH.sub("", "-".join(p for p in re.split(r"[-_ ]+", name) if p)).replace(".", "-")
    return word if word in CONTROL_NAMES else _CALLED_CONTROL.sub("", word)


def is_control_name(name: object) -> bool:
    """Whether a name is one of the usual names of a control, alone or joined to itself (``ctrl+ctrl``).

    >>> is_control_name("DMSO"), is_control_name("NegCtrl0+NegCtrl1"), is_control_name("A+ctrl")
    (True, True, False)
    """
    return control_kind(name) is not None


@lru_cache(maxsize=100_000)
def parts_of(name: str) -> tuple[str, ...]:
    """What a name is made of, in alphabetical order, controls left out; the name itself if it joins nothing.

    >>> parts_of("KLF1 + CEBPA"), parts_of("ctrl+KLF1"), parts_of("(+)-MK-801"), parts_of("NAD+")
    (('CEBPA', 'KLF1'), ('KLF1',), ('(+)-MK-801',), ('NAD+',))
    >>> parts_of("thia-4,5-diaza-chrysene"), parts_of("N,N-dimethyltryptamine")
    (('thia-4,5-diaza-chrysene',), ('N,N-dimethyltryptamine',))
    """
    text = visible(name)
    pieces = _split(text)
    if len(pieces) < 2 or not all(any(c.isalpha() for c in p) for p in pieces):
        return (text,)
    acting = sorted(p for p in pieces if not is_control_name(p) and p.casefold() not in ("none", "nan"))
    return tuple(acting) or (text,)


def _split(text: str) -> list[str]:
    """Pieces between joining characters, those in brackets and between locants left alone."""
    pieces, depth = [""], 0
    locants = {i for m in _LOCANTS.finditer(text) for i in range(*m.span())}
    for i, character in enumerate(text):
        depth += (character in _OPEN) - (character in _CLOSE)
        if character in _JOINS and depth <= 0 and i not in locants:
            pieces.append("")
        else:
            pieces[-1] += character
    return [p.strip(" ") for p in pieces]


def perturbation_keys(names: Iterable[object]) -> dict[str, tuple[str, ...]]:
    """What each name means: equal for spellings of one perturbation.

    ``_`` is read as joining names if every piece is itself a name in these data, or if the same pieces occur in
    another order; ``:``, ``-``, ``.``, ``and``, ``with`` and ``x`` if every piece is a name.
    """
    keys = {name: parts_of(_once(name)) for name in dict.fromkeys(map(str, names))}
    known = {p for key in keys.values() for p in key if len(key) > 1 or "_" not in p}
    loose: dict[tuple[str, ...], list[str]] = {}
    for name, key in keys.items():
        apart = _LOOSE.split(key[0]) if len(key) == 1 else []
        if len(key) == 1 and (wrapped := _WRAPPED.fullmatch(key[0])):
            apart = [p.strip("'\"") for p in parts_of(wrapped[1])]
        least = 2 if {"-", "."} & set(key[0]) else 1  # T-DM1 is one name beside T and DM1
        words = all(len(p) >= least and any(c.isalpha() for c in p) for p in apart)
        acting = [p for p in apart if not _no_part(p)]
        if len(apart) > 1 and acting and known.issuperset(acting) and words:
            keys[name] = tuple(sorted(acting))
            continue
        pieces = [p for p in key[0].split("_") if p and not _no_part(p)] if len(key) == 1 else []
        if len(pieces) == 1 < len([p for p in key[0].split("_") if p]) and any(c.isalpha() for c in pieces[0]):
            keys[name] = (pieces[0],)  # A_NegCtrl0, also if A is nowhere alone
            continue
        if "_" not in key[0] or not pieces or not all(any(c.isalpha() for c in p) for p in pieces):
            continue
        if known.issuperset(pieces):
            keys[name] = tuple(sorted(pieces))
        elif len(pieces) > 1:
            loose.setdefault(tuple(sorted(pieces)), []).append(name)
    for pieces_in_order, spelt in loose.items():
        if len(spelt) > 1:
            keys |= dict.fromkeys(spelt, pieces_in_order)
    return keys


def _no_part(piece: str) -> bool:
    """Whether a piece of a name stands for no second perturbation: ``A_ctrl``, ``A_NegCtrl0``; not ``A_control``."""
    return piece.casefold() == "ctrl" or _NUMBERED.fullmatch(piece.casefold()) is not None


def _once(name: str) -> str:
    """One half of a pair of guides that is written twice: ``A_B__A_B``."""
    half = name[: (len(name) - 2) // 2]
    return half if half and name == f"{half}__{half}" else name


def one_spelling(names: Iterable[object], like: Iterable[object] = ()) -> dict[str, str]:
    """Name -> the spelling that stands for it, for names that change; spellings of ``like`` are kept before others.

    >>> one_spelling(["B+A", "A+B", "C+ctrl"])
    {'B+A': 'A+B'}
    """
    preferred, asked = set(map(str, like)), list(dict.fromkeys(map(str, names)))
    spellings: dict[tuple[str, ...], list[str]] = {}
    keys = perturbation_keys([*asked, *preferred])
    for name, key in keys.items():
        spellings.setdefault(key, []).append(name)
    first = {key: min(found, key=lambda n: (n not in preferred, len(n), n)) for key, found in spellings.items()}
    return {name: first[keys[name]] for name in asked if first[keys[name]] != name and name not in preferred}


def look_up(names: Iterable[object], among: Iterable[object]) -> dict[str, str]:
    """Name -> the name of the same perturbation in another table, by exact spelling first; absent if there is none.

    >>> look_up(["A+B", "C"], ["B+A", "D"])
    {'A+B': 'B+A'}
    """
    wanted, there = list(dict.fromkeys(map(str, names))), list(dict.fromkeys(map(str, among)))
    keys = perturbation_keys([*wanted, *there])
    by_key = {keys[name]: name for name in reversed(there)}
    exact = set(there)
    found = {name: name if name in exact else by_key.get(keys[name]) for name in wanted}
    return {name: other for name, other in found.items() if other is not None}


def spelling_finding(changed: Mapping[str, str], where: str) -> list[Finding]:
    """A warning that names every spelling that was brought to another."""
    if not changed:
        return []
    shown = [f"{old!r} = {new!r}" for old, new in sorted(changed.items())]
    more = f" and {len(shown) - 10:,} more" if len(shown) > 10 else ""
    return [
        Finding(
            "warning",
            "several_names",
            f"{len(changed):,} names are the same perturbation as another name, but for order, blanks or a control "
            f"beside "
            f"it: {', '.join(shown[:10])}{more}. Each is one perturbation here, under the second name. If they are not "
            f"the same, give them names without '+' and '_' between parts.",
            count=len(changed),
            examples=tuple(shown[:10]),
            where=where,
        )
    ]
