"""Posterior mean ↔ noise ↔ v ↔ score ↔ velocity at a state z_t = α x + σ ε: pure functions, and the one place where t is broadcast.

Everything is linear in the posterior mean x̂ = E[x | z_t] (appendix C.1):

    noise     ε̂ = (z − α x̂) / σ
    score     s = (α x̂ − z) / σ²                              (Eq. 2)
    velocity  dz/dt = α' x̂ + σ' ε̂ along the probability-flow ODE
    v         a x̂ + b ε̂, with the schedule's `v_weights`: what networks predict

Coefficients are float64; results have the dtype of z. Where a formula would divide by α = 0 or σ = 0 the value does not exist, and
`InputError` says so.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from scorescope.errors import InputError, unknown
from scorescope.schedule import Schedule, Time, as_time


def as_states(z: Tensor, what: str = "the states") -> Tensor:
    """`z` itself.

    Raises:
        InputError: It is not a tensor of real numbers (B, *shape).
    """
    if not isinstance(z, Tensor):
        raise InputError(f"{what} are a {type(z).__name__}, not a tensor", "torch.as_tensor(states)")
    if not z.is_floating_point() or z.ndim == 0:
        raise InputError(f"{what} have type {z.dtype} and shape {tuple(z.shape)}", "floating-point numbers (B, *shape)")
    return z


def broadcast(t: Time, z: Tensor) -> Tensor:
    """`t` (a number, or (B,)) as a float64 tensor (B, 1, …) that multiplies `z` (B, *)."""
    value = as_time(t).to(as_states(z).device)
    if value.ndim == 0:
        value = value.expand(len(z))
    if value.shape != (len(z),):
        raise InputError(f"t of shape {tuple(value.shape)} does not match {len(z)} states", "one number, or one for each state")
    return value.reshape(-1, *[1] * (z.ndim - 1))


def _nonzero(value: Tensor, what: str) -> Tensor:
    if bool((value == 0).any()):
        raise InputError(what)
    return value


def add_noise(x: Tensor, eps: Tensor, t: Time, schedule: Schedule) -> Tensor:
    """z_t = α x + σ ε."""
    scales = schedule(broadcast(t, x))
    return (scales.alpha * x + scales.sigma * eps).to(x.dtype)


def noise(z: Tensor, x: Tensor, t: Time, schedule: Schedule) -> Tensor:
    """ε̂ = (z − α x̂)/σ."""
    scales = schedule(broadcast(t, z))
    return ((z - scales.alpha * x) / _nonzero(scales.sigma, "the noise of a state has no value where σ = 0 (t = 0)")).to(z.dtype)


def score(z: Tensor, x: Tensor, t: Time, schedule: Schedule) -> Tensor:
    """S = (α x̂ − z)/σ², Eq. 2."""
    scales = schedule(broadcast(t, z))
    return ((scales.alpha * x - z) / _nonzero(scales.sigma, "the score has no value where σ = 0 (t = 0)") ** 2).to(z.dtype)


def velocity(z: Tensor, x: Tensor, t: Time, schedule: Schedule) -> Tensor:
    """dz/dt = α' x̂ + σ' (z − α x̂)/σ; (z − x̂)/t on the linear path."""
    scales = schedule(broadcast(t, z))
    eps = (z - scales.alpha * x) / _nonzero(scales.sigma, "the velocity has no value where σ = 0 (t = 0)")
    return (scales.d_alpha * x + scales.d_sigma * eps).to(z.dtype)


def v(z: Tensor, x: Tensor, t: Time, schedule: Schedule) -> Tensor:
    """A x̂ + b (z − α x̂)/σ."""
    at = broadcast(t, z)
    scales, (a, b) = schedule(at), schedule.v_weights(at)
    return (a * x + b * (z - scales.alpha * x) / _nonzero(scales.sigma, "v has no value where σ = 0 (t = 0)")).to(z.dtype)


def mean_from_mean(z: Tensor, x: Tensor, t: Time, schedule: Schedule) -> Tensor:
    """x̂ itself."""
    return x


def mean_from_noise(z: Tensor, eps: Tensor, t: Time, schedule: Schedule) -> Tensor:
    """x̂ = (z − σ ε̂)/α."""
    scales = schedule(broadcast(t, z))
    alpha = _nonzero(scales.alpha, "a noise prediction says nothing about the data where α = 0 (t = 1)")
    return ((z - scales.sigma * eps) / alpha).to(z.dtype)


def mean_from_score(z: Tensor, s: Tensor, t: Time, schedule: Schedule) -> Tensor:
    """x̂ = (z + σ² s)/α (Tweedie)."""
    scales = schedule(broadcast(t, z))
    alpha = _nonzero(scales.alpha, "a score says nothing about the data where α = 0 (t = 1)")
    return ((z + scales.sigma**2 * s) / alpha).to(z.dtype)


def mean_from_v(z: Tensor, v: Tensor, t: Time, schedule: Schedule) -> Tensor:
    """x̂ = (b z − σ v)/(α b − σ a); z − t v on the linear path, α z − σ v on variance-preserving ones."""
    at = broadcast(t, z)
    scales, (a, b) = schedule(at), schedule.v_weights(at)
    return ((b * z - scales.sigma * v) / (scales.alpha * b - scales.sigma * a)).to(z.dtype)


def mean_from_velocity(z: Tensor, velocity: Tensor, t: Time, schedule: Schedule) -> Tensor:
    """x̂ = (σ' z − σ dz/dt)/(α σ' − σ α')."""
    scales = schedule(broadcast(t, z))
    return ((scales.d_sigma * z - scales.sigma * velocity) / (scales.alpha * scales.d_sigma - scales.sigma * scales.d_alpha)).to(z.dtype)


PREDICTIONS = ("v", "x", "eps")  # what a network is trained to say


def mean_from(prediction: str) -> Callable[[Tensor, Tensor, Time, Schedule], Tensor]:
    """The conversion to the posterior mean for a network's prediction: "x", "eps", "v" or "score"."""
    table: dict[str, Callable[[Tensor, Tensor, Time, Schedule], Tensor]] = {
        "x": mean_from_mean,
        "eps": mean_from_noise,
        "v": mean_from_v,
        "score": mean_from_score,
    }
    if prediction not in table:
        raise unknown("prediction", prediction, table)
    return table[prediction]


def to_linear(z: Tensor, t: Time, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """The same state on the paper's axis: z/(α + σ), and linear time σ/(α + σ), float64 (B,)."""
    scales = schedule(broadcast(t, z))
    total = scales.alpha + scales.sigma
    return (z / total).to(z.dtype), (scales.sigma / total).flatten()


def from_linear(z: Tensor, t: Time, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """The state z of the linear schedule at linear time t, in the coordinates of `schedule`: (state, its time (B,))."""
    at = broadcast(t, z)
    own = schedule.time((1 - at) / at)
    scales = schedule(own)
    return (z * (scales.alpha + scales.sigma)).to(z.dtype), own.flatten()
