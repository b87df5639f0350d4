"""What a user chooses when a study is made, listed once for ``Study.create`` and ``pertstack init``.

Every field carries its help. Imports little: ``pertstack --help`` reads it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from pertstack._base.errors import unknown_name
from pertstack.data.choices import ControlChoice, Normalise, Precision

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Help:
    """What a choice is, and what differs on the command line."""

    text: str
    flag: str | None = None  # None: the name of the field
    cli: Mapping[str, Any] = field(default_factory=dict)  # metavar, min


@dataclass(frozen=True, kw_only=True)
class PlanChoices:
    """What is held out, and what of that is asked for."""

    group: Annotated[
        str | None,
        Help(
            "What is held out whole: perturbation (the default), sample, cell_line, control_id, "
            "perturbation+cell_line, parts (combinations, and no fit sees one that shares a part with what it "
            "predicts), or a column, also one of the table given with --plan."
        ),
    ] = None
    folds: Annotated[int | None, Help("Number of folds; 3, or those of the --plan table.", cli={"min": 2})] = None
    test: Annotated[
        float | None, Help("Share of the groups held out as the test; 0.2, or the test of the --plan table.")
    ] = None
    seed: Annotated[int, Help("Seed of the plan and of all fits.")] = 0
    plan: Annotated[
        Path | None,
        Help("An explicit fold table, or a split of other software (TOML, pickle, JSON, CSV), instead of the rule."),
    ] = None
    support: Annotated[
        tuple[str, ...],
        Help(
            "Rows always fitted on and never scored: kind=single (singles, when doubles are to be predicted), "
            "COLUMN=VALUE, a yes-or-no column, a file or names of perturbations."
        ),
    ] = ()
    asked_for: Annotated[
        Path | None,
        Help(
            "What will be predicted: a data file, or a table with a column perturbation. Compared with what is scored: "
            "genes seen, cell line, distance, dose.",
            flag="--for",
            cli={"metavar": "NEW"},
        ),
    ] = None
    seal_test: Annotated[
        Path | None,
        Help(
            "Encrypt the test; the key goes into this file (or is read from it), which another person keeps.",
            cli={"metavar": "KEYFILE"},
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class DataChoices:
    """How a file is read."""

    control_layer: Annotated[str, Help("Layer with each sample's control.")] = "control"
    treated_layer: Annotated[str | None, Help("Layer with treated profiles or counts (raw: .raw); default X.")] = None
    delta: Annotated[bool, Help("Values are already differences from control.")] = False
    control: Annotated[Path | None, Help("Separate control file of parquet / CSV data.")] = None
    metadata: Annotated[
        Path | None, Help("A table of what is said of the rows, by their ids (siginfo / instinfo for GCTX).")
    ] = None
    controls: Annotated[
        ControlChoice, Help("How to assign a control to each sample when controls are wells or rows of the same file.")
    ] = "plate_mean"
    control_label: Annotated[
        tuple[str, ...],
        Help(
            "The perturbation that is the control, if controls are rows (common names are known). Repeat it to put "
            "several together."
        ),
    ] = ()
    mapping: Annotated[
        Mapping[str, str],
        Help("Your columns: cell_line=cell_id,perturbation=drug", flag="--map", cli={"metavar": "OURS=YOURS,..."}),
    ] = field(default_factory=dict)
    by: Annotated[tuple[str, ...], Help("Cells: what else tells samples apart: guide, dose, donor, or a column.")] = ()
    normalise: Annotated[
        Normalise | None, Help("Cells: cp10k or 5e4 (log1p of counts per 10,000 or 50,000), mean_log1p, sum.")
    ] = None
    min_cells: Annotated[int, Help("Cells: samples of fewer are left out.", cli={"min": 1})] = 10
    cells_as_samples: Annotated[bool, Help("Every row is a sample, also if rows look like cells.")] = False
    precision: Annotated[
        Precision,
        Help("Bits of a stored value: 16 takes half of the disk and rounds to a 512th of each gene's spread."),
    ] = "32"


@dataclass(frozen=True, kw_only=True)
class SideChoices:
    """What is known of perturbations and genes beside the data."""

    features: Annotated[Path | None, Help("Feature matrix keyed by perturbation.")] = None
    targets: Annotated[Path | None, Help("Target genes of each perturbation.")] = None
    graph: Annotated[Path | None, Help("Gene-gene edge list.")] = None
    graph_names: Annotated[
        Path | None, Help("Protein ids and gene names, if the edges hold ids (STRING's protein.info).")
    ] = None
    graph_min_score: Annotated[float | None, Help("Edges with at least this score.")] = None


@dataclass(frozen=True)
class StudyChoices:
    """All that is chosen once."""

    plan: PlanChoices = field(default_factory=PlanChoices)
    data: DataChoices = field(default_factory=DataChoices)
    side: SideChoices = field(default_factory=SideChoices)

    @classmethod
    def of(cls, **options: Any) -> StudyChoices:
        """The choices as people give them: paths as text, one name for several.

        Raises
        ------
        UnknownNameError
            An option that does not exist.
        """
        known = {c.name for c in listed()}
        for name in options:
            if name not in known:
                raise unknown_name("option of a study", name, known)

        def of(kind: type) -> dict[str, Any]:
            return {c.name: c.held(options[c.name]) for c in listed(kind) if c.name in options}

        return cls(PlanChoices(**of(PlanChoices)), DataChoices(**of(DataChoices)), SideChoices(**of(SideChoices)))


@dataclass(frozen=True)
class Choice:
    """One field of the choices, as help and command line need it."""

    name: str
    kind: Any  # the type, without its help
    help: Help
    default: Any

    def held(self, value: Any) -> Any:
        """A value as people give it, as the field holds it; what lies at an address is copied."""
        if value is None:
            return self.default
        if self.kind == Path | None:
            from pertstack._base.reading.remote import local  # not needed for help

            return local(value)
        if self.kind == Precision and str(value) in get_args(Precision):
            return str(value)
        if get_origin(self.kind) is Literal and value not in get_args(self.kind):
            raise unknown_name(self.name, str(value), get_args(self.kind))
        if self.kind == tuple[str, ...]:
            return (value,) if isinstance(value, str) else tuple(value)
        return value


def listed(*kinds: type) -> Iterator[Choice]:
    """Every choice, or those of some of the three kinds, in the order of the help."""
    for kind in kinds or (PlanChoices, DataChoices, SideChoices):
        hints = get_type_hints(kind, include_extras=True)
        for f in fields(kind):
            hint, text = get_args(hints[f.name])
            yield Choice(f.name, hint, text, getattr(kind(), f.name))


def takes_choices(function: F) -> F:
    """Give a function whose ``**options`` are these choices their signature, and their help as its Parameters."""
    own = inspect.signature(function, eval_str=False)
    kept = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    added = [
        inspect.Parameter(c.name, inspect.Parameter.KEYWORD_ONLY, default=c.default, annotation=c.kind)
        for c in listed()
    ]
    cast(Any, function).__signature__ = own.replace(parameters=[*kept, *added])
    text = "\n".join(f"        {c.name} : {c.help.text[0].lower()}{c.help.text[1:]}" for c in listed())
    function.__doc__ = (function.__doc__ or "").replace("        options : see below.", text)
    return function
