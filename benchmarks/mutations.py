"""Small changes of source code, one at a time, that a test ought to notice.

Left alone: docstrings and other strings, annotations, ``strict=`` of zip, and what stands in a ``raise`` or under
``if TYPE_CHECKING``.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

COMPARE: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
}
OTHER_CALL = {"minimum": "maximum", "maximum": "minimum", "min": "max", "max": "min", "any": "all", "all": "any"}
TESTED = (ast.Compare, ast.BoolOp)  # Changed themselves.


class Mutant(NamedTuple):
    """One change of one file."""

    file: str
    number: int
    line: int
    text: str  # of the line
    change: str
    function: str  # Qualified name of the outermost function, "" at the level of a module or class.

    @property
    def key(self) -> tuple[str, str, str]:
        """What stays when lines move."""
        return self.file, self.text, self.change


def mutants(file: str, source: str) -> list[Mutant]:
    """All changes of a file, in the order of the source."""
    lines = source.splitlines()
    found = []
    for number, (holder, name, place, new, function) in enumerate(_sites(ast.parse(source), "")):
        old = _get(holder, name, place)
        change = f"{_short(old)} → {_short(new)}"
        found.append(Mutant(file, number, old.lineno, lines[old.lineno - 1].strip(), change, function))
    return found


def mutated(source: str, number: int) -> ast.Module:
    """The file with one change; lines keep their numbers."""
    tree = ast.parse(source)
    for k, (holder, name, place, new, _) in enumerate(_sites(tree, "")):
        if k == number:
            old = _get(holder, name, place)
            if place is None:
                setattr(holder, name, ast.copy_location(new, old))
            else:
                getattr(holder, name)[place] = ast.copy_location(new, old)
            return ast.fix_missing_locations(tree)
    raise IndexError(number)


def _get(holder: ast.AST, name: str, place: int | None) -> Any:
    value = getattr(holder, name)
    return value if place is None else value[place]


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 90 else text[:60] + " … " + text[-27:]


def _sites(node: ast.AST, scope: str, function: str = "") -> Iterator[tuple[ast.AST, str, int | None, ast.AST, str]]:
    """Holder, field, place in a list, what to put there, and the function around it."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "type_params"):
            continue
        for place, child in enumerate(value) if isinstance(value, list) else ((None, value),):
            if not isinstance(child, ast.AST) or _left_alone(child, function):
                continue
            # Decorators, bases and defaults belong to what is around a function.
            inside = name == "body" and isinstance(node, ast.FunctionDef | ast.ClassDef)
            where = f"{scope}.{node.name}".lstrip(".") if inside else scope  # type: ignore[attr-defined]
            owner = function or (where if inside and isinstance(node, ast.FunctionDef) else "")
            for new in _changes(child):
                yield node, name, place, new, owner
            yield from _sites(child, where, owner)


def _left_alone(node: ast.AST, function: str) -> bool:
    match node:
        case ast.Raise() | ast.JoinedStr():
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.BinOp(op=ast.BitOr()):
            return not function  # a union of types
        case ast.keyword(arg="strict"):
            return True
    return False


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """What can stand where a node stands."""
    match node:
        case ast.Compare(ops=ops):
            for k, op in enumerate(ops):
                for other in COMPARE[type(op)]:
                    compared = copy.deepcopy(node)
                    compared.ops[k] = other()
                    yield compared
        case ast.BinOp(left, op, right) if type(op) in ARITHMETIC and not _text(left) and not _text(right):
            yield ast.BinOp(left, ARITHMETIC[type(op)](), right)
        case ast.BoolOp(op, values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert(), operand=operand):
            yield operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.Call(func=ast.Attribute(attr=called) | ast.Name(id=called), args=[*args]):
            new = copy.deepcopy(node)
            if called == "where" and len(args) >= 3:
                new.args[-2:] = reversed(new.args[-2:])
                yield new
            elif called in OTHER_CALL:
                if isinstance(new.func, ast.Attribute):
                    new.func.attr = OTHER_CALL[called]
                else:
                    new.func = ast.Name(OTHER_CALL[called], ast.Load())
                yield new
        case ast.If(test=test, body=body, orelse=rest) if not isinstance(test, TESTED) and not _is_not(test):
            yield ast.If(ast.UnaryOp(ast.Not(), test), body, rest)
        case ast.IfExp(test=test, body=value, orelse=other) if not isinstance(test, TESTED) and not _is_not(test):
            yield ast.IfExp(ast.UnaryOp(ast.Not(), test), value, other)
        case ast.AugAssign(target, op, value):
            yield ast.Pass()
            if type(op) in ARITHMETIC:
                yield ast.AugAssign(target, ARITHMETIC[type(op)](), value)
        case ast.Expr(value=ast.Call()):
            yield ast.Pass()
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield ast.Return(ast.Constant(None))


def _text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _is_not(node: ast.AST) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
