"""What ships from a study: the combination or base model that the headline names, and its final fit.

Why the headline decides, and between which two, is explained in ``docs/decisions/0012``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pertstack._base.errors import IntegrityError, unknown_name
from pertstack._base.files import read_json
from pertstack.stacking.choice import BEST_SINGLE
from pertstack.stacking.combiner import FittedCombiner
from pertstack.stacking.combiners.linear_weights import LinearWeights
from pertstack.study.development.learned import Stored, final_fits
from pertstack.study.folder import StudyFolder
from pertstack.study.judged import recall_verdict
from pertstack.study.sealed_results import verdict_facts
from pertstack.study.seals import require_unbroken
from pertstack.study.truth.held_out import require_sealed_verdict
from pertstack.verdict.boards.board import Leaderboard


def shipped(folder: StudyFolder, stored: Stored) -> str:
    """Name of what ships: the combination or base model that the headline names (docs/decisions/0012).

    Raises
    ------
    IntegrityError
        What was stacked last has not been judged, or the verdict says that nothing should be used.
    """
    refuse_unjudged(folder, stored)
    name = what_ships(folder, stored)
    if name is None:
        raise IntegrityError(
            f"Nothing ships from {folder.root}. {Leaderboard.from_json(folder.results / 'leaderboard.json').headline} "
            f"To predict all the same, name a combination or model: --use {stored.chosen}."
        )
    return name


def what_ships(folder: StudyFolder, stored: Stored) -> str | None:
    """As the headline says; before a verdict what was chosen out of fold. None: nothing should be used."""
    if verdict_facts(folder) is None:
        return stored.chosen
    require_sealed_verdict(folder)
    decision = Leaderboard.from_json(folder.results / "leaderboard.json").decision
    if decision is None or (decision.ships is None and decision.action != "distrust"):
        decision = recall_verdict(folder).decision  # judged before boards named what ships
    return decision.ships


def fit_named(folder: StudyFolder, stored: Stored, name: str, *, workers: int) -> FittedCombiner:
    """The final fit of a combination, or a base model by itself.

    Parameters
    ----------
    folder, stored : as in ``learned.final_fits``.
    name : of a combiner or a base model.
    workers : for learning again.

    Raises
    ------
    UnknownNameError
        It is neither among the combiners of the stack step nor among its models.
    CorruptionError
        The study is not what ``init`` laid out: references and rows that models are fitted on come from there.
    """
    if name not in (*stored.combiners, *stored.models):
        raise unknown_name("combination or model of this study", name, [*stored.combiners, *stored.models])
    require_unbroken(folder, ("init",), said="Nothing was predicted.")
    fits = final_fits(folder, stored, workers=workers, memory="1 GB")
    if name in fits:
        return fits[name]
    single = fits[BEST_SINGLE]
    assert isinstance(single, LinearWeights)
    alone = np.asarray([m == name for m in single.models], dtype=np.float64)
    return replace(single, coefficients=alone, facts={**single.facts, "chosen": name})


def refuse_unjudged(folder: StudyFolder, stored: Stored) -> None:
    """What ships is what the verdict judged; a study without a verdict ships what was chosen out of fold."""
    facts = verdict_facts(folder)
    if facts is None or facts["key"] == stored.key:
        return
    judged = read_json(folder.results / "leaderboard.json")["chosen"]
    raise IntegrityError(
        f"{folder.root} was stacked again after its verdict: {stored.chosen!r} as it would ship now was never judged "
        f"(the verdict judged {judged!r} as it was before). `pertstack verdict {folder.word}` judges it: a new look at "
        f"the test, written in the ledger. `pertstack status {folder.word}` shows what changed."
    )
