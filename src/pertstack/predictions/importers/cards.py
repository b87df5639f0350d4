"""The preprocessing card at the door: what a file says of its own scale must be the study's, or be mapped by name.

A card lies in the file or beside it, or is given. Genes are matched by name elsewhere, so a card's gene digests
decide nothing here; whether the values themselves fit is measured in ``scale.py``, after the transform.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pertstack._base.errors import InputError, IntegrityError, first_few, unknown_name
from pertstack._base.findings import Finding
from pertstack.data import Card
from pertstack.data.rows import Float32
from pertstack.predictions.importers.checks.scale import LOGARITHMS
from pertstack.predictions.importers.readers.files import PredictionFile

CARD_KEYS = ("pertstack_card", "card")


@dataclass(frozen=True)
class NamedTransform:
    """A monotone map of single values; ``before`` and ``after`` name the card's transform on both sides."""

    name: str
    before: tuple[str, ...]
    after: str | None  # None: the study's
    function: Callable[[Any], Any]
    lowest: float = -np.inf  # values must lie above
    factor: float | None = None  # for linear maps: what differences are multiplied by

    def __call__(self, values: Float32, where: Path | str) -> Float32:
        """Mapped values, float32; NaN stays NaN.

        Raises
        ------
        InputError
            Values outside the domain.
        """
        low = values <= self.lowest
        if low.any():
            raise InputError(
                f"{where}: {int(low.sum()):,} values are {self.lowest:g} or less (such as {float(values[low][0]):g}), "
                f"which --transform {self.name} cannot map. The values are not on the scale that it starts from."
            )
        return np.asarray(self.function(values.astype(np.float64)), dtype=np.float32)


def _per_depth(values: Any, per: float) -> Any:
    """log1p of counts per ``per`` of each row."""
    return np.log1p(values / np.maximum(values.sum(axis=1, keepdims=True), 1e-300) * per)


def _linear(name: str, factor: float) -> NamedTransform:
    return NamedTransform(name, ("log",), "log", lambda x: x * factor, factor=factor)


TRANSFORMS: dict[str, NamedTransform] = {
    "log2": NamedTransform("log2", ("linear", "counts"), "log", function=np.log2, lowest=0.0),
    "log2p1": NamedTransform("log2p1", ("linear", "counts"), "log", function=lambda x: np.log2(x + 1), lowest=-1.0),
    "log1p_cp10k": NamedTransform(
        "log1p_cp10k", ("counts", "linear"), "log", function=partial(_per_depth, per=1e4), lowest=-1e-9
    ),
    "log1p_5e4": NamedTransform(
        "log1p_5e4", ("counts", "linear"), "log", function=partial(_per_depth, per=5e4), lowest=-1e-9
    ),
    "exp2": NamedTransform("exp2", ("log",), "linear", np.exp2),
    **{
        f"{a}_to_{b}": _linear(f"{a}_to_{b}", LOGARITHMS[b] / LOGARITHMS[a])
        for a, b in itertools.permutations(LOGARITHMS, 2)
    },
}


def mapped_file(file: PredictionFile, mapping: NamedTransform) -> PredictionFile:
    """The file with every row mapped as it is read."""
    return replace(file, rows=lambda n_rows: (mapping(values, file.path) for values in file.rows(n_rows)))


def named_transform(name: str, scale: str) -> NamedTransform:
    """``log1p_cp10k`` (log1p of counts per 10,000 of each row), ``log1p_5e4``,
    ``log2``, ``log2p1`` (log2(x + 1)), ``exp2``, ``ln_to_log2`` and the like (also of x + 1), or
    ``minmax_inverse:LOW:HIGH`` (x * (HIGH - LOW) + LOW).

    Raises
    ------
    InputError
        Unknown, or a map that differences do not survive (``scale`` delta).
    """
    if name.startswith("minmax_inverse"):
        found = _minmax(name)
    elif name in TRANSFORMS:
        found = TRANSFORMS[name]
    else:
        raise unknown_name("transform", name, [*TRANSFORMS, "minmax_inverse:LOW:HIGH"])
    if scale != "delta":
        return found
    if found.factor is None:
        raise InputError(
            f"--transform {name} cannot map differences: the difference of two {name} values is not {name} of the "
            f"difference. Provide treated values."
        )
    factor = found.factor
    return replace(found, function=lambda x: x * factor)


def _minmax(name: str) -> NamedTransform:
    try:
        low, high = (float(part) for part in name.split(":")[1:])
    except ValueError:
        low = high = 0.0
    if not low < high or not np.isfinite(high - low):
        raise InputError(
            f"--transform {name!r} is not understood. Say from which range the values were brought to 0..1, such as "
            f"minmax_inverse:4.0:15.0."
        )
    width = high - low
    return NamedTransform(name, ("min-max",), None, lambda x: x * width + low, factor=width)


def read_card(value: Any, where: Path | str) -> dict[str, Any]:
    """A card as a plain mapping: JSON text, a mapping, or an array that holds JSON text.

    Raises
    ------
    InputError
        It is none of these, or says neither scale nor transform.
    """
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, Mapping) or not {"scale", "transform"} <= set(found):
        raise InputError(
            f"{where}: the preprocessing card is not a JSON object with at least 'scale' and 'transform'. Copy "
            f"card.json of the study whose data the model was fitted on, or leave the card out."
        )
    return {key: v.item() if hasattr(v, "item") else v for key, v in found.items()}


def sidecar(path: Path) -> dict[str, Any] | None:
    """The card in ``<file>.card.json``, if there is one."""
    beside = path.with_name(path.name + ".card.json")
    return read_card(beside.read_text(encoding="utf-8"), beside) if beside.is_file() else None


def check_cards(
    own: Card, cards: Mapping[str, Mapping[str, Any] | None], *, scale: str, transform: NamedTransform | None, name: str
) -> list[Finding]:
    """Findings on the cards of the files. Fields a card leaves out are not compared, and that is said.

    Parameters
    ----------
    own : card of the study.
    cards : path -> card, None if there is none.
    scale : in which the files are declared to be.
    transform : brings values to the study's scale; None for none.
    name : of the model.

    Raises
    ------
    IntegrityError
        A card differs from the study's; the message lists the differences.
    InputError
        A card has unknown fields, or the transform does not start from what the card says.
    """
    findings, silent = [], [path for path, card in cards.items() if card is None]
    if silent:
        text = (
            f"{name}: {first_few(silent)} came without a preprocessing card; the scale check alone vouches for the "
            f"values."
        )
        findings.append(Finding("warning", "no_card", text, count=len(silent), examples=tuple(silent[:10]), where=name))
    for path, card in cards.items():
        if card is None:
            continue
        said = Card.from_json({**own.to_json(), **card})
        differences = _differences(own, said, set(card), scale=scale, transform=transform, path=path)
        unjudged = "unknown" in (own.pairing, said.pairing) and own.pairing != said.pairing
        doubt = [d for d in differences if unjudged and d.startswith("controls were paired")]
        differences = [d for d in differences if d not in doubt]
        if differences:
            raise IntegrityError(_refusal(path, differences, transform))
        left_out = sorted(set(asdict(own)) - set(card) - {"format"})
        if doubt or left_out:
            words = [
                *doubt,
                *([f"the card does not say {first_few(left_out)}, so that is not compared."] * bool(left_out)),
            ]
            findings.append(Finding("warning", "card_incomplete", f"{name}: {path}: {' '.join(words)}", where=name))
        findings.append(Finding("note", "card_matches", f"{name}: the preprocessing card of {path} fits the study's."))
    return findings


def _differences(
    own: Card, said: Card, told: set[str], scale: str, transform: NamedTransform | None, path: str
) -> list[str]:
    """As ``Card.compare`` puts it, after the transform; genes are left to the matching by name."""
    if transform is not None:
        said = _mapped(own, said, told, transform=transform, path=path)
    aligned = replace(said, gene_digest=own.gene_digest, gene_set_digest=own.gene_set_digest, n_genes=own.n_genes)
    if said.scale == "delta" and own.scale == "treated" and scale == "delta":
        # the card is of differences, which --scale delta turns back; their range says nothing of treated values
        aligned = replace(
            aligned,
            scale=own.scale,
            transform=own.transform,
            value_min=own.value_min,
            value_max=own.value_max,
            value_sd=own.value_sd,
        )
        if said.pairing == "none":  # a card of differences does not say which controls were taken away
            aligned = replace(aligned, pairing=own.pairing)
    return own.compare(aligned)


def _mapped(own: Card, said: Card, told: set[str], *, transform: NamedTransform, path: str) -> Card:
    if said.transform not in (*transform.before, "unknown"):
        raise InputError(
            f"--transform {transform.name} starts from {' or '.join(transform.before)} values, but the card of {path} "
            f"says {said.transform}. Choose another transform, or mend the card."
        )
    ends = {key: np.array([getattr(said, key)], np.float32) for key in ("value_min", "value_max") if key in told}
    mapped: dict[str, Any] = {"transform": own.transform if transform.after is None else transform.after}
    mapped |= {key: float(transform(end, path)[0]) for key, end in ends.items()}
    if "value_sd" in told:
        mapped["value_sd"] = own.value_sd if transform.factor is None else said.value_sd * transform.factor
    return replace(said, **mapped)


def _refusal(path: str, differences: list[str], transform: NamedTransform | None) -> str:
    mapped = "" if transform is None else f" (after --transform {transform.name})"
    listed = "".join(f"\n  - {text}" for text in differences)
    return (
        f"{path}: its preprocessing card is not the study's{mapped} (here = the study, there = the file):{listed}\n"
        f"Values on different scales or against other controls cannot be combined. Map them with --transform "
        f"({', '.join(TRANSFORMS)}, minmax_inverse:LOW:HIGH) if one of these is the difference, or predict again on "
        f"the study's data."
    )
