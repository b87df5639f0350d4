"""The folder of a study: where each file lies, and how the parts of a study are opened.

Nothing is computed here. What the files mean is written in ``docs/formats.md``; who writes them, in ``init.py``,
``study/development/fit_rows.py`` and ``study.py``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import tomlkit
from tomlkit.exceptions import TOMLKitError

from pertstack._base.digests import digest_names
from pertstack._base.errors import CorruptionError, InputError, MissingFileError
from pertstack._base.files import read_json, require_plain, write_atomic
from pertstack._base.machine.locks import exclusive
from pertstack._base.machine.progress import remark
from pertstack._base.reading.tables import plain_texts
from pertstack.data import Card, SideInformation, load_side
from pertstack.design.analysis_plan import AnalysisPlan
from pertstack.design.ledger import Ledger
from pertstack.design.plan.folds import FoldPlan
from pertstack.design.plan.groups import apart
from pertstack.predictions.sources.training_distance import TrainingDistance
from pertstack.predictions.store.store import PredictionStore
from pertstack.reduce.references import References

S = TypeVar("S", bound=PredictionStore)
FORMAT = 1
LOCK = ".lock"
OTHER_NAMES = "gene_names.json"
"""Second names of genes and what they are called in the study, below ``plan/``; absent if genes have one name."""
MARKS = "row_marks.npz"
"""Fingerprints of all rows, below ``plan/``: with them rows without ids are recognised and no truth is opened."""


@dataclass(frozen=True)
class StudyFolder:
    """Paths and parts of one study on disk."""

    root: Path

    @property
    def scratch(self) -> Path:
        """Where nameless files lie that a step maps instead of holding them in memory."""
        return self.path("reduced")

    @classmethod
    def open(cls, root: Path | str) -> StudyFolder:
        """An existing study.

        Raises
        ------
        MissingFileError
            There is no study at ``root``.
        InputError
            It was made by a newer pertstack.
        """
        folder = cls(Path(root))
        if not folder.root.exists():
            raise MissingFileError(
                f"{root} does not exist. Make a study with `pertstack init {folder.word} --data FILE`."
            )
        if not (folder.root / "study.toml").is_file():
            raise MissingFileError(
                f"{root} is not a study: it has no study.toml. Name the folder that `pertstack init` made, "
                f"or make one with `pertstack init STUDY --data FILE`."
            )
        found = folder.choices.get("format")
        if found != FORMAT:
            raise InputError(
                f"{root} has study format {found!r}, and this pertstack reads format {FORMAT}. Update pertstack."
            )
        return folder

    def path(self, *parts: str) -> Path:
        return self.root.joinpath(*parts)

    @property
    def word(self) -> str:
        """The folder as a word of a command that a person copies."""
        return quote(str(self.root))

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @cached_property
    def choices(self) -> dict[str, Any]:
        """study.toml as plain values."""
        path = self.root / "study.toml"
        try:
            return dict(tomlkit.parse(path.read_text(encoding="utf-8")).unwrap())
        except (TOMLKitError, UnicodeDecodeError, RecursionError) as error:
            raise CorruptionError(f"{path} is not valid TOML ({error}). Restore it from a copy.") from error

    @cached_property
    def plan(self) -> FoldPlan:
        return FoldPlan.load(self.root / "plan")

    @property
    def analysis_plan_file(self) -> Path:
        return self.root / "plan.toml"

    @property
    def analysis_plan(self) -> AnalysisPlan:
        """Read afresh each time: people edit it."""
        return AnalysisPlan.load(self.analysis_plan_file)

    def with_one_plan(self) -> StudyFolder:
        """The same folder, its analysis plan read once: for a step that must not change its mind half way."""
        return _OnePlan(self.root)

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.root / "ledger.jsonl", self.root / "seals" / "head.json")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Held by every step that writes: one at a time, and only on a ledger that is whole. Readers need it not.

        Raises
        ------
        CorruptionError
            The ledger was changed or cut: a step that went on would hide it.
        """
        with self.alone():
            self.ledger.require_whole()
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The lock by itself, for the audit, which also looks at a study whose ledger is broken."""
        said = f"Another command is working on {self.root}. Waiting until it has ended (Ctrl-C gives up)."
        with exclusive(self.root / LOCK, on_wait=lambda: remark(said)):
            yield

    @contextmanager
    def taking_away(self) -> Iterator[None]:
        """Held while answers are taken out of a study: sums that are missing are written, so others wait. In a place
        if nothing can be written (a study passed on read-only) no other process can write either."""
        if os.access(self.root, os.W_OK):
            with self.writing():
                yield
        else:
            self.ledger.require_whole()
            yield

    @cached_property
    def samples(self) -> pd.DataFrame:
        """Canonical metadata, index = sample ids in plan order, with the plan's group, role and fold."""
        path = self.root / "plan" / "samples.parquet"
        require_plain(path)
        try:
            table = plain_texts(pd.read_parquet(path))
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            raise CorruptionError(f"{path} cannot be read ({error}). Restore it from a copy.") from error
        facts = self.plan.table.set_index("sample_id")[["group", "role", "fold"]]
        return table.join(facts.reindex(table.index))

    @cached_property
    def side(self) -> SideInformation:
        return load_side(self.root / "side")

    @cached_property
    def training_distance(self) -> TrainingDistance | None:
        """How far perturbations are from those trained on; None if nothing is known of them but their names, and
        if parts are kept apart, since each fit then has another list of what it trained on."""
        features = self.side.best()
        if features is None or apart(self.plan.group_by):
            return None
        return TrainingDistance.of_samples(features, self.samples)

    @cached_property
    def card(self) -> Card:
        return Card.from_json(read_json(self.root / "card.json"))

    @cached_property
    def other_gene_names(self) -> dict[str, str]:
        """Second name of a gene -> its name in the study; empty if the data gave one name."""
        path = self.root / "plan" / OTHER_NAMES
        return dict(read_json(path)) if path.exists() else {}

    @cached_property
    def references(self) -> References:
        return References.load(self.root / "plan" / "references.npz")

    @cached_property
    def store(self) -> PredictionStore:
        """The prediction store; refused when it belongs to another fold plan."""
        return self.open_store("store")

    @property
    def test_key(self) -> str | None:
        """The id of the key that the test was sealed with at ``init``; None if it was not sealed."""
        found = self.choices.get("test_key")
        return None if found is None else str(found)

    def open_store(self, name: str, kind: type[S] = PredictionStore) -> S:  # type: ignore[assignment]
        """A store of this study by the name of its folder; refused when it belongs to another fold plan."""
        store = kind.open(self.root / name)
        if store.plan_digest is None or not self.plan.accepts(store.plan_digest):
            raise CorruptionError(
                f"{self.root / name} was made for fold plan {str(store.plan_digest)[:12]}, but plan/folds.parquet is "
                f"plan {self.plan.digest[:12]}: the plan was changed after the store was made, or parts of two "
                f"studies were mixed. Restore plan/ from a copy, or start a new study."
            )
        return store

    @cached_property
    def gene_names(self) -> np.ndarray[Any, Any]:
        return np.asarray(self.store.gene_names, dtype=object)

    @property
    def gene_digest(self) -> str:
        return digest_names(self.gene_names)

    def withdrawn(self) -> dict[str, str]:
        """Models taken out of the study, with the reason, from the ledger."""
        out: dict[str, str] = {}
        for entry in self.ledger.entries():
            if entry.kind == "model_withdrawn":
                out[entry.facts["model"]] = entry.facts["reason"]
            elif entry.kind == "model_added" and entry.facts.get("model") in out:
                del out[entry.facts["model"]]
        return out


class _OnePlan(StudyFolder):
    @cached_property
    def analysis_plan(self) -> AnalysisPlan:
        return AnalysisPlan.load(self.analysis_plan_file)


def write_choices(root: Path, choices: dict[str, Any]) -> None:
    """Write study.toml: what the user chose, in the order given; None is left out (TOML has no null)."""
    document = tomlkit.document()
    document.add(
        tomlkit.comment("The choices of this study, written by `pertstack init`. Facts, not settings: edit nothing.")
    )
    for key, value in choices.items():
        if value is not None:
            document.add(key, value)
    write_atomic(root / "study.toml", tomlkit.dumps(document).encode())
