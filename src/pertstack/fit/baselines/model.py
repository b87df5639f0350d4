"""The common part of baselines: hyper-parameters are the dataclass fields one may set."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass
class Baseline:
    """A base model whose fields are its hyper-parameters; what it learned is in fields that end with ``_``."""

    def params(self) -> dict[str, Any]:
        """Hyper-parameters as plain JSON."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init}
