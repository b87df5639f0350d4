"""Cautions of the final fit and of the fits by folds: each told once, numbers aside."""

from __future__ import annotations

from dataclasses import dataclass

from pertstack.stacking.nested import NestedFits


@dataclass(frozen=True)
class Named:
    name: str


@dataclass(frozen=True)
class Fitted:
    cautions: tuple[str, ...]


def test_cautions_that_differ_in_numbers_alone_are_told_once_with_how_many_fits_had_them():
    fits = {"ridge": {0: Fitted(("3 of 978 genes are flat.",)), 1: Fitted(("Only here.",)), 2: Fitted(())}}
    nested = NestedFits((Named("ridge"),), "fold", fits, {"ridge": Fitted(("1 of 978 genes are flat.", "Same."))})
    assert nested.cautions() == {
        "ridge": ("1 of 978 genes are flat. (2 of 4 fits, numbers differ.)", "Same.", "Only here.")
    }


def test_the_same_caution_of_every_fit_stays_as_it_is():
    same = Fitted(("Not settled after 60 rounds.",))
    nested = NestedFits((Named("eb"),), "fold", {"eb": {0: same, 1: same}}, {"eb": same})
    assert nested.cautions() == {"eb": ("Not settled after 60 rounds.",)}
