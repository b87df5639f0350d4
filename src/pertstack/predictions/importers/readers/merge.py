"""MERGE-style files without ids: rows are recognised by the measured profiles that lie beside the predictions.

A row's control and treated profile, byte for byte in float32, names its sample; a pair that is not unique in the study
is refused rather than guessed. ``test_indices`` are positions in somebody else's table and are not used.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import xxhash

from pertstack._base.errors import CorruptionError, MisalignedError, first_few
from pertstack._base.files import write_atomic
from pertstack.data.rows import Float32
from pertstack.design.blocks import Block
from pertstack.predictions.importers.readers.files import PredictionFile
from pertstack.predictions.importers.readers.npz import Archive
from pertstack.predictions.store.reader import StoreReader

Marks = Callable[[], Mapping[bytes, list[str]]]
"""Sample ids of a study by the fingerprint of their measured rows."""
PARTS = ("predictions", "treated_test", "diseased_test")
ROWS = 256


def is_merge_file(path: Path) -> bool:
    """Whether an .npz holds predictions beside measured profiles, and no ids."""
    names = Archive(path).names
    return all(part in names for part in PARTS) and "sample_ids" not in names


def open_merge_predictions(path: Path, store: StoreReader, marks: Marks | None = None) -> PredictionFile:
    """Names recovered from the study; the gene order is the study's, which the byte-wise match proves.

    Parameters
    ----------
    path : npz with predictions, control and treated rows side by side, without ids.
    store : of the study.
    marks : gives the fingerprints of all rows of the study; without it those of the held-out test are unknown.

    Raises
    ------
    MisalignedError
        A row matches no sample, or more than one.
    """
    archive = Archive(path)
    shapes = {part: archive.shape(part) for part in PARTS}
    if len(set(shapes.values())) != 1 or shapes["predictions"][1] != store.facts.n_genes:
        raise MisalignedError(
            f"{path}: {shapes} do not agree with each other or with the study's {store.facts.n_genes:,} genes. "
            f"Without gene "
            f"names only the full gene list of the study, in its order, can be recognised. Save gene_names in the file."
        )
    known = marks() if marks is not None else study_fingerprints(store, None)
    ids: list[str] = []
    strangers: list[int] = []
    doubtful: list[int] = []
    pairs = zip(archive.rows("diseased_test", ROWS), archive.rows("treated_test", ROWS), strict=True)
    for control, treated in pairs:
        for mark in fingerprints(control, treated):
            row = len(ids)
            match = known.get(mark, [])
            ids.append(match[0] if match else f"row {row}")
            if not match:
                strangers.append(row)
            elif len(match) > 1:
                doubtful.append(row)
    if strangers or doubtful:
        raise MisalignedError(_why(path, len(ids), strangers, doubtful=doubtful, with_truth=marks is not None))
    return PredictionFile(
        path,
        ids,
        [str(g) for g in store.gene_names],
        lambda n: archive.rows("predictions", n),
        meta={"recognised_by": "control and treated rows"},
    )


def _why(path: Path, n: int, strangers: list[int], doubtful: list[int], with_truth: bool) -> str:
    parts = [f"{path} has no sample ids; its {n:,} rows were compared with the study's control and treated profiles."]
    if strangers:
        reason = "values scaled since" if with_truth else "rows of the held-out test"
        parts.append(
            f"{len(strangers):,} match no sample (rows {first_few(strangers)}): other data, another gene order, or "
            f"{reason}."
        )
    if doubtful:
        parts.append(f"{len(doubtful):,} match several samples (rows {first_few(doubtful)}); which one is a guess.")
    parts.append("Save sample_ids and gene_names beside the predictions.")
    return " ".join(parts)


def fingerprints(control: Float32, treated: Float32) -> Iterator[bytes]:
    """One mark per row: xxh3-128 over its control and treated bytes."""
    for c, t in zip(np.ascontiguousarray(control), np.ascontiguousarray(treated), strict=True):
        digest = xxhash.xxh3_128(c.data)
        digest.update(t.data)
        yield digest.digest()


def study_fingerprints(store: StoreReader, truth: StoreReader | None) -> dict[bytes, list[str]]:
    """Sample ids by the mark of their measured profiles."""
    known: dict[bytes, list[str]] = {}
    for block in store.blocks():
        source = store if block.role == "development" else truth
        if source is None or not _has(source, block, "treated") or not _has(store, block, "control"):
            continue
        ids = store.sample_ids(block)
        for start in range(0, len(ids), ROWS):
            stop = min(start + ROWS, len(ids))
            control, treated = (
                store.read(block, "control", start=start, stop=stop),
                source.read(block, "treated", start=start, stop=stop),
            )
            for name, mark in zip(ids[start:stop], fingerprints(control, treated), strict=True):
                known.setdefault(mark, []).append(name)
    return known


def save_marks(path: Path, marks: Sequence[bytes]) -> None:
    """Fingerprints of all rows, in the order of the study's samples: (n_samples, 16) bytes in an .npz."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, marks=np.frombuffer(b"".join(marks), np.uint8).reshape(-1, 16))
    write_atomic(path, buffer.getvalue())


def load_marks(path: Path, sample_ids: Sequence[str]) -> dict[bytes, list[str]]:
    """What ``save_marks`` wrote, as sample ids by fingerprint.

    Raises
    ------
    CorruptionError
        The file cannot be read, or has another number of rows.
    """
    try:
        with np.load(path, allow_pickle=False) as found:
            marks = np.asarray(found["marks"], np.uint8)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CorruptionError(f"{path} cannot be read ({error}). Restore it from a copy.") from error
    if marks.shape != (len(sample_ids), 16):
        raise CorruptionError(f"{path} holds {marks.shape} for {len(sample_ids):,} samples. Restore it from a copy.")
    known: dict[bytes, list[str]] = {}
    for name, mark in zip(sample_ids, marks, strict=True):
        known.setdefault(mark.tobytes(), []).append(str(name))
    return known


def _has(store: StoreReader, block: Block, layer: str) -> bool:
    return store.status(block, layer) == "committed"
