"""The leaderboard: every base model, reference and combiner with its scores, intervals and doubts.

Plain facts, written byte for byte the same for the same inputs (sorted keys, 12 significant digits, no times). How the
numbers come about is handled by ``judge.py``; how they read as text, by ``board_text.py``; how they are drawn, of
``write/``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import pandas as pd
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table

from pertstack._base.errors import InputError, unknown_name
from pertstack._base.files import read_json, write_atomic
from pertstack._base.plain_json import plain_json
from pertstack._base.shown import shown, spreadsheet_cell
from pertstack.design.metric_names import direction, find_metric, split_metric
from pertstack.verdict.boards import frames as board_frames
from pertstack.verdict.boards import text as board_text
from pertstack.verdict.boards.rows import LeaderboardRow, Split, row_from_dict, row_to_dict
from pertstack.verdict.decision import Decision

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Form = Literal["tidy", "wide", "long"]
FORMAT = 1


@dataclass(frozen=True)
class Leaderboard:
    """All rows with what is needed to read them; fields as in ``leaderboard.json`` (docs/formats.md).

    ``primary`` is the full name of the deciding metric; in JSON it is split into ``primary_metric`` and ``reference``.
    ``best_single`` is the base model with the best primary score on out-of-fold rows (on the test if
    there are none).
    """

    rows: tuple[LeaderboardRow, ...]
    primary: str
    chosen: str | None = None
    best_single: str | None = None
    test_looks: int = 0
    plan_digest: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    interval: Mapping[str, Any] = field(default_factory=dict)  # level, resamples, unit, n_units per split, method
    exploratory: bool = False
    headline: str = ""
    cautions: tuple[str, ...] = ()
    several: Mapping[str, Any] = field(default_factory=dict)  # all competitors at once, as ``several.py`` gives it
    decision: Decision | None = None  # what to do, whose text is the headline; None in files written before it existed

    @property
    def evaluated(self) -> bool:
        """Whether it ranks predictions that were not cross-fitted here, rather than the candidates of a study."""
        return self.decision is not None and self.decision.action == "rank"

    @property
    def primary_metric(self) -> str:
        return split_metric(self.primary)[0]

    @property
    def reference(self) -> str:
        return split_metric(self.primary)[1]

    @property
    def ships(self) -> str | None:
        """The row that `predict` uses and the headline names; ``chosen`` is what the out-of-fold rows alone chose."""
        if self.decision is None or (self.decision.ships is None and self.decision.action != "distrust"):
            return self.chosen
        return self.decision.ships

    @property
    def split(self) -> Split:
        """The split a reader should look at: the test once it was opened, else out-of-fold."""
        return "test" if any(r.split == "test" for r in self.rows) else "oof"

    def ranked(self, split: Split | None = None) -> list[LeaderboardRow]:
        """Rows of a split, best primary score first; ceilings last, so that they are not taken for a winner.

        Parameters
        ----------
        split : "test" or "oof"; None for the test once it was opened.
        """

        def key(row: LeaderboardRow) -> tuple[bool, bool, float, str]:
            cell = row.score(self.primary)
            value = None if cell is None else cell.value
            return (row.kind == "ceiling", value is None, -direction(self.primary) * (value or 0.0), row.name)

        return sorted((r for r in self.rows if r.split == (split or self.split)), key=key)

    def row(self, name: str, split: Split | None = None) -> LeaderboardRow:
        """The row of a name; a misspelt name shows the near ones.

        Parameters
        ----------
        name : name of a model or combiner.
        split : "test" or "oof"; None for the test once it was opened.
        """
        here = self.ranked(split)
        found = next((r for r in here if r.name == name), None)
        if found is None:
            raise unknown_name("leaderboard row", name, {r.name for r in here})
        return found

    def metrics(self) -> list[str]:
        """Every metric on the board, in the order of first appearance."""
        return list(dict.fromkeys(m for r in self.rows for m in r.scores))

    # -- what goes to disk ---------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values as the schema says; floats to 12 significant digits, undefined numbers as null."""
        rows = [r for split in ("test", "oof") for r in self.ranked(split)]
        return {
            "format": FORMAT,
            "primary_metric": self.primary_metric,
            "reference": self.reference,
            "chosen": self.chosen,
            "best_single": self.best_single,
            "test_looks": self.test_looks,
            "plan_digest": self.plan_digest,
            "versions": dict(self.versions),
            "interval": dict(self.interval),
            "exploratory": self.exploratory,
            "headline": self.headline,
            "cautions": list(self.cautions),
            "rows": [row_to_dict(r) for r in rows],
            **({"several": dict(self.several)} if self.several else {}),
            **({"decision": self.decision.to_json()} if self.decision else {}),
        }

    def to_json(self, path: Path | str | None = None) -> str:
        """Canonical JSON text, also written to ``path`` when given; equal boards give equal bytes.

        Parameters
        ----------
        path : file to write; None for the text alone.
        """
        text = (
            json.dumps(plain_json(self.to_dict()), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        )
        if path is not None:
            write_atomic(Path(path), text.encode())
        return text

    def to_csv(self, path: Path | str | None = None) -> str:
        """Long table (one line per name, split and metric) as CSV text, also written to ``path`` when given.

        Texts that a spreadsheet would take for a formula get an apostrophe in front, and very long ones are cut;
        ``to_json`` keeps them exactly.

        Parameters
        ----------
        path : file to write; None for the text alone.
        """
        table = self.to_frame(form="long").map(lambda v: spreadsheet_cell(shown(v)) if isinstance(v, str) else v)
        text = str(table.to_csv(index=False, float_format="%.12g", lineterminator="\n"))
        if path is not None:
            write_atomic(Path(path), text.encode())
        return text

    def to_frame(self, split: Split | None = None, *, form: Form = "tidy") -> pd.DataFrame:
        """Every number as a data frame.

        Parameters
        ----------
        split : "test" or "oof"; default the one a reader should look at (the test once it was opened), both for "long".
        form : "tidy": one line per name and metric, best name first, with columns name, metric, reference, value, low,
            high, kind, split, difference (to the best single model, in units of the metric), its bounds, counts.
            "wide": one line per name, one column per metric. "long": the columns of ``leaderboard.csv``.
        """
        if form not in get_args(Form):
            raise InputError(f"form is {form!r}; a frame is {', '.join(map(repr, get_args(Form)))}.")
        made: pd.DataFrame = getattr(board_frames, form)(self, split)
        return made

    def plot_differences(self, split: Split | None = None, *, every: bool = False) -> Figure:
        """Differences to the best single model with their intervals, as a matplotlib figure; right of zero is better.

        The best ten rows, what was chosen and the best single model, or ``every`` row.

        Parameters
        ----------
        split : "test" or "oof"; None for the test once it was opened.
        every : every row instead of the best ten.
        """
        from pertstack.verdict.boards.figure import differences_figure  # matplotlib is slow to import

        return differences_figure(self, split, every=every)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Leaderboard:
        """The board a ``leaderboard.json`` describes; another format number is refused.

        Parameters
        ----------
        value : plain values as ``to_dict`` gives them.
        """
        if value.get("format") != FORMAT:
            raise InputError(
                f"This leaderboard has format {value.get('format')!r}; this pertstack reads format {FORMAT}. "
                f"Run `pertstack verdict` again with this version, or read it with the version that wrote it."
            )
        return cls(
            tuple(row_from_dict(r) for r in value["rows"]),
            f"{value['primary_metric']}@{value['reference']}",
            value["chosen"],
            best_single=value["best_single"],
            test_looks=value["test_looks"],
            plan_digest=value["plan_digest"],
            versions=value["versions"],
            interval=value.get("interval", {}),
            exploratory=value.get("exploratory", False),
            headline=value.get("headline", ""),
            cautions=tuple(value.get("cautions", ())),
            several=value.get("several", {}),
            decision=Decision.from_json(value["decision"]) if value.get("decision") else None,
        )

    @classmethod
    def from_json(cls, path: Path | str) -> Leaderboard:
        """Read a ``leaderboard.json``.

        Parameters
        ----------
        path : a ``leaderboard.json``.
        """
        return cls.from_dict(read_json(Path(path)))

    # -- what people see -----------------------------------------------------------------------------------------------

    def shown_metrics(self) -> list[str]:
        """The canonical own-control number first, the deciding one beside it, then the matched control's if known."""
        wanted = (self.primary_metric, self.primary, f"{split_metric(self.primary)[0]}@matched")
        return list(dict.fromkeys(m for w in wanted if (m := find_metric(self.metrics(), w))))

    def table(self, split: Split | None = None) -> tuple[list[str], list[list[str]]]:
        """Header and lines of the short table, as text.

        Parameters
        ----------
        split : "test" or "oof"; None for the test once it was opened.
        """
        return board_text.table(self, split)

    def footer(self, split: Split | None = None) -> str:
        """What must be said under every table: split, deciding metric, intervals, looks.

        Parameters
        ----------
        split : "test" or "oof"; None for the test once it was opened.
        """
        return board_text.footer(self, split)

    def short_table(
        self, *, width: int = 80, every: bool = False, split: Split | None = None, all_rows: str = "--all"
    ) -> Group | Table:
        """The best ten rows for a terminal of ``width`` columns, or all of them.

        Parameters
        ----------
        width : columns of the terminal.
        every : all rows instead of the best ten.
        split : "test" or "oof"; None for the test once it was opened.
        all_rows : what to type to see the others.
        """
        return board_text.short_table(self, width=width, every=every, split=split, all_rows=all_rows)

    def __repr__(self) -> str:
        return board_text.plain(self)

    def _repr_html_(self) -> str:
        return board_text.html(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        return board_text.for_console(self, options)


def schema() -> dict[str, Any]:
    """The JSON Schema of ``leaderboard.json`` that ships with the package."""
    text = files("pertstack.verdict").joinpath("schemas/leaderboard.schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded
