"""Imports point one way, so that every part can be read, tested and replaced without what is built on it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "scorescope"

# What each part of the package may import of it (a part is a module or a folder). Everything may import `errors` and `__version__`.
MAY_IMPORT = {
    "errors": (),
    "seeds": (),
    "files": (),
    "registry": (),
    "user_file": (),
    "identity": (),
    "runs": ("files",),
    "process": (),
    "progress": (),
    "statistics": (),
    "nets": (),
    "rows": ("files",),
    "search": ("rows",),
    "schedule": (),
    "convert": ("schedule",),
    "denoiser": ("schedule", "convert", "identity"),
    "sampler": ("schedule", "convert", "denoiser", "seeds"),
    "empirical": ("schedule", "convert", "denoiser", "rows", "search", "seeds"),
    "distributed": ("schedule", "rows", "search", "empirical"),
    "regions": ("schedule", "convert", "denoiser", "sampler", "rows", "search", "seeds"),
    "training": ("schedule", "convert", "denoiser", "rows", "search", "empirical", "nets", "seeds", "files"),
    "adapters": ("schedule", "convert", "denoiser", "nets", "files"),
    "demo": (
        "rows",
        "search",
    ),
    "results": ("files",),
    "probes": ("schedule", "convert", "denoiser", "sampler", "rows", "search", "empirical", "regions", "seeds", "results"),
    "plan": ("denoiser", "sampler", "rows", "search", "probes", "files"),
    "evaluate": ("schedule", "denoiser", "sampler", "rows", "search", "seeds", "files", "progress", "plan", "adapters"),
    "charts": ("results", "statistics", "files", "registry"),
    "claims": ("results", "statistics", "registry"),
    "report": ("results", "files", "charts", "claims"),
    "examination": (
        *("denoiser", "sampler", "rows", "search", "empirical", "regions", "probes", "plan", "files", "progress"),
        *("results", "claims", "report"),
    ),
    "monitor": ("denoiser", "sampler", "rows", "search", "empirical", "regions", "results", "probes", "training"),
    "bench": (
        "schedule",
        "denoiser",
        "sampler",
        "rows",
        "search",
        "empirical",
        "seeds",
        "files",
        "progress",
        "plan",
        "charts",
        "nets",
        "training",
        "evaluate",
    ),
    "cli": (
        *("adapters", "rows", "search", "training", "demo", "plan", "examination"),
        *("process", "progress", "results", "charts", "claims", "report", "bench", "evaluate", "monitor", "distributed"),
    ),
    "__main__": ("cli",),
}
OF_RESULTS_ALONE = ("charts", "claims", "report", "results", "statistics")


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
            if name.startswith("scorescope.") and part_of(name) not in {part, "errors", "__version__", *MAY_IMPORT[part]}:
                upward[str(path.relative_to(ROOT))].add(name)
    assert not upward


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


def test_nothing_is_left_to_be_written():
    for _, path in sources():
        text = path.read_text(encoding="utf-8")
        assert "NotImplementedError" not in text, path
        assert "TODO" not in text, path
