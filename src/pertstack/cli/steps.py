"""Commands from combining to the report: stack, calibrate, plan, verdict, report, run."""

from __future__ import annotations

from shutil import get_terminal_size
from typing import Annotated

import typer

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
    say,
    say_failures,
    say_stacked,
    show_board,
    split_names,
)


@app.command()
def stack(
    study: StudyPath,
    combiners: Annotated[list[str] | None, typer.Option(help="Comma-separated; default: the analysis plan's.")] = None,
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
    """Learn combinations on out-of-fold predictions and choose one; the test stays closed.

    Example:  pertstack stack my-study --combiners mean,simplex,gene_shrunken,direct_pooled
    """
    from pertstack.study.study import Study

    opened = Study.open(study)
    names = split_names(accept_accused) or []
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
    combiners: Annotated[list[str] | None, typer.Option(help="Candidate combiners.")] = None,
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
    engine: Engine = "local",
    address: Address = None,
) -> None:
    """Open the held-out test, record the look in the ledger, print the leaderboard.

    Example:  pertstack verdict my-study
    """
    from pertstack.study.study import Study

    opened = Study.open(study)
    board = opened.verdict(
        exploratory=exploratory, workers=workers, memory=memory, key=key, engine=engine, address=address
    )
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
    models: Annotated[list[str] | None, typer.Option(help="Base models to fit first; default: a sensible set.")] = None,
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
