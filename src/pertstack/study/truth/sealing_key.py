"""The key of a sealed test: a small text file that somebody else can hold.

    pertstack-test-key 1 <id of the key> <64 hex digits>

after lines that begin with ``#``. The id is a digest of the key and is written in ``study.toml``, so that a wrong key
is refused before anything is opened. A key that is lost cannot be made again.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from pertstack._base.errors import InputError
from pertstack._base.files import fsync_directory, missing_file, storage_error

WORD, FORMAT, LARGEST = "pertstack-test-key", "1", 4096
_ABOUT = """\
# The key of a sealed held-out test of pertstack. Whoever has this file can open the test, and without it no verdict can
# be made. Give it to the person who holds the test, and keep no copy beside the study.
"""


@dataclass(frozen=True)
class SealingKey:
    """32 bytes that open a sealed test."""

    secret: bytes

    @property
    def id(self) -> str:
        """16 hex digits that tell keys apart and give nothing of them away."""
        return hashlib.sha256(b"pertstack test key\0" + self.secret).hexdigest()[:16]

    @classmethod
    def read(cls, path: Path) -> SealingKey:
        """The key in a file.

        Raises
        ------
        MissingFileError, InputError
            There is no such file, or it is not a whole key.
        """
        path = Path(path)
        if not path.exists():
            raise missing_file(path)
        if not path.is_file():
            raise InputError(f"{path} is no file. Name the file that `pertstack init --seal-test` wrote.")
        try:
            with path.open("rb") as stream:
                lines = stream.read(LARGEST).decode("utf-8", "replace").splitlines()
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}). Check who may read it.") from error
        words = next((line.split() for line in lines if line.startswith(WORD)), [])
        if not words:
            raise InputError(f"{path} is not the key of a sealed test. Name the file that `--seal-test` wrote at init.")
        try:
            secret = bytes.fromhex(words[3])
            whole = len(words) == 4 and words[1] == FORMAT and len(secret) == 32 and cls(secret).id == words[2]
        except (ValueError, IndexError):
            whole = False
        if not whole:
            raise InputError(f"{path} is damaged: it holds no whole key. Ask its holder for the file as written.")
        return cls(secret)

    @classmethod
    def read_or_make(cls, path: Path) -> SealingKey:
        """The key in a file, which is made if there is none; only its owner may read it."""
        path = Path(path)
        if path.exists():
            return cls.read(path)
        key = cls(os.urandom(32))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "w", encoding="utf-8") as stream:
                stream.write(f"{_ABOUT}{WORD} {FORMAT} {key.id} {key.secret.hex()}\n")
                stream.flush()
                os.fsync(stream.fileno())
            fsync_directory(path.parent)
        except OSError as error:
            raise storage_error(error, path) from error
        return key
