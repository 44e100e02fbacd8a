"""Whether a test compares anything at all: by itself, or through functions of the tests that it calls."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any


def compares(test: Callable[..., Any], owner: type | None = None) -> bool:
    """Look for an `assert` or a `pytest.raises`; `owner` is the class of a method."""
    return _compares(test, owner, set())


def _compares(function: object, owner: type | None, seen: set[object]) -> bool:
    function = inspect.unwrap(function) if callable(function) else function
    if not isinstance(function, FunctionType) or function in seen:
        return False
    seen.add(function)
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    (definition,) = tree.body
    assert isinstance(definition, ast.FunctionDef)
    if any(_is_comparison(node) for statement in definition.body for node in ast.walk(statement)):
        return True
    called = [_found(name, function, owner) for name in _called(definition)]
    return any(_compares(one, owner, seen) for one in called)


def _is_comparison(node: ast.AST) -> bool:
    return isinstance(node, ast.Assert) or (isinstance(node, ast.Attribute) and node.attr == "raises")


def _called(definition: ast.FunctionDef) -> Iterator[tuple[str, bool]]:
    """Give the name of each function that is called by its name, and whether it is one of `self`."""
    calls = [node.func for node in ast.walk(definition) if isinstance(node, ast.Call)]
    for function in calls:
        match function:
            case ast.Name(id=name):
                yield name, False
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
                yield name, True


def _found(name: tuple[str, bool], function: FunctionType, owner: type | None) -> object:
    called, is_method = name
    return getattr(owner, called, None) if is_method else function.__globals__.get(called)
