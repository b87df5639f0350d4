"""PDGrapher's exported data: ``data_backward_<line>.pt`` and ``splits.pt``, read without torch.

What the export lost or mixed up is reported: dose and time are not stored, replicates were split at random, and the
values were min-max scaled over all rows. The control of a sample is recovered by its values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xxhash

from pertstack._base.errors import InputError, first_few
from pertstack._base.findings import Finding
from pertstack._base.reading.unpickle import load_torch
from pertstack._base.reading.unpickle_parts import Bag, StoredTensor
from pertstack.data.file import DataFile
from pertstack.data.readers.matrices import Float32

_NEEDED = ("perturbagen_name", "diseased", "treated", "gene_symbols")
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class TensorRows:
    """Row i is a tensor that still lies in a .pt file."""

    tensors: tuple[Any, ...]  # of StoredTensor
    n_genes: int

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.tensors), self.n_genes

    def rows(self, start: int, stop: int) -> Float32:
        out = np.empty((max(0, min(stop, len(self.tensors)) - start), self.n_genes), dtype=np.float32)
        for i, tensor in enumerate(self.tensors[start:stop]):
            out[i] = tensor.read().reshape(-1)
        return out


def open_pdgrapher(path: str | Path | Sequence[str | Path]) -> DataFile:
    """One or several ``data_backward_<line>.pt`` files, or the folder that holds them, as one data file.

    Samples are called ``<line>_<position>``; ``control_id`` is recovered by hashing control rows; ``uns['targets']``
    holds the perturbed genes of each perturbagen. Values stay on the disk until rows are asked for.
    """
    paths = _files(path)
    records, lines = [], []
    for file in paths:
        listed = load_torch(file, lazy=True)
        if not isinstance(listed, list) or not listed or not all(isinstance(d, Bag) for d in listed):
            raise InputError(
                f"{file} is no PDGrapher export: a list of Data objects is expected, found {type(listed).__name__}."
            )
        records += [d.attributes() for d in listed]
        lines += [file.stem.removeprefix("data_backward_")] * len(listed)
    genes = _genes(records, paths)
    positions = [i for line in dict.fromkeys(lines) for i in range(lines.count(line))]
    obs = pd.DataFrame(
        {"perturbation": [_name(r["perturbagen_name"]) for r in records], "cell_line": lines},
        index=pd.Index(
            [f"{line}_{i:06d}" for line, i in zip(lines, positions, strict=True)], name="sample_id", dtype=object
        ),
    )
    control, treated = (TensorRows(tuple(r[key] for r in records), len(genes)) for key in ("diseased", "treated"))
    obs["control_id"] = _control_ids(control, lines)
    targets = _targets(records, obs["perturbation"], genes)
    return DataFile(
        path=str(path if isinstance(path, str | Path) else paths[0]),
        obs=obs,
        var=pd.DataFrame(index=pd.Index(genes, name="gene")),
        treated=treated,
        control=control,
        control_reference="PDGrapher export (a vehicle well of the cell line, taken in turn)",
        uns_reader=partial(dict, targets=targets),
        notes=_findings(obs, control, str(path)),
    )


def read_splits(path: Path, sample_ids: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """PDGrapher's ``splits.pt`` of one cell line: names of samples by part (train, val, test) by split.

    Split numbers are kept as they are in the file (1 to 5): shifting them by one is a mistake that has been made.

    Parameters
    ----------
    path : the file.
    sample_ids : of the study, in the order of the export; its positions are names only there.

    Raises
    ------
    InputError
        It is no such file, the samples are not those of one export, or a position lies outside them.
    """
    splits = load_torch(path)
    if not isinstance(splits, dict) or not all(isinstance(v, dict) for v in splits.values()):
        raise InputError(f"{path} is no PDGrapher split file: a dictionary 1..5 of index lists is expected.")
    if [s.rpartition("_")[2] for s in sample_ids] != [f"{i:06d}" for i in range(len(sample_ids))]:
        raise InputError(
            f"{path} lists positions in one data_backward_<line>.pt of PDGrapher, and the {len(sample_ids):,} samples "
            f"are not the rows of one such file. Make the study with --data data_backward_<line>.pt, the line of this "
            f"split, or write the split as a table with columns sample_id, role and fold."
        )
    return {
        str(number): {part: _at(path, number, parts.get(f"{part}_index_backward"), sample_ids) for part in SPLITS}
        for number, parts in splits.items()
    }


def _at(path: Path, number: Any, positions: Any, sample_ids: Sequence[str]) -> list[str]:
    at = np.asarray([] if positions is None else positions, dtype=np.int64).reshape(-1)
    if len(at) and (at.min() < 0 or at.max() >= len(sample_ids)):
        raise InputError(
            f"{path}: split {number} names position {int(at.max())}, but there are {len(sample_ids):,} samples. "
            f"The split belongs to another cell line or another export."
        )
    return [sample_ids[int(i)] for i in at]


def _files(path: str | Path | Sequence[str | Path]) -> list[Path]:
    if not isinstance(path, str | Path):
        return [Path(p) for p in path]
    path = Path(path)
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("data_backward_*.pt"))
    if not found:
        raise InputError(f"{path} holds no file data_backward_<line>.pt.")
    return found


def _genes(records: list[dict[str, Any]], paths: list[Path]) -> list[str]:
    for i, record in enumerate(records):
        lacking = [k for k in _NEEDED if record.get(k) is None]
        if lacking:
            raise InputError(
                f"{paths[0].parent}: sample {i} has no {first_few(lacking)}; is this a backward export of PDGrapher?"
            )
    genes = [str(g) for g in records[0]["gene_symbols"]]
    for i, record in enumerate(records):
        symbols = record["gene_symbols"]
        if symbols is not records[0]["gene_symbols"] and [str(g) for g in symbols] != genes:
            raise InputError(f"{paths[0].parent}: sample {i} has other genes, or another order, than the first sample.")
        for key in ("diseased", "treated"):
            tensor = record[key]
            if not isinstance(tensor, StoredTensor) or int(np.prod(tensor.shape)) != len(genes):
                raise InputError(
                    f"{paths[0].parent}: {key} of sample {i} does not hold one number per gene ({len(genes):,})."
                )
    return genes


def _name(value: Any) -> str:
    return str(value[0]) if isinstance(value, list | tuple) and len(value) == 1 else str(value)


def _control_ids(control: TensorRows, lines: list[str]) -> list[str]:
    """Equal control rows of a cell line get one id, numbered by first appearance."""
    seen: dict[tuple[str, int], str] = {}
    counts: dict[str, int] = {}
    out = []
    for i, line in enumerate(lines):
        key = (line, xxhash.xxh3_64_intdigest(np.ascontiguousarray(control.rows(i, i + 1)).data))
        if key not in seen:
            counts[line] = counts.get(line, 0) + 1
            seen[key] = f"{line}:control{counts[line]:05d}"
        out.append(seen[key])
    return out


def _targets(records: list[dict[str, Any]], names: pd.Series[Any], genes: list[str]) -> pd.DataFrame:
    pairs: dict[tuple[str, str], None] = {}
    for record, name in zip(records, names, strict=True):
        tensor = record.get("intervention")
        if isinstance(tensor, StoredTensor) and int(np.prod(tensor.shape)) == len(genes):
            pairs.update(dict.fromkeys((name, genes[g]) for g in np.flatnonzero(tensor.read().reshape(-1))))
    return pd.DataFrame(list(pairs), columns=["perturbation", "gene"])


def _findings(obs: pd.DataFrame, control: TensorRows, where: str) -> list[Finding]:
    counts: Mapping[Any, int] = obs.groupby(["perturbation", "cell_line"]).size().to_dict()
    replicated = sum(n > 1 for n in counts.values())
    return [
        Finding(
            "warning",
            "dose_and_time_lost",
            ("PDGrapher's export keeps neither dose nor time, so samples that differ in them cannot be told apart."),
            where=where,
        ),
        Finding(
            "warning",
            "scaled_on_all_rows",
            (
                "PDGrapher's export scaled every gene to 0..1 over all samples before splitting, held-out ones "
                "included: a mild leak, and a scale "
                "that no new data will have."
            ),
            where=where,
        ),
        Finding(
            "warning",
            "controls_in_turn",
            (
                f"Controls were given to samples in turn, whatever the plate: {obs['control_id'].nunique():,} distinct "
                f"controls serve {len(obs):,} samples (control_id was recovered from the values)."
            ),
            where=where,
        ),
        Finding(
            "note",
            "replicates_present",
            (
                f"{replicated:,} of {len(counts):,} pairs of perturbation and cell line have more than one sample; "
                f"PDGrapher's own splits put "
                f"them at random into training and test."
            ),
            replicated,
            where=where,
        ),
    ]
