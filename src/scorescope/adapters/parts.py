"""What families are built of: schedules from buffers, networks with another time, layers of the shape of their weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scorescope.errors import InputError
from scorescope.schedule import DiscreteSchedule, LinearSchedule, Schedule


def trained_schedule(weights: Mapping[str, Tensor]) -> DiscreteSchedule:
    """The schedule that a diffusion's own buffers hold.

    `sqrt_recipm1_alphas_cumprod` is σ/α, and to seven digits at both ends of t, where float32 leaves little of 1 − ᾱ or of ᾱ:
    ᾱ = 1/(1 + (σ/α)²). Without it ᾱ is the product of 1 − β.
    """
    if "sqrt_recipm1_alphas_cumprod" in weights:
        return DiscreteSchedule((1 / (1 + weights["sqrt_recipm1_alphas_cumprod"].double() ** 2)).tolist())
    return DiscreteSchedule(torch.cumprod(1 - weights["betas"].double(), 0).tolist())


class Velocity(nn.Module):
    """A network that answers with dz/dt, made one that answers with the schedule's v.

    On the linear path these are one. On a variance-preserving one z = cos φ x + sin φ ε, so that dz/dt = φ' v with φ' = −α'/σ.
    Where time runs from noise to data in the network (`backwards`), it is asked at 1 − t, and its answer is −dz/dt.
    """

    def __init__(self, net: nn.Module, schedule: Schedule, backwards: bool = False) -> None:
        super().__init__()
        self.net, self.schedule, self.backwards = net, schedule, backwards

    def forward(self, z: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The schedule's v (B, *shape) at time t (B,)."""
        velocity = -self.net(z, torch.ones_like(t) - t, label) if self.backwards else self.net(z, t, label)
        if isinstance(self.schedule, LinearSchedule):
            return velocity
        scales = self.schedule(t.double().clamp(min=1e-9))  # σ/α' has a limit at t = 0, but no value
        return velocity * (-scales.sigma / scales.d_alpha).to(z.dtype).reshape(-1, *[1] * (z.ndim - 1))


class Backwards(nn.Module):
    """A network whose time runs from noise to data; what it predicts has no direction in time."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, z: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The network's answer at 1 − t."""
        answer: Tensor = self.net(z, torch.ones_like(t) - t, label)
        return answer


def sinusoids(t: Tensor, width: int, *, last: int = 0) -> Tensor:
    """sin(t ω_i), then cos(t ω_i), with ω_i = 10⁻⁴ⁱ/⁽ʰ⁻ˡᵃˢᵗ⁾ for i < h = width/2; (B,) → (B, width)."""
    half = width // 2
    omega = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / max(half - last, 1))
    angle = t.float()[:, None] * omega
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def linear(weights: Mapping[str, Tensor], name: str) -> nn.Linear:
    """The linear layer of that name."""
    out, into = weights[f"{name}.weight"].shape
    return nn.Linear(into, out)


def conv(weights: Mapping[str, Tensor], name: str, **kwargs: Any) -> nn.Conv2d:
    """The convolution of that name; without other words it keeps the side of its input."""
    out, into, side, _ = weights[f"{name}.weight"].shape
    return nn.Conv2d(into, out, side, **({"padding": side // 2} | kwargs))


def count(weights: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered parts follow a prefix: one more than the largest number."""
    return 1 + max((int(name[len(prefix) :].split(".")[0]) for name in weights if name.startswith(prefix)), default=-1)


def tried(net: nn.Module, channels: int, side: int, label: Tensor | None = None) -> None:
    """Run a network that was made of the shapes of its weights once: layers that do not fit each other raise here, not at first use.

    Raises:
        InputError: It can't be run, or answers with another shape.
    """
    z = torch.zeros(1, channels, side, side)
    try:
        with torch.no_grad():
            answer = net(z, torch.ones(1)) if label is None else net(z, torch.ones(1), label)
    except RuntimeError as problem:
        raise InputError(f"its layers do not fit each other ({str(problem).splitlines()[0]})", "an undamaged copy") from problem
    if answer.shape != z.shape:
        raise InputError(f"its network answers shape {tuple(z.shape[1:])} with {tuple(answer.shape[1:])}", "an undamaged copy")
