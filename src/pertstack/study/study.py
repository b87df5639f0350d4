"""A study, from data file to leaderboard: one method per step, each as thin as its command.

The work is done in the rooms; the files are described in ``docs/formats.md``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from threadpoolctl import threadpool_limits

from pertstack._base.errors import InputError, MissingFileError, StackingError
from pertstack._base.files import read_json
from pertstack._base.findings import Finding
from pertstack._base.machine.cluster import Cluster
from pertstack._base.names import listed
from pertstack.data.taken import Taken
from pertstack.design.analysis_plan import (
    AnalysisPlan,
    lock,
)
from pertstack.design.plan.folds import FoldPlan
from pertstack.fit.jobs.results import JobResults
from pertstack.fit.profiles import file_profile, hyper_parameters, load_models_toml
from pertstack.fit.registry import get_row
from pertstack.predictions.store.store import PredictionStore
from pertstack.reduce.sums.reduction import Reduction
from pertstack.study.audit.audit import audit_study
from pertstack.study.choices import StudyChoices, takes_choices
from pertstack.study.development.learned import stored_stack
from pertstack.study.development.rows import DevelopmentRows
from pertstack.study.folder import StudyFolder
from pertstack.study.manifests import finish_seals
from pertstack.study.members import stackable_models
from pertstack.study.new_rows.asked import ASKED
from pertstack.study.sealed_results import verdict_facts
from pertstack.study.seals import seal_report, seal_stack, seal_verdict
from pertstack.study.status import Status, study_status
from pertstack.study.steps.calibrate import Calibrated, calibrate_study
from pertstack.study.steps.fit import cross_fit_study
from pertstack.study.steps.init import create_study, plan_in_words
from pertstack.study.steps.plan import change_plan, plan_and_state
from pertstack.study.steps.run import is_judged, is_stacked, models_to_fit, refuse_undoing
from pertstack.study.steps.stack import Stacked, stack_study
from pertstack.study.steps.verdict import judge_study
from pertstack.study.steps.withdraw import finish_withdrawals, withdraw_model
from pertstack.study.truth.held_out import require_sealed_verdict, unfinished_look
from pertstack.verdict.boards.board import Leaderboard

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")
T = TypeVar("T")


def _writes(step: Callable[Concatenate[Study, P], T]) -> Callable[Concatenate[Study, P], T]:
    """A step that writes into the study: one at a time, on a ledger that is whole, after unfinished withdrawals.

    Its algebra is many small solves, on which BLAS threads wait for each other; ``workers`` share the rows instead.
    """

    @wraps(step)
    def held(self: Study, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.folder.writing(), threadpool_limits(limits=1):
            finish_seals(self.folder)
            finish_withdrawals(self.folder)
            return step(self, *args, **kwargs)

    return held


class Study:
    """A study on disk. Make one with ``Study.create`` or open one with ``Study.open``.

    Parameters
    ----------
    folder : where the files of the study are; ``Study.open`` makes it from a path.
    """

    def __init__(self, folder: StudyFolder) -> None:
        self.folder = folder

    def __repr__(self) -> str:
        choices = self.folder.choices
        return (
            f"Study({str(self.folder.root)!r}: {choices['n_samples']:,} samples x {choices['n_genes']:,} genes, "
            f"{self.folder.plan.n_folds} folds by {self.folder.plan.group_by})"
        )

    def _repr_html_(self) -> str:
        """The same for a notebook, with the steps done, the headline once there is one, and the next command."""
        from html import escape

        status = self.status()
        steps = ", ".join(name + " (stale)" * (name in status.stale) for name, done in status.steps.items() if done)
        lines = [f"<b>{escape(repr(self))}</b>", f"Question: {escape(self.plan.question)}", f"done: {steps}"]
        if status.steps["verdict"] and "verdict" not in status.stale:
            try:
                said = self.headline()
            except StackingError as error:  # a verdict that was tampered with: looking must not fail, nor hide it
                said = str(error)
            lines.append(f"<b>{escape(said)}</b>")
        return f"<p>{'<br>'.join([*lines, f'next: <code>{escape(status.next_step)}</code>'])}</p>"

    # -- making and opening ------------------------------------------------------------------------------------------

    @classmethod
    @takes_choices
    def create(cls, root: Path | str, *, data: Path | str, **options: Any) -> Study:
        """Read and validate a data file, fix the fold plan, lay out the study.

        Parameters
        ----------
        root : the folder to make.
        data : treated and control profiles, as ``docs/formats-data.md`` describes.
        options : see below.

        Raises
        ------
        InputError, MissingFileError
            The data cannot be used; everything wrong is listed and nothing is left on disk.
        LeakError
            The fold plan contradicts the data.
        """
        if not isinstance(data, str | Path):
            raise InputError(
                f"A study is made from a file, so that it can be made again; data is of type {type(data).__name__}. "
                f"Write it first: data.write_h5ad('data.h5ad'), then data='data.h5ad'."
            )
        return cls(create_study(Path(root), Path(data), StudyChoices.of(**options)))

    @classmethod
    def open(cls, root: Path | str) -> Study:
        """An existing study.

        Parameters
        ----------
        root : the folder that ``Study.create`` or ``pertstack init`` made.
        """
        return cls(StudyFolder.open(root))

    # -- what it is --------------------------------------------------------------------------------------------------

    @property
    def plan(self) -> FoldPlan:
        """The fold plan."""
        return self.folder.plan

    @property
    def predictions(self) -> PredictionStore:
        """The prediction store: ``to_anndata``, ``tile``, ``rows``, ``gene``, ``models``, ``status``."""
        return self.folder.store

    def findings(self) -> list[Finding]:
        """What the checks of data and plan found when the study was made."""
        return [Finding.from_json(f) for f in read_json(self.folder.path("plan", "findings.json"))]

    def taken(self) -> list[Taken]:
        """What was taken for what when the data were read; empty for studies made before this was kept."""
        path = self.folder.path("plan", "taken.json")
        return [Taken(**line) for line in read_json(path)] if path.exists() else []

    def asked(self) -> list[dict[str, str]]:
        """What was known at fit time of scored rows and of those of ``asked_for``, a line per level; empty without."""
        path = self.folder.path("plan", ASKED)
        return list(read_json(path)["rows"]) if path.exists() else []

    def describe(self, *, made: bool = True) -> str:
        """Size, fold plan and the question it answers, in a few lines.

        Parameters
        ----------
        made : also how cells became samples, which ``taken`` says too.
        """
        of_cells = f"\n{self.folder.card.made}." if made and self.folder.card.made else ""
        key = self.folder.test_key
        sealed = "" if key is None else f"\nThe test is sealed with key {key}: `pertstack verdict --key FILE` opens it."
        return f"{self!r}{of_cells}\n{plan_in_words(self.plan)}{sealed}"

    def status(self) -> Status:
        """How far the study is."""
        return study_status(self.folder)

    def audit(
        self,
        *,
        deep: bool = False,
        clean: bool = False,
        workers: int = 1,
        engine: str = "local",
        address: str | None = None,
    ) -> list[Finding]:
        """All checks of plan, ledger, stores and results.

        Parameters
        ----------
        deep : read every stored value, learn every weight again and ask the slow probes.
        clean : first remove files left by killed processes.
        workers : that make the sums of a deep audit, and read the blocks on a cluster.
        engine, address : "local", or "dask" with the address of a running scheduler, for the blocks of a deep audit.
        """
        cluster = Cluster.of(engine, workers, address)
        return audit_study(self.folder, deep=deep, clean=clean, workers=workers, cluster=cluster)

    # -- the analysis plan -------------------------------------------------------------------------------------------

    @_writes
    def change_plan(self, changes: Mapping[str, Any], *, exploratory: bool = False) -> AnalysisPlan:
        """Change entries of the analysis plan; refused once it is locked, unless exploratory.

        Parameters
        ----------
        changes : entry of the plan -> new value, such as ``{"primary": "r2_top20@pooled"}``.
        exploratory : change a locked plan; every later result is marked exploratory.
        """
        return change_plan(self.folder, changes, exploratory=exploratory)

    @_writes
    def lock_plan(self) -> None:
        """Lock the analysis plan now; a primary ``auto`` is settled first."""
        calibrate_study(self.folder)
        lock(self.folder.analysis_plan, self.folder.ledger)

    def describe_plan(self) -> str:
        """The analysis plan and its state, for people."""
        return plan_and_state(self.folder)

    # -- fitting -----------------------------------------------------------------------------------------------------

    @_writes
    def cross_fit(
        self,
        models: Sequence[str],
        *,
        scope: str = "pooled",
        nested: bool = True,
        workers: int = 1,
        engine: str = "local",
        address: str | None = None,
        time_limit: float | None = None,
        profile: str | None = None,
    ) -> JobResults:
        """Cross-fit base models: every fold and the final fit; finished jobs are not run again.

        ``nested`` adds fits without each pair of folds, by which combiners are scored honestly (decision 0005).
        Hyper-parameters come from ``models.toml`` in the study folder if there is one, else from ``profile``
        ("paper", "default" or "fast").

        Parameters
        ----------
        models : names of base models, or one name; ``pertstack models`` lists them.
        scope : "pooled", one fit for all cell lines, or "cell_line", one for each.
        nested : also fit without each pair of folds, by which flexible combiners are scored honestly (decision 0005).
        workers : processes that fit side by side.
        engine, address : "local", or "dask" with the address of a running scheduler.
        time_limit : seconds that one fit may take.
        profile : hyper-parameters "paper", "default" or "fast"; a ``models.toml`` in the study folder comes first.

        Returns
        -------
        list of JobResult, which a notebook shows as counts and failures
            One per job; a failed job says why and where its log is, the others are done.
        """
        models = listed(models)
        chosen = self._hyper_parameters(models, profile)
        return JobResults(
            cross_fit_study(
                self.folder,
                models,
                params=chosen,
                scope=scope,
                nested=nested,
                workers=workers,
                engine=engine,
                address=address,
                time_limit=time_limit,
            )
        )

    def _hyper_parameters(self, models: Sequence[str], profile: str | None) -> dict[str, dict[str, Any]]:
        path = self.folder.path("models.toml")
        if not path.exists():
            return {get_row(m).name: hyper_parameters(m, name=profile or "default") for m in models}
        if profile is not None and profile != file_profile(path):
            raise InputError(
                f"{path} names profile {file_profile(path)!r}; change it there instead of asking for {profile!r}."
            )
        own = load_models_toml(path)
        return {get_row(m).name: own.get(get_row(m).name, hyper_parameters(m, name=file_profile(path))) for m in models}

    @_writes
    def add(
        self,
        name: str,
        *files: Any,
        fitted_on: Any,
        scale: str,
        missing: str = "refuse",
        card: Path | str | Mapping[str, Any] | None = None,
        transform: str | None = None,
        without: int | None = None,
        mapping: Mapping[str, str] | None = None,
        genes: Path | str | None = None,
        layer: str | None = None,
    ) -> Any:
        """Admit predictions made elsewhere; see ``study/steps/add.py``.

        Parameters
        ----------
        name : name of the model in this study.
        files : its predictions, as paths, AnnData or DataFrames; several make one model.
        fitted_on : "plan" (this study's folds), a file or table of the samples it was fitted on, or "unknown".
        scale : "treated" (expression) or "delta" (treated - control).
        missing : "refuse" rows without a prediction, or "record" them.
        card : preprocessing card, for files that carry none.
        transform : named map to the study's scale, such as "log1p_cp10k" or "ln_to_log2".
        without : the files are nested predictions; their fits also left out this fold.
        mapping : canonical column -> column of the files, if rows are matched by what was done.
        genes : list of gene names, for files whose columns have none.
        layer : the matrix of an AnnData file that holds the predictions.
        """
        from pertstack.study.steps.add import add_model

        several = [f for given in files for f in (given if isinstance(given, list | tuple) else [given])]
        return add_model(
            self.folder,
            name,
            several,
            fitted_on=fitted_on,
            scale=scale,
            missing=missing,
            card=card,
            transform=transform,
            without=without,
            mapping=mapping,
            genes=genes,
            layer=layer,
        )

    @_writes
    def withdraw(self, model: str, why: str) -> int:
        """Take a model out: its predictions are set aside, the reason goes into the ledger. Returns the block count.

        Parameters
        ----------
        model : name of the model in this study.
        why : the reason; it is recorded in the ledger.
        """
        return withdraw_model(self.folder, model, why)

    # -- combining and judging ---------------------------------------------------------------------------------------

    @_writes
    def reduce(
        self, *, workers: int = 1, memory: str = "1 GB", engine: str = "local", address: str | None = None
    ) -> Reduction:
        """The one pass over development rows.

        Parameters
        ----------
        workers : processes that read and score blocks; the result does not depend on it.
        memory : what tiles of profiles may take, such as ``"2 GB"``; on a cluster, for each worker.
        engine, address : "local", or "dask" with the address of a running scheduler; the sums have the same bits.
        """
        models = stackable_models(self.folder, accept_unverified=False)
        cluster = Cluster.of(engine, workers, address)
        return DevelopmentRows(self.folder, models, workers=workers, memory=memory, cluster=cluster).reduction

    @_writes
    def calibrate(self, *, workers: int = 1, memory: str = "1 GB") -> Calibrated:
        """Which metrics separate a replicate from a constant; settles a plan that says ``auto``.

        Parameters
        ----------
        workers : processes that read and score blocks; the result does not depend on it.
        memory : what tiles of profiles may take, such as ``"2 GB"``.
        """
        return calibrate_study(self.folder, workers=workers, memory=memory)

    @_writes
    def stack(
        self,
        combiners: Sequence[str] | None = None,
        *,
        accept_unverified: bool = False,
        workers: int = 1,
        memory: str = "1 GB",
        accept_accused: Sequence[str] = (),
        engine: str = "local",
        address: str | None = None,
    ) -> Stacked:
        """Learn and score combiners on out-of-fold rows and choose one by the plan's rule.

        Models that a probe accuses of having seen what they predict take no part, unless ``accept_accused`` names them:
        that is a line of the ledger, and every headline says so.

        Parameters
        ----------
        combiners : names of combiners; None for the default ones.
        accept_unverified : also use models whose training rows are unknown; every result then carries a caution.
        workers : processes that read and score blocks; the result does not depend on it.
        memory : what tiles of profiles may take, such as ``"2 GB"``.
        accept_accused : models to keep although a probe accuses them.
        engine, address : "local", or "dask" with the address of a running scheduler, for sums and out-of-fold scores.
        """
        stacked = stack_study(
            self.folder,
            combiners,
            accept_unverified=accept_unverified,
            workers=workers,
            memory=memory,
            accept_accused=listed(accept_accused),
            cluster=Cluster.of(engine, workers, address),
        )
        seal_stack(self.folder)
        return stacked

    @_writes
    def verdict(
        self,
        *,
        exploratory: bool = False,
        workers: int = 1,
        memory: str = "1 GB",
        key: Path | str | None = None,
        engine: str = "local",
        address: str | None = None,
    ) -> Leaderboard:
        """Open the held-out test (once; the look is in the ledger) and return the leaderboard.

        Parameters
        ----------
        exploratory : look with a changed plan, or once more than planned; permanently marked.
        workers : processes that read and score blocks; the result does not depend on it.
        memory : what tiles of profiles may take, such as ``"2 GB"``.
        key : the file with the key of a sealed test.
        engine, address : "local", or "dask" with the address of a running scheduler, for scores of the test's blocks.
        """
        file, cluster = None if key is None else Path(key), Cluster.of(engine, workers, address)
        board = judge_study(
            self.folder, exploratory=exploratory, workers=workers, memory=memory, key=file, cluster=cluster
        )
        if unfinished_look(self.folder) is not None:
            seal_verdict(self.folder)
        return board

    def leaderboard(self) -> Leaderboard:
        """The leaderboard of the last verdict."""
        path = self.folder.results / "leaderboard.json"
        if not path.exists() and verdict_facts(self.folder) is None:
            raise MissingFileError(
                f"{self.folder.root} has no leaderboard yet. Run `pertstack verdict {self.folder.word}`."
            )
        require_sealed_verdict(self.folder)
        return Leaderboard.from_json(path)

    def headline(self) -> str:
        """The verdict in one sentence."""
        return self.leaderboard().headline

    def plot_differences(self, *, every: bool = False) -> Figure:
        """Differences to the best single model in the last verdict, as a matplotlib figure.

        Parameters
        ----------
        every : every row instead of the best ten.
        """
        return self.leaderboard().plot_differences(every=every)

    def plot_weights(self, combiner: str | None = None) -> Figure:
        """Weights on base models, of one combination or of all, as a matplotlib figure.

        Parameters
        ----------
        combiner : name of a combination; None for all.
        """
        from pertstack.write.stack_pictures import weights_picture

        stored = stored_stack(self.folder)
        return weights_picture({name: facts["weights"] for name, facts in stored.combiners.items()}, combiner)

    def plot_calibration(self) -> Figure:
        """Slope of the measured on every model's predicted change, as a matplotlib figure; 1 is well calibrated."""
        from pertstack.write.stack_pictures import calibration_picture

        stored_stack(self.folder)  # refuses if nothing is stacked, or if it is out of date
        return calibration_picture(read_json(self.folder.results / "oof.json")["slopes"])

    @_writes
    def report(self) -> Path:
        """Write ``report.html`` and return its path."""
        from pertstack.study.steps.report import write_report

        path = write_report(self.folder)
        seal_report(self.folder)
        return path

    @_writes
    def run(
        self,
        models: Sequence[str] | None = None,
        *,
        scope: str = "pooled",
        workers: int = 1,
        memory: str = "1 GB",
        profile: str | None = None,
        key: Path | str | None = None,
    ) -> JobResults:
        """Run every missing step, in order.

        Returns the jobs that failed; the rest of the study goes on.

        Parameters
        ----------
        models : base models to fit; None for those begun, or the default ones.
        scope, profile : see ``cross_fit``.
        workers : processes that read and score blocks; the result does not depend on it.
        memory : what tiles of profiles may take, such as ``"2 GB"``.
        key : the file with the key of a sealed test.
        """
        if is_judged(self.folder) and not models:
            self.report()  # nothing is missing: what was judged stays as it is
            return JobResults()
        wanted = listed(models) if models else models_to_fit(self.folder)
        refuse_undoing(self.folder, wanted)
        results = self.cross_fit(wanted, scope=scope, workers=workers, profile=profile) if wanted else JobResults()
        if not is_stacked(self.folder):
            self.stack(workers=workers, memory=memory)
        self.verdict(workers=workers, memory=memory, key=key)
        self.report()
        return JobResults(r for r in results if not r.ok)

    # -- taking away -------------------------------------------------------------------------------------------------

    @_writes
    def bundle(self, out: Path | str) -> Path:
        """One file from which anybody derives the headline again without the data; see ``steps/bundle.py``.

        Parameters
        ----------
        out : the zip file to write.
        """
        from pertstack.study.steps.bundle import bundle_study

        if not self.folder.report.exists() or "report" in self.status().stale:
            if not is_judged(self.folder):
                root, word = self.folder.root, self.folder.word
                raise InputError(f"{root} has no verdict of what is stacked. Run `pertstack verdict {word}`.")
            self.report()
        return bundle_study(self.folder, Path(out))

    def predict(
        self,
        new: Any,
        out: Path | str,
        *,
        predictions: Sequence[str] = (),
        workers: int = 1,
        use: str | None = None,
        features: Path | str | None = None,
        targets: Path | str | None = None,
    ) -> tuple[int, int]:
        """Predict new samples with what the headline says ships, or ``use``; see ``steps.predict.predict_new``.

        Warns (``UserWarning``) if they differ from the scored samples in what was known at fit time.

        Parameters
        ----------
        new : the new samples with controls, as a data file or AnnData.
        out : the .h5ad to write.
        predictions : ``model=file`` for models that were added to the study.
        workers : processes that fit the base models again.
        use : name of the combiner or base model to use instead of what ships.
        features, targets : files with features (in the columns that the study has) and target genes of perturbations
            that the study does not know.
        """
        from pertstack.study.new_rows.in_memory import written
        from pertstack.study.steps.predict import predict_new

        def say(finding: Finding) -> None:
            if finding.severity != "note":
                warnings.warn(finding.message, stacklevel=3)

        with TemporaryDirectory(prefix="pertstack-") as scratch:
            path = Path(written(new, Path(scratch), "in memory"))
            return predict_new(
                self.folder,
                path,
                Path(out),
                predictions=listed(predictions),
                workers=workers,
                reading={"features": features, "targets": targets},
                use=use,
                say=say,
            )

    def export(
        self,
        path: Path | str,
        *,
        to: str = "auto",
        models: Sequence[str] | None = None,
        with_truth: bool = False,
        key: Path | str | None = None,
        cells: Path | str | None = None,
        profiles: Path | str | None = None,
        per_target: int = 400,
        seed: int = 0,
        sampled: bool = False,
    ) -> list[Path]:
        """Write aligned predictions for other tools; see ``steps.export.export_study``.

        ``with_truth`` also writes the treated values of the test before all planned looks are made; the ledger says so
        and every later result is marked.

        Parameters
        ----------
        path : file or folder to write.
        to : format; by default that of the path's suffix.
        models : models to write; None for all.
        with_truth : also write the treated values of the test before all planned looks are made; the ledger says so and
            every later result is marked.
        key : the file with the key of a sealed test, whose treated values are left out without it.
        cells, profiles : control cells as templates for ``to="vcc"``, and predicted profiles instead of the study's.
        per_target : cells written per perturbation.
        seed, sampled : draw cells around the prediction instead of cells whose mean is exactly the prediction.
        """
        from pertstack.study.steps.export import export_study

        with self.folder.taking_away():
            return export_study(
                self.folder,
                Path(path),
                to=to,
                models=None if models is None else listed(models),
                with_truth=with_truth,
                key=None if key is None else Path(key),
                cells=None if cells is None else Path(cells),
                profiles=None if profiles is None else Path(profiles),
                per_target=per_target,
                seed=seed,
                sampled=sampled,
            )
