"""Names of a foreign split put onto the samples of a study: by perturbation, sample or cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pertstack._base.errors import InputError, first_few
from pertstack._base.findings import Finding
from pertstack.data.labels import is_control_name, look_up


def known_names(obs: pd.DataFrame, cells: pd.Series[Any] | None) -> dict[str, set[str]]:
    """Names a split may use, by kind."""
    found = {"sample": set(map(str, obs.index)), "perturbation": set(obs["perturbation"].astype(str))}
    return found if cells is None else {**found, "cell": set(map(str, cells.index))}


def kind_of(names: Iterable[str], obs: pd.DataFrame, cells: pd.Series[Any] | None) -> str:
    """Whether names are samples, cells or perturbations: what most of them are.

    Parameters
    ----------
    names : of a foreign split.
    obs : samples of the study.
    cells : cell -> sample; None if samples are not made of cells.
    """
    listed = list(names)
    by_kind = {k: sum(n in v for n in listed) for k, v in known_names(obs, cells).items()}
    by_kind["perturbation"] = len(look_up(listed, obs["perturbation"].astype(str)))
    return max(by_kind, key=lambda k: by_kind[k])


def place_names(
    path: Path, place: Mapping[str, Any], obs: pd.DataFrame, *, cells: pd.Series[Any] | None, kind: str | None = None
) -> tuple[dict[str, Any], list[Finding]]:
    """Place of each sample that the split names, and what has none.

    Parameters
    ----------
    path : of the split, for messages.
    place : name -> its place: a fold, or a role as the split words it.
    obs : samples of the study.
    cells : cell -> sample; None if samples are not made of cells. A split may not cut through a sample.
    kind : "sample", "cell" or "perturbation"; None for that of most names.

    Raises
    ------
    InputError
        No name is known, or two spellings of one perturbation have different places.
    """
    kind = kind or kind_of(place, obs, cells)
    if kind == "cell":
        assert cells is not None
        found = _by_cell(path, place, cells)
        names_found = set(place) & set(map(str, cells.index))
    elif kind == "sample":
        found = {str(s): place[str(s)] for s in obs.index if str(s) in place}
        names_found = set(found)
    else:
        spelt = look_up(place, obs["perturbation"].astype(str))
        mine: dict[str, Any] = {}
        for name, own in spelt.items():
            if mine.setdefault(own, place[name]) != place[name]:
                raise InputError(
                    f"{path}: {name!r} and another spelling of {own!r} have different places. Keep one of them."
                )
        perturbation = obs["perturbation"].astype(str)
        found = {str(s): mine[p] for s, p in zip(obs.index, perturbation, strict=True) if p in mine}
        names_found = set(spelt)
    if not found:
        raise InputError(
            f"{path}: none of its {len(place):,} names ({first_few(list(place), 3)}) is a perturbation "
            f"({first_few(sorted(set(obs['perturbation'].astype(str))), 3)}), a sample ({first_few(obs.index[:3])})"
            f"{'' if cells is None else ' or a cell (' + first_few(cells.index[:3]) + ')'} of the data. Check that "
            f"split and data belong together."
        )
    strange = sorted(n for n in place if n not in names_found and not is_control_name(n))
    return found, [*strange_findings(path, strange, kind), *lost_findings(path, obs, found)]


def _by_cell(path: Path, place: Mapping[str, Any], cells: pd.Series[Any]) -> dict[str, Any]:
    table = pd.DataFrame({"sample": cells.to_numpy(object), "place": [place.get(str(c)) for c in cells.index]})
    table = table.dropna()
    count = table.groupby("sample")["place"].nunique()
    cut = sorted(count.index[count > 1])
    if cut:
        some = table[table["sample"] == cut[0]]["place"].value_counts()
        words = ", ".join(f"{n:,} cells in {p}" for p, n in some.items())
        raise InputError(
            f"{path} cuts through samples: {len(cut):,} of {len(count):,} have cells on both sides, such as {cut[0]!r} "
            f"({words}). A model that saw some cells of a perturbation has seen it. Use a split by perturbation; or, "
            f"to judge single cells all the same, --cells-as-samples."
        )
    return {str(s): p for s, p in table.groupby("sample")["place"].first().items()}


def strange_findings(path: Path, names: Sequence[str], kind: str) -> list[Finding]:
    """A warning of names that are not among the samples; none without such names.

    Parameters
    ----------
    path : of the split.
    names : the unknown ones.
    kind : what they are taken for.
    """
    if not names:
        return []
    return [
        Finding(
            "warning",
            "split_names_unknown",
            f"{path.name}: {len(names):,} {kind}s of the split are not among the samples (left out, or of other data): "
            f"{first_few(names)}.",
            count=len(names),
            examples=tuple(names[:10]),
            where=str(path),
        )
    ]


def lost_findings(path: Path, obs: pd.DataFrame, found: Mapping[str, Any]) -> list[Finding]:
    """A warning of samples without a place; none if all have one.

    Parameters
    ----------
    path : of the split.
    obs : samples of the study.
    found : sample -> place.
    """
    lost = [str(s) for s in obs.index if str(s) not in found]
    if not lost:
        return []
    gone = sorted(set(obs["perturbation"].loc[lost].astype(str)))
    return [
        Finding(
            "warning",
            "samples_without_place",
            f"{path.name} gives no place to {len(lost):,} of {len(obs):,} samples, in {len(gone):,} perturbations: "
            f"{first_few(gone)}. They are left out of the study: in training or test they could be either.",
            count=len(lost),
            examples=tuple(lost[:10]),
            where=str(path),
        )
    ]
