"""What new samples are called and say, held against the study: second names of genes, spellings of cell lines, doses
and times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pandas as pd

from pertstack._base.errors import first_few
from pertstack._base.findings import Finding
from pertstack.data.near_names import near_names
from pertstack.data.readers.columns.genes import other_names

_SAID = (
    ("log10_dose", "doses_missing", "dose", "--map dose=COLUMN"),
    ("time_h", "times_missing", "time", "--map time=COLUMN"),
)


def by_study_names(var: pd.DataFrame, own: list[str], other: Mapping[str, str]) -> pd.DataFrame:
    """The gene table of new samples with the study's names, if a second name on either side tells them.

    Parameters
    ----------
    var : gene table of the new file.
    own : genes of the study.
    other : second name of a gene -> its name in the study.
    """
    names, known = [str(n) for n in var.index], set(own)
    theirs = {name: second for second, name in other_names(var).items() if second in known}
    asked = [n if n in known else theirs.get(n, other.get(n, n)) for n in names]
    times = Counter(asked)
    return var.set_axis(pd.Index([new if times[new] == 1 else old for old, new in zip(names, asked, strict=True)]))


def said_of_them(samples: pd.DataFrame, new: pd.DataFrame, where: str) -> list[Finding]:
    """Warnings of doses and times that the study's samples differ in and new ones do not say, and of cell lines that
    may be the study's in another spelling.

    Parameters
    ----------
    samples, new : what is known of the samples of the study, and of the new ones.
    where : the file of the new ones.
    """
    found = []
    for column, code, word, mend in _SAID:
        if column not in samples or samples[column].nunique() < 2:
            continue
        lacking = new.index if column not in new else new.index[new[column].isna()]
        if len(lacking):
            text = (
                f"{len(lacking):,} of {len(new):,} samples of {where} say no {word}, and the study's differ in it: "
                f"models that use it must do without. Name the column with {mend}."
            )
            found.append(Finding("warning", code, text, len(lacking), tuple(map(str, lacking[:10])), where=where))
    ours, theirs = (set(t["cell_line"].astype(str)) for t in (samples, new))
    alike = [g for g in near_names([*(theirs - ours), *ours], numbered=False) if set(g) & ours and set(g) - ours]
    if alike:
        text = (
            f"{where}: cell lines that the study does not have are called like its own but for case or signs: "
            f"{first_few([' = '.join(g) for g in alike])}. They are predicted as new lines. If they are the study's, "
            f"write them as it does."
        )
        names = tuple(sorted({n for g in alike for n in g} - ours))
        found.append(Finding("warning", "lines_alike", text, len(names), names[:10], where=where))
    return found
