"""Laws of the store: order never matters, cutting never matters, the fast road writes the bytes of the slow one."""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import crc32c
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pertstack.design.blocks import Block
from references.small_store import World, make_world

LINE = Block("A375", 0)


def chunk_bytes(world: World, model: str) -> list[bytes]:
    folder = world.store.root / "blocks" / f"{LINE.id}.zarr" / "layers" / model / "c"
    return [path.read_bytes() for path in sorted(folder.rglob("0")) if path.is_file()]


def plain_chunks(values: np.ndarray[Any, Any]) -> list[bytes]:
    """The chunk files by the written format alone: struct and a loop over rows."""
    n = len(values)
    rows = -(-n // -(-n // 512))
    files = []
    for low in range(0, n, rows):
        raw = b"".join(struct.pack(f"<{values.shape[1]}f", *row) for row in values[low : low + rows])
        nan = struct.pack("<f", float("nan")) * values.shape[1]
        raw += nan * (rows - len(values[low : low + rows]))
        files.append(raw + struct.pack("<I", crc32c.crc32c(raw)))
    return files


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_order_and_any_cutting_gives_the_same_bytes(data: st.DataObject) -> None:
    n, n_genes = data.draw(st.sampled_from([1, 2, 9, 40, 513])), data.draw(st.integers(1, 6))
    rows, columns = data.draw(st.permutations(range(n))), data.draw(st.permutations(range(n_genes)))
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=5)))
    gone = set(data.draw(st.lists(st.integers(0, n - 1), max_size=2))) if n > 2 else set()
    home = Path(tempfile.mkdtemp(prefix="pertstack-law-"))
    with patch.object(os, "fsync", lambda fd: None):
        try:
            world = make_world(home / "s", {LINE: n}, n_genes=n_genes)
            ids, values = world.obs[LINE].index, world.prediction(LINE)
            missing = [ids[i] for i in sorted(gone)]
            order = [r for r in rows if r not in gone]
            genes = [world.genes[c] for c in columns]
            options: dict[str, Any] = {"fitted_on": world.fitted(LINE), "missing_samples": missing, "gene_names": genes}
            shuffled = values[order][:, columns]
            world.store.commit(LINE, "whole", shuffled, sample_ids=ids[order], **options)
            with world.store.writer(LINE, "stream", **options) as writer:
                for low, high in zip([0, *cuts], [*cuts, n], strict=True):
                    writer.append(shuffled[low:high], ids[order][low:high])
                writer.commit()
            values[sorted(gone)] = np.nan
            want = plain_chunks(values)
            assert chunk_bytes(world, "whole") == want
            assert chunk_bytes(world, "stream") == want
            assert world.store.record(LINE, "whole").digest == world.store.record(LINE, "stream").digest
            start, stop = sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))
            np.testing.assert_array_equal(
                world.store.read(LINE, "stream", start=start, stop=stop, verify=True), values[start:stop]
            )
        finally:
            shutil.rmtree(home, ignore_errors=True)
