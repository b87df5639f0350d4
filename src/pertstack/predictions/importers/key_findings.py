"""What a match by what was done is told as: keys that lack, that are left over, that stand twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from pertstack._base.errors import MisalignedError, first_few
from pertstack._base.findings import Finding
from pertstack._base.reading.tables import as_texts
from pertstack.data.near_names import near_names
from pertstack.data.rows import Float32
from pertstack.predictions.importers.keys import SAME, Codes, Labels, key_in_words, keys_of
from pertstack.predictions.importers.readers.files import PredictionFile


def mixed_names(given: pd.DataFrame, columns: tuple[str, ...], labels: Labels, file: PredictionFile) -> list[Finding]:
    """A warning if predictions of several doses or times of one key are averaged, because the samples have none.

    Parameters
    ----------
    given : what the file says of its rows.
    columns : the parts of a key.
    labels : spellings of perturbations.
    file : for the message.
    """
    found = []
    for name, word in (("log10_dose", "dose"), ("time_h", "time")):
        if name in columns or name not in given or given[name].isna().all():
            continue
        apart = pd.Series(given[name].to_numpy(), index=pd.Index(keys_of(given, columns, labels), tupleize_cols=False))
        n = int((apart.groupby(level=0).nunique() > 1).sum())
        if n:
            text = (
                f"{file.path}: predictions of several {word}s are averaged for {n:,} keys, because the samples do not "
                f"say their {word}. Which one was measured? Leave the others out, or name the column of the truth."
            )
            found.append(Finding("warning", f"averaged_over_{word}s", text, n, where=str(file.path)))
    return found


def refuse_doubles(file: PredictionFile, codes: Codes, count: Codes, keys: list[tuple[str, ...]]) -> None:
    """A few keys twice in a file of one row a key, with different values: which of them counts cannot be known.

    Parameters
    ----------
    file : whose rows are read.
    codes : (n_rows,) key of each row.
    count : (n_keys,) rows of each key.
    keys : in words.

    Raises
    ------
    MisalignedError
        With the keys and how far apart their values are.
    """
    often = count[count > 0]
    if np.median(often) > 1 or often.max() == 1:
        return
    first: dict[int, Float32] = {}
    differing: dict[int, float] = {}
    twice = set(np.flatnonzero(count > 1).tolist())
    at = 0
    for chunk in file.chunks():
        for row in chunk.values:
            code = int(codes[at])
            at += 1
            if code not in twice:
                continue
            if code in first:
                gap = float(np.nanmax(np.abs(row - first[code]), initial=0.0))
                if gap > SAME:
                    differing[code] = max(gap, differing.get(code, 0.0))
            else:
                first[code] = row.copy()
    if differing:
        words = [f"{key_in_words(keys[c])} (up to {gap:.3g} apart)" for c, gap in differing.items()]
        raise MisalignedError(
            f"{file.path}: {len(differing):,} of {len(often):,} keys are predicted more than once, with different "
            f"values, while the others are predicted once: {first_few(words, 5)}. Which of them counts cannot be "
            f"known. Keep one row of each."
        )


def key_findings(
    file: PredictionFile,
    columns: tuple[str, ...],
    n_rows: int,
    n_keys: int,
    n_samples: int,
    n_controls: int,
    missing: tuple[str, ...],
    left: tuple[str, ...],
) -> list[Finding]:
    """What was matched and how; what was not, with its count.

    Parameters
    ----------
    file : for the message.
    columns : the parts of a key.
    n_rows, n_keys, n_samples, n_controls : rows of the file, keys that serve samples, samples served, control rows.
    missing : keys of samples without a prediction, in words.
    left : predicted keys without a sample, in words.
    """
    where = str(file.path)
    how = " and ".join({"log10_dose": "dose", "time_h": "time"}.get(c, c.replace("_", " ")) for c in columns)
    averaged = (
        f", each the mean of {n_rows / max(1, n_keys + len(left)):,.0f} rows," if n_rows > n_keys + len(left) else ""
    )
    control = f"; {n_controls:,} control rows are not used" if n_controls else ""
    text = f"{where}: matched by {how}: {n_keys:,} predictions{averaged} serve {n_samples:,} samples{control}."
    found = [Finding("note", "matched_by_key", text, n_samples, where=where, numbers={"rows": n_rows, "keys": n_keys})]
    if missing:
        text = (
            f"{where}: no prediction for {len(missing):,} of {len(missing) + n_keys:,} keys: {first_few(missing, 5)}."
        )
        found.append(Finding("warning", "keys_missing", text, count=len(missing), examples=missing[:10], where=where))
    if left:
        parts = ({part for key in keys for part in key.split(" / ")} for keys in (left, missing))
        text = f"{where}: {len(left):,} predicted keys have no sample and are not used: {first_few(left, 5)}."
        text += spelt_otherwise(*parts)
        found.append(Finding("warning", "keys_left_over", text, count=len(left), examples=left[:10], where=where))
    return found


def of_several(files: Sequence[Sequence[Finding]], missing: Sequence[tuple[str, ...]]) -> list[Finding]:
    """Findings of the matches of several files: what one does not predict and another does is not missing.

    Parameters
    ----------
    files : findings of each match.
    missing : keys that it lacks, in words.
    """
    if len(files) < 2:
        return [f for found in files for f in found]
    lacking = [k for k in missing[0] if all(k in m for m in missing)]
    out = [f for found in files for f in found if f.code != "keys_missing"]
    if lacking:
        text = f"No file predicts {len(lacking):,} keys: {first_few(lacking, 5)}."
        out.append(Finding("warning", "keys_missing", text, len(lacking), tuple(lacking[:10])))
    return out


def nothing_fits(file: PredictionFile, given: pd.DataFrame, samples: pd.DataFrame, columns: tuple[str, ...]) -> str:
    """Both sides, so that the difference is seen.

    Parameters
    ----------
    file : for the message.
    given, samples : the tables of both sides.
    columns : the parts of a key.
    """
    sides, hints = [], ""
    for name in columns[:2]:
        theirs, own = (sorted(set(as_texts(t[name]))) for t in (given, samples))
        hints += spelt_otherwise(theirs, own)
        sides.append(f"{name.replace('_', ' ')} {first_few(theirs, 3)} in the file, {first_few(own, 3)} in the truth")
    return f"{file.path}: none of its rows is a perturbation and cell line of the truth: {'; '.join(sides)}." + (
        hints or " Name the columns that say both with --map perturbation=COLUMN,cell_line=COLUMN."
    )


def spelt_otherwise(theirs: Iterable[str], own: Iterable[str]) -> str:
    """A sentence that names what two sides spell otherwise (A-549, A549); empty if nothing is alike.

    Parameters
    ----------
    theirs, own : names of the file and of the samples.
    """
    theirs, own = set(theirs), set(own)
    alike = [g for g in near_names(theirs ^ own, numbered=False) if {*g} & theirs and {*g} & own]
    alike = [g for g in alike if any(c.isalpha() for c in g[0])]
    if not alike:
        return ""
    shown = "; ".join(" = ".join(g) for g in alike[:3]) + (f" and {len(alike) - 3} more" if len(alike) > 3 else "")
    return f" Perhaps the same, spelt otherwise: {shown}. Write in the file what the study writes."
