"""The one training loop: batches, early stopping on an inner validation set, best weights restored, curves kept.

All chance comes from a local ``torch.Generator`` or from inside ``torch_session``, which puts the global generators and
the number of threads back. What a step does belongs to the model.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pertstack._base.errors import InputError, ModelFailedError
from pertstack._base.machine.progress import track
from pertstack.fit.torch.common.batches import Batch, Index
from pertstack.fit.torch.common.checkpoint import Identity, read_checkpoint, write_checkpoint
from pertstack.fit.torch.common.framework import Tensor, nn, torch
from pertstack.fit.torch.common.network import Optimisers
from pertstack.fit.torch.common.settings import Settings

Curve = list[dict[str, float]]


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA if there is one, else the CPU; any other name is taken at its word or refused."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used here ({error}). Use 'auto' or 'cpu'.") from error
    return device


@contextmanager
def torch_session(device: torch.device, threads: int, seed: int | None = None) -> Iterator[None]:
    """Threads and seed for the time of a fit or a prediction; global random state and threads are put back after it.

    Parameters
    ----------
    device : whose generator is kept too.
    threads : of torch on the CPU.
    seed : of the global generators; None leaves them as they are.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            if seed is not None:
                torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def explained(model: str, settings: Settings) -> Iterator[None]:
    """Out of memory, in words; any other failure passes through."""
    advice = (
        f"{model} ran out of memory with batch_size = {settings.batch_size} and genes_per_step = "
        f"{settings.genes_per_step} (0 = all). Try a smaller batch_size, genes_per_step (per-gene heads), the 'fast' "
        "profile, or fewer workers."
    )
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ModelFailedError(advice) from error
    except RuntimeError as error:
        if isinstance(error, ModelFailedError) or "memory" not in str(error).casefold():
            raise
        raise ModelFailedError(advice) from error


@dataclass
class Progress:
    """Where a fit stands between two epochs; all of it goes into a checkpoint."""

    epoch: int = 0
    step: int = 0
    best: float = math.inf
    best_epoch: int = -1
    waited: int = 0
    best_state: dict[str, Tensor] = field(default_factory=dict)
    curve: Curve = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """One fit as the trainer sees it: how to cut batches, what a step does, how an epoch is judged."""

    model: str
    net: nn.Module
    settings: Settings
    device: torch.device
    rows: Index  # fit rows without the inner validation rows
    optimisers: Optimisers
    make_batch: Callable[[Index, torch.Generator], Batch]
    step: Callable[[Batch, int, torch.Generator], dict[str, Tensor]]  # one update; named losses, "loss" among them
    validate: Callable[[], float] | None  # lower is better; None = no early stopping
    generator: torch.Generator
    checkpoint: Path | None = None
    identity: Identity | None = None
    checkpoint_seconds: float = 30.0


def train(job: Job) -> Progress:
    """Train until the validation error stops falling or the epochs are used up; leaves the best weights in ``job.net``.

    Raises
    ------
    ModelFailedError
        A loss that is not finite.
    """
    state = _resume(job) or Progress()
    base = [[float(group["lr"]) for group in o.param_groups] for o in job.optimisers]
    due = time.monotonic() + job.checkpoint_seconds
    stop = job.validate is not None and state.waited >= job.settings.patience
    for epoch in track(range(state.epoch, job.settings.epochs), f"{job.model}: epochs"):
        if stop:
            break
        _set_rates(job, base, epoch)
        state.curve.append(_epoch(job, state, epoch))
        stop = _judge(job, state, epoch)
        state.epoch = epoch + 1
        if job.checkpoint is not None and job.identity is not None and time.monotonic() >= due:
            write_checkpoint(job.checkpoint, job.identity, _state_of(job, state, base))
            due = time.monotonic() + job.checkpoint_seconds
    if state.best_state:
        job.net.load_state_dict(state.best_state)
    job.net.eval()
    return state


def _epoch(job: Job, state: Progress, epoch: int) -> dict[str, float]:
    """One pass over the fit rows in near-equal batches; mean of every named loss."""
    job.net.train()
    order = job.rows[torch.randperm(len(job.rows), generator=job.generator).numpy()]
    n_parts = min(math.ceil(len(order) / job.settings.batch_size), len(order) // 2)  # batch norm needs 2 rows or more
    parts = np.array_split(order, max(1, n_parts))
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for part in parts:
        batch = job.make_batch(part, job.generator)
        for name, value in job.step(batch, state.step, job.generator).items():
            sums[name] = sums.get(name, torch.zeros((), device=job.device)) + value.detach().float()
            counts[name] = counts.get(name, 0) + 1
        state.step += 1
    means = {name: float(total) / counts[name] for name, total in sums.items()}
    for name, mean in means.items():
        if not math.isfinite(mean):
            raise _not_finite(job, f"the {name} of the fit rows", mean, epoch)
    return {"epoch": float(epoch), **means}


def _not_finite(job: Job, what: str, value: float, epoch: int) -> ModelFailedError:
    """A loss that ran away, with what to try."""
    s = job.settings
    return ModelFailedError(
        f"{job.model}: {what} became {value} in epoch {epoch + 1}, so its weights are worthless. Try a smaller "
        f"learning_rate (now {s.learning_rate:g}), gradient_clip = 1 (now {s.gradient_clip:g}), or look for extreme "
        f"values in the profiles."
    )


def _judge(job: Job, state: Progress, epoch: int) -> bool:
    """Validation error of this epoch; remembers the best weights. True when patience is used up."""
    if job.validate is None:
        return False
    job.net.eval()
    error = job.validate()
    if not math.isfinite(error):
        raise _not_finite(job, "the error on the inner validation rows", error, epoch)
    state.curve[-1]["validation"] = error
    if error < state.best:
        state.best, state.best_epoch, state.waited = error, epoch, 0
        state.best_state = {k: v.detach().clone() for k, v in job.net.state_dict().items()}
    else:
        state.waited += 1
    return state.waited >= job.settings.patience


def _set_rates(job: Job, base: list[list[float]], epoch: int) -> None:
    """Learning rate of this epoch: constant, or half a cosine down to 2 %."""
    share = 1.0
    if job.settings.schedule == "cosine":
        share = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * epoch / max(1, job.settings.epochs)))
    for optimiser, rates in zip(job.optimisers, base, strict=True):
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * share


def _state_of(job: Job, state: Progress, base: list[list[float]]) -> dict[str, Any]:
    return {
        "net": job.net.state_dict(),
        "optimisers": [o.state_dict() for o in job.optimisers],
        "rates": base,
        "generator": job.generator.get_state(),
        "global": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(job.device) if job.device.type == "cuda" else None,
        "progress": {
            "epoch": state.epoch,
            "step": state.step,
            "best": state.best,
            "best_epoch": state.best_epoch,
            "waited": state.waited,
            "best_state": state.best_state,
            "curve": state.curve,
        },
    }


def _resume(job: Job) -> Progress | None:
    """Put everything back as a checkpoint left it."""
    if job.checkpoint is None or job.identity is None:
        return None
    found = read_checkpoint(job.checkpoint, job.identity)
    if found is None:
        return None
    job.net.load_state_dict(found["net"])
    for optimiser, saved, rates in zip(job.optimisers, found["optimisers"], found["rates"], strict=True):
        optimiser.load_state_dict(copy.deepcopy(saved))
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate
    job.generator.set_state(found["generator"])
    torch.set_rng_state(found["global"])
    if found["cuda"] is not None and job.device.type == "cuda":
        torch.cuda.set_rng_state(found["cuda"], job.device)
    return Progress(**found["progress"])
