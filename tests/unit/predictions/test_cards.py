"""Preprocessing cards at the door: which differences are refused, what a named transform mends, what is only said."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pertstack._base.errors import InputError, IntegrityError, UnknownNameError
from pertstack.data import Card
from pertstack.predictions.importers.cards import check_cards, named_transform, read_card

OWN = Card(
    n_samples=100,
    n_genes=10,
    gene_digest="a",
    gene_set_digest="b",
    scale="treated",
    transform="log",
    value_min=2.0,
    value_max=14.0,
    value_mean=8.0,
    value_sd=2.0,
    control_reference="layer 'control'",
    pairing="matched",
    n_controls=9,
)


def codes(card: dict[str, Any] | None, scale: str = "treated", transform: str | None = None) -> list[str]:
    mapping = None if transform is None else named_transform(transform, scale)
    return [f.code for f in check_cards(OWN, {"p.npz": card}, scale=scale, transform=mapping, name="m")]


def test_the_same_card_with_other_genes_and_counts_agrees() -> None:
    assert codes(replace(OWN, n_genes=4, gene_digest="x", gene_set_digest="y", n_samples=7).to_json()) == [
        "card_matches"
    ]


def test_no_card_is_said() -> None:
    assert codes(None) == ["no_card"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"transform": "linear"}, "transform differs: log here, linear there"),
        ({"scale": "delta"}, "scale differs"),
        ({"pairing": "pooled"}, "paired differently: matched here, pooled there"),
        ({"value_max": 90.0}, "far outside"),
        ({"value_sd": 0.2}, "spread differs"),
    ],
)
def test_differences_are_listed(change: dict[str, Any], words: str) -> None:
    with pytest.raises(IntegrityError, match=words):
        codes({**OWN.to_json(), **change})


def test_a_short_card_is_compared_in_what_it_says() -> None:
    assert codes({"scale": "treated", "transform": "log"}) == ["card_incomplete", "card_matches"]
    assert codes({**OWN.to_json(), "pairing": "unknown"}) == ["card_incomplete", "card_matches"]
    with pytest.raises(IntegrityError, match="transform differs"):
        codes({"scale": "treated", "transform": "linear"})
    assert "card_matches" in codes({"scale": "treated", "transform": "linear"}, transform="log2p1")


def test_a_card_of_differences_goes_with_scale_delta_only() -> None:
    card = {**OWN.to_json(), "scale": "delta", "transform": "differences", "value_min": -6, "value_max": 7}
    card |= {"value_sd": 0.7, "pairing": "none"}
    assert codes(card, "delta") == ["card_matches"]
    with pytest.raises(IntegrityError):
        codes(card, "treated")


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        ("log2", [1.0, 8.0], [0.0, 3.0]),
        ("log2p1", [0.0, 7.0], [0.0, 3.0]),
        ("exp2", [0.0, 3.0], [1.0, 8.0]),
        ("ln_to_log2", [math.log(8.0 + 1), 0.0], [math.log2(8.0 + 1), 0.0]),
        ("minmax_inverse:4:15", [0.0, 0.5, 1.0], [4.0, 9.5, 15.0]),
    ],
)
def test_transforms(name: str, given: list[float], wanted: list[float]) -> None:
    found = named_transform(name, "treated")(np.array([[*given, np.nan]], np.float32), "p")
    np.testing.assert_allclose(found[0, :-1], wanted, rtol=1e-6)
    assert np.isnan(found[0, -1]) and found.dtype == np.float32


def test_differences_survive_linear_transforms_only() -> None:
    one = np.ones((1, 1), np.float32)
    assert named_transform("minmax_inverse:4:15", "delta")(one, "p")[0, 0] == 11
    for name in ("log2", "log2p1", "exp2"):
        with pytest.raises(InputError, match="cannot map differences"):
            named_transform(name, "delta")


def test_what_no_transform_can_mend_is_refused() -> None:
    with pytest.raises(InputError, match=r"values are 0 or less \(such as -1\)"):
        named_transform("log2", "treated")(np.array([[-1.0, 2.0]], np.float32), "p")
    with pytest.raises(UnknownNameError, match="log2p1"):
        named_transform("log2p", "treated")
    for name in ("minmax_inverse", "minmax_inverse:4", "minmax_inverse:9:4", "minmax_inverse:a:b"):
        with pytest.raises(InputError, match=r"minmax_inverse:4.0:15.0"):
            named_transform(name, "treated")
    with pytest.raises(InputError, match=r"starts from log values, but the card of p.npz says linear"):
        codes({**OWN.to_json(), "transform": "linear"}, transform="exp2")
    with pytest.raises(IntegrityError, match="after --transform log2"):
        codes({**OWN.to_json(), "transform": "linear", "value_min": 4, "value_max": 2.0**30}, transform="log2")


def test_reading() -> None:
    text = json.dumps(OWN.to_json())
    assert read_card(text, "p") == read_card(np.array(text), "p") == read_card(OWN.to_json(), "p") == OWN.to_json()
    assert read_card({"scale": np.array("delta")[()], "transform": "log", "n_genes": np.int64(3)}, "p")["n_genes"] == 3
    for bad in ("{", "[1]", {"scale": "treated"}, 7):
        with pytest.raises(InputError, match="at least 'scale' and 'transform'"):
            read_card(bad, "p")
    with pytest.raises(InputError, match="does not know"):
        codes({**OWN.to_json(), "colour": "red"})
