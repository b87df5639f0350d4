"""A store whose chunk files are encrypted on the disk; rows are decrypted in memory as they are read.

A sealed chunk is 12 random bytes, the chunk file encrypted with AES-256-GCM, and its tag. The tag also covers the id of
the store and the place of the chunk, so one that was changed, moved or brought from elsewhere is refused. Records,
names and metadata stay readable. The cipher is the one of the library ``cryptography``;
``study/truth/sealing_key.py`` says who holds the key.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pertstack._base.errors import CorruptionError, InputError, NeedsExtraError
from pertstack._base.files import write_atomic
from pertstack.data.rows import Float32
from pertstack.predictions.store.files.chunks import DTYPE, ChunkFacts
from pertstack.predictions.store.files.layout import array_folder
from pertstack.predictions.store.files.record import Record
from pertstack.predictions.store.store import PredictionStore

NONCE, TAG = 12, 16


def cipher(key: bytes) -> Any:
    """AES-256-GCM under a key of 32 bytes.

    Raises
    ------
    NeedsExtraError
        ``cryptography`` is not installed.
    """
    if find_spec("cryptography") is None:
        raise NeedsExtraError(
            "A sealed test is encrypted and decrypted by cryptography, which is not installed. Install it with: "
            "pip install 'pertstack[seal]'"
        )
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def seal_chunks(store: PredictionStore, key: bytes) -> int:
    """Encrypt every chunk file of a store in its place; how many there were."""
    files = sorted(p for p in store.root.glob("blocks/*/layers/*/c/*/*") if p.is_file())
    encrypt = cipher(key).encrypt
    for path in files:
        nonce = os.urandom(NONCE)
        write_atomic(path, nonce + encrypt(nonce, path.read_bytes(), _place(store, path)))
    return len(files)


class SealedStore(PredictionStore):
    """A sealed store. Without ``key`` everything but values can be asked for."""

    sealed_bytes: ClassVar[int] = NONCE + TAG
    key: bytes | None = None

    def _fill(self, record: Record, start: int, stop: int, out: Float32, verify: bool) -> None:
        grid, folder = record.grid, array_folder(self.root, record.block, record.model, kind=record.kind)
        for index, low, high in grid.spans(start, stop):
            first, _ = grid.span(index)
            rows = self._opened(folder / grid.key(index), record.chunks[index])
            kept = np.frombuffer(rows, grid.dtype, grid.rows * grid.width).reshape(grid.rows, grid.width)
            part = out[low - start : high - start]
            if grid.dtype == DTYPE:
                part[:] = kept[low - first : high - first]
            self._decode(record, kept[low - first : high - first], part)

    def _opened(self, path: Path, facts: ChunkFacts) -> bytes:
        """The bytes of a chunk file as they were before they were sealed.

        Raises
        ------
        InputError
            There is no key.
        CorruptionError
            The file is gone, or is not what was sealed with this key in this place.
        """
        if self.key is None:
            raise InputError(f"{self.root} is sealed, and no key was given.")
        from cryptography.exceptions import InvalidTag

        decrypt = cipher(self.key).decrypt
        try:
            raw = path.read_bytes()
            content: bytes = decrypt(raw[:NONCE], raw[NONCE:], _place(self, path))
        except FileNotFoundError as error:
            raise CorruptionError(f"{path} is missing. Restore it from a copy of the study.") from error
        except (InvalidTag, ValueError) as error:
            raise CorruptionError(
                f"{path} cannot be decrypted: it was changed, cut short or moved since it was sealed. Restore it from "
                "a copy of the study."
            ) from error
        if len(content) != facts.size:
            raise CorruptionError(f"{path} holds {len(content):,} bytes, and its record says {facts.size:,}.")
        return content


def _place(store: PredictionStore, path: Path) -> bytes:
    return f"{store.uuid}/{path.relative_to(store.root).as_posix()}".encode()
