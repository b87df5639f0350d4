"""How commands speak: results on standard output, remarks on standard error, options in the forms people write."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.segment import Segment
from typer.core import TyperCommand, TyperOption

from pertstack._base.findings import Finding
from pertstack._base.machine.streams import Voice, takes_all
from pertstack._base.shown import shown, spelt_out
from pertstack.data.choices import Normalise
from pertstack.study.choices import listed

if TYPE_CHECKING:
    from pertstack.fit.jobs.job import JobResult

F = TypeVar("F", bound=Callable[..., Any])


class _Command(TyperCommand):
    """Of two values of an option that takes one, click takes the last in silence: they are refused."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for option in (p for p in self.params if isinstance(p, TyperOption)):
            given = [] if option.is_flag or option.multiple else list(dict.fromkeys(_values(args, option.opts)))
            if len(given) > 1:
                shown_values = ", ".join(map(repr, given))
                ctx.fail(f"{option.opts[0]} takes one value, and {len(given)} were given: {shown_values}. Leave one.")
        return super().parse_args(ctx, args)


def _values(args: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    """What stands behind an option, each time that it was given."""
    for word, following in zip(args, [*args[1:], ""], strict=True):
        for name in names:
            if word == name:
                yield following
            elif word.startswith(f"{name}="):
                yield word.removeprefix(f"{name}=")


class _App(typer.Typer):
    def command(self, name: str | None = None, **options: Any) -> Callable[[F], F]:
        return super().command(name, cls=_Command, **options)


app = _App(
    name="pertstack",
    help="Combine perturbation-response models, and find out honestly whether it helps.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

HELP = {choice.name: choice.help.text for choice in listed()}
StudyPath = Annotated[Path, typer.Argument(metavar="STUDY", help="A study made by `pertstack init`.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes (or threads) that work side by side.")]
Memory = Annotated[str, typer.Option(help="Memory for profiles held at once, such as '500 MB'.")]
Engine = Annotated[str, typer.Option(help="local, or dask: processes or machines of a Dask cluster.")]
Address = Annotated[
    str | None, typer.Option(help="Of a running Dask scheduler, such as tcp://HOST:8786; default: one on this machine.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
By = Annotated[list[str] | None, typer.Option(help=HELP["by"])]
Normalised = Annotated[
    Normalise | None,
    typer.Option(help=HELP["normalise"]),
]
MinCells = Annotated[int, typer.Option(min=1, help=HELP["min_cells"])]
CellsAsSamples = Annotated[bool, typer.Option("--cells-as-samples", help=HELP["cells_as_samples"])]
KeyFile = Annotated[Path | None, typer.Option("--key", metavar="FILE", help="The key of a sealed test.")]

USAGE_ERROR: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
"""The class of all usage errors: click's own, or the copy that newer versions of typer carry."""


@dataclass(frozen=True)
class _Harmless:
    """What ``inside`` shows, without control characters that came with its text."""

    inside: Any

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self.inside, options):
            yield segment if segment.control else Segment(shown(segment.text), segment.style)


def out(value: Any) -> None:
    """A result, to standard output."""
    if isinstance(value, str):
        _print_text(Voice(soft_wrap=True), value)
    else:
        Voice().print(_Harmless(value), highlight=False)


def say(text: str) -> None:
    """A remark, to standard error."""
    _print_text(Voice(stderr=True, soft_wrap=True), text)


def _print_text(console: Console, text: str) -> None:
    """Broken between words if a person reads it; whole lines in a file or a pipe, if programs do."""
    harmless = shown(text)
    console.print(filled(harmless, console.width) if console.is_terminal else harmless, markup=False, highlight=False)


_PIECES = re.compile(r"[^\s`]*`[^`]*`\S*|\S+")


def filled(text: str, width: int) -> str:
    """Lines of at most ``width`` columns. A command in backticks stays in one piece, to be copied.

    >>> print(filled("Ten models wait: `pertstack stack my-study`.", 20))
    Ten models wait:
    `pertstack stack my-study`.
    """
    lines = []
    for line in text.split("\n"):
        if cell_len(line) <= width:
            lines.append(line)
            continue
        now = line[: len(line) - len(line.lstrip())]
        for piece in _PIECES.findall(line):
            if now.strip() and cell_len(now) + 1 + cell_len(piece) > width:
                lines.append(now)
                now = piece
            else:
                now += f" {piece}" if now.strip() else piece
        lines.append(now)
    return "\n".join(lines)


def say_findings(findings: Sequence[Finding]) -> None:
    """Errors and warnings, to standard error; notes stay in the report."""
    for finding in findings:
        if finding.severity != "note":
            say(f"{finding.severity}: {finding.message}")


def say_stacked(study: Any) -> None:
    """What a reader of the stack step must not miss, to standard error."""
    from pertstack.study.members import stack_warnings

    for text in stack_warnings(study.folder):
        say(f"warning: {text}")


def out_json(value: Any) -> None:
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=not takes_all(sys.stdout))
    Voice().out(spelt_out(text), highlight=False)  # the same JSON


def show_board(study: Any, *, every: bool = False) -> None:
    """Leaderboard (the best ten or every row), what is said of all at once, footer, decision, and what to note."""
    from pertstack.study.sealed_results import sealed_verdict
    from pertstack.verdict.boards.text import answer
    from pertstack.verdict.several import several_in_words
    from pertstack.write.tables.layout import leaderboard_table

    board = study.leaderboard()
    out(leaderboard_table(board, every=every, all_rows=f"`pertstack verdict {study.folder.word} --all`"))
    for line in several_in_words(board.several, board.chosen):
        out(line)
    out(board.footer())
    for text in answer(board):
        out(text)
    if head := sealed_verdict(study.folder):
        out(
            f"Ledger: {head}. Register this digest outside the study (a preprint, a tag, a time stamp): "
            f"`pertstack audit {study.folder.word} --expect-head {head}` then fails if the ledger was replaced."
        )


def parse_mapping(texts: Sequence[str] | None) -> dict[str, str]:
    """``cell_line=cell_id,perturbation=drug`` as a dict; each text may hold several.

    >>> parse_mapping(["cell_line=cell_id"])
    {'cell_line': 'cell_id'}
    """
    pairs = [part.split("=", 1) for text in texts or () for part in text.split(",") if part.strip()]
    if bad := ["=".join(pair) for pair in pairs if len(pair) != 2 or not pair[0].strip() or not pair[1].strip()]:
        raise typer.BadParameter(f"{bad[0]!r} is not NAME=COLUMN. Write for example --map cell_line=cell_id,dose=conc.")
    found: dict[str, str] = {}
    for ours, theirs in pairs:
        if found.setdefault(ours.strip(), theirs.strip()) != theirs.strip():
            raise typer.BadParameter(
                f"--map gives {ours.strip()!r} two columns, {found[ours.strip()]!r} and {theirs.strip()!r}. Leave one."
            )
    return found


def split_names(texts: Sequence[str] | None) -> list[str] | None:
    """Names between commas; each text may hold several.

    >>> split_names(["ridge, pca", "mean_treated"])
    ['ridge', 'pca', 'mean_treated']
    """
    return None if texts is None else [name.strip() for text in texts for name in text.split(",") if name.strip()]


def say_failures(results: Sequence[JobResult]) -> list[JobResult]:
    """Jobs that failed, each with its reason and log, to standard error; returns them."""
    failed = [r for r in results if not r.ok]
    for result in failed:
        say(f"{result.status}: {result.job}: {result.error} Log: {result.log}")
    return failed
