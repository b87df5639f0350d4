"""All competitors at once, for the report: sentences, and one line per name with confidence set and max-t.

The facts come from ``verdict/several.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pertstack.verdict.several import several_in_words
from pertstack.verdict.words import interval, number


def together_table(facts: Mapping[str, Any], chosen: str | None = None) -> dict[str, Any]:
    """``lines`` (sentences) and ``rows`` (texts by column: name, included, p, difference, ci, adjusted)."""
    kept = {r["name"]: r for r in (facts.get("confidence_set") or {"rows": []})["rows"]}
    compared = {r["name"]: r for r in (facts.get("simultaneous") or {"rows": []})["rows"]}
    rows = []
    for name in [*kept, *(n for n in compared if n not in kept)]:
        one, other = kept.get(name), compared.get(name)
        rows.append(
            {
                "name": name,
                "included": "" if one is None else "yes" if one["included"] else "no",
                "p": "" if one is None else number(one["p"]),
                "difference": "" if other is None else number(other["difference"], sign=True),
                "ci": "" if other is None else interval(other["ci"] and (other["ci"][0], other["ci"][1]), sign=True),
                "adjusted": "" if other is None else number(other["p"]),
            }
        )
    return {"lines": several_in_words(facts, chosen), "rows": rows}
