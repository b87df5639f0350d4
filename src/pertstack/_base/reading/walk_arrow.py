"""Read every batch of an Arrow (Feather) file: run in a child process by ``tried_first``."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc


def walk(path: Path) -> None:
    """Go through the batches one by one; an old Feather file (version 1) is read whole.

    Raises
    ------
    pyarrow.ArrowException, OSError
        A batch cannot be read.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    with pa.OSFile(str(path)) as source:
        if source.read(4) == b"FEA1":
            pa.feather.read_table(str(path), use_threads=False)
            return
    with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as reader:
        for i in range(reader.num_record_batches):
            reader.get_batch(i)
