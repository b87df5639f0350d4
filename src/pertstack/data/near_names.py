"""Names that differ in case, punctuation, salt or suffix only: they may be one perturbation, and a person decides."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from pertstack._base.findings import Finding

_BROAD = re.compile(r"(brd-[a-z]\d{8})-.+")  # Broad ids: the compound, then its batch


_REPLICATE = re.compile(
    r"[\s_.\-(\[]+(?:(?:replicate|rep|r|batch|lot|copy|dup|guide|g|sg|sgrna|grna|sh|shrna|sirna)[\s_.#\-]*\d+"
    r"|p1|p2|p1p2|ko|kd|knockout|knockdown|crispri)[)\]]?$"
)
_DOSE = re.compile(r"[\s_\-(@]+\d+(?:\.\d+)?[\s_]*(?:[munp\u03bc]m|[munp\u03bc]mol/l|[munp\u03bc]g/m?l)\)?$")
_VERSION = re.compile(r"(ens[a-z]*\d{6,}|n[mrp]_\d{5,})\.\d+")
_BESIDE = re.compile(r"_(?:ctrl|control)$|^(?:ctrl|control)_")
_BETWEEN = re.compile(r"[\s()\[\]_.,/\-\u2010-\u2015\u00b7\u22c5]+")
_TWICE = re.compile(r"(.+?)\s*[+|;]\s*\1")


_NUMBER_AT_END = re.compile(r"(.*?\S)[\s_.\-]+(\d{1,2}|\d+\.\d+|[1-9]0{2,})")
"""The number of a replicate, or a dose without its unit (``Belinostat_1000.0``)."""


_SALTS = frozenset(
    (
        "hydrochloride",
        "dihydrochloride",
        "monohydrochloride",
        "hcl",
        "2hcl",
        "hydrobromide",
        "hbr",
        "sodium",
        "disodium",
        "potassium",
        "calcium",
        "magnesium",
        "mesylate",
        "dimesylate",
        "methanesulfonate",
        "maleate",
        "fumarate",
        "hemifumarate",
        "tartrate",
        "bitartrate",
        "citrate",
        "phosphate",
        "diphosphate",
        "sulfate",
        "sulphate",
        "hemisulfate",
        "acetate",
        "trifluoroacetate",
        "tfa",
        "bromide",
        "chloride",
        "iodide",
        "nitrate",
        "tosylate",
        "ditosylate",
        "besylate",
        "succinate",
        "lactate",
        "malate",
        "pamoate",
        "oxalate",
        "hydrate",
        "monohydrate",
        "dihydrate",
        "hemihydrate",
        "anhydrous",
        "salt",
        "base",
        "free",
        "acid",
        "monosodium",
        "trisodium",
        "trihydrochloride",
        "hydrogen",
        "sesquihydrate",
        "trihydrate",
        "pentahydrate",
        "mesilate",
        "methanesulphonate",
        "esylate",
        "edisylate",
        "napadisylate",
        "bisulfate",
        "gluconate",
        "meglumine",
        "tromethamine",
        "lysine",
    )
)


def alike_finding(groups: Iterable[tuple[str, ...]], where: str, mend: str) -> list[Finding]:
    """A warning that lists names which may be one perturbation.

    Parameters
    ----------
    groups : from ``near_names``.
    where : file or argument.
    mend : how they are held together at this door, after "name".
    """
    groups = list(groups)
    if not groups:
        return []
    names = [name for group in groups for name in group]
    return [
        Finding(
            "warning",
            "names_alike",
            f"{len(names):,} names of perturbations are alike but for case, punctuation, zeros, salt or a suffix: "
            f"{'; '.join(' = '.join(g) for g in groups[:10])}{' ...' if len(groups) > 10 else ''}. If they are one "
            f"perturbation (replicates, guides or salts of it), models meet it in other folds and intervals are too "
            f"narrow: {mend}",
            count=len(names),
            examples=tuple(names[:10]),
            where=where,
        )
    ]


def near_names(names: Iterable[object], *, numbered: bool = True) -> list[tuple[str, ...]]:
    """Groups of names that differ in case, punctuation, leading zeros, salt, dose, batch or replicate suffix only.

    A number at the end is taken for a replicate's if at least three stems have several (``aspirin_1``,
    ``aspirin_2``, ...), or if the stem is a name itself; never if names are not ``numbered``.

    >>> near_names(["drug07", "DRUG-7", "imatinib", "Imatinib mesylate", "other"])
    [('DRUG-7', 'drug07'), ('Imatinib mesylate', 'imatinib')]
    >>> near_names(["TP53_g1", "TP53_g2", "MYC KO", "MYC", "aspirin", "aspirin (batch 2)"])
    [('MYC', 'MYC KO'), ('TP53_g1', 'TP53_g2'), ('aspirin', 'aspirin (batch 2)')]
    """
    plain = {name: _plain(name) for name in dict.fromkeys(map(str, names))}
    stems: dict[str, list[str]] = {}
    whole = set(plain.values())
    for name in plain:
        found = _NUMBER_AT_END.fullmatch(name) if numbered else None
        if found and any(c.isalpha() for c in found[1]):
            stems.setdefault(_plain(found[1]), []).append(name)
    repeated = {stem: spelt for stem, spelt in stems.items() if len(spelt) > 1}
    for stem, spelt in stems.items():
        if stem in whole or (len(repeated) >= 3 and stem in repeated):
            plain |= dict.fromkeys(spelt, stem)
    groups: dict[str, list[str]] = {}
    for name, key in plain.items():
        groups.setdefault(key, []).append(name)
    return sorted(tuple(sorted(g)) for key, g in groups.items() if len(g) > 1 and key)


def _plain(name: str) -> str:
    """A name without case, accents, punctuation, leading zeros, dose, salt, version, batch, guide and replicate."""
    text = unicodedata.normalize("NFKD", name).casefold().strip()
    text = "".join(c for c in text if not unicodedata.combining(c))
    text = _VERSION.sub(r"\1", _BESIDE.sub("", _DOSE.sub("", _REPLICATE.sub("", text))))
    text = twice[1] if (twice := _TWICE.fullmatch(text)) else text
    broad = _BROAD.fullmatch(text)
    text = broad[1] if broad else text
    text = text.replace("(+)", " plus ").replace("(-)", " minus ").replace("(±)", " racemic ")
    text = re.sub(r"\+$", " plus", re.sub(r"-$", " minus", text))
    words = re.split(f"({_BETWEEN.pattern})", text)
    while len(words) > 2 and (
        not words[-1] or (words[-1] in _SALTS and any(len(w) > 3 and w not in _SALTS for w in words[:-1:2]))
    ):
        words = words[:-2]
    text = re.sub(r"(?<=\d)[\W_]+(?=\d)", ".", "".join(words))
    text = re.sub(r"[^\w.]+|_+|(?<!\d)\.|\.(?!\d)", "", text)
    return re.sub(r"(?<!\d)0+(?=\d)", "", text)
