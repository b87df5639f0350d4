"""Digests by which names, settings and arrays are recognised. Never Python's salted ``hash``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xxhash


def digest_names(names: Iterable[str]) -> str:
    """sha256 over (length, UTF-8) of every name, so that no two lists collide by concatenation.

    >>> digest_names(["ab", "c"]) == digest_names(["a", "bc"])
    False
    """
    h = hashlib.sha256()
    for name in names:
        raw = str(name).encode()
        h.update(len(raw).to_bytes(8, "little"))
        h.update(raw)
    return h.hexdigest()


def canonical_json(value: Any) -> str:
    """One spelling for equal JSON values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_json(value: Any) -> str:
    """sha256 of the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_or_none(value: Any) -> str | None:
    """The digest of what was read from a file; None for values that no file of ours holds (NaN, half a character, a
    number of thousands of digits)."""
    try:
        return digest_json(value)
    except ValueError:
        return None


def digest_array(array: np.ndarray[Any, Any]) -> str:
    """xxh3-128 of shape, dtype and bytes of an array."""
    h = xxhash.xxh3_128(f"{array.shape}{array.dtype.str}".encode())
    h.update(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)
    return str(h.hexdigest())


def keyed_hash64(text: str, key: bytes, person: bytes = b"") -> int:
    """64 unsigned bits of ``blake2b(text, key)``: the same in every process, on every machine, in every version.

    Parameters
    ----------
    text : hashed as UTF-8.
    key : at most 64 bytes, such as a salt.
    person : at most 16 bytes that tell uses of one key apart.
    """
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, key=key, person=person).digest(), "big")


OWN = "sha256"


def with_own_digest(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object that carries the digest of its other entries, so that an edit of any of them shows."""
    body = json.loads(canonical_json({k: v for k, v in value.items() if k != OWN}))  # as it will be read back
    return {**body, OWN: digest_json(body)}


def own_digest_fits(value: Mapping[str, Any]) -> bool:
    """Whether a JSON object is what ``with_own_digest`` made."""
    return value.get(OWN) == digest_or_none({k: v for k, v in value.items() if k != OWN})
