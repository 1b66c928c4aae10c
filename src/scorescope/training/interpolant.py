"""What a network is shown and what it is asked for: z = α x + σ ε on a schedule, and x, ε or v as its target."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from scorescope import convert
from scorescope.convert import PREDICTIONS
from scorescope.errors import InputError, unknown
from scorescope.schedule import SCHEDULES, Schedule


@dataclass(frozen=True)
class Interpolant:
    """A schedule and a prediction.

    Attributes:
        schedule: "linear" (the paper's), "vp" or "cosine".
        prediction: "v" (a x + b ε with the schedule's `v_weights`; ε − x on the linear path), "x" or "eps".
    """

    schedule: str = "linear"
    prediction: str = "v"

    def validate(self) -> None:
        """Raise `InputError` for a name that is not known."""
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", self.schedule, SCHEDULES)
        if self.prediction not in PREDICTIONS:
            raise unknown("prediction", self.prediction, PREDICTIONS)

    @property
    def path(self) -> Schedule:
        """α and σ."""
        return SCHEDULES[self.schedule]()

    def state(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """z_t = α x + σ ε, (B, *shape)."""
        return convert.add_noise(x, eps, t, self.path)

    def target(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What the network should say of z_t = α x + σ ε: x, ε, or a x + b ε; (B, *shape)."""
        if self.prediction == "x":
            return x
        if self.prediction == "eps":
            return eps
        a, b = self.path.v_weights(convert.broadcast(t, x))
        return (a * x + b * eps).to(x.dtype)

    def target_from(self, z: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """The target where a state's clean point is y, whatever made the state: as `target` with ε = (z − α y)/σ; (B, *shape).

        Raises:
            InputError: σ = 0, where v and ε have no value.
        """
        return y if self.prediction == "x" else self.target(y, convert.noise(z, y, t, self.path), t)

    def ask(self, net: nn.Module, z: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        """The network's prediction for states z (B, *shape) at times t (B,) float64, in float32."""
        prediction: Tensor = net(z, t.to(z.dtype), label)
        if prediction.shape != z.shape:
            raise InputError(f"the network answers states of shape {tuple(z.shape[1:])} with shape {tuple(prediction.shape[1:])}")
        return prediction.float()
