"""Commands that bring base models into a study: fit, add, reduce."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pertstack._base.shown import count_of
from pertstack.cli.terminal import (
    Address,
    Engine,
    Memory,
    StudyPath,
    Workers,
    app,
    out,
    parse_mapping,
    say_failures,
    say_findings,
    split_names,
)


@app.command()
def fit(
    study: StudyPath,
    models: Annotated[list[str], typer.Option(help="Base models, comma-separated; see `pertstack models`.")],
    scope: Annotated[
        str, typer.Option(help="pooled: one model for all cell lines; cell_line: one for each.")
    ] = "pooled",
    workers: Workers = 1,
    engine: Engine = "local",
    address: Address = None,
    nested: Annotated[
        bool,
        typer.Option("--nested/--no-nested", help="Also fit without each pair of folds: weights by gene need it."),
    ] = True,
    profile: Annotated[str | None, typer.Option(help="Settings of networks: paper, default or fast.")] = None,
    time_limit: Annotated[float | None, typer.Option(help="Seconds one fit may take.")] = None,
) -> None:
    """Fit base models, and predict each fold by a fit that has not seen it; finished fits are not run again.

    Example:  pertstack fit my-study --models mean_treated,per_gene_linear,ridge --workers 2
    """
    from pertstack.study.study import Study

    results = Study.open(study).cross_fit(
        split_names(models) or [],
        scope=scope,
        nested=nested,
        workers=workers,
        engine=engine,
        address=address,
        time_limit=time_limit,
        profile=profile,
    )
    failed = say_failures(results)
    counts = {s: sum(r.status == s for r in results) for s in ("done", "present")}
    out(f"{count_of(counts['done'], 'job')} done, {counts['present']} already there, {len(failed)} failed")
    if failed:
        raise typer.Exit(2)


@app.command()
def add(
    study: StudyPath,
    name: Annotated[str, typer.Argument(help="Name of the model in this study.")],
    files: Annotated[list[Path], typer.Argument(help="Predictions: .h5ad, .zarr, .npz, .parquet, .csv, .arrow")],
    fitted_on: Annotated[
        str, typer.Option(help="plan (this study's folds), a file of sample ids, a table fold -> ids, or unknown.")
    ],
    scale: Annotated[str, typer.Option(help="treated (expression) or delta (treated - control).")],
    missing: Annotated[str, typer.Option(help="refuse, or record rows without predictions.")] = "refuse",
    card: Annotated[Path | None, typer.Option(help="Preprocessing card (card.json) for files that carry none.")] = None,
    transform: Annotated[
        str | None,
        typer.Option(
            help="Map the values to the study's scale: log1p_cp10k, log2, "
            "log2p1, exp2, ln_to_log2 (and so for any two of ln, log2, "
            "log10), minmax_inverse:LOW:HIGH."
        ),
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="AnnData: the layer (or obsm:NAME, raw, X) that holds the predictions.")
    ] = None,
    without: Annotated[
        int | None, typer.Option(help="The files are nested predictions: their fits also left out this fold.")
    ] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map", help="Columns of the files, if rows are not samples: perturbation=drug,cell_line=cell_id"
        ),
    ] = None,
    genes: Annotated[Path | None, typer.Option(help="Gene names in order, for files whose columns have none.")] = None,
) -> None:
    """Add predictions made elsewhere, matched by sample id, or by perturbation and cell line, and by gene name.

    Example:  pertstack add my-study biolord oof.h5ad test.h5ad --fitted-on plan --scale treated
    """
    from pertstack.study.study import Study

    report = Study.open(study).add(
        name,
        *files,
        fitted_on=fitted_on,
        scale=scale,
        missing=missing,
        card=card,
        transform=transform,
        without=without,
        mapping=parse_mapping(map_) or None,
        genes=genes,
        layer=layer,
    )
    say_findings(report.findings)
    out(str(report))


@app.command()
def reduce(
    study: StudyPath,
    workers: Workers = 1,
    memory: Memory = "1 GB",
    engine: Engine = "local",
    address: Address = None,
) -> None:
    """Read all predictions once and keep the sums that stack needs (stack does it too).

    Example:  pertstack reduce my-study --workers 2
    """
    from pertstack.study.study import Study

    reduction = Study.open(study).reduce(workers=workers, memory=memory, engine=engine, address=address)
    out(
        f"{count_of(len(reduction.models), 'base model')}, {count_of(len(reduction.gene_names), 'gene')}, "
        f"{count_of(len(reduction.samples), 'sample')}"
    )
