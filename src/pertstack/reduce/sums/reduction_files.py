"""A whole reduction in one folder: a manifest, the table of samples, and a folder per block."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd

from pertstack._base.errors import CorruptionError
from pertstack._base.files import read_json, write_atomic, write_json
from pertstack._base.findings import Finding
from pertstack._base.reading.tables import plain_texts
from pertstack.design.blocks import Block
from pertstack.reduce.sums.part_files import FORMAT, load_part, save_part
from pertstack.reduce.sums.reduction import Reduction


def save_reduction(reduction: Reduction, folder: Path) -> None:
    """Write blocks first, the manifest last: a folder without manifest is not a reduction."""
    for block, part in reduction.parts.items():
        save_part(folder / block.id, part, {"block": block.id})
    buffer = io.BytesIO()
    reduction.samples.to_parquet(buffer)
    write_atomic(folder / "samples.parquet", buffer.getvalue())
    manifest = {
        "format": FORMAT,
        "models": list(reduction.models),
        "gene_names": [str(g) for g in reduction.gene_names],
        "blocks": [b.id for b in reduction.parts],
        "findings": [f.to_json() for f in reduction.findings],
    }
    write_json(folder / "reduction.json", manifest)


def load_reduction(folder: Path) -> Reduction:
    """Read what ``save_reduction`` wrote."""
    manifest = read_json(folder / "reduction.json")
    samples = plain_texts(pd.read_parquet(folder / "samples.parquet"))
    parts, tables = {}, {}
    for text in manifest["blocks"]:
        part = load_part(folder / text)
        if part is None:
            raise CorruptionError(
                f"{folder} names block {text}, but its folder is missing or unfinished. Reduce again."
            )
        block = Block.from_id(text)
        parts[block] = part
        tables[block] = samples[samples["block"] == text].reset_index(drop=True)
    findings = tuple(Finding(**{**f, "examples": tuple(f["examples"])}) for f in manifest["findings"])
    return Reduction(
        tuple(manifest["models"]),
        np.asarray(manifest["gene_names"], dtype=object),
        parts,
        tables=tables,
        findings=findings,
    )
