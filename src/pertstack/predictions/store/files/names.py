"""Model names on disk: any text a person may choose becomes one safe path element, and back.

Slashes, spaces, unicode and leading dots are percent-encoded; plain names stay readable. What a name means is left to
others.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

from pertstack._base.errors import InputError

HALVES = ("half_a", "half_b")
"""Treated profiles of two disjoint halves of the cells of each sample, if samples were made of cells."""
TRUTH_LAYERS = ("treated", "control", "effect", *HALVES)
"""Layers that are measured, not predicted: committed like a model, never listed as one."""

EMBEDDING_PREFIX = "embedding_"
MAX_ENCODED = 200  # bytes; common file systems allow 255 per path element


NESTED_PREFIX = "nested.f"
"""Predictions of fold j by a model that saw neither fold j nor the fold named here; never listed as models."""


def nested_name(model: str, without: int) -> str:
    """Layer name of a model's predictions by fits that also left out fold ``without``.

    >>> nested_name("ridge", 2)
    'nested.f2.ridge'
    """
    return f"{NESTED_PREFIX}{without}.{model}"


def refuse_kept_name(name: str) -> None:
    """A model must not be called like a layer that is measured, or like nested predictions of another model.

    Raises
    ------
    InputError
        It is.
    """
    if name in TRUTH_LAYERS or name.startswith(NESTED_PREFIX):
        raise InputError(
            f"A model cannot be called {name!r}; the store keeps that name for itself. Choose another name."
        )


def encode_name(name: str) -> str:
    """Path element for a model name.

    Raises
    ------
    InputError
        The name is empty, or longer than 200 bytes once encoded.

    Examples
    --------
    >>> encode_name("TranSiGen v2/größe")
    'TranSiGen%20v2%2Fgr%C3%B6%C3%9Fe'
    >>> encode_name("ridge_0.1"), encode_name("..")
    ('ridge_0.1', '%2E%2E')
    """
    if not isinstance(name, str) or not name:
        raise InputError(f"{name!r} is not a model name. Use any non-empty text, such as 'biolord'.")
    encoded = quote(name, safe="-_.@+=")
    if encoded.startswith("."):
        encoded = encoded.replace(".", "%2E")
    if encoded.startswith("__"):  # reserved by Zarr
        encoded = "%5F" + encoded[1:]
    if len(encoded) > MAX_ENCODED:
        raise InputError(
            f"The model name {name[:40]!r}... takes {len(encoded)} bytes on disk; at most {MAX_ENCODED} fit into a "
            f"file name everywhere. Choose a shorter name."
        )
    return encoded


def decode_name(encoded: str) -> str:
    """The name that ``encode_name`` was given."""
    return unquote(encoded)
