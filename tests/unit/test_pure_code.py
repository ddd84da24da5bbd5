"""Rules of the pure parts that no linter at hand checks: no built-in that reaches the machine, no order left to chance.

Set order and `hash` of text differ from run to run; a simulation must not. `sorted(a_set)` is the way out.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "omninervous"
PURE = [*sorted(PACKAGE.glob("wire/**/*.py")), *sorted(PACKAGE.glob("core/**/*.py")), PACKAGE / "synapse/datapath.py"]

MACHINE_BUILTINS = {"__import__", "breakpoint", "eval", "exec", "hash", "id", "input", "open", "print"}
SET_TYPES = {"set", "frozenset", "Set", "AbstractSet", "MutableSet"}
ORDERED_COPIES = {"list", "tuple", "iter", "next", "enumerate", "zip", "map", "filter", "dict"}


@pytest.mark.parametrize("path", PURE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_pure_code_is_deterministic(path: Path) -> None:
    assert offences(path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "data = open('state')",
        "print('here')",
        "key = hash('text')",
        "for x in {1, 2}: pass",
        "ys = [x for x in set(xs)]",
        "ys = list(frozenset(xs))",
        "waiting: set[int] = f()\nfor x in waiting: pass",
        "class A:\n def f(self):\n  self.live = set()\n def g(self):\n  return tuple(self.live)",
        "class A:\n live: frozenset[int]\n def g(self):\n  return [x for x in self.live - {1}]",
        "def f(a: set[int]):\n return a.pop()",
    ],
)
def test_a_planted_offence_is_seen(line: str) -> None:
    assert len(offences(line)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "for x in sorted({1, 2}): pass",
        "live: set[int] = set()\nif 3 in live: live.discard(3)\nn = len(live)",
        "for key, value in {1: 2}.items(): pass",
        "session.open(data)",
    ],
)
def test_sound_code_passes(line: str) -> None:
    assert offences(line) == []


def offences(source: str) -> list[str]:
    """`line: what` of each. Types are guessed from annotations and assignments of the same file."""
    tree = ast.parse(source)
    sets = {name for node in ast.walk(tree) for name in _names_of_sets(node)} - {"", "."}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.For, ast.comprehension)) and _is_set(node.iter, sets):
            found.append(f"{node.iter.lineno}: iterates a set")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in MACHINE_BUILTINS:
                found.append(f"{node.lineno}: calls {node.func.id}")
            elif node.func.id in ORDERED_COPIES and any(_is_set(argument, sets) for argument in node.args):
                found.append(f"{node.lineno}: iterates a set")
        elif isinstance(node, ast.Call) and _pops_from_a_set(node, sets):
            found.append(f"{node.lineno}: pops from a set")
    return found


def _pops_from_a_set(call: ast.Call, sets: set[str]) -> bool:
    match call:
        case ast.Call(func=ast.Attribute(value=owner, attr="pop"), args=[]):
            return _is_set(owner, sets)
    return False


def _names_of_sets(node: ast.AST) -> list[str]:
    """Names (attributes with a leading dot) that this node makes a set."""
    match node:
        case ast.AnnAssign(target=target, annotation=annotation) if _is_set_type(annotation):
            # `name: set[int]` in a class body is `self.name` elsewhere.
            return [_name(target), f".{_name(target)}"]
        case ast.arg(arg=name, annotation=ast.expr() as annotation) if _is_set_type(annotation):
            return [name]
        case ast.Assign(targets=targets, value=value) if _is_set(value, set()):
            return [_name(target) for target in targets]
    return []


def _is_set_type(annotation: ast.expr) -> bool:
    base = annotation.value if isinstance(annotation, ast.Subscript) else annotation
    return isinstance(base, ast.Name) and base.id in SET_TYPES


def _is_set(value: ast.expr, sets: set[str]) -> bool:
    match value:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Call(func=ast.Name(id="set" | "frozenset")):
            return True
        case ast.BinOp(left=left, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor(), right=right):
            return _is_set(left, sets) or _is_set(right, sets)
    return _name(value) in sets


def _name(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name(id="self"), attr=name):
            return f".{name}"
    return ""
