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


def read_splits(path: str | Path, sample_ids: Sequence[str]) -> pd.DataFrame:
    """PDGrapher's ``splits.pt`` of one cell line as a table: index sample ids, a column ``split_1`` ... with train,
    val or test.

    Split numbers are kept as they are in the file (1 to 5): shifting them by one is a mistake that has been made. A
    sample that a split does not name is empty there.

    Raises
    ------
    InputError
        A position lies outside the samples, or is in two parts of one split.
    """
    splits = load_torch(path)
    if not isinstance(splits, dict) or not all(isinstance(v, dict) for v in splits.values()):
        raise InputError(f"{path} is no PDGrapher split file: a dictionary 1..5 of index lists is expected.")
    table = pd.DataFrame(index=pd.Index([str(s) for s in sample_ids], name="sample_id"))
    for number, parts in sorted(splits.items(), key=lambda item: str(item[0])):
        role = np.full(len(table), None, dtype=object)
        for part in SPLITS:
            values = parts.get(f"{part}_index_backward")
            at = np.asarray([] if values is None else values, dtype=np.int64).reshape(-1)
            if len(at) and (at.min() < 0 or at.max() >= len(table)):
                raise InputError(
                    f"{path}: split {number} names position {int(at.max())}, but there are {len(table):,} samples. "
                    f"The split belongs to another cell line or another export."
                )
            twice = at[[role[i] is not None for i in at]]
            if len(twice):
                raise InputError(f"{path}: split {number} puts {first_few(table.index[twice])} into two parts at once.")
            role[at] = part
        table[f"split_{number}"] = role
    return table


def fold_table(splits: pd.DataFrame) -> pd.DataFrame:
    """PDGrapher's splits as one explicit fold table (columns sample_id, role, fold), for ``--plan``.

    The test parts of the five splits do not overlap, so they are the folds: a sample held out by split 3 is in fold 2
    (folds count from 0). A plan made so keeps PDGrapher's random split of replicates, with the leaks that
    ``split_findings`` counts.

    Raises
    ------
    InputError
        A sample is in the test part of two splits, or of none.
    """
    held = splits.to_numpy(dtype=object) == "test"
    times = held.sum(axis=1)
    if (times != 1).any():
        odd = splits.index[times != 1]
        raise InputError(
            f"{len(odd):,} of {len(splits):,} samples are not in the test part of exactly one split: "
            f"{first_few(odd)}. Such splits are no "
            f"fold plan; make one with --group."
        )
    return pd.DataFrame({"sample_id": list(splits.index), "role": "development", "fold": held.argmax(axis=1)})


def split_findings(obs: pd.DataFrame, splits: pd.DataFrame) -> list[Finding]:
    """Splits whose test samples have replicates (same perturbation and cell line) in training, with counts."""
    found = []
    key = obs["perturbation"].astype(str) + "|" + obs["cell_line"].astype(str)
    for name in splits.columns:
        role = splits[name].reindex(obs.index)
        seen, held = set(key[role == "train"]), key[role == "test"]
        leaked = held.index[held.isin(seen)]
        if len(leaked):
            found.append(
                Finding(
                    "warning",
                    "replicates_split",
                    f"{name}: {len(leaked):,} of {len(held):,} test samples have a replicate (same perturbation, same "
                    f"cell line) in training, so "
                    f"scores on this split measure memory, not new drugs. Use --group perturbation for a plan that "
                    f"keeps them together.",
                    count=len(leaked),
                    examples=tuple(leaked[:10]),
                    where=name,
                )
            )
    return found


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
