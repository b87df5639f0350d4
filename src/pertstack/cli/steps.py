"""The door: one thin command per step. Results go to standard output, progress and warnings to standard error.

Exit codes: 0 done; 2 wrong usage or bad input; 3 refused for integrity; 1 a defect of ours.
"""

from __future__ import annotations

import errno
import sys
import traceback
from pathlib import Path
from shutil import get_terminal_size
from typing import Annotated, Any

import typer

import pertstack._base.allocator
from pertstack._base.errors import StackingError
from pertstack._base.files import storage_error
from pertstack._base.progress import show_progress
from pertstack._base.shown import count_of
from pertstack._base.version import __version__
from pertstack.cli.terminal import (
    USAGE_ERROR,
    AsJson,
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
from pertstack.data.choices import ControlChoice, Normalise, Pairing


@app.callback(invoke_without_command=True)
def _common(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if version:
        typer.echo(f"pertstack {__version__}")
        raise typer.Exit


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


@app.command()
def models(study: Annotated[Path | None, typer.Argument(help="Say which could run on this study.")] = None) -> None:
    """List the base models with their needs.

    Example:  pertstack models
    """
    from pertstack.cli.models_table import models_table

    out(models_table(study))


@app.command()
def fit(
    study: StudyPath,
    models: Annotated[str, typer.Option(help="Base models, comma-separated; see `pertstack models`.")],
    scope: Annotated[
        str, typer.Option(help="pooled: one model for all cell lines; cell_line: one for each.")
    ] = "pooled",
    workers: Workers = 1,
    engine: Annotated[str, typer.Option(help="local or dask.")] = "local",
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
def reduce(study: StudyPath, workers: Workers = 1, memory: Memory = "1 GB") -> None:
    """Sum the predictions of a study into moments, in one pass.

    Example:  pertstack reduce my-study --workers 2
    """
    from pertstack.study.study import Study

    reduction = Study.open(study).reduce(workers=workers, memory=memory)
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
    )
    from pertstack.write.oof_table import barred_in_words, oof_table

    say_stacked(opened)
    out(oof_table(result.oof, result.choice, every=every, width=get_terminal_size().columns))
    if barred := barred_in_words(result.choice):
        out(barred)
    out(result.headline)


@app.command()
def calibrate(study: StudyPath, as_json: AsJson = False, workers: Workers = 1, memory: Memory = "1 GB") -> None:
    """Test which metrics separate a replicate from a constant, on development rows; no model is needed.

    Example:  pertstack calibrate my-study
    """
    from pertstack.study.study import Study
    from pertstack.write.calibration_table import calibration_lines

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


import pertstack.cli.answers  # noqa: E402  (its commands come after these)
import pertstack.cli.evaluate  # noqa: E402, F401


def main() -> None:
    """Entry point: our errors become a message and an exit code, never a traceback (unless --debug)."""
    debug = "--debug" in sys.argv
    show_progress(True)
    try:
        code = app(standalone_mode=False)
        if code == 130:  # how typer reports Ctrl-C
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except USAGE_ERROR as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        say("Interrupted. What was finished is kept; run the same command again to go on.")
        sys.exit(130)
    except StackingError as error:
        if debug:
            traceback.print_exc()
        say(f"Error: {error if error.args else type(error).__name__}")
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}:
            raise
        if debug:
            traceback.print_exc()
        say(f"Error: {storage_error(error, Path(str(error.filename or 'the study')))}")
        sys.exit(2)
