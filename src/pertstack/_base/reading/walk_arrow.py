"""Read every batch of an Arrow (Feather) file, and the texts of a parquet file: run in a child process by
``tried_first``."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet

from pertstack._base.reading.tried_first import memory_of

ROWS = 1024


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


def walk_parquet(path: Path) -> None:
    """Go through the columns of texts, and so of dictionaries: a long text is stored once and named a million times,
    and no other column holds more than its rows.

    Raises
    ------
    MemoryError
        The texts take more than this process may.
    pyarrow.ArrowException, OSError
        A page cannot be read.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    left = memory_of(path.stat().st_size)
    with pa.parquet.ParquetFile(path) as file:
        texts = [f.name for f in file.schema_arrow if _is_text(f.type)]
        for batch in file.iter_batches(batch_size=ROWS, columns=texts) if texts else ():
            left -= batch.nbytes
            if left < 0:
                raise MemoryError(f"{path} holds more texts than memory")


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(
        is_kind(kind)
        for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    )
