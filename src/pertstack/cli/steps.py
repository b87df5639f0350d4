"""Commands on the way to a verdict: fit, add, reduce, stack, calibrate, plan, verdict, report, run."""

from __future__ import annotations

from pathlib import Path
from shutil import get_terminal_size
from typing import Annotated

import typer

from pertstack._base.shown import count_of
from pertstack.cli.terminal import (
    Address,
    AsJson,
    Engine,
    KeyFile,
    Memory,
    StudyPath,
    Workers,
    app,
    out,
    out_json,
    parse_mapping,
    say,
    say_failures,
    say_findings,
    say_stacked,
    show_board,
    split_names,
)


@app.command()
def fit(
    study: StudyPath,
    models: Annotated[str, typer.Option(help="Base models, comma-separated; see `pertstack models`.")],
    scope: Annotated[
        str, typer.Option(help="pooled: one model for all cell lines; cell_line: one for each.")
    ] = "pooled",
    workers: Workers = 1,
    engine: Engine = "local",
    address: Address = None,
    nested: Annotated[bool, typer.Option("--nested/--no-nested", help="Also fit without each pair of folds.")] = True,
    profile: Annotated[str | None, typer.Option(help="Hyper-parameters: paper, default or fast.")] = None,
    time_limit: Annotated[float | None, typer.Option(help="Seconds one fit may take.")] = None,
) -> None:
    """Cross-fit base models; finished jobs are not run again.

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
        str | None, typer.Option(help="AnnData: the layer (or obsm:NAME, or X) that holds the predictions.")
    ] = None,
    without: Annotated[
        int | None, typer.Option(help="The files are nested predictions: their fits also left out this fold.")
    ] = None,
    map_: Annotated[
        str | None,
        typer.Option(
            "--map", help="Columns of the files, where rows are no samples: perturbation=drug,cell_line=cell_id"
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
    """Sum the predictions of a study into moments, in one pass.

    Example:  pertstack reduce my-study --workers 2
    """
    from pertstack.study.study import Study

    reduction = Study.open(study).reduce(workers=workers, memory=memory, engine=engine, address=address)
    out(
        f"{count_of(len(reduction.models), 'base model')}, {count_of(len(reduction.gene_names), 'gene')}, "
        f"{count_of(len(reduction.samples), 'sample')}"
    )


@app.command()
def stack(
    study: StudyPath,
    combiners: Annotated[str | None, typer.Option(help="Comma-separated; default: the analysis plan's.")] = None,
    accept_unverified: Annotated[
        bool,
        typer.Option(
            "--accept-unverified",
            help="Also stack models whose training rows are unknown; every result carries a caution.",
        ),
    ] = False,
    accept_accused: Annotated[
        list[str] | None,
        typer.Option(
            "--accept-accused",
            metavar="MODEL",
            help="Stack a model although a probe accuses it of having "
            "seen what it predicts; noted in the ledger and in every headline.",
        ),
    ] = None,
    workers: Workers = 1,
    memory: Memory = "1 GB",
    engine: Engine = "local",
    address: Address = None,
    every: Annotated[bool, typer.Option("--all", help="Show every row, not the best ten.")] = False,
) -> None:
    """Learn and score combiners on out-of-fold rows, choose one.

    Example:  pertstack stack my-study --combiners mean,simplex,gene_shrunken,direct_pooled
    """
    from pertstack.study.study import Study

    opened = Study.open(study)
    names = [name for given in accept_accused or [] for name in split_names(given) or []]
    result = opened.stack(
        split_names(combiners),
        accept_unverified=accept_unverified,
        workers=workers,
        memory=memory,
        accept_accused=names,
        engine=engine,
        address=address,
    )
    from pertstack.write.tables.oof_table import barred_in_words, oof_table

    say_stacked(opened)
    out(oof_table(result.scores, result.choice, every=every, width=get_terminal_size().columns))
    if barred := barred_in_words(result.choice):
        out(barred)
    out(result.headline)


@app.command()
def calibrate(study: StudyPath, as_json: AsJson = False, workers: Workers = 1, memory: Memory = "1 GB") -> None:
    """Test which metrics separate a replicate from a constant, on development rows; no model is needed.

    Example:  pertstack calibrate my-study
    """
    from pertstack.study.study import Study
    from pertstack.write.tables.calibration_table import calibration_lines

    found = Study.open(study).calibrate(workers=workers, memory=memory)
    if as_json:
        out_json(found.to_json())
        return
    for line in calibration_lines(found.metrics.values(), found.primary):
        out(line)
    if found.doubt:
        say(f"warning: {found.doubt}")


@app.command()
def plan(
    study: StudyPath,
    primary: Annotated[
        str | None, typer.Option(help="Primary metric, such as r2_top20@pooled; auto settles it.")
    ] = None,
    reference: Annotated[str | None, typer.Option(help="Learn and choose against: pooled or own.")] = None,
    combiners: Annotated[str | None, typer.Option(help="Candidate combiners.")] = None,
    looks: Annotated[int | None, typer.Option(min=1, help="Planned looks at the held-out test.")] = None,
    looks_rule: Annotated[
        str | None, typer.Option(help="How much each look reveals: plain, ladder or thresholdout.")
    ] = None,
    lock: Annotated[bool, typer.Option("--lock", help="Lock now instead of at the first look.")] = False,
    exploratory: Annotated[
        bool, typer.Option("--exploratory", help="Change a locked plan; permanently marked exploratory.")
    ] = False,
) -> None:
    """Write, show or lock the analysis plan.

    Example:  pertstack plan my-study --primary r2_top20
    """
    from pertstack.study.study import Study

    opened = Study.open(study)
    changes = {
        "primary": primary,
        "reference": reference,
        "combiners": split_names(combiners),
        "looks": looks,
        "looks_rule": looks_rule,
    }
    opened.change_plan({k: v for k, v in changes.items() if v is not None}, exploratory=exploratory)
    if lock:
        opened.lock_plan()
    out(opened.describe_plan())


@app.command()
def verdict(
    study: StudyPath,
    as_json: AsJson = False,
    exploratory: Annotated[
        bool, typer.Option("--exploratory", help="Look with a changed plan; permanently marked exploratory.")
    ] = False,
    workers: Workers = 1,
    memory: Memory = "1 GB",
    every: Annotated[bool, typer.Option("--all", help="Show every row, not the best ten.")] = False,
    key: KeyFile = None,
) -> None:
    """Open the held-out test, record the look in the ledger, print the leaderboard.

    Example:  pertstack verdict my-study
    """
    from pertstack.study.study import Study

    opened = Study.open(study)
    board = opened.verdict(exploratory=exploratory, workers=workers, memory=memory, key=key)
    if as_json:
        out_json(board.to_dict())
    else:
        show_board(opened, every=every)


@app.command()
def report(study: StudyPath) -> None:
    """Write one self-contained HTML page.

    Example:  pertstack report my-study
    """
    from pertstack.study.study import Study

    out(f"Report: {Study.open(study).report()}")


@app.command()
def run(
    study: StudyPath,
    models: Annotated[str | None, typer.Option(help="Base models to fit first; default: a sensible set.")] = None,
    scope: str = "pooled",
    workers: Workers = 1,
    memory: Memory = "1 GB",
    key: KeyFile = None,
) -> None:
    """Run every missing step in order: fit, reduce, stack, verdict, report.

    Example:  pertstack run my-study --workers 2
    """
    from pertstack.study.study import Study

    opened = Study.open(study)
    say_failures(opened.run(split_names(models), scope=scope, workers=workers, memory=memory, key=key))
    say_stacked(opened)
    show_board(opened)
    out(f"Report: {opened.folder.report}")
