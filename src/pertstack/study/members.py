"""Which models of a study take part in the stack, which do not, and why: nothing is left out in silence.

A model of unknown provenance is stacked only on the user's explicit word, and then everything learned beside it says
so.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence, Set
from typing import TYPE_CHECKING, Any

from pertstack._base.errors import CorruptionError, InputError, first_few
from pertstack._base.files import read_json
from pertstack.design.blocks import Role
from pertstack.design.plan.asked import DIFFERS
from pertstack.design.plan.groups import apart
from pertstack.design.plan.known import sharing
from pertstack.predictions.sources.store_source import StoreSource
from pertstack.study.audit.probes import stored_probes
from pertstack.study.folder import StudyFolder
from pertstack.study.status import first_models
from pertstack.verdict.probes.run import accused

if TYPE_CHECKING:
    from pertstack.predictions.importers.fitted import Kin


def require_every_block(folder: StudyFolder, role: Role) -> None:
    """Refuse a store that lacks a block: its rows would be left out, and nothing would show it.

    Raises
    ------
    CorruptionError
        Names the samples of the plan that lie in no block, and the blocks that are there.
    """
    store, planned = folder.store, folder.plan.sample_ids(role)
    blocks = store.blocks(role)
    if sum(store.n_samples(b) for b in blocks) >= len(planned):
        return
    there = {s for b in blocks for s in store.sample_ids(b)}
    lost = [s for s in planned if s not in there]
    lines = first_few(sorted(set(folder.samples.loc[lost, "cell_line"].astype(str))), 5)
    raise CorruptionError(
        f"{store.root} on {socket.gethostname()} lacks blocks: {len(lost):,} of {len(planned):,} {role} samples "
        f"({first_few(lost, 3)}; cell lines {lines}) lie in none of {first_few((b.id for b in blocks), 5)}. Without "
        f"them every number would be that of other rows. Restore the folder from a copy, or mount it whole; "
        f"`pertstack audit {folder.word}` lists what is gone."
    )


def stackable_models(folder: StudyFolder, *, accept_unverified: bool) -> tuple[str, ...]:
    """Models with predictions on development rows, sorted; unverified ones only when they are accepted.

    Raises
    ------
    InputError
        No model has predictions yet, or none that may be stacked; says which were left out and why.
    """
    out = left_out_models(folder, accept_unverified=accept_unverified)
    found = tuple(m for m in folder.store.models() if m not in out)
    if not found:
        why = "".join(f"\n  - {model}: {reason}" for model, reason in out.items())
        raise InputError(
            f"{folder.root} has no model with out-of-fold predictions yet. Fit some with "
            f"`pertstack fit {folder.word} --models {first_models(folder)}`, or add your own with "
            f"`pertstack add`.{why}"
        )
    return found


def left_out_models(folder: StudyFolder, *, accept_unverified: bool) -> dict[str, str]:
    """Models of the study that are not stacked, with the reason."""
    out: dict[str, str] = {}
    unverified = unverified_models(folder)
    for model in folder.store.models():
        if not any(folder.store.status(b, model) == "committed" for b in folder.store.blocks("development")):
            out[model] = "has no predictions on development rows, so no weight can be learned for it"
        elif model in unverified and not accept_unverified:
            out[model] = (
                "its training rows are unknown; add it again with its folds or fit rows, or use "
                "--accept-unverified; every result then carries a caution"
            )
    return out


def kin_in(folder: StudyFolder) -> Kin:
    """Which rows of a block a model met through its fit rows without their being listed: others of their group were
    among them, or, if parts are kept apart, combinations that share a part. Support teaches every fit.
    """
    samples = folder.samples
    scored = samples[samples["role"] != "support"]
    group, names = folder.plan.groups.reindex(scored.index), scored["perturbation"].astype(str)
    parts_apart = apart(folder.plan.group_by)

    def kin(fit_ids: Set[str], asked: Sequence[str]) -> frozenset[str]:
        listed = scored.index.isin(list(fit_ids))
        rest = scored.index.isin(list(asked)) & ~listed
        met = group.isin(set(group[listed])).to_numpy()
        if parts_apart:
            met = met | names.isin(sharing(names[rest].unique(), names[listed].unique())).to_numpy()
        return frozenset(map(str, scored.index[rest & met]))

    return kin


def older_lists(folder: StudyFolder) -> dict[str, str]:
    """Models whose list of fit rows was read before the whole group of a listed row counted as seen: what to do."""
    kin, store, said = kin_in(folder), folder.store, {}
    for model in store.models():
        listed = [(b, r.fitted_on) for b in store.blocks() if (r := store.find(b, model)) is not None and r.fitted_on]
        rows = sum(len(kin(f.fit_ids, store.sample_ids(b)) - f.near) for b, f in listed if f.kind == "ids")
        if rows:
            said[model] = (
                f"{model} was added by an older version: {rows:,} of its rows count as out of fold, although its list "
                f"of fit rows has others of their group (or a part of theirs). Take it out with `pertstack withdraw "
                f'{folder.root} {model} --why "added again"` and add the same files again.'
            )
    return said


def unverified_models(folder: StudyFolder) -> tuple[str, ...]:
    """Models with a block of unknown provenance, sorted."""
    store = folder.store
    records = ((m, store.find(b, m)) for m in store.models() for b in store.blocks())
    unknown = {m for m, r in records if r is not None and r.fitted_on is not None and r.fitted_on.kind == "unknown"}
    return tuple(sorted(unknown))


def seen_rows(source: StoreSource) -> dict[str, int]:
    """Per model, the predicted rows that take no part because it was fitted on them or on others of their group;
    models without any are left out."""
    out = {}
    for model in source.models:
        seen = 0
        for block in source.blocks():
            record = source.store.find(block, model)
            if record is not None and record.fitted_on is not None:
                saw = record.fitted_on.saw(block, source.store.sample_ids(block))
                seen += 0 if saw is None else int(saw.sum())
        if seen:
            out[model] = seen
    return out


def sandboxes(folder: StudyFolder) -> dict[str, str]:
    """The box in which each external model's program ran, in words; no entry for our own models and for files."""
    out: dict[str, str] = {}
    for model in folder.store.models():
        records = (folder.store.find(b, model) for b in folder.store.blocks())
        boxes = {str(r.meta.get("notes", {}).get("sandbox")) for r in records if r is not None}
        if boxes - {"None"}:
            out[model] = max(boxes - {"None"}, key=lambda box: box.startswith("limits"))  # the weakest of them
    return out


def stack_facts(folder: StudyFolder) -> dict[str, Any]:
    """``left_out``, ``unverified``, ``rows_seen``, ``accused`` and ``accepted`` of the stack step on disk; empty before
    it."""
    path = folder.results / "oof.json"
    value = read_json(path) if path.exists() else {}
    return {
        "left_out": value.get("left_out", {}),
        "unverified": value.get("unverified", []),
        "rows_seen": value.get("rows_seen", {}),
        "accused": value.get("accused", []),
        "accepted": value.get("accepted", []),
    }


def doubts(folder: StudyFolder, combiners: list[str]) -> dict[str, tuple[str, ...]]:
    """Cautions by row of the board: unverified models, rows a model was fitted on, what the probes found.

    A combiner that learned beside an unverified or accused model carries that doubt too, whatever its weights: the
    choice of weights saw the suspicious predictions.
    """
    facts = stack_facts(folder)
    suspects = {m: w for m, w in accused(stored_probes(folder)).items() if m not in facts["left_out"]}
    out: dict[str, list[str]] = {}
    for model in facts["unverified"]:
        out.setdefault(model, []).append("unverified: its training samples are unknown")
    for model, box in sandboxes(folder).items():
        out.setdefault(model, []).append(f"its program ran in a sandbox ({box})")
    for model, n in facts["rows_seen"].items():
        out.setdefault(model, []).append(
            f"was fitted on {n:,} of the rows it predicts, or on others of their group; they take no part"
        )
    for model, words in suspects.items():
        out.setdefault(model, []).extend(words)
    for name in combiners:
        if facts["unverified"]:
            out.setdefault(name, []).append(f"learned beside unverified models: {', '.join(facts['unverified'])}")
        if suspects:
            out.setdefault(name, []).append(
                f"learned beside models that a probe accuses: {', '.join(sorted(suspects))}"
            )
    return {name: tuple(words) for name, words in out.items()}


def stack_warnings(folder: StudyFolder) -> list[str]:
    """What a reader of the stack step must not miss, one sentence each."""
    facts = stack_facts(folder)
    said = [f"{model} is not stacked: {why}." for model, why in facts["left_out"].items()]
    said += [
        f"{model} is stacked unverified: its training rows are unknown. Every score with it may be a leak."
        for model in facts["unverified"]
    ]
    said += [
        f"{model} was fitted on {n:,} of the rows it predicts, or on others of their group; they take no part."
        for model, n in facts["rows_seen"].items()
    ]
    said += [f["message"] for f in read_json(folder.path("plan", "findings.json")) if f["code"] == DIFFERS]
    said += older_lists(folder).values()
    told = accused(stored_probes(folder))
    return said + [text for model, words in told.items() if model not in facts["left_out"] for text in words]


def is_simulated(folder: StudyFolder) -> bool:
    """Whether the study's data were simulated: they then hold the noise-free effect, which no measurement knows."""
    store = folder.store
    return any(store.status(block, "effect") == "committed" for block in store.blocks()[:1])
