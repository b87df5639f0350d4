"""Settings of a torch model from plain values, every one of the right kind and within its range."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from pertstack._base.errors import InputError, unknown_name
from pertstack.fit.torch.common.settings import Settings

S = TypeVar("S", bound=Settings)


def make_settings(settings: type[S], model: str, params: Mapping[str, Any]) -> S:
    """Settings of a model from plain values; the rest keeps its default.

    Parameters
    ----------
    settings : the model's dataclass.
    model : for messages.
    params : hyper-parameter -> value, as TOML or JSON has them.

    Raises
    ------
    UnknownNameError
        A key that the model does not have; near names are shown.
    InputError
        A value of the wrong kind or outside its range.
    """
    known = {f.name: getattr(settings, f.name) for f in fields(settings)}
    values: dict[str, Any] = {}
    for key, value in params.items():
        if key not in known:
            raise unknown_name(f"hyper-parameter of {model}", key, known)
        values[key] = _as_kind_of(known[key], value, f"{model}.{key}")
    made = settings(**values)
    _check(made, model)
    return made


def _as_kind_of(default: Any, value: Any, name: str) -> Any:
    """The value in the type of its default, or a refusal that shows the default."""
    if isinstance(default, tuple):
        if isinstance(value, (list, tuple)) and all(type(v) is int for v in value):
            return tuple(value)
    elif isinstance(default, (bool, str)):
        if isinstance(value, type(default)):
            return value
    elif isinstance(default, float):
        if type(value) in (int, float):
            return float(value)
    elif type(value) is int:
        return value
    kind = "a list of whole numbers" if isinstance(default, tuple) else type(default).__name__
    raise InputError(f"{name} is {value!r}; it must be {kind}, such as {default!r}.")


_ZERO_ALLOWED = {
    "genes_per_step",
    "weight_decay",
    "validation_share",
    "gradient_clip",
    "unknown_dropout",
    "dropout",
    "beta",
    "balance",
    "drug_adversary",
    "cell_adversary",
    "gradient_penalty",
    "paired",
    "kl",
    "kappa",
    "latent_penalty",
    "latent_noise",
    "reconstruction_penalty",
    "adversary_weight_decay",
    "node_hidden",
    "min_rows_per_drug",
    "latent_weight_decay",
    "attribute_weight_decay",
    "decoder_dropout",
}
_BELOW_ONE = {"dropout", "decoder_dropout", "unknown_dropout", "validation_share"}


def _check(settings: Settings, model: str) -> None:
    for field in fields(settings):
        value, name = getattr(settings, field.name), f"{model}.{field.name}"
        allowed = settings.choices.get(field.name)
        if allowed is not None and value not in allowed:
            raise InputError(f"{name} is {value!r}; choose one of {', '.join(map(repr, allowed))}.")
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, (bool, str)):
                continue
            zero_too = field.name in _ZERO_ALLOWED
            if not (number > 0 or (zero_too and number == 0)) or number == float("inf"):
                raise InputError(
                    f"{name} is {number!r}; it must be finite and {'0 or more' if zero_too else 'above 0'}."
                )
            if field.name in _BELOW_ONE and number >= 1:
                raise InputError(f"{name} is {number!r}; it is a share and must be below 1.")
    if settings.batch_size < 2:
        raise InputError(f"{model}.batch_size is {settings.batch_size}; batch normalisation needs at least 2 rows.")
