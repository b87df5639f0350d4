"""Which genes a perturbation acts on: by its name for genetic perturbations, by a table for drugs."""

from __future__ import annotations

import re

from pertstack.data.labels import is_control_name

_SEPARATORS = re.compile(r"\s*[+|;,&]\s*")


def genes_of(perturbation: str) -> tuple[str, ...]:
    """Gene names in the name of a genetic perturbation, in order, without repeats; () for controls.

    >>> genes_of("g0013+ctrl"), genes_of("KLF1+CEBPA")
    (('g0013',), ('KLF1', 'CEBPA'))
    """
    parts = [p.strip() for p in _SEPARATORS.split(str(perturbation))]
    return tuple(dict.fromkeys(p for p in parts if p and p.casefold() != "none" and not is_control_name(p)))
