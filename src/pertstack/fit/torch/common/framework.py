"""The one place where torch is imported: without it, importing any model file says which extra brings it."""

from __future__ import annotations

from pertstack._base.errors import NeedsExtraError

try:
    import torch
    from torch import Tensor, nn
except ImportError as error:
    raise NeedsExtraError(
        f"The base models in pertstack.fit.torch need torch, which cannot be imported here ({error}). Install it with: "
        f"pip install 'pertstack[models]'."
    ) from error

__all__ = ["Tensor", "nn", "torch"]
