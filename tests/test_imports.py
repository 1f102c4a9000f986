"""Imports of the three packages: no circle, and no arrow upwards in the order of the house (CONTRIBUTING.md).

Every import of every module counts, those inside functions too; imports under `if TYPE_CHECKING` do not, since they never
run. A name that a package's `__init__` offers lazily counts as an import of the module that defines it.
"""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("spvit_mini", "spvit_course", "spvit_experiments")
# The modules and packages of spvit_mini from the bottom up: each imports only from its own line and those above it.
ORDER = """
    errors renamed files
    fields
    config
    geometry
    spatial
    attention_backends
    attention
    attention_registry block_sparse
    vit
    cait cnn
    data
    weights
    zoo convert extensions
    flops plots
    explain
    recipes
    training
    cli
    __main__
"""
FLOOR = {name: floor for floor, line in enumerate(ORDER.split("\n")) for name in line.split()}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
}


def imports_of(module: str, tree: ast.AST) -> list[tuple[str, str]]:
    """List (module, name) of each import in a tree; the name is "" for a module that is imported whole."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            found += [(".".join([*parts, *filter(None, [node.module])]), alias.name) for alias in node.names]
    return [(source, name) for source, name in found if source.partition(".")[0] in PACKAGES]


class WithoutTyping(ast.NodeTransformer):
    """Remove `if TYPE_CHECKING` from a tree, and collect what it imports."""

    def __init__(self):
        self.typing = ast.Module([], [])

    def visit_If(self, node):
        if "TYPE_CHECKING" not in ast.unparse(node.test):
            return self.generic_visit(node)
        self.typing.body += node.body
        return node.orelse or ast.Pass()


def read_graph() -> dict[str, set[str]]:
    """Read which modules each module imports."""
    imports, lazy = {}, {}
    for module, path in MODULES.items():
        transformer = WithoutTyping()
        tree = transformer.visit(ast.parse(path.read_text(encoding="utf-8")))
        imports[module] = imports_of(module, tree)
        if path.name == "__init__.py":
            lazy |= {(module, name): source for source, name in imports_of(module, transformer.typing)}

    def resolve(source: str, name: str) -> str:
        if f"{source}.{name}" in MODULES:
            return f"{source}.{name}"
        return resolve(lazy[source, name], name) if (source, name) in lazy else source

    return {module: {resolve(*each) for each in found} - {module} for module, found in imports.items()}


GRAPH = read_graph()


def test_the_graph_is_that_of_the_packages():
    """So that the tests below can't pass over a graph that was read wrongly."""
    assert set().union(*GRAPH.values()) <= set(MODULES)
    assert {"spvit_mini.cnn", "spvit_mini.vit", "spvit_mini.weights"} <= GRAPH["spvit_mini.zoo"]  # inside functions
    assert "spvit_mini.recipes.recipe" in GRAPH["spvit_mini.training.checkpoint"]  # from ..recipes.recipe import Recipe
    assert not any(source == "spvit_mini.data" for source in GRAPH["spvit_mini.zoo"])  # resolved to the module with the name


def test_no_import_closes_a_circle():
    try:
        graphlib.TopologicalSorter(GRAPH).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" → ".join(reversed(error.args[1])))


def test_the_packages_have_their_order():
    library = {"spvit_mini"}
    allowed = {"spvit_mini": library, "spvit_experiments": {"spvit_experiments", *library}, "spvit_course": set(PACKAGES)}
    wrong = [
        f"{module} imports {source}"
        for module, sources in GRAPH.items()
        for source in sources
        if source.partition(".")[0] not in allowed[module.partition(".")[0]]
    ]
    assert not wrong


def test_no_module_of_the_library_imports_from_a_higher_floor():
    def floor(module: str) -> int:
        return FLOOR[module.split(".")[1]] if "." in module else 0  # the package itself is lazy

    library = [module for module in GRAPH if module.startswith("spvit_mini.")]
    wrong = [f"{m} imports {source}" for m in library for source in GRAPH[m] if floor(source) > floor(m)]
    assert not wrong
