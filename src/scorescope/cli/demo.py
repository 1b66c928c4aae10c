"""`scorescope demo`: the main job on what comes with the package."""

from __future__ import annotations

from dataclasses import dataclass

from scorescope.cli.parse import parse
from scorescope.plan import PRESETS, Plan

DESCRIPTION = """Examine the three models that come with the package on 4,500 real digits, and on 500 that they never saw.
Takes up to three minutes.

example:
  scorescope demo --out runs/demo
"""


@dataclass(frozen=True)
class Demo:
    """Arguments of `scorescope demo`."""

    out: str = "runs/demo"
    """Folder of the run."""
    plan: Plan = PRESETS["demo"]
    """What to measure."""
    device: str = "cpu"
    """cpu or cuda."""
    force: bool = False
    """Begin again, in place of the run in that folder."""
    json: bool = False
    """Print claims and paths as JSON."""


def main(argv: list[str]) -> int:
    """Run `scorescope demo` with the words after it."""
    told = parse(Demo, argv, "scorescope demo", DESCRIPTION)
    told.plan.validate()
    import shlex

    from scorescope.adapters import load
    from scorescope.cli.common import check_device
    from scorescope.cli.examine import finish
    from scorescope.demo import MODELS, digits, held_out_digits, model_path
    from scorescope.examination import examine

    check_device(told.device)
    run = examine(
        [load(model_path(name)) for name in MODELS], digits(), held_out=held_out_digits(), **vars(told.plan), device=told.device,
        out=told.out, force=told.force, command=shlex.join(["scorescope", "demo", *argv]),
    )  # fmt: skip
    finish(run, told.json)
    return 0
