"""Commands that look at a finished study or take its answers away: predict, status, audit, withdraw, export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from pertstack._base.findings import worst
from pertstack._base.shown import count_of
from pertstack.cli.terminal import (
    Address,
    AsJson,
    Engine,
    KeyFile,
    StudyPath,
    Workers,
    app,
    out,
    out_json,
    parse_mapping,
    say,
    say_findings,
    split_names,
)
from pertstack.data.choices import ControlChoice


@app.command()
def predict(
    study: StudyPath,
    new: Annotated[Path, typer.Argument(metavar="NEW.h5ad", help="New samples: a control layer and metadata.")],
    out_path: Annotated[Path, typer.Argument(metavar="OUT.h5ad")],
    predictions: Annotated[
        list[str] | None, typer.Option(help="NAME=FILE for models that were added, not fitted.")
    ] = None,
    workers: Workers = 1,
    map_: Annotated[list[str] | None, typer.Option("--map", help="Columns of this file: cell_line=cell_id,...")] = None,
    control_layer: Annotated[str | None, typer.Option(help="Layer with each sample's control.")] = None,
    control: Annotated[Path | None, typer.Option(help="Separate control file of parquet / CSV data.")] = None,
    metadata: Annotated[Path | None, typer.Option(help="A table of what is said of the rows, by their ids.")] = None,
    controls: Annotated[
        ControlChoice | None,
        typer.Option(help="How to assign a control to each sample when controls are rows of the same file."),
    ] = None,
    control_label: Annotated[list[str] | None, typer.Option(help="The perturbation that is the control.")] = None,
    transform: Annotated[str | None, typer.Option(help="Map controls to the study's scale: ln_to_log2, ...")] = None,
    features: Annotated[
        Path | None, typer.Option(help="Features of new perturbations, with the columns that the study has.")
    ] = None,
    targets: Annotated[Path | None, typer.Option(help="Target genes of new perturbations.")] = None,
    use: Annotated[str | None, typer.Option(help="A combination or model to use instead of what ships.")] = None,
) -> None:
    """Predict new samples with the model or combination that ships; the file is read like the study's data.

    Example:  pertstack predict my-study new.h5ad predicted.h5ad
    """
    from pertstack.study.steps.predict import predict_new
    from pertstack.study.study import Study

    folder = Study.open(study).folder
    reading = {
        "mapping": parse_mapping(map_) or None,
        "control_layer": control_layer,
        "control": control,
        "metadata": metadata,
        "controls": controls,
        "control_label": control_label,
        "transform": transform,
        "features": features,
        "targets": targets,
    }
    shape = predict_new(
        folder,
        new,
        out_path,
        predictions=predictions or [],
        workers=workers,
        reading=reading,
        use=use,
        say=lambda f: say(f.message) if f.severity == "note" else say_findings([f]),
    )
    if not (folder.results / "verdict.json").exists():
        say(f"warning: no verdict has judged this ensemble yet: pertstack verdict {folder.word}")
    out(f"{out_path}: {count_of(shape[0], 'sample')}, {count_of(shape[1], 'gene')}")


@app.command()
def status(study: StudyPath, as_json: AsJson = False) -> None:
    """Show finished steps, and models by block.

    Example:  pertstack status my-study
    """
    from pertstack.study.folder import StudyFolder  # not Study, which brings every step
    from pertstack.study.status import study_status

    found = study_status(StudyFolder.open(study))
    out_json(found.to_json()) if as_json else out(found.to_rich())


@app.command()
def audit(
    study: StudyPath,
    as_json: AsJson = False,
    deep: Annotated[bool, typer.Option("--deep", help="Read every byte again.")] = False,
    clean: Annotated[bool, typer.Option("--clean", help="Remove what crashed writers left behind.")] = False,
    expect_head: Annotated[
        str | None, typer.Option("--expect-head", help="A digest of the ledger that was noted elsewhere.")
    ] = None,
    workers: Workers = 1,
    engine: Engine = "local",
    address: Address = None,
) -> None:
    """Check all files, records, ledger and plan; exit 3 if anything is wrong.

    Example:  pertstack audit my-study --deep
    """
    from pertstack._base.machine.cluster import Cluster
    from pertstack.study.audit.audit import audit_study, folder_to_audit

    cluster = Cluster.of(engine, workers, address)
    findings = audit_study(
        folder_to_audit(study), deep=deep, clean=clean, expect_head=expect_head, workers=workers, cluster=cluster
    )
    if as_json:
        facts = {"format": 1, "study": str(study), "deep": deep, "worst": worst(findings)}
        out_json({**facts, "findings": [f.to_json() for f in findings]})
    else:
        for finding in findings:
            out(f"{finding.severity}: {finding.message}")
        out(
            f"{count_of(sum(f.severity == 'error' for f in findings), 'error')}, "
            f"{count_of(len(findings), 'finding')} in all"
        )
    if worst(findings) == "error":
        raise typer.Exit(3)


@app.command()
def withdraw(
    study: StudyPath,
    model: str,
    why: Annotated[str, typer.Option(help="The reason, kept in the ledger.")],
) -> None:
    """Take a model out of the study, with a reason.

    Example:  pertstack withdraw my-study biolord --why "trained on the test set"
    """
    from pertstack.study.study import Study

    n = Study.open(study).withdraw(model, why)
    out(f"{model}: {count_of(n, 'block')} withdrawn; the files are kept under store/retracted")


@app.command()
def export(
    study: StudyPath,
    path: Annotated[
        Path, typer.Argument(metavar="OUT", help="OUT.h5ad, OUT.zarr, OUT.npz, or a folder for cell-eval.")
    ],
    to: Annotated[
        str, typer.Option(help="h5ad, zarr, npz, cell-eval, cell-eval2, scperteval or vcc; default: from the name.")
    ] = "auto",
    models: Annotated[list[str] | None, typer.Option(help="Which models; default all.")] = None,
    with_truth: Annotated[
        bool,
        typer.Option(
            "--with-truth", help="Also write the test's treated values before the last look; recorded in the ledger."
        ),
    ] = False,
    key: KeyFile = None,
    cells: Annotated[
        Path | None, typer.Option(help="vcc: counts of control cells, whose depth the written cells take.")
    ] = None,
    profiles: Annotated[
        Path | None, typer.Option(help="vcc: a file that `pertstack predict` wrote, instead of a model of the study.")
    ] = None,
    per_target: Annotated[int, typer.Option("--cells-per-target", help="vcc: cells of each target and context.")] = 400,
    sampled: Annotated[
        bool, typer.Option("--sampled", help="vcc: independent cells, whose mean is the prediction in expectation.")
    ] = False,
    seed: Annotated[int, typer.Option(help="vcc: of the choice of control cells.")] = 0,
) -> None:
    """Write aligned predictions for other tools.

    Example:  pertstack export my-study predictions.h5ad
    """
    from pertstack.study.study import Study

    written = Study.open(study).export(
        path,
        to=to,
        models=split_names(models),
        with_truth=with_truth,
        key=key,
        cells=cells,
        profiles=profiles,
        per_target=per_target,
        seed=seed,
        sampled=sampled,
    )
    for item in written:
        out(str(item))
    for line in _judge_with(written, to, sampled):
        say(line)


def _judge_with(written: Sequence[Path], to: str, sampled: bool) -> list[str]:
    """The command of the judge that reads what was written, and what the judge may say of it."""
    if to == "vcc":
        pinned = (
            "The mean over the cells of a target is the prediction exactly, which independent cells would not have, "
            "and cell-eval2 remarks on it. --sampled writes independent cells, with the noise of their number."
        )
        pack = f"Check and pack it: vcc prep {written[0]} --genes gene_names.csv --perts pert_counts.csv"
        return [pack] if sampled else [pack, pinned]
    real = [p for p in written if p.name.endswith(".real.h5ad")]
    if not real or to == "scperteval":
        return []
    one, predicted = real[0], real[0].with_name(real[0].name.replace(".real.", ".predicted."))
    names = "--pert-col perturbation --control control"
    said = [
        f"Score a pair: cell-eval2 run -ap {predicted} -ar {one} {names} --input-type lognorm --profile anndata",
        "One row is a profile, so tests of differential expression (profile full) have no cells to test.",
    ]
    lines = "cell-eval2 takes cell lines in one file for replicates: --to cell-eval2 writes a pair for each line."
    return said if to == "cell-eval2" else [*said, lines]


@app.command()
def bundle(
    study: StudyPath,
    path: Annotated[Path, typer.Argument(metavar="OUT.zip", help="The file to write.")],
) -> None:
    """Write the verdict to one file that others can verify without the data: plan, ledger, scores, report.

    Example:  pertstack bundle my-study verdict.zip
    """
    from pertstack.study.sealed_results import sealed_verdict
    from pertstack.study.study import Study

    opened = Study.open(study)
    out(str(opened.bundle(path)))
    out(f"Anybody can check it: pertstack verify {quote(str(path))} --expect-head {sealed_verdict(opened.folder)}")


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE.zip", help="A file made by `pertstack bundle`.")],
    as_json: AsJson = False,
    expect_head: Annotated[
        str | None, typer.Option("--expect-head", help="A digest of the ledger that was noted elsewhere.")
    ] = None,
) -> None:
    """Derive a bundled verdict again from its scores, without data; exit 3 if anything was changed.

    Example:  pertstack verify verdict.zip
    """
    from pertstack.study.steps.bundle import verify_bundle

    found = verify_bundle(path, expect_head)
    if as_json:
        out_json(found.to_json())
    else:
        for finding in found.findings:
            out(f"{finding.severity}: {finding.message}")
        out(f"Derived again: {found.headline or 'nothing could be derived'}")
        looks = f"The test was opened {count_of(found.looks, 'time')}" + (", exploratory" if found.exploratory else "")
        out(f"{looks}. Ledger: {found.ledger_head or 'unreadable'}")
        noted = (
            ""
            if expect_head
            else " Only a digest noted elsewhere can tell whether all of it was written anew: --expect-head DIGEST."
        )
        out(f"{'Nothing was changed.' if found.is_sound else 'CHANGED: do not rely on it.'}{noted}")
    if not found.is_sound:
        raise typer.Exit(3)
