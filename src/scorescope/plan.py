"""What an examination measures, as one small frozen config: the same for Python and for the command line, which is made from it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from tyro.conf import arg

from scorescope.errors import InputError, unknown

RETURNS = ("search", "grid")
SOLVERS = ("dopri5", "euler", "heun", "ancestral")
LEAST = {"paths": 2, "times": 2, "origins": 1, "nulls": 1, "steps": 1, "seed": 0}


@dataclass(frozen=True)
class Plan:
    """Every setting that the numbers of an examination depend on, beside its models and its bank."""

    probes: Annotated[tuple[str, ...], arg(metavar="PROBE")] = ()
    """What to measure; everything unless given."""
    paths: int = 100
    """Training pairs, and sampling trajectories a model."""
    times: int = 50
    """Timesteps along each path, even, and 0.01, 0.02, 0.05, 0.1, 0.2."""
    origins: int = 50
    """Training rows to noise and denoise."""
    returns: str = "search"
    """search (bisection), or grid: the paper's 21 times."""
    nulls: int = 200
    """Real rows looked up among the others."""
    labels: Annotated[tuple[str, ...], arg(metavar="LABEL")] = ("auto",)
    """auto (the bank's classes), none, or class numbers."""
    tolerance: float = 1e-4
    """Largest relative error of an exact posterior mean."""
    solver: str = "dopri5"
    """dopri5, heun, euler or ancestral."""
    steps: int = 50
    """Steps of the solvers that have a fixed number."""
    shared_states: str | None = None
    """Ask all models about this model's trajectories."""
    seed: int = 0
    """Names every random stream."""

    @property
    def sizes(self) -> dict[str, int]:
        """How much to measure."""
        return {name: getattr(self, name) for name in ("paths", "times", "origins", "nulls")}

    def settings(self) -> dict[str, Any]:
        """What a continued run must share: every field, but for steps where the solver chooses them."""
        return asdict(self) | {"steps": None if self.solver == "dopri5" else self.steps}

    def validate(self) -> None:
        """Raise `InputError` for a value that nothing could be measured with."""
        for name, least in LEAST.items():
            value = getattr(self, name)
            if not isinstance(value, int) or not least <= value < 2**63:
                raise InputError(f"{name} must be at least {least}, got {value}", f"{name} {max(least, getattr(PRESETS['default'], name))}")
        if not (math.isfinite(self.tolerance) and 0 < self.tolerance < 1):
            raise InputError(f"tolerance {self.tolerance} must lie between 0 and 1", "1e-4")
        if self.solver not in SOLVERS:
            raise unknown("solver", self.solver, SOLVERS)
        if self.returns not in RETURNS:
            raise unknown("way to measure returns", self.returns, RETURNS)
        self.classes()

    def classes(self) -> list[int] | None:
        """The class numbers that are asked for; None for auto and none."""
        if len(self.labels) == 1 and self.labels[0] in ("auto", "none"):
            return None
        wrong = [label for label in self.labels if not (label.isascii() and label.isdigit())]
        if wrong or not self.labels:
            said = f"labels {wrong[0]!r} is neither auto, none nor class numbers" if wrong else "no label is named"
            raise InputError(said, "--labels auto, or --labels 0 3 7")
        return [int(label) for label in self.labels]


PRESETS = {
    "default": Plan(),
    "quick": Plan(paths=24, times=10, origins=6, nulls=100),
    "demo": Plan(paths=64, times=25, origins=24),
    "paper": Plan(paths=1000, times=100, origins=200, returns="grid", nulls=1000),  # C.3 to C.5
}


def preset(name: str) -> Plan:
    """The plan of that name.

    Raises:
        InputError: No such plan; the nearest name is suggested.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return PRESETS[name]
