"""Short pure functions are the same code in a lesson and in the package: types and docstrings aside."""

import ast
import inspect

import pytest

from spvit_course.lessons import lesson_files, read
from spvit_mini import geometry, spatial
from spvit_mini.training import optim

SAME = {"03": (geometry.pair_offsets, geometry.offsets, geometry.pad_prefix), "06": (spatial.conv_heads,)}
SAME["12"] = (optim.lr_at,)


def code_of(function: ast.FunctionDef) -> str:
    """Write a function's arguments and body without docstring, types and comments."""
    for argument in function.args.args:
        argument.annotation = None
    has_docstring = ast.get_docstring(function) is not None
    return "\n".join(map(ast.unparse, [function.args, *function.body[has_docstring:]]))


def functions_of(number: str) -> dict[str, ast.FunctionDef]:
    """Find the functions that a lesson defines, solutions included."""
    (path,) = (path for path in lesson_files() if path.name.startswith(number))
    cells = [cell.source for cell in read(path).cells if cell.cell_type == "code"]
    nodes = [node for source in cells for node in ast.parse(source).body]
    return {node.name: node for node in nodes if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(
    ("number", "function"),
    [(number, function) for number, functions in SAME.items() for function in functions],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_lesson_and_package_have_the_same_code(number, function):
    (packages,) = ast.parse(inspect.getsource(function)).body
    assert code_of(functions_of(number)[function.__name__]) == code_of(packages)
