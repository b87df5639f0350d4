"""Where a group goes: development or test, and which fold. Pure functions of group names and a salt.

Many groups: two keyed hashes per group and two thresholds, so a group's place depends on nothing but its own name.
Few groups: the same hashes give an order, and groups are dealt out along it, so that no fold stays empty
(docs/decisions/0001-few-groups.md). Only names and the salt enter, never the data.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pertstack._base.digests import keyed_hash64
from pertstack._base.errors import InputError

Rule = Literal["hashed", "dealt", "table"]
Place = int | None  # a fold, or None for the held-out test
LEAST_HASHED = 100  # groups from which a hash places them evenly enough; below, they are dealt
LEAST_PER_FOLD = 2
_ROLE, _FOLD = b"pertstack.role", b"pertstack.fold"


def salt_of(seed: int) -> str:
    """The salt that belongs to a seed: 32 hexadecimal digits."""
    return hashlib.sha256(f"pertstack fold plan, seed {int(seed)}".encode()).hexdigest()[:32]


def role_threshold(test_share: float) -> int:
    """A group is held out when the 64 bits of its role hash are below this number."""
    return int(test_share * 2**64)


def hashed_place(group: str, *, salt: str, n_folds: int, threshold: int) -> Place:
    """Fold of a group, or None for the test, from its name alone.

    Parameters
    ----------
    group : name.
    salt : of the plan.
    n_folds : of the plan.
    threshold : of 2^64: role hashes below it are the test.

    Examples
    --------
    >>> hashed_place("vorinostat", salt=salt_of(0), n_folds=3, threshold=0) in (0, 1, 2)
    True
    """
    key = salt.encode()
    if keyed_hash64(group, key, _ROLE) < threshold:
        return None
    return (keyed_hash64(group, key, _FOLD) * n_folds) >> 64


def dealt_places(groups: Iterable[str], *, salt: str, n_folds: int, test_share: float) -> dict[str, Place]:
    """Groups dealt out in hash order: the first by role hash are the test, the others go round the folds by fold hash.

    Folds differ by at most one group.

    Parameters
    ----------
    groups : names, repeats allowed.
    salt : of the plan.
    n_folds : of the plan.
    test_share : the test gets ``round(test_share * n)`` groups, at least one when this is > 0.
    """
    key = salt.encode()
    by_role = sorted(set(groups), key=lambda g: (keyed_hash64(g, key, _ROLE), g))
    n_test = max(1, round(test_share * len(by_role))) if test_share > 0 else 0
    places: dict[str, Place] = dict.fromkeys(by_role[:n_test])
    development = sorted(by_role[n_test:], key=lambda g: (keyed_hash64(g, key, _FOLD), g))
    places.update({group: i % n_folds for i, group in enumerate(development)})
    return places


def place_groups(
    groups: Iterable[str],
    *,
    parts: Mapping[str, Sequence[str]] | None = None,
    salt: str,
    n_folds: int,
    test_share: float,
) -> tuple[dict[str, Place], Rule]:
    """Place of every group, and the rule that gave it.

    Groups that share parts are laid together if ``parts`` are given (``linked_places``). Else hashing if there
    are at least ``LEAST_HASHED`` groups and it leaves two groups in every fold and one in the test (if one was asked
    for); dealing otherwise.

    Parameters
    ----------
    groups : names, repeats allowed.
    parts : group -> names of its parts, for plans that keep parts apart; None for others.
    salt : of the plan.
    n_folds : two or more.
    test_share : of the groups, from 0 to below 1.

    Raises
    ------
    InputError
        Fewer than two groups per fold remain whichever rule is used.
    """
    names = sorted(set(groups))
    check_choices(n_folds, test_share)
    if parts is not None:
        return linked_places({g: parts[g] for g in names}, salt=salt, n_folds=n_folds, test_share=test_share), "dealt"
    if len(names) >= LEAST_HASHED:
        threshold = role_threshold(test_share)
        places = {g: hashed_place(g, salt=salt, n_folds=n_folds, threshold=threshold) for g in names}
        if _enough(places, n_folds, test_share):
            return places, "hashed"
    places = dealt_places(names, salt=salt, n_folds=n_folds, test_share=test_share)
    if not _enough(places, n_folds, test_share):
        raise too_few_groups(len(names), Counter(places.values()), n_folds)
    return places, "dealt"


def linked_places(
    parts: Mapping[str, Sequence[str]], *, salt: str, n_folds: int, test_share: float
) -> dict[str, Place]:
    """Groups dealt out so that groups that share parts lie in one place if they can.

    Along an order of small bandwidth of the graph of shared parts (Cuthill and McKee 1969), begun in hash order, the
    first ``round(test_share * n)`` groups are the test and the others are cut into folds of equal size.

    Parameters
    ----------
    parts : group -> names of its parts.
    salt : of the plan.
    n_folds : two or more.
    test_share : of the groups, from 0 to below 1.

    Raises
    ------
    InputError
        Fewer than two groups per fold.
    """
    from scipy.sparse import csr_matrix  # slow to import
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    check_choices(n_folds, test_share)
    names = sorted(parts, key=lambda g: (keyed_hash64(g, salt.encode(), _FOLD), g))
    columns = {p: j for j, p in enumerate(dict.fromkeys(p for name in names for p in parts[name]))}
    rows = [i for i, name in enumerate(names) for _ in parts[name]]
    at = [columns[p] for name in names for p in parts[name]]
    has = csr_matrix(([1] * len(rows), (rows, at)), shape=(len(names), len(columns)))
    ordered = [names[i] for i in reverse_cuthill_mckee(csr_matrix(has @ has.T), symmetric_mode=True)]
    n_test = max(1, round(test_share * len(ordered))) if test_share > 0 else 0
    n = max(1, len(ordered) - n_test)
    places: dict[str, Place] = dict.fromkeys(ordered[:n_test])
    places.update({group: i * n_folds // n for i, group in enumerate(ordered[n_test:])})
    if not _enough(places, n_folds, test_share):
        raise too_few_groups(len(names), Counter(places.values()), n_folds)
    return places


def _enough(places: dict[str, Place], n_folds: int, test_share: float) -> bool:
    count = Counter(places.values())
    return min(count[f] for f in range(n_folds)) >= LEAST_PER_FOLD and (test_share == 0 or count[None] > 0)


def too_few_groups(n_groups: int, count: Counter[Place], n_folds: int) -> InputError:
    """The error for fewer than two groups in some fold, with the counts and the ways out.

    Parameters
    ----------
    n_groups : in all.
    count : groups by fold; None is the test.
    n_folds : of the plan.
    """
    found = ", ".join(f"fold {f}: {count[f]}" for f in range(n_folds))
    return InputError(
        f"Too few groups: {n_groups} in all, {count[None]} of them held out, leaves {found}; each fold needs at least "
        f"{LEAST_PER_FOLD}, because a fold of one group says nothing about other groups. Use fewer folds, a smaller "
        "test, or a finer grouping (such as sample or perturbation+cell_line)."
    )


def check_choices(n_folds: int, test_share: float) -> None:
    """Folds at least 2; the test share in [0, 0.9]."""
    if n_folds < 2:
        raise InputError(
            f"n_folds is {n_folds}; cross-fitting needs at least 2, else no sample is predicted by a model that did "
            "not see it."
        )
    if not 0 <= test_share <= 0.9:
        raise InputError(
            f"The test share is {test_share}; it is a share of the groups between 0 (no held-out test) and 0.9."
        )
