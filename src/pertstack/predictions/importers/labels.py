"""Names of perturbations told to be one: ``A+B`` = ``B+A`` = ``A_B``, ``A+ctrl`` = ``A``.

A label is cut at ``+``; at ``_`` only where both parts are perturbations of the data, and never at ``-`` (HLA-B).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pertstack.data.labels import CONTROL_NAMES


@dataclass(frozen=True)
class Labels:
    """The labels of a study: whole ones, and the single perturbations in them."""

    whole: frozenset[str]
    parts: frozenset[str]

    @classmethod
    def of(cls, labels: Iterable[str]) -> Labels:
        whole = frozenset(map(str, labels))
        parts = {part for label in whole for part in (label.split("+") if "+" in label else [label])}
        return cls(whole, frozenset(p.strip() for p in parts if p.strip().casefold() not in CONTROL_NAMES))

    def key(self, label: str) -> str:
        """The same text for every spelling of a perturbation.

        >>> labels = Labels.of(["AHR+KLF1", "KLF1", "AHR+ctrl", "A_1"])
        >>> labels.key("KLF1+AHR"), labels.key("KLF1_AHR"), labels.key("ctrl+AHR"), labels.key("A_1")
        ('AHR+KLF1', 'AHR+KLF1', 'AHR', 'A_1')
        """
        text = label.strip()
        if "+" in text:
            parts = [p.strip() for p in text.split("+")]
        elif text in self.whole or text in self.parts:
            parts = [text]
        else:
            parts = self._cut(text)
        kept = [p for p in parts if p.casefold() not in CONTROL_NAMES] or parts
        return "+".join(sorted(set(kept)))

    def _cut(self, text: str) -> list[str]:
        known = {*self.parts, *(p for p in text.split("_") if p.casefold() in CONTROL_NAMES)}
        for i in [i for i, c in enumerate(text) if c == "_"]:
            if text[:i] in known and text[i + 1 :] in known:
                return [text[:i], text[i + 1 :]]
        return [text]
