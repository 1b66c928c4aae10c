"""What a training run is: one small frozen config."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Generic, TypeVar

from scorescope import nets
from scorescope.errors import InputError, unknown
from scorescope.rows import Bank
from scorescope.training import objectives
from scorescope.training.examples import unlabelled
from scorescope.training.interpolant import Interpolant
from scorescope.training.objectives.dsm import DSM

Net = TypeVar("Net")
Aim = TypeVar("Aim", bound=objectives.Objective)
PRECISIONS = ("float32", "bf16")
CONDITIONS = ("auto", "class", "none")
MOST = 10**8  # steps, examples a step, or parts of a step: names of checkpoints have eight digits


@dataclass(frozen=True)
class Recipe(Generic[Net, Aim]):
    """The paper's training (appendix C.1): linear path, v-prediction, AdamW without weight decay at a constant rate, EMA.

    Attributes:
        net: The network: the `SIZE` of a family in `scorescope.nets`.
        objective: What is minimized: one of `scorescope.training.objectives`.
        interpolant: Schedule and prediction.
        steps: Optimizer steps.
        batch: Training examples a step, over all ranks.
        accumulate: Parts of a rank's share of a step; changes memory only.
        rate: AdamW's learning rate, constant.
        clip: Largest norm of the gradient; 0 leaves it as it is.
        ema: Decay of the weights' moving average; (1 + n)/(10 + n) while that is smaller, so that short runs forget their start.
        condition: On classes: auto (if the bank has labels), class (it must) or none.
        class_dropout: Share of examples trained without their label.
        precision: float32, or bf16: autocast, with float32 weights.
        compile: Use torch.compile; sums are rounded otherwise.
        seed: Names every random stream of the run.
    """

    net: Net
    objective: Aim = field(default_factory=DSM)  # type: ignore[assignment]
    interpolant: Interpolant = field(default_factory=Interpolant)
    steps: int = 400_000
    batch: int = 256
    accumulate: int = 1
    rate: float = 1e-4
    clip: float = 0.0
    ema: float = 0.9999
    condition: str = "auto"
    class_dropout: float = 0.1
    precision: str = "float32"
    compile: bool = False
    seed: int = 0

    @property
    def family(self) -> str:
        """The network's family."""
        return nets.family_of(self.net)

    def record(self) -> dict[str, Any]:
        """As plain values: those of the network, the objective and the interpolant beside the recipe's own; `compile` where it is true."""
        parts = {"family": self.family, "objective": objectives.name_of(self.objective)}
        apart = ("net", "objective", "interpolant", *(() if self.compile else ("compile",)))  # without it a record is as it always was
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in apart}
        return parts | plain(self.net) | plain(self.objective) | plain(self.interpolant) | own

    def shown(self, bank: Bank) -> Bank:
        """The bank as the network sees it: without its labels where `condition` is none.

        Raises:
            InputError: `condition` is class, and the bank has no labels.
        """
        if self.condition == "class" and bank.labels is None:
            raise InputError(f"bank {bank.name} has no labels to condition on", "a bank built from class subfolders, or --condition none")
        return unlabelled(bank) if self.condition == "none" and bank.labels is not None else bank

    def learned(self, bank: Bank) -> Bank:
        """The rows whose empirical score the network is to learn: D_score of a region-controlled recipe, else the bank's."""
        return self.objective.learned(self.shown(bank), self.seed)

    def validate(self) -> None:
        """Raise `InputError` for a value that no run could be made with."""
        for name in ("steps", "batch", "accumulate"):
            if not 1 <= getattr(self, name) < MOST:
                what = "too large" if getattr(self, name) >= MOST else "not a positive number"
                raise InputError(f"--{name} {getattr(self, name)} is {what}", f"--{name} 1 or more, below {MOST:,}")
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise InputError(f"--rate {self.rate:g} is not a learning rate", "a positive number, e.g. --rate 1e-4")
        if not (math.isfinite(self.clip) and self.clip >= 0):
            raise InputError(f"--clip {self.clip:g} is not a norm", "a positive number, e.g. --clip 1, or 0 for none")
        if not 0 <= self.ema < 1:
            raise InputError(f"--ema {self.ema:g} is no decay", "a number from 0 up to but not 1, e.g. --ema 0.9999")
        if not 0 <= self.class_dropout <= 1:
            raise InputError(f"--class-dropout {self.class_dropout:g} is not a share", "a number from 0 to 1, e.g. --class-dropout 0.1")
        for kind, value, known in (("precision", self.precision, PRECISIONS), ("condition", self.condition, CONDITIONS)):
            if value not in known:
                raise unknown(kind, value, known)
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed {self.seed} is not a seed", "a whole number from 0")
        self.interpolant.validate()
        self.objective.validate()


def plain(value: Any) -> dict[str, Any]:
    """A dataclass as plain values that JSON gives back unchanged."""
    return {key: list(item) if isinstance(item, tuple) else item for key, item in asdict(value).items()}
