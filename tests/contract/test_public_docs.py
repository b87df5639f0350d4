"""Functions say what they take: every argument of ``ps`` and of every public function of three or more arguments is in
its docstring."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

import pytest

import pertstack as ps


def surface() -> Iterator[tuple[str, Any]]:
    for name in ps.__all__:
        found = getattr(ps, name)
        if not callable(found):
            continue
        if not inspect.isclass(found):
            yield name, found
            continue
        if not is_dataclass(found) and not issubclass(found, Exception):
            yield name, found
        for key, value in inspect.getmembers(found):
            mine = str(getattr(value, "__module__", "")).startswith("pertstack")
            if mine and not key.startswith("_") and callable(value) and not inspect.isclass(value):
                yield f"{name}.{key}", value


@pytest.mark.parametrize(("name", "found"), list(surface()), ids=lambda v: v if isinstance(v, str) else "")
def test_every_argument_is_explained(name, found):
    taken = [p for p in inspect.signature(found).parameters.values() if p.name not in ("self", "cls", "args", "kwargs")]
    text = inspect.getdoc(found) or ""
    assert text, f"{name} has no docstring"
    section = text.partition("Parameters\n----------\n")[2] if not inspect.isclass(found) else text
    missing = [p.name for p in taken if not any(p.name in line.split(" : ")[0] for line in section.splitlines())]
    assert not missing, f"{name} does not explain {missing}"


# -- every public function of three or more arguments, by the source alone ------------------------------------------

ROOT = Path(ps.__file__).parent
LEAST = 3
COMPILED = ("kernel", "njit")
"""Decorators of numba functions, whose arguments are packed by one caller of the same room."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Class:
    bases: list[str]
    methods: dict[str, Function]


def arguments(function: Function) -> list[str]:
    """Names of the arguments, without self, ``*args`` and ``**kwargs``."""
    a = function.args
    return [x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs) if x.arg not in ("self", "cls")]


def explained(function: Function) -> list[str]:
    """Names that begin the lines of the section: ``first, second : (n,) scores``."""
    section = (ast.get_docstring(function) or "").partition("Parameters\n----------\n")[2].partition("\n\n")[0]
    heads = [line.partition(" : ")[0] for line in section.splitlines() if line and not line.startswith(" ")]
    return [name.strip() for head in heads for name in head.split(",")]


def parsed(root: Path) -> dict[str, ast.Module]:
    return {p.relative_to(root).as_posix(): ast.parse(p.read_text()) for p in sorted(root.rglob("*.py"))}


def classes_of(modules: dict[str, ast.Module]) -> dict[str, Class]:
    found = {}
    for node in (n for module in modules.values() for n in module.body if isinstance(n, ast.ClassDef)):
        bases = [ast.unparse(b).partition("[")[0].rpartition(".")[2] for b in node.bases]
        found[node.name] = Class(bases, {m.name: m for m in node.body if isinstance(m, Function)})
    return found


def interface_says(classes: dict[str, Class], owner: str, method: Function) -> bool:
    """Whether a base class, or a protocol, explains the method under the same name with the same arguments."""
    above, seen = list(classes[owner].bases), set()
    while above:
        name = above.pop()
        if name in classes and name not in seen:
            seen.add(name)
            above += classes[name].bases
    seen |= {name for name, c in classes.items() if "Protocol" in c.bases and name != owner}
    theirs = [classes[name].methods.get(method.name) for name in seen]
    return any(m is not None and arguments(m) == arguments(method) == explained(m) for m in theirs)


def unexplained(modules: dict[str, ast.Module]) -> dict[str, list[str]]:
    """Public functions of three or more arguments -> arguments they do not explain, and explained ones they lack.

    Exempt are commands (each option has its help), numba kernels, and methods that an interface explains.
    """
    classes, found = classes_of(modules), {}

    def look(file: str, body: list[ast.stmt], owner: str | None) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef) and owner is None and not node.name.startswith("_"):
                look(file, node.body, node.name)
            if not isinstance(node, Function) or node.name.startswith("_") or len(arguments(node)) < LEAST:
                continue
            made = " ".join(ast.unparse(d) for d in node.decorator_list)
            if ".command(" in made or any(word in made for word in COMPILED):
                continue
            if owner is not None and interface_says(classes, owner, node):
                continue
            takes, told = arguments(node), [name.lstrip("*") for name in explained(node)]
            rest = [a.arg for a in (node.args.vararg, node.args.kwarg) if a is not None]
            wrong = [n for n in takes if n not in told]
            wrong += [f"{n} (no argument)" for n in told if n not in (*takes, *rest)]
            if wrong:
                found[f"{file}: {owner + '.' if owner else ''}{node.name}"] = wrong

    for file, module in modules.items():
        look(file, module.body, None)
    return found


def test_every_public_function_of_three_arguments_explains_them():
    wrong = unexplained(parsed(ROOT))
    listed = "\n".join(f"  {name}: {', '.join(names)}" for name, names in wrong.items())
    assert not wrong, (
        f"{len(wrong)} public functions of {LEAST} or more arguments lack a line for some in their section Parameters "
        f"(shape, order, unit, what None means), or are private and need an underscore:\n{listed}"
    )


SAMPLE = '''
class Reads(Protocol):
    def read(self, block, start, stop):
        """Rows.

        Parameters
        ----------
        block : of the source.
        start, stop : rows.
        """

class Store:
    def read(self, block, start, stop): ...
    def find(self, block, model, kind):
        """A record.

        Parameters
        ----------
        block, model : which.
        sort : as it was called once.

        Raises
        ------
        kind : not here.
        """
    def _own(self, a, b, c): ...

class _Inner:
    def read(self, one, two, three): ...

@kernel
def loop(a, b, c): ...

@app.command()
def fit(study, models, workers): ...

def two(a, b): ...

def three(a, b, *, c): ...
'''


def test_the_check_sees_what_is_missing_and_what_is_exempt():
    found = unexplained({"sample.py": ast.parse(SAMPLE)})
    assert found == {"sample.py: Store.find": ["kind", "sort (no argument)"], "sample.py: three": ["a", "b", "c"]}
