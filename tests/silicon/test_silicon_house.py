"""No number hides in the code of ``silicon``: constants live in its data, with their sources."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import infermix.silicon

FILES = sorted(Path(infermix.silicon.__file__).parent.glob("*.py"))
LARGEST_COUNT = 12
"""Whole numbers up to a dozen are grammar (halves, squares, three decimals, months); larger ones must be named."""


def literals(tree: ast.Module) -> list[tuple[ast.Constant, bool]]:
    """Numbers of a module, each with whether it stands in a named assignment at its top."""
    named = {
        id(inner)
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None
        for inner in ast.walk(node.value)
    }
    return [(node, id(node) in named) for node in ast.walk(tree) if isinstance(node, ast.Constant)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_bare_float(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    floats = [(node.lineno, node.value) for node, _ in literals(tree) if isinstance(node.value, (float, complex))]
    assert floats == []
    large = [
        (node.lineno, node.value)
        for node, named in literals(tree)
        if isinstance(node.value, int) and not isinstance(node.value, bool)
        if abs(node.value) > LARGEST_COUNT and node.value not in (17, 30, 100) and not named
    ]
    assert large == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_number_is_parsed_out_of_a_string(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("float", "Decimal"):
            assert not any(isinstance(a, ast.Constant) and isinstance(a.value, str) for a in node.args), node.lineno
