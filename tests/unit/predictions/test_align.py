"""Names that do not match are refused, with the first of them and the likely cause."""

from __future__ import annotations

import numpy as np
import pytest

from pertstack._base.errors import MisalignedError
from pertstack.predictions.store.align import likely_cause, match

OWN = [f"ENSG{i:011d}" for i in range(30)]


def test_the_same_order_needs_no_reordering() -> None:
    assert match("gene", OWN, OWN) is None


def test_positions_point_into_what_was_given() -> None:
    given = OWN[::-1][:-2]
    take = match("gene", given, OWN, missing=OWN[:2])
    assert take is not None and take[:2].tolist() == [-1, -1]
    assert [given[i] for i in take[2:]] == OWN[2:]


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        ([f"{g}.{i % 7 + 1}" for i, g in enumerate(OWN)], "version suffix"),
        ([g.lower() for g in OWN], "upper and lower case"),
        ([f" {g} " for g in OWN], "spaces"),
        ([f"{g}-1" for g in OWN], "concatenation"),
        ([str(i) for i in range(30)], "row numbers"),
        ([str(7000 + 13 * i) for i in range(30)], "Entrez"),
        ([f"2018{i:02d}_s_at" for i in range(30)], "probe ids"),
        ([f"TP{i}A" for i in range(30)], "gene symbols"),
    ],
)
def test_the_likely_cause_is_named(given: list[str], cause: str) -> None:
    with pytest.raises(MisalignedError, match=cause) as caught:
        match("gene", given, OWN)
    assert OWN[0] in str(caught.value) and repr(given[9]) in str(caught.value) and "20 more" in str(caught.value)


def test_decimals_and_punctuation_are_recognised() -> None:
    assert "decimals" in (likely_cause(["7157.0", "672.0"], ["7157", "672"]) or "")
    assert "dots, dashes" in (likely_cause(["HLA.A", "NKX2.1"], ["HLA-A", "NKX2-1"]) or "")


def test_duplicates_foreign_and_missing_names_are_refused() -> None:
    with pytest.raises(MisalignedError, match="more than once: 'b'"):
        match("sample", ["a", "b", "b"], ["a", "b", "c"])
    with pytest.raises(MisalignedError, match=r"not known here: 'z'") as caught:
        match("sample", ["a", "b", "z"], ["a", "b", "c"], where="file.h5ad")
    assert "file.h5ad" in str(caught.value) and "expected but not given: 'c'" in str(caught.value)
    with pytest.raises(MisalignedError, match="announced as missing but not known"):
        match("sample", ["a"], ["a", "b"], missing=["b", "q"])


def test_equal_counts_are_no_alignment() -> None:
    """The usual mistake: two lists of the same length are taken to be the same samples."""
    with pytest.raises(MisalignedError):
        match("sample", [f"s{i}" for i in range(10)], [f"t{i}" for i in range(10)])


def test_random_orders_against_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        given = [OWN[i] for i in rng.permutation(30)]
        take = match("gene", given, OWN)
        want = [given.index(g) for g in OWN]
        assert (list(range(30)) if take is None else take.tolist()) == want
