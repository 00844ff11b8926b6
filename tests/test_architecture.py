"""Who may import whom. Arrows point down only, and this test holds them to it."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("lib", "experiments", "configs", "run", "tests")

GROUND = {
    *("errors", "files", "formats", "tree", "numerics", "representations", "schedules")
}
ALGEBRAS = {"transforms", "program", "objectives", "data"}

# Room of lib -> the rooms it may import, besides the ground floor and itself.
ROOMS = {
    "transforms": set(),
    "program": set(),
    "objectives": set(),
    "data": set(),
    "diagnosis": set(),
    "models": set(),
    "deploy": {"transforms", "program"},
    "shrink": {"program"},
    "train": ALGEBRAS,
    "report": ALGEBRAS,
}
# What stands above lib -> the roots of ours it may import.
ABOVE = {
    "run": {"lib", "experiments"},
    "experiments": {"lib", "experiments"},
    "configs": {"configs"},
}
# Modules that may import only these packages of others; by default, anything.
OTHERS = {
    "configs": {"ml_collections"},
    "lib.deploy.reader": {"numpy", *sys.stdlib_module_names},
}


def imports(source: str) -> Iterator[tuple[str, str]]:
    """Yields (module, name) for `from module import name` and (module, "") else."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((module, alias.name) for alias in node.names)


def room(name: str) -> str:
    """Returns "transforms" for `lib.transforms.prune`."""
    return (name.split(".") + [""])[1]


def faults(module: str, source: str) -> list[str]:
    """Returns what the imports of one module's source break, a line each."""
    found = []
    root = module.split(".")[0]
    for imported, name in imports(source):
        if imported == "lib":  # `from lib import tree`
            imported = f"lib.{name}"
        top = imported.split(".")[0]
        if imported.startswith("."):
            allowed = False
        elif top not in OURS:
            allowed = top in OTHERS.get(module, OTHERS.get(root, {top}))
        elif module in OTHERS:
            allowed = False  # it stands alone
        elif root != "lib":
            allowed = top in ABOVE[root]
        elif top != "lib":
            allowed = False
        elif room(module) in GROUND:
            allowed = room(imported) in GROUND
        else:
            below = GROUND | ROOMS[room(module)] | {room(module)}
            allowed = room(imported) in below
        if not allowed:
            found.append(f"{module} may not import {imported}")
    return found


def modules() -> dict[str, str]:
    """Returns {dotted name: source} of everything that is not a test."""
    files = [ROOT / "run.py"] if (ROOT / "run.py").exists() else []
    for folder in ("lib", "experiments", "configs"):
        files += sorted((ROOT / folder).rglob("*.py"))
    named = {}
    for file in files:
        parts = file.relative_to(ROOT).with_suffix("").parts
        named[".".join(p for p in parts if p != "__init__")] = file.read_text()
    return named


MODULES = modules()


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Returns the modules of one import cycle, or nothing."""
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return trail[trail.index(name) :]
        if name in done:
            return []
        for below in sorted(graph.get(name, ())):
            if found := visit(below, [*trail, name]):
                return found
        done.add(name)
        return []

    for name in sorted(graph):
        if found := visit(name, []):
            return found
    return []


def graph_of(sources: dict[str, str]) -> dict[str, set[str]]:
    """Returns {module: the modules of ours that it imports}."""
    graph = {}
    for module, source in sources.items():
        named = {
            f"{imported}.{name}" if f"{imported}.{name}" in sources else imported
            for imported, name in imports(source)
        }
        graph[module] = named & set(sources)
    return graph


def test_the_ground_floor_is_where_the_table_says():
    assert {f"lib.{name}" for name in GROUND} <= set(MODULES)
    inside = {room(name) for name in MODULES if name.startswith("lib.")}
    assert inside - GROUND <= set(ROOMS)


@pytest.mark.parametrize("module", MODULES)
def test_arrows_point_down_only(module):
    assert faults(module, MODULES[module]) == []


def test_no_import_cycle():
    assert cycle(graph_of(MODULES)) == []


def test_no_file_without_an_idea():
    names = {name.split(".")[-1] for name in MODULES}
    assert not names & {"utils", "util", "helpers", "misc", "common_utils"}


# The checker itself must be able to fail.


@pytest.mark.parametrize(
    ("module", "source", "imported"),
    [
        ("lib.tree", "import lib.transforms.prune", "lib.transforms.prune"),
        ("lib.tree", "from lib import transforms as T", "lib.transforms"),
        ("lib.tree", "from ml import x\nfrom lib.data import y", "lib.data"),
        ("lib.transforms.prune", "from lib import program", "lib.program"),
        ("lib.models.mlp", "def f():\n  from lib import data", "lib.data"),
        ("lib.objectives", "if 1:\n  import lib.models", "lib.models"),
        ("lib.deploy.artifact", "from lib.objectives import l2", "lib.objectives"),
        ("lib.train.loop", "from lib import models", "lib.models"),
        ("lib.report.table", "import lib.deploy.measure", "lib.deploy.measure"),
        ("lib.train.loop", "import experiments.compress", "experiments.compress"),
        ("lib.train.loop", "import configs", "configs"),
        ("lib.train.loop", "import run", "run"),
        ("lib.train.loop", "from tests.conftest import x", "tests.conftest"),
        ("lib.transforms.base", "from . import prune", "."),
        ("lib.transforms.base", "from ..data import x", "..data"),
        ("configs.quickstart", "import numpy as np", "numpy"),
        ("configs.quickstart", "from lib import models", "lib.models"),
        ("experiments.compress", "from configs import common", "configs"),
        ("lib.deploy.reader", "import numpy\nimport jax.numpy", "jax.numpy"),
        ("lib.deploy.reader", "from lib import errors", "lib.errors"),
    ],
)
def test_checker_finds_a_bad_import(module, source, imported):
    assert faults(module, source) == [f"{module} may not import {imported}"]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("lib.tree", "import re\nfrom lib import errors\nimport jax"),
        ("lib.transforms.prune", "from lib.transforms import base\nimport lib.tree"),
        ("lib.deploy.artifact", "from lib import transforms, program, representations"),
        ("lib.deploy.reader", "import zlib, struct\nimport numpy as np"),
        ("lib.train.step", "from lib.objectives import terms\nfrom lib import data"),
        ("configs.quickstart", "import ml_collections\nfrom configs import common"),
        ("experiments.compress", "from lib import models, report, train"),
        ("run", "from absl import app\nfrom lib import errors\nimport experiments"),
    ],
)
def test_checker_lets_good_imports_pass(module, source):
    assert faults(module, source) == []


def test_checker_finds_a_cycle():
    a, b, c = "from lib.x import b", "import lib.x.c", "from lib.x.a import name"
    sources = {"lib.x.a": a, "lib.x.b": b, "lib.x.c": c}
    assert sorted(cycle(graph_of(sources))) == ["lib.x.a", "lib.x.b", "lib.x.c"]
    assert cycle(graph_of(sources | {"lib.x.c": "import os"})) == []
