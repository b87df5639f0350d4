"""Commands that make data and studies: demo, simulate, init; and the list of base models."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from pertstack.cli.terminal import (
    Workers,
    app,
    out,
    parse_mapping,
    say_findings,
    show_board,
    split_names,
)
from pertstack.data.choices import Pairing
from pertstack.study.choices import Choice, StudyChoices, listed

F = TypeVar("F", bound=Callable[..., Any])


def takes_options(command: F) -> F:
    """Give a command whose ``**options`` are the choices of a study one option for each."""
    own = inspect.signature(command, eval_str=True)
    kept = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    command.__signature__ = own.replace(parameters=[*kept, *map(_option, listed())])  # type: ignore[attr-defined]
    del command.__annotations__["options"]
    return command


def _option(choice: Choice) -> inspect.Parameter:
    """A choice as an option: repeated for several; those of ``--map`` and ``--by`` may also stand between commas."""
    kind, flag = choice.kind, choice.help.flag or "--" + choice.name.replace("_", "-")
    if choice.name in ("mapping", "by") or kind == tuple[str, ...]:
        kind = list[str] | None
    return inspect.Parameter(
        choice.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=choice.default or None if kind == list[str] | None else choice.default,
        annotation=Annotated[kind, typer.Option(flag, help=choice.help.text, **choice.help.cli)],
    )


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Where to put the demo study.")] = Path("demo"),
    workers: Workers = 2,
    seed: Annotated[int, typer.Option(help="Another seed gives another world.")] = 0,
) -> None:
    """Simulate a LINCS-like study and run everything on it.

    Example:  pertstack demo my-demo
    """
    from pertstack.cli.demo import run_demo

    study = run_demo(folder, workers=workers, seed=seed)
    show_board(study)
    out(f"Report: {study.folder.report}")


@app.command()
def simulate(
    path: Annotated[Path, typer.Argument(metavar="OUT.h5ad")],
    samples: Annotated[int, typer.Option(min=1)] = 2000,
    genes: Annotated[int, typer.Option(min=2)] = 978,
    cell_lines: Annotated[int, typer.Option(min=1)] = 3,
    perturbations: Annotated[int, typer.Option(min=1)] = 150,
    replicates: Annotated[int, typer.Option(min=1)] = 2,
    pairing: Annotated[Pairing, typer.Option(help="How controls are paired: own, matched or random.")] = "random",
    seed: int = 0,
) -> None:
    """Simulate data with known truth as an h5ad file (treated in X; layers control and effect).

    Example:  pertstack simulate world.h5ad --samples 600 --genes 200 --seed 1
    """
    from pertstack.data import SimulationConfig, simulate_to_file

    config = SimulationConfig(
        samples=samples,
        genes=genes,
        cell_lines=cell_lines,
        perturbations=perturbations,
        replicates=replicates,
        pairing=pairing,
        seed=seed,
    )
    simulate_to_file(path, config)
    out(f"{path}: {samples:,} samples, {genes:,} genes, {cell_lines} cell lines, {perturbations} perturbations")


@app.command()
@takes_options
def init(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="Folder to make.")],
    data: Annotated[list[Path], typer.Option(help="Profiles: .h5ad, .zarr, .parquet, .csv, .gctx, .pt")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what is taken for what; write nothing.")] = False,
    **options: Any,
) -> None:
    """Read and validate the data, write the fold plan.

    Example:  pertstack init my-study --data lincs.h5ad --group perturbation --folds 3 --test 0.2
    """
    from pertstack.data.readers.refused import one_file
    from pertstack.study.steps.init import preview_study
    from pertstack.study.study import Study
    from pertstack.write.tables.layout import asked_table, taken_table

    file = one_file(data)
    options |= {"mapping": parse_mapping(options["mapping"]), "by": split_names(options["by"])}
    if dry_run:
        seen = preview_study(study, file, StudyChoices.of(**options))
        out(taken_table(seen.taken))
        say_findings(seen.findings)
        out(f"{seen.plan}\nDry run: nothing was written, and values were looked at in part only.")
        if options["asked_for"] is not None:
            out(f"The comparison with {options['asked_for']} comes with the run itself.")
        return
    made = Study.create(study, data=file, **options)
    out(taken_table(made.taken()))
    if rows := made.asked():
        out(asked_table(rows))
    say_findings(made.findings())
    out(made.describe(made=not made.taken()))  # the table has said it


@app.command()
def models(study: Annotated[Path | None, typer.Argument(help="Say which could run on this study.")] = None) -> None:
    """List the base models with their needs.

    Example:  pertstack models
    """
    from pertstack.cli.models_table import models_table

    out(models_table(study))
