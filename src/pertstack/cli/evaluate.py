"""The command that needs no study: predictions of a test set, judged."""

from __future__ import annotations

from pathlib import Path
from shutil import get_terminal_size
from typing import Annotated, Literal

import typer

from pertstack.cli.terminal import (
    AsJson,
    By,
    CellsAsSamples,
    Memory,
    MinCells,
    Normalised,
    Workers,
    app,
    out,
    out_json,
    parse_mapping,
    say,
    say_findings,
    split_names,
)

Scale = Literal["treated", "delta"]


@app.command()
def evaluate(
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="Measured samples with their controls.")],
    predictions: Annotated[
        list[str], typer.Argument(metavar="PREDICTION...", help="FILE or NAME=FILE; a folder holds one file per fold.")
    ],
    to: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for the page, the leaderboard and the scores; default: evaluation."),
    ] = None,
    primary: Annotated[
        str, typer.Option(help="Metric that decides; auto takes the first that separates a replicate from a constant.")
    ] = "auto",
    scale: Annotated[Scale, typer.Option(help="Of the predictions: delta is treated - control.")] = "treated",
    map_: Annotated[
        list[str] | None, typer.Option("--map", help="Your columns: perturbation=drug,cell_line=cell_id")
    ] = None,
    control_layer: Annotated[str, typer.Option(help="Layer of the truth with each sample's control.")] = "control",
    control_label: Annotated[
        list[str] | None, typer.Option(help="The perturbation that is the control, if controls are rows of the truth.")
    ] = None,
    treated_layer: Annotated[
        str | None, typer.Option(help="Layer of the truth with what was measured; raw is its .raw; default X.")
    ] = None,
    by: By = None,
    normalise: Normalised = None,
    min_cells: MinCells = 10,
    cells_as_samples: CellsAsSamples = False,
    delta: Annotated[bool, typer.Option("--delta", help="The truth holds differences from control.")] = False,
    layer: Annotated[str | None, typer.Option(help="Layer of the prediction files.")] = None,
    genes: Annotated[Path | None, typer.Option(help="Gene names in order, for files whose columns have none.")] = None,
    transform: Annotated[
        str | None,
        typer.Option(
            help="Map the predictions to the scale of the truth: log1p_cp10k, "
            "log1p_5e4, log2, log2p1, exp2, ln_to_log2."
        ),
    ] = None,
    control: Annotated[Path | None, typer.Option(help="Table of the controls, if the truth is a table.")] = None,
    metadata: Annotated[
        Path | None, typer.Option(help="A table of what is said of the rows of the truth, by their ids.")
    ] = None,
    as_json: AsJson = False,
    every: Annotated[bool, typer.Option("--all", help="Show every row, not the best ten.")] = False,
    seed: int = 0,
    workers: Workers = 1,
    memory: Memory = "1 GB",
) -> None:
    """Judge predictions of a test set you already have: no study, no folds, nothing fitted.

    Example:  pertstack evaluate truth.h5ad gears=gears.h5ad state=adata_pred.h5ad
    """
    from pertstack.study.new_rows.evaluation import SHOWN
    from pertstack.study.steps.evaluate import evaluate as judge
    from pertstack.verdict.boards.text import answer
    from pertstack.verdict.several import several_in_words
    from pertstack.write.tables.layout import leaderboard_table

    found = judge(
        truth,
        predictions,
        primary=primary,
        scale=scale,
        mapping=parse_mapping(map_) or None,
        control_layer=control_layer,
        control_label=control_label,
        treated_layer=treated_layer,
        by=split_names(by) or (),
        normalise=normalise,
        min_cells=min_cells,
        cells_as_samples=cells_as_samples,
        delta=delta,
        layer=layer,
        genes=genes,
        transform=transform,
        control=control,
        metadata=metadata,
        seed=seed,
        workers=workers,
        memory=memory,
    )
    say_findings(found.findings)
    page = found.save(to or Path("evaluation"))
    if as_json:
        out_json(found.leaderboard.to_dict())
        return
    for finding in found.findings:
        if finding.severity == "note" and finding.code in SHOWN:
            say(finding.message)
    board = found.leaderboard
    out(leaderboard_table(board, every=every, width=get_terminal_size().columns))
    for line in several_in_words(board.several):
        out(line)
    out(board.footer())
    for text in answer(board):
        out(text)
    out(f"Page: {page}")
