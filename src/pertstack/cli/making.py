"""Commands that make data and studies: demo, simulate, init."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
from pertstack.data.choices import ControlChoice, Normalise, Pairing


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
def init(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="Folder to make.")],
    data: Annotated[Path, typer.Option(help="Profiles: .h5ad, .zarr, .parquet, .csv, .gctx, .pt")],
    group: Annotated[
        str | None,
        typer.Option(
            help="What is held out whole: perturbation (the default), sample, "
            "cell_line, control_id, perturbation+cell_line, or a column, also "
            "one of the table given with --plan."
        ),
    ] = None,
    folds: Annotated[int | None, typer.Option(min=2, help="Number of folds; 3, or those of the --plan table.")] = None,
    test: Annotated[
        float | None,
        typer.Option(help="Share of the groups held out as the test; 0.2, or the test of the --plan table."),
    ] = None,
    seed: int = 0,
    plan: Annotated[
        Path | None,
        typer.Option(help="An explicit fold table, or a split of other software (TOML, pickle, JSON, CSV)."),
    ] = None,
    support: Annotated[
        list[str] | None,
        typer.Option(
            help="Rows always fitted on and never scored: kind=single (singles where doubles are asked for), "
            "COLUMN=VALUE, a yes-or-no column, a file or names of perturbations."
        ),
    ] = None,
    for_: Annotated[
        Path | None,
        typer.Option(
            "--for",
            metavar="NEW",
            help="What will be predicted: a data file, or a table with a column perturbation. Compared with what is "
            "scored: genes seen, cell line, distance, dose.",
        ),
    ] = None,
    control_layer: Annotated[str, typer.Option(help="Layer with each sample's control.")] = "control",
    control: Annotated[Path | None, typer.Option(help="Separate control file of parquet / CSV data.")] = None,
    metadata: Annotated[Path | None, typer.Option(help="Sample table of GCTX data (siginfo / instinfo).")] = None,
    controls: Annotated[
        ControlChoice,
        typer.Option(help="How to assign a control to each sample when controls are wells or rows of the same file."),
    ] = "plate_mean",
    control_label: Annotated[
        list[str] | None,
        typer.Option(
            help="The perturbation that is the control, where controls "
            "are rows (common names are known). Repeat it to put "
            "several together."
        ),
    ] = None,
    treated_layer: Annotated[str | None, typer.Option(help="Layer with treated profiles or counts; default X.")] = None,
    by: Annotated[
        str | None, typer.Option(help="Cells: what else tells samples apart: guide, dose, donor, or a column.")
    ] = None,
    normalise: Annotated[
        Normalise | None,
        typer.Option(help="Cells: cp10k or 5e4 (log1p of counts per 10,000 or 50,000), mean_log1p, sum."),
    ] = None,
    min_cells: Annotated[int, typer.Option(min=1, help="Cells: samples of fewer are left out.")] = 10,
    cells_as_samples: Annotated[
        bool, typer.Option("--cells-as-samples", help="Every row is a sample, also if rows look like cells.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what is taken for what; write nothing.")] = False,
    delta: Annotated[bool, typer.Option("--delta", help="Values are already differences from control.")] = False,
    map_: Annotated[str | None, typer.Option("--map", help="Your columns: cell_line=cell_id,perturbation=drug")] = None,
    features: Annotated[Path | None, typer.Option(help="Feature matrix keyed by perturbation.")] = None,
    targets: Annotated[Path | None, typer.Option(help="Target genes of each perturbation.")] = None,
    graph: Annotated[Path | None, typer.Option(help="Gene-gene edge list.")] = None,
    graph_names: Annotated[
        Path | None, typer.Option(help="Protein ids and gene names, where the edges hold ids (STRING's protein.info).")
    ] = None,
    graph_min_score: Annotated[float | None, typer.Option(help="Edges with at least this score.")] = None,
    seal_test: Annotated[
        Path | None,
        typer.Option(metavar="KEYFILE", help="Encrypt the test; the key goes into this file, for another to keep."),
    ] = None,
) -> None:
    """Read and validate the data, write the fold plan.

    Example:  pertstack init my-study --data lincs.h5ad --group perturbation --folds 3 --test 0.2
    """
    from pertstack.study.steps.init import StudyChoices, preview_study
    from pertstack.study.study import Study
    from pertstack.write.tables import asked_table, taken_table

    options: dict[str, Any] = {
        "group": group,
        "folds": folds,
        "test": test,
        "seed": seed,
        "plan": plan,
        "control_layer": control_layer,
        "control": control,
        "metadata": metadata,
        "controls": controls,
        "control_label": control_label,
        "delta": delta,
        "mapping": parse_mapping(map_),
        "features": features,
        "targets": targets,
        "graph": graph,
        "graph_names": graph_names,
        "graph_min_score": graph_min_score,
        "treated_layer": treated_layer,
        "by": split_names(by) or [],
        "normalise": normalise,
        "min_cells": min_cells,
        "cells_as_samples": cells_as_samples,
        "support": support or [],
        "asked_for": for_,
        "seal_test": seal_test,
    }
    if dry_run:
        seen = preview_study(study, data, StudyChoices.of(**options))
        out(taken_table(seen.taken))
        say_findings(seen.findings)
        out(f"{seen.plan}\nDry run: nothing was written, and values were looked at in part only.")
        if for_ is not None:
            out(f"The comparison with {for_} comes with the run itself.")
        return
    made = Study.create(study, data=data, **options)
    out(taken_table(made.taken()))
    if rows := made.asked():
        out(asked_table(rows))
    say_findings(made.findings())
    out(made.describe())
