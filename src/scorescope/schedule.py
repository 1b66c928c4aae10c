"""Noise schedules: z_t = α_t x + σ_t ε with t from 0 (data) to 1 (noise).

A schedule returns everything that a formula needs, in float64 whatever the type of `t`, because 1 − t rounded to float32
can move a posterior mean visibly. `v_weights` are the (a, b) of the v that networks predict, v = a x + b ε: dz/dt on the linear path
(flow matching), α ε − σ x on variance-preserving ones (Salimans & Ho 2022).

Every schedule is the linear one seen through other coordinates: with u = α/σ the state z/(α + σ) at linear time 1/(1 + u)
has the same posterior mean. `linear_range` says which part of that common axis a schedule covers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scorescope.errors import InputError

Time = float | Tensor


class Scales(NamedTuple):
    """α, σ and their derivatives in t, float64, shaped like t."""

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor


def as_time(t: Time) -> Tensor:
    """`t` in float64.

    Raises:
        InputError: A time outside [0, 1], or not finite.
    """
    try:
        value = torch.as_tensor(t, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as problem:
        raise InputError(f"t must be a number in [0, 1], or a tensor of them ({problem})", "0.5") from problem
    if not bool(((value >= 0) & (value <= 1)).all()):
        raise InputError(f"t must lie in [0, 1] (0 is data, 1 is noise), got {value[~((value >= 0) & (value <= 1))].flatten()[0].item()}")
    return value


class Schedule(ABC):
    """α(t) and σ(t). Subclasses give the scales and the inverse of α/σ."""

    @abstractmethod
    def __call__(self, t: Time) -> Scales:
        """Scales at `t` in [0, 1]."""

    @abstractmethod
    def time(self, alpha_over_sigma: Time) -> Tensor:
        """The t at which α/σ has the given value (0 and inf allowed), float64; clamped to [0, 1]."""

    def v_weights(self, t: Time) -> tuple[Tensor, Tensor]:
        """(a, b) of the predicted v = a x + b ε: here (−σ, α), the variance-preserving convention."""
        scales = self(t)
        return -scales.sigma, scales.alpha

    @property
    def linear_range(self) -> tuple[float, float]:
        """The linear times σ/(α + σ) at t = 0 and t = 1."""
        first, last = self(0.0), self(1.0)
        return float(first.sigma / (first.alpha + first.sigma)), float(last.sigma / (last.alpha + last.sigma))


@dataclass(frozen=True)
class LinearSchedule(Schedule):
    """The paper's: α = 1 − t, σ = t (appendix C.1)."""

    def __call__(self, t: Time) -> Scales:
        t = as_time(t)
        return Scales(1 - t, t, -torch.ones_like(t), torch.ones_like(t))

    def time(self, alpha_over_sigma: Time) -> Tensor:
        return 1 / (1 + torch.as_tensor(alpha_over_sigma, dtype=torch.float64))

    def v_weights(self, t: Time) -> tuple[Tensor, Tensor]:
        """dz/dt = ε − x."""
        t = as_time(t)
        return -torch.ones_like(t), torch.ones_like(t)


@dataclass(frozen=True)
class VPSchedule(Schedule):
    """Variance preserving with linear β (Song et al. 2020): log α = −t²(β₁ − β₀)/4 − tβ₀/2, σ² = 1 − α²."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __call__(self, t: Time) -> Scales:
        log_alpha, rate = _log_alpha(t, self.beta_min, self.beta_max)
        alpha, sigma = log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt()
        return Scales(alpha, sigma, rate * alpha, -rate * alpha**2 / sigma)

    def time(self, alpha_over_sigma: Time) -> Tensor:
        u = torch.as_tensor(alpha_over_sigma, dtype=torch.float64)
        return _time_of(-0.5 * torch.log1p(u**-2), self.beta_min, self.beta_max)


@dataclass(frozen=True)
class SubVPSchedule(Schedule):
    """Less variance than is preserved (the sub-VP SDE of Song et al. 2020): α as in `VPSchedule`, σ = 1 − α²."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __call__(self, t: Time) -> Scales:
        log_alpha, rate = _log_alpha(t, self.beta_min, self.beta_max)
        alpha = log_alpha.exp()
        return Scales(alpha, -torch.expm1(2 * log_alpha), rate * alpha, -2 * rate * alpha**2)

    def time(self, alpha_over_sigma: Time) -> Tensor:
        u = torch.as_tensor(alpha_over_sigma, dtype=torch.float64)
        # The root of u α² + α − u = 0 is α = √(1 + w²) − w with w = 1/(2u): log α = −asinh w.
        return _time_of(-torch.asinh(0.5 / u), self.beta_min, self.beta_max)


def _log_alpha(t: Time, beta_min: float, beta_max: float) -> tuple[Tensor, Tensor]:
    """Log α of linear β, and its derivative in t."""
    t = as_time(t)
    slope = beta_max - beta_min
    return -0.25 * t**2 * slope - 0.5 * t * beta_min, -0.5 * t * slope - 0.5 * beta_min


def _time_of(log_alpha: Tensor, beta_min: float, beta_max: float) -> Tensor:
    """The t of a log α: the root of slope/4 t² + beta_min/2 t + log α = 0, in the form without cancellation near t = 0."""
    root = (0.25 * beta_min**2 - (beta_max - beta_min) * log_alpha).sqrt()
    return torch.nan_to_num(-2 * log_alpha / (0.5 * beta_min + root), nan=1.0, posinf=1.0).clamp(0, 1)


@dataclass(frozen=True)
class CosineSchedule(Schedule):
    """Variance preserving, α = cos φ / cos φ₀ with φ = (t + s)/(1 + s)·π/2 and φ₀ its value at t = 0 (Nichol & Dhariwal 2021)."""

    offset: float = 0.008

    def __call__(self, t: Time) -> Scales:
        t = as_time(t)
        rate = math.pi / 2 / (1 + self.offset)
        start = rate * self.offset
        angle = start + rate * t
        alpha = (angle.cos() / math.cos(start)).clamp(min=0)
        # 1 − α² = sin(φ + φ₀) sin(φ − φ₀) / cos² φ₀, exact where α is close to 1.
        sigma = ((angle + start).sin() * (rate * t).sin()).clamp(min=0).sqrt() / math.cos(start)
        d_alpha = -rate * angle.sin() / math.cos(start)
        return Scales(alpha, sigma, d_alpha, -alpha * d_alpha / sigma)

    def time(self, alpha_over_sigma: Time) -> Tensor:
        u = torch.as_tensor(alpha_over_sigma, dtype=torch.float64)
        alpha = 1 / torch.sqrt(1 + u**-2)
        rate = math.pi / 2 / (1 + self.offset)
        start = rate * self.offset
        return ((torch.acos((alpha * math.cos(start)).clamp(0, 1)) - start) / rate).clamp(0, 1)


@dataclass(frozen=True)
class DiscreteSchedule(Schedule):
    """Variance preserving, given as the ᾱ of n steps (what DDPM checkpoints carry); α = √ᾱ.

    Step k (0-based) sits at t = (k + 1)/n, and t = 0 is data. In between, the angle atan2(σ, α) is linear in t, which is exact at the
    steps and reaches ᾱ = 0 without a singularity.
    """

    alpha_bar: Sequence[float]

    def __post_init__(self) -> None:
        values = np.asarray(self.alpha_bar, dtype=np.float64)
        if values.ndim != 1 or len(values) == 0 or not (np.diff(values, prepend=1.0) < 0).all() or values[-1] < 0:
            raise InputError("alpha_bar must fall strictly from below 1 to at least 0", "the cumulative product of 1 − β, one value a step")
        object.__setattr__(self, "alpha_bar", tuple(float(v) for v in values))

    @property
    def steps(self) -> int:
        """Number of discrete steps."""
        return len(self.alpha_bar)

    def _angles(self) -> np.ndarray:
        bar = np.array([1.0, *self.alpha_bar])
        return np.arctan2(np.sqrt(1 - bar), np.sqrt(bar))

    def __call__(self, t: Time) -> Scales:
        t = as_time(t)
        angles = torch.from_numpy(self._angles()).to(t.device)
        left = (t * self.steps).floor().long().clamp(0, self.steps - 1)
        rate = (angles[left + 1] - angles[left]) * self.steps
        angle = angles[left] + rate * (t - left.double() / self.steps)
        alpha, sigma = angle.cos().clamp(min=0), angle.sin()
        return Scales(alpha, sigma, -rate * sigma, rate * alpha)

    def time(self, alpha_over_sigma: Time) -> Tensor:
        u = torch.as_tensor(alpha_over_sigma, dtype=torch.float64)
        angle = torch.atan2(torch.ones_like(u), u)
        found = np.interp(angle.cpu().numpy(), self._angles(), np.arange(self.steps + 1) / self.steps)
        return torch.as_tensor(found, dtype=torch.float64, device=u.device)


@dataclass(frozen=True)
class VESchedule(Schedule):
    """Variance exploding: α = 1, σ = σ_min (σ_max/σ_min)^t."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise InputError(f"sigma_min {self.sigma_min} and sigma_max {self.sigma_max} must be positive, finite and in this order")

    def __call__(self, t: Time) -> Scales:
        t = as_time(t)
        growth = math.log(self.sigma_max / self.sigma_min)
        sigma = self.sigma_min * torch.exp(t * growth)
        return Scales(torch.ones_like(t), sigma, torch.zeros_like(t), sigma * growth)

    def time(self, alpha_over_sigma: Time) -> Tensor:
        u = torch.as_tensor(alpha_over_sigma, dtype=torch.float64)
        return (-(u * self.sigma_min).log() / math.log(self.sigma_max / self.sigma_min)).clamp(0, 1)

    def v_weights(self, t: Time) -> tuple[Tensor, Tensor]:
        """dz/dσ = ε."""
        t = as_time(t)
        return torch.zeros_like(t), torch.ones_like(t)


def as_schedule(schedule: Schedule | None) -> Schedule:
    """`schedule` itself, the linear one for None.

    Raises:
        InputError: It is something else: a name, or a class instead of an object.
    """
    if schedule is not None and not isinstance(schedule, Schedule):
        raise InputError(f"schedule {schedule!r} is not a Schedule", "ss.LinearSchedule(), ss.VPSchedule(), or another of ss's schedules")
    return schedule or LinearSchedule()


SCHEDULES: dict[str, Callable[[], Schedule]] = {"linear": LinearSchedule, "vp": VPSchedule, "cosine": CosineSchedule}  # by name, in files
