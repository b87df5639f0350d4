"""External models: somebody else's program, in its own environment, spoken to through a folder of files.

The program fits and predicts in one run (some models, biolord among them, must know the control rows they will predict
when they fit), so a job runs it once for all its blocks. It never sees a held-out treated value: ``predict.h5ad`` has
none.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pertstack._base.errors import ConflictError, InputError, ModelFailedError, unknown_name
from pertstack._base.files import remove
from pertstack.data.cells.raw import RawCells
from pertstack.data.rows import FitRows, Float32, PredictRows
from pertstack.fit.base import Needs
from pertstack.fit.external import sandbox
from pertstack.fit.external.card import ModelCard, load_card
from pertstack.fit.external.environment import interpreter_for, last_lines
from pertstack.fit.external.exchange import Answer, read_answer, write_task
from pertstack.fit.parameter_kinds import fits

PARTS_OF_A_STUDY = (
    *("jobs", "plan", "reduced", "results", "seals", "store", "test_truth"),
    *("ledger.jsonl", "plan.toml", "report.html", "study.toml"),
)
"""What a program must not see of a study; a card may lie beside it."""


class ExternalModel:
    """A model behind a card; keeps the ``BaseModel`` contract.

    ``predict`` runs the program on the fit rows and the rows to predict; ``predict_many`` does so once for several
    blocks. Files go to ``folder`` (the job's, set by the worker; else a temporary one) and are removed when all went
    well, but for the log.
    """

    name: str
    needs: Needs

    def __init__(self, card: str | Path, card_digest: str | None = None, **params: Any) -> None:
        self.card: ModelCard = load_card(card)
        if card_digest is not None and card_digest != self.card.digest:
            raise ConflictError(
                f"The card {self.card.path} or its script has changed (digest {self.card.digest}, was {card_digest}): "
                f"its predictions would not be those of the model that was named. Start afresh with the changed card."
            )
        for key, value in params.items():
            if key not in self.card.params:
                raise unknown_name(f"hyper-parameter of {self.card.name}", key, self.card.params or ["(it has none)"])
            kind = type(self.card.params[key])  # 1 in a card may mean 1.0
            if not fits(value, float if kind is int else kind):
                raise InputError(f"{self.card.name}.{key} is {value!r}; it must be as {self.card.params[key]!r} is.")
        self.name, self.needs = self.card.name, self.card.needs
        self.folder: Path | None = None
        self._chosen, self._named = {**self.card.params, **params}, str(card)
        self.raw_cells: RawCells | None = None  # set by the worker, if the study was made of cells
        self._rows: FitRows | None = None
        self._seed = 0
        self._embeddings: dict[str, Float32] = {}
        self.notes = {"sandbox": sandbox.kind()}

    def params(self) -> dict[str, Any]:
        """Card, its digest, and every hyper-parameter."""
        return {"card": self._named, "card_digest": self.card.digest, **self._chosen}

    def fit(self, rows: FitRows, *, rng: np.random.Generator) -> ExternalModel:
        """Keep the fit rows and a seed; the program runs when the rows to predict are known."""
        self._rows, self._seed = rows, int(rng.integers(2**31))
        return self

    def predict(self, rows: PredictRows) -> Float32:
        return self.predict_many([rows])[0]

    def predict_many(self, parts: Sequence[PredictRows]) -> list[Float32]:
        """Treated profiles of several blocks, from one run of the program.

        Raises
        ------
        ModelFailedError
            The program failed, hung, or wrote something unusable; its log is named.
        """
        if self._rows is None:
            raise InputError(f"{self.name} was asked to predict before fit.")
        together = _join(parts)
        answer = self._ask(self._rows, together)
        if answer.embedding is not None:
            self._embeddings |= dict(zip(map(str, together.sample_ids), answer.embedding, strict=True))
        ends = np.cumsum([p.n_samples for p in parts])[:-1]
        return [np.ascontiguousarray(part) for part in np.split(answer.treated, ends)]

    def embed(self, rows: PredictRows) -> Float32 | None:
        """Embeddings the program wrote for these rows when it predicted them; None when it wrote none."""
        found = [self._embeddings.get(str(s)) for s in rows.sample_ids]
        known = [f for f in found if f is not None]
        return np.stack(known) if known and len(known) == len(found) else None

    def _ask(self, fit: FitRows, predict: PredictRows) -> Answer:
        box = Path(tempfile.mkdtemp(prefix="pertstack-"))  # outside the study: the program must not find its truth
        folder, place = box / "exchange", self.folder or box
        log = place / "external.log"
        place.mkdir(parents=True, exist_ok=True)
        remove(log)  # if it is a link, what it leads to stays as it is
        log.write_text("", encoding="utf-8")
        python = interpreter_for(self.card, log)
        cells = self._cells(fit)
        write_task(folder, self.card, fit, predict=predict, seed=self._seed, params=self._chosen, cells=cells)
        try:
            run_program(self.card, python, folder, log=log, hidden=self._hidden())
            answer = read_answer(folder, self.card, fit, predict=predict)
        except ModelFailedError as error:
            kept = sandbox.keep(folder, self.folder / "exchange") if self.folder else folder
            raise ModelFailedError(f"{error} Nothing of it was kept. Files: {kept}. Log: {log}") from error
        finally:
            if self.folder:
                shutil.rmtree(box, ignore_errors=True)
        if not self.folder:
            shutil.rmtree(folder)
        return answer

    def _cells(self, fit: FitRows) -> Any:
        """Cells of the fit rows and their controls, if the card asks for them."""
        if self.card.files != "cells":
            return None
        if self.raw_cells is None:
            raise InputError(f"{self.name} learns from single cells, and the rows it was given were made of profiles.")
        return self.raw_cells.of(fit)

    def _hidden(self) -> list[Path]:
        """The file of all cells, those of held-out samples among them."""
        path = None if self.raw_cells is None else Path(self.raw_cells.path)
        return [path] if path is not None and path.exists() else []


def run_program(card: ModelCard, python: str, folder: Path, *, log: Path, hidden: Sequence[Path] = ()) -> None:
    """Run the program of a card on an exchange folder.

    Parameters
    ----------
    card : command and limits of time, memory and file size.
    python : interpreter that the command may name.
    folder : of the exchange, where the program runs; the rest of a study is hidden from it.
    log : gets the command and its output.
    hidden : files that are kept from it, beside the study.

    Raises
    ------
    ModelFailedError
        It cannot be started, ends with another code than 0, or is over one of its limits (it is then killed with all
        it started).
    """
    command = _command(card, python, folder)
    with log.open("ab") as stream:
        stream.write(f"$ {' '.join(command)}\n".encode())
    limits = sandbox.Limits(card.time_limit, card.memory, card.file_size)
    studies = [p for p in log.resolve().parents if (p / "study.toml").is_file()]
    parts = [p for study in studies for p in sorted(study.iterdir()) if p.name in PARTS_OF_A_STUDY and p.exists()]
    data = [p for study in studies if (p := _data_of(study)) is not None and p not in card.path.parents]
    needed = [card.path.parent, *(p.parents[1] for p in (Path(python), Path(python).resolve()) if len(p.parts) > 2)]
    try:
        code = sandbox.run(command, folder, log, limits=limits, hidden=[*parts, *data, *hidden], needed=needed)
    except OSError as error:
        raise ModelFailedError(
            f"{card.name}: {command[0]!r} cannot be started ({error}). See its card {card.path}."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ModelFailedError(
            f"{card.name} did not end within its time limit of {card.time_limit:g} s and was stopped. "
            f"{last_lines(log)} Raise time_limit in its card, or give it less to do."
        ) from error
    if code != 0:
        raise ModelFailedError(f"{card.name} failed with exit code {code}{_signal(code)}. {last_lines(log)}")


def _data_of(study: Path) -> Path | None:
    """The file or folder that a study was made from: it holds the test as well."""
    try:
        path = Path(tomllib.loads((study / "study.toml").read_text(encoding="utf-8"))["data"]).resolve()
    except (OSError, ValueError, KeyError, TypeError):
        return None  # of which other commands tell
    return path if path.exists() else None


def _signal(code: int) -> str:
    """What a kill by one of the limits means, for the message."""
    return {
        -signal.SIGXFSZ: " (a file larger than file_size of its card)",
        -signal.SIGKILL: " (killed, perhaps for lack of memory)",
    }.get(code, "")


def _command(card: ModelCard, python: str, folder: Path) -> list[str]:
    if card.script is not None:
        return [python, str(card.path.parent / card.script), str(folder)]
    words = {"folder": str(folder), "card": str(card.path.parent), "python": python}
    filled = [_fill(word, words) for word in card.command]
    return [card.locate(filled[0]), *filled[1:]]


def _fill(word: str, words: dict[str, str]) -> str:
    for key, value in words.items():
        word = word.replace(f"{{{key}}}", value)
    return word


def _join(parts: Sequence[PredictRows]) -> PredictRows:
    first = parts[0]
    if len(parts) == 1:
        return first
    control = np.concatenate([p.control for p in parts])
    return PredictRows(first.gene_names, control, pd.concat([p.obs for p in parts]), first.side)
