"""Imports point one way, so that every part can be read, tested and replaced without what is built on it; and no function is too wide."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "scorescope"

MOST_ARGUMENTS = 8  # of a function

# What each part of the package may import of it (a part is a module or a folder). Everything may import `errors` and `__version__`.
BASIC = ("seeds", "files", "registry", "user_file")  # and `errors`: whoever wants them
MAY_IMPORT = {
    "errors": (),
    "seeds": (),
    "files": (),
    "registry": (),
    "user_file": (),
    "process": (),
    "progress": (),
    "statistics": (),
    "identity": (),
    "networks": (),
    "runs": (),
    "plan": (),
    "results": (),
    "copies": ("results",),
    "nets": (),
    "rows": (),
    "search": ("rows",),
    "schedule": (),
    "convert": ("schedule",),
    "denoiser": ("schedule", "convert", "identity", "networks"),
    "forecast": ("denoiser", "progress"),
    "watched": ("denoiser", "progress"),
    "sampler": ("schedule", "convert", "denoiser", "plan"),
    "empirical": ("schedule", "convert", "denoiser", "rows", "search"),
    "theories": ("schedule", "convert", "denoiser", "rows", "search", "empirical"),
    "reading": ("schedule", "convert", "denoiser", "sampler", "rows", "theories"),
    "distributed": ("schedule", "rows", "empirical"),
    "regions": ("schedule", "denoiser", "sampler", "rows", "empirical"),
    "training": ("schedule", "convert", "denoiser", "rows", "search", "empirical", "nets", "identity", "runs"),
    "adapters": ("schedule", "convert", "denoiser", "networks", "nets", "runs", "training", "rows", "theories"),
    "choice": ("denoiser", "rows", "reading", "adapters"),
    "demo": ("rows",),
    "probes": ("denoiser", "sampler", "rows", "search", "empirical", "regions", "results", "statistics"),
    "measure": ("denoiser", "empirical", "probes", "regions", "results"),
    "prepare": ("denoiser", "sampler", "rows", "probes", "identity", "plan"),
    "evaluate": (
        *("schedule", "denoiser", "sampler", "watched", "rows", "progress", "runs", "identity", "adapters"),
        *("probes", "results", "statistics"),
    ),
    "sampled": ("rows", "search", "probes", "measure", "plan", "results"),
    "claims": ("results", "statistics"),
    "recipes": ("statistics", "claims"),
    "charts": ("results", "statistics", "claims", "recipes"),
    "report": ("results", "charts", "claims", "copies"),
    "examination": (
        *("denoiser", "forecast", "sampler", "watched", "rows", "empirical", "regions", "probes", "measure", "plan", "prepare"),
        *("progress", "runs", "results", "claims", "report", "copies", "sampled", "evaluate", "theories", "reading", "adapters", "choice"),
    ),
    "compare": (
        *("denoiser", "forecast", "rows", "empirical", "theories", "regions", "probes", "measure", "plan", "prepare", "examination"),
        *("evaluate", "reading", "choice", "statistics", "claims", "recipes", "charts", "results", "runs", "progress"),
    ),
    "monitor": (
        *("denoiser", "sampler", "rows", "empirical", "regions", "results", "probes", "training", "measure", "theories", "statistics"),
    ),
    "bench": (
        *("schedule", "denoiser", "sampler", "rows", "search", "empirical", "theories", "identity", "runs", "progress", "charts"),
        *("nets", "training", "evaluate"),
    ),
    "experiments": (
        *("denoiser", "rows", "empirical", "adapters", "training", "results", "statistics", "charts", "claims", "runs", "progress", "demo"),
        *("examination", "report", "nets", "sampler", "regions", "theories", "evaluate", "recipes", "compare", "probes"),
    ),
    "cli": (
        *("process", "progress", "plan", "runs", "rows", "search", "adapters", "choice", "denoiser", "training", "demo", "examination"),
        "results",
        *("charts", "claims", "report", "bench", "evaluate", "monitor", "distributed", "copies", "reading", "prepare"),
        *("experiments", "recipes", "compare"),
    ),
    "__main__": ("cli",),
}
OF_RESULTS_ALONE = ("charts", "claims", "recipes", "report", "results", "statistics")


def part_of(name):
    return name.split(".")[1]


def sources():
    for path in sorted(ROOT.rglob("*.py")):
        if path != ROOT / "__init__.py":
            yield path.relative_to(ROOT).parts[0].removesuffix(".py"), path


def imported(path):
    """Full names of the modules that a file imports anywhere in it, lazily or for its annotations too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_table_names_every_part_and_points_one_way():
    assert set(MAY_IMPORT) == {part for part, _ in sources()}
    known = set()
    for part, lower in MAY_IMPORT.items():
        assert known.issuperset(lower), f"{part} may import {set(lower) - known}, which come after it"
        known.add(part)


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_a_part_imports_what_lies_below_it(part):
    upward = defaultdict(set)
    for _, path in (found for found in sources() if found[0] == part):
        for name in imported(path):
            if name.startswith("scorescope.") and part_of(name) not in {part, "errors", "__version__", *BASIC, *MAY_IMPORT[part]}:
                upward[str(path.relative_to(ROOT))].add(name)
    assert not upward


def circles(edges):
    """The strongly connected sets of more than one node: those that can each be reached from each other."""

    def reached(node):
        seen, left = set(), [node]
        while left:
            fresh = edges[left.pop()] - seen
            seen |= fresh
            left += fresh
        return seen

    below = {node: reached(node) for node in edges}
    return {frozenset(other for other in below[node] if node in below[other]) for node in edges if node in below[node]}


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == {frozenset("bc")}


def test_no_file_imports_itself_in_a_circle():
    """Imports inside functions and for annotations count. A package's own `__init__` counts where it is imported from by name."""
    files = {".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path for path in ROOT.rglob("*.py")}
    edges = {}
    for name, path in files.items():
        targets = {full if full in files else full.rpartition(".")[0] for full in imported(path)}
        edges[name] = targets & files.keys() - {name, "scorescope"}
    assert circles(edges) == set()


@pytest.mark.parametrize("part", OF_RESULTS_ALONE)
def test_results_are_drawn_without_a_model_a_bank_or_torch(part):
    for _, path in (found for found in sources() if found[0] == part):
        assert not {name.partition(".")[0] for name in imported(path)} & {"torch", "safetensors"}, path
    code = f"import scorescope.{part}, sys; print(*({{'torch', 'scorescope.rows', 'scorescope.empirical'}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_the_package_itself_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", "import scorescope, sys; print(*({'torch', 'numpy', 'tyro', 'xarray'} & sys.modules.keys()))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == ""


def test_every_public_name_can_be_had():
    import scorescope

    for name in scorescope.__all__:
        assert getattr(scorescope, name) is not None
    assert set(dir(scorescope)) == set(scorescope.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Denoizer'"):
        scorescope.Denoizer  # noqa: B018


def wide(code):
    """The functions of more than `MOST_ARGUMENTS` arguments, self and cls not counted, with their number."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            told = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = len(told) - (bool(told) and told[0].arg in ("self", "cls"))
            if count > MOST_ARGUMENTS:
                yield f"{getattr(node, 'name', 'lambda')} (line {node.lineno}): {count}"


def test_wide_functions_are_found():
    eight = "a, b, /, c, d, *, e, f, g, h"
    code = f"def fits({eight}): ...\nclass C:\n  def __init__(self, {eight}): ...\n  def too(self, {eight}, i): ...\nlambda {eight}, i: 0"
    assert sorted(wide(code)) == ["lambda (line 5): 9", "too (line 4): 9"]


def test_no_function_takes_more_than_eight_arguments():
    own = [path for _, path in sources()]
    found = {str(path.relative_to(ROOT)): list(wide(path.read_text(encoding="utf-8"))) for path in own}
    assert {path: functions for path, functions in found.items() if functions} == {}


def test_nothing_is_left_to_be_written():
    for _, path in sources():
        text = path.read_text(encoding="utf-8")
        assert "NotImplementedError" not in text, path
        assert "TODO" not in text, path
