"""Cards of published models that run in separate environments; a card is a TOML file beside its worker script."""

from __future__ import annotations

from pertstack.fit.external.card import CARDS, load_card

ROWS = tuple(load_card(path.stem).row for path in sorted(CARDS.glob("*.toml")))

__all__ = ["ROWS"]
