"""Expressions and templates: how conditions and prompts look at the state. Both know which fields they look at."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pilothouse.agents.workflow.source import suggestion
from pilothouse.agents.workflow.types import ANY, NUMBER, TEXT, TRUTH, Type
from pilothouse.errors import FatalError

MAX_LENGTH = 1000
"""Characters of a condition."""

COMPARISONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}
ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
ORDERED = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
CONSTANTS: dict[str, Any] = {"true": True, "false": False, "null": None}
SIZED = frozenset({"str", "list", "dict", "object", "any"})
NUMBERS = frozenset({"int", "float", "any"})

Scope = Mapping[str, Type]
"""The fields that may be looked at, with their types."""


class ExpressionProblem(ValueError):
    """An expression that cannot be read, or looks at what is not there; the message says why."""


class Expression:
    """A condition such as `label.kind == "refund" and order.total > 50`.

    There are and, or, not, comparisons, in, + - * / %, len(…), fields of objects and items of lists; no calls else.
    """

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise ExpressionProblem(f"a condition has at most {MAX_LENGTH} characters")
        self.text = text
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ExpressionProblem(f"{text!r} is no condition: {getattr(error, 'msg', error)}") from error

    def check(self, scope: Scope) -> Type:
        """The type of its value. Raises ExpressionProblem."""
        return _Typed(scope, self.text).type_of(self._tree)

    def names(self) -> set[str]:
        """The fields that it looks at."""
        return {node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name)} - {"len", *CONSTANTS}

    def value(self, state: Mapping[str, Any]) -> Any:
        """Raises FatalError where the values do not allow it."""
        try:
            return _evaluate(self._tree, state)
        except (TypeError, KeyError, IndexError, ArithmeticError) as error:
            raise FatalError(f"condition {self.text!r} cannot be evaluated: {type(error).__name__}: {error}") from error


class _Typed:
    """Finds the type of an expression from those of the fields in it."""

    def __init__(self, scope: Scope, text: str) -> None:
        self._scope = scope
        self._text = text

    def type_of(self, node: ast.AST) -> Type:
        match node:
            case ast.Constant(value=value):
                return _constant_type(value)
            case ast.Name(id=name):
                return self._name(name)
            case ast.Attribute(value=inner, attr=name):
                return self._field(self.type_of(inner), name)
            case ast.Subscript(value=inner, slice=key):
                return self._item(self.type_of(inner), key)
            case ast.BoolOp(values=values):
                for each in values:
                    self.type_of(each)
                return TRUTH
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self.type_of(operand)
                return TRUTH
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._number(operand)
            case _:
                return self._compound(node)

    def _compound(self, node: ast.AST) -> Type:
        match node:
            case ast.Compare():
                return self._comparison(node)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
                return self._arithmetic(left, op, right)
            case ast.Call(func=ast.Name(id="len"), args=[inner], keywords=[]):
                return self._length(inner)
            case ast.List(elts=items) | ast.Tuple(elts=items):
                types = [self.type_of(item) for item in items]
                return Type("list", types[0] if types else ANY)
            case _:
                raise ExpressionProblem(f"{self._text!r}: {ast.unparse(node)!r} is not allowed in a condition")

    def _name(self, name: str) -> Type:
        if name in CONSTANTS:
            return _constant_type(CONSTANTS[name])
        if name not in self._scope:
            raise ExpressionProblem(
                f"{self._text!r} looks at {name!r}, which is no field{suggestion(name, self._scope)}"
            )
        return self._scope[name]

    def _field(self, type: Type, name: str) -> Type:
        found = type.get(name)
        if found is None:
            raise ExpressionProblem(f"{self._text!r}: {type.one} has no field {name!r}{suggestion(name, type.fields)}")
        return found

    def _item(self, type: Type, key: ast.expr) -> Type:
        if type.kind == "list":
            self._number(key)
            return type.item or ANY
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            return self._field(type, key.value)
        return type.item or ANY

    def _comparison(self, node: ast.Compare) -> Type:
        left = self.type_of(node.left)
        for op, right_node in zip(node.ops, node.comparators, strict=True):
            if type(op) not in COMPARISONS:
                raise ExpressionProblem(f"{self._text!r}: `is` is not allowed; write ==")
            right = self.type_of(right_node)
            self._check_comparable(op, left, right)
            left = right
        return TRUTH

    def _check_comparable(self, op: ast.cmpop, left: Type, right: Type) -> None:
        if isinstance(op, ast.In | ast.NotIn):
            if right.kind not in SIZED:
                raise ExpressionProblem(f"{self._text!r}: nothing can be in {right.one}")
            return
        if isinstance(op, ORDERED) and left.kind in ("list", "dict", "object", "bool"):
            raise ExpressionProblem(f"{self._text!r}: {left.one} has no order")
        one, other = replace(left, is_optional=True), replace(right, is_optional=True)
        if not (one.takes(other) or other.takes(one)):
            raise ExpressionProblem(f"{self._text!r} compares {left.one} with {right.one}")

    def _arithmetic(self, left: ast.expr, op: ast.operator, right: ast.expr) -> Type:
        types = self.type_of(left), self.type_of(right)
        if isinstance(op, ast.Add) and all(each.kind in ("str", "any") for each in types):
            return TEXT
        for each in types:
            if each.kind not in NUMBERS:
                raise ExpressionProblem(f"{self._text!r} calculates with {each.one}")
        return NUMBER

    def _number(self, node: ast.AST) -> Type:
        type = self.type_of(node)
        if type.kind not in NUMBERS:
            raise ExpressionProblem(f"{self._text!r} wants a number where {type.one} is")
        return type

    def _length(self, node: ast.AST) -> Type:
        type = self.type_of(node)
        if type.kind not in SIZED:
            raise ExpressionProblem(f"{self._text!r}: {type.one} has no length")
        return Type("int")


def _constant_type(value: Any) -> Type:
    match value:
        case bool():
            return TRUTH
        case int():
            return Type("int")
        case float():
            return NUMBER
        case str():
            return TEXT
        case _:
            return ANY


def _evaluate(node: ast.AST, state: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return CONSTANTS[name] if name in CONSTANTS and name not in state else state[name]
        case ast.Attribute(value=inner, attr=name):
            return _evaluate(inner, state)[name]
        case ast.Subscript(value=inner, slice=key):
            return _evaluate(inner, state)[_evaluate(key, state)]
        case ast.BoolOp(op=ast.And(), values=values):
            return all(_evaluate(each, state) for each in values)
        case ast.BoolOp(values=values):
            return any(_evaluate(each, state) for each in values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _evaluate(operand, state)
        case _:
            return _evaluate_compound(node, state)


def _evaluate_compound(node: ast.AST, state: Mapping[str, Any]) -> Any:
    match node:
        case ast.UnaryOp(operand=operand):
            return -_evaluate(operand, state)
        case ast.Compare(left=left, ops=ops, comparators=rights):
            values = [_evaluate(each, state) for each in (left, *rights)]
            return all(
                COMPARISONS[type(op)](one, other) for op, one, other in zip(ops, values, values[1:], strict=False)
            )
        case ast.BinOp(left=left, op=op, right=right):
            return ARITHMETIC[type(op)](_evaluate(left, state), _evaluate(right, state))
        case ast.Call(args=[inner]):
            return len(_evaluate(inner, state))
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_evaluate(item, state) for item in items]
        case _:
            raise TypeError(f"{ast.unparse(node)} is not allowed")


# --- templates ---------------------------------------------------------------------------------

_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False)
_WHOLE = re.compile(r"\s*\{\{(?P<expression>[^{}|]*)\}\}\s*")


class Template:
    """A text with `{{ field }}` in it, in Jinja's language, sandboxed."""

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self._tree = _ENVIRONMENT.parse(text)
            self._compiled = _ENVIRONMENT.from_string(text)
        except TemplateSyntaxError as error:
            raise ExpressionProblem(f"the template is wrong in its line {error.lineno}: {error.message}") from error

    def check(self, scope: Scope) -> None:
        """Raises ExpressionProblem for a field that is not there."""
        from jinja2 import meta

        unknown = sorted(meta.find_undeclared_variables(self._tree) - set(scope))
        if unknown:
            raise ExpressionProblem(
                f"the template looks at {unknown[0]!r}, which is no field{suggestion(unknown[0], scope)}"
            )
        for found in self._tree.find_all(nodes.Getattr):
            self._type_of(found, scope)

    def _type_of(self, node: nodes.Node, scope: Scope) -> Type:
        match node:
            case nodes.Name():
                return scope.get(node.name, ANY)
            case nodes.Getattr():
                type = self._type_of(node.node, scope)
                found = type.get(node.attr)
                if found is None:
                    raise ExpressionProblem(
                        f"the template looks at {node.attr!r} of {type.one}, which it has not"
                        f"{suggestion(node.attr, type.fields)}"
                    )
                return found
            case _:
                return ANY

    def render(self, state: Mapping[str, Any]) -> str:
        """Raises FatalError."""
        try:
            return self._compiled.render(state)
        except (TemplateError, TypeError, ArithmeticError) as error:
            raise FatalError(f"a template cannot be filled: {error}; it is {self.text[:200]!r}") from error


@lru_cache(maxsize=4096)
def expression(text: str) -> Expression:
    """An expression that has been checked; read once."""
    return Expression(text)


@lru_cache(maxsize=4096)
def template(text: str) -> Template:
    """A template that has been checked; read once."""
    return Template(text)


Argument = Any
"""A constant, a template, or lists and mappings of them; a text that is one `{{ … }}` keeps its value's type."""


def check_argument(value: Argument, scope: Scope) -> None:
    """Raises ExpressionProblem."""
    match value:
        case str() if whole := _WHOLE.fullmatch(value):
            Expression(whole["expression"]).check(scope)
        case str():
            Template(value).check(scope)
        case dict():
            for each in value.values():
                check_argument(each, scope)
        case list():
            for each in value:
                check_argument(each, scope)


def argument_type(value: Argument, scope: Scope) -> Type:
    """The type of an argument that has been checked."""
    match value:
        case str() if whole := _WHOLE.fullmatch(value):
            return Expression(whole["expression"]).check(scope)
        case dict():
            return Type("object")
        case list():
            return Type("list", ANY)
        case _:
            return _constant_type(value)


def fill_argument(value: Argument, state: Mapping[str, Any]) -> Any:
    """The argument with the values of the state in it."""
    match value:
        case str():
            fill = _filler(value)
            return value if fill is None else fill(state)
        case dict():
            return {key: fill_argument(each, state) for key, each in value.items()}
        case list():
            return [fill_argument(each, state) for each in value]
        case _:
            return value


@lru_cache(maxsize=4096)
def _filler(text: str) -> Callable[[Mapping[str, Any]], Any] | None:
    """What makes a value of an argument's text; None where it is the value itself."""
    if "{" not in text:
        return None
    whole = _WHOLE.fullmatch(text)
    return template(text).render if whole is None else expression(whole["expression"]).value
