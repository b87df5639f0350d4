"""Registry of base models: names to classes, with what each needs, listed without importing any framework.

Rows come from four places: the baselines here, ``fit/torch`` (whose rows are plain facts, so that listing works without
torch), the cards of external models, and the entry point group ``pertstack.base_models`` of third-party packages.
Running a model is handled by ``cross_fit.py``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any, Literal

import pandas as pd

from pertstack._base.errors import ConflictError, InputError, NeedsExtraError, first_few, unknown_name
from pertstack.data.side.side import FEATURE_KINDS, SideInformation
from pertstack.fit.base import BaseModel, Needs
from pertstack.fit.parameter_kinds import refuse_other_kinds

ModelKind = Literal["baseline", "linear", "network", "external", "plugin"]
ENTRY_POINT_GROUP = "pertstack.base_models"
_EXTRA_MODULES = {"models": ("torch",), "dask": ("distributed",), "external": ("uv",)}
_BASELINES = "pertstack.fit.baselines"
_registered: dict[str, RegistryRow] = {}


@dataclass(frozen=True)
class RegistryRow:
    """One base model as the registry knows it, before any of its code is imported."""

    name: str
    target: str  # "module:Class"
    needs: Needs
    summary: str  # one line
    kind: ModelKind
    fixed: Mapping[str, Any] = field(
        default_factory=dict
    )  # parameters that belong to the name (an external model's card)
    problem: str | None = None  # why a plug-in could not be read; such a row is listed, and refused when used

    @property
    def key(self) -> str:
        return lookup_key(self.name)


def lookup_key(name: str) -> str:
    """The form under which names are compared: case, ``_`` and ``-`` do not matter.

    >>> lookup_key("PerGeneLinear") == lookup_key("per_gene-linear")
    True
    """
    return name.casefold().replace("_", "").replace("-", "")


def _row_of(model_class: type, kind: ModelKind = "plugin", target: str | None = None) -> RegistryRow:
    """The row of a class that keeps the ``BaseModel`` contract; its summary is the first line of its docstring."""
    for attribute in ("name", "needs", "fit", "predict", "params"):
        if not hasattr(model_class, attribute):
            raise InputError(
                f"{model_class.__module__}.{model_class.__qualname__} has no {attribute!r}: a base model has name, "
                f"needs, fit, predict and params (see pertstack.fit.base.BaseModel). Add it."
            )
    target = target or f"{model_class.__module__}:{model_class.__qualname__}"
    lines = (inspect.getdoc(model_class) or "").splitlines()
    contract: Any = model_class
    return RegistryRow(contract.name, target, contract.needs, summary=lines[0] if lines else "", kind=kind)


def register(model: type | RegistryRow) -> RegistryRow:
    """Add a model for this session: a class that keeps the contract, or a row.

    Raises
    ------
    ConflictError
        Another model already has this name (case, ``_`` and ``-`` do not distinguish names). A changed card at the
        same path takes the place of the old one; its digest tells their predictions apart.
    """
    row = model if isinstance(model, RegistryRow) else _row_of(model)
    present = _all_rows().get(row.key)
    same_card = present is not None and "card" in row.fixed and present.fixed.get("card") == row.fixed["card"]
    if present is not None and not same_card and (present.target, present.fixed) != (row.target, row.fixed):
        raise ConflictError(
            f"A base model named {present.name!r} already exists ({present.target}), so {row.target} cannot be "
            f"{row.name!r}. Give the new model another name."
        )
    _registered[row.key] = row
    return row


def list_models() -> list[RegistryRow]:
    """All known base models in a fixed order: baselines, networks, external models, plug-ins, registered ones."""
    return list(_all_rows().values())


def get_row(name: str) -> RegistryRow:
    """The row of a model; a misspelt name raises ``UnknownNameError`` with the near ones.

    A name that ends with ``.toml`` is taken as the path of an external model's card.
    """
    if name.endswith(".toml"):
        loaded: RegistryRow = import_module("pertstack.fit.external.card").load_card(name).row
        return register(loaded)
    key = lookup_key(name)
    own = next((row for row in _own_rows() if row.key == key), None)
    if own is not None:
        return own  # without a look through every installed package for plug-ins, which may not take its name
    rows = _all_rows()
    if key not in rows:
        raise unknown_name("base model", name, [r.name for r in rows.values()])
    return rows[key]


def model_class(row: RegistryRow) -> type:
    """Import and return the class of a row.

    Raises
    ------
    NeedsExtraError
        The framework it needs is not installed.
    InputError
        A plug-in that cannot be imported.
    """
    if row.problem is not None:
        raise InputError(f"Base model {row.name!r} cannot be used: {row.problem}")
    _require_extra(row)
    return load_target(row.target)


def load_target(target: str) -> type:
    """The class behind ``"module:Class"``."""
    module, _, attribute = target.partition(":")
    try:
        loaded: Any = import_module(module)
        for part in attribute.split("."):
            loaded = getattr(loaded, part)
    except NeedsExtraError:
        raise
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"The base model {target!r} cannot be imported: {error}. Is its package installed here?"
        ) from error
    if not isinstance(loaded, type):
        raise InputError(f"{target!r} is a {type(loaded).__name__}; a base model is a class.")
    return loaded


def get_model(name: str, params: Mapping[str, Any] | None = None) -> BaseModel:
    """A fresh, unfitted model by name, with hyper-parameters; unknown hyper-parameters are refused with the near names.

    >>> get_model("PerGeneLinear", {"ridge": 2.0}).params()
    {'ridge': 2.0}
    """
    row = get_row(name)
    return build(model_class(row), {**row.fixed, **(params or {})}, row.name)


def build(cls: type, params: Mapping[str, Any], name: str) -> BaseModel:
    """Construct a model class with hyper-parameters, refusing those it does not have and those of another kind."""
    accepted = inspect.signature(cls).parameters
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted.values()):
        for key in params:
            if key not in accepted:
                raise unknown_name(f"hyper-parameter of {name}", key, accepted or ["(it has none)"])
    refuse_other_kinds(cls, params, name)
    model: BaseModel = cls(**params)
    return model


def available(row: RegistryRow, side: SideInformation, obs: pd.DataFrame | None = None) -> str | None:
    """Why a model cannot run on these data, or None when it can.

    Parameters
    ----------
    row : of the registry; says what the model needs.
    side : features, targets and graph of the study.
    obs : samples, of which some must have a perturbation with features; None to ask only whether there are any.
    """
    needs = row.needs
    if row.problem is not None:
        return row.problem
    if missing := _missing_modules(row):
        return f"needs {first_few(missing)}; install pertstack[{needs.extra}]"
    if needs.features:
        reason = _features_reason(needs, side, obs)
        if reason is not None:
            return reason
    if needs.targets and not ({"targets", "genes"} & side.features.keys()):
        return "needs drug targets or perturbed genes, and the study has neither; provide a table of targets"
    if needs.graph and side.graph is None:
        return "needs a gene graph, and the study has none; provide an edge list of genes"
    if needs.cells and obs is not None and "n_cells" not in obs:
        return "learns from single cells, and the study was made of profiles; make it of a file of cells"
    return None


def _features_reason(needs: Needs, side: SideInformation, obs: pd.DataFrame | None) -> str | None:
    wanted = [k for k in FEATURE_KINDS if k in needs.features]
    present = [k for k in wanted if k in side.features]
    if not present:
        have = ", ".join(side.features) or "none"
        said = f"needs perturbation features of kind {' or '.join(wanted)}; the study has {have}"
        smiles = obs is not None and "smiles" in obs and obs["smiles"].notna().any()
        if "structure" in wanted and smiles and find_spec("rdkit") is None:
            said += " (SMILES are known; rdkit makes features of them: install it, then make the study again)"
        return said
    if obs is not None:
        known = [side.features[k].rows(obs["perturbation"].unique())[1].any() for k in present]
        if not any(known):
            return f"needs features of kind {' or '.join(wanted)}, and they are missing for every perturbation"
    return None


def _missing_modules(row: RegistryRow) -> list[str]:
    extra = row.needs.extra
    return [m for m in _EXTRA_MODULES.get(extra, ()) if find_spec(m) is None] if extra else []


def _require_extra(row: RegistryRow) -> None:
    missing = _missing_modules(row)
    if missing:
        raise NeedsExtraError(
            f"Base model {row.name!r} needs {first_few(missing)}, which is not installed here. Install it with: pip "
            f"install 'pertstack[{row.needs.extra}]'."
        )


def _all_rows() -> dict[str, RegistryRow]:
    rows: dict[str, RegistryRow] = {}
    for row in (*_own_rows(), *_entry_point_rows(), *_registered.values()):
        rows.setdefault(row.key, row)
    return rows


def _own_rows() -> list[RegistryRow]:
    baselines = import_module(_BASELINES)
    rows = [_row_of(cls, kind) for cls, kind in baselines.MODELS]
    for module in ("pertstack.fit.torch", "pertstack.fit.cards"):
        if find_spec(module) is not None:
            rows.extend(import_module(module).ROWS)
    return rows


def _entry_point_rows() -> list[RegistryRow]:
    rows = []
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda p: p.name):
        try:
            rows.append(_row_of(point.load(), "plugin", point.value))
        except (ImportError, AttributeError, InputError) as error:
            problem = f"the plug-in {point.value!r} cannot be loaded ({error}); mend or uninstall its package"
            rows.append(
                RegistryRow(
                    point.name,
                    point.value,
                    Needs(),
                    summary="a plug-in that cannot be loaded",
                    kind="plugin",
                    problem=problem,
                )
            )
    return rows
