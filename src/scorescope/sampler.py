"""Sampling trajectories on the paper's axis, keeping the states at asked times.

Any model is integrated as the linear-schedule model that it is equivalent to: dz/dt = (z − x̂)/t from noise (t = 1, or as far as the
model's schedule reaches) down to `END`, and from there in one step to the posterior mean, which is where the ODE ends.

`dopri5` is the paper's solver (atol 1e-6, rtol 1e-3; Dormand & Prince 1980), with a step size for each path: packages that control the
error over the whole batch give a path an answer that depends on its neighbours. `euler` and `heun` take `steps` even steps;
`ancestral` draws from the reverse transition q(z_s | z_t, x̂), with noise that belongs to the path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import RK45
from torch import Tensor

from scorescope import seeds
from scorescope.denoiser import Denoiser, Label, as_label, on_linear_axis
from scorescope.errors import InputError, unknown

PURE = 0.9  # the least t from which noise alone is sampled: α/σ is 0.11 there; Stable Diffusion's own sampler starts at 0.94
END = 1e-3  # the smallest time at which a model is asked while sampling
# Steps that dopri5 tries on a path. Smooth fields take tens: networks 12, exact scores with pairs of near-duplicates 30, an untrained
# network read as x 42. A model that has tried `TRIED` and would need `FAR` more at its present step stalls; so does one at `MOST_STEPS`.
TRIED, FAR, MOST_STEPS = 100, 5000, 1000
METHODS = ("dopri5", "euler", "heun", "ancestral")
ROWS = 8  # a model is asked about a multiple of this many states: products of few rows are rounded in another way than those of many


@dataclass(frozen=True)
class Solver:
    """How paths are integrated.

    Attributes:
        method: "dopri5", "euler", "heun" or "ancestral".
        steps: Steps from noise to data for the methods with fixed steps.
        atol, rtol: Tolerances of dopri5 on each element.
        batch: Paths that are integrated together; changes nothing but memory and speed.
    """

    method: str = "dopri5"
    steps: int = 50
    atol: float = 1e-6
    rtol: float = 1e-3
    batch: int = 256


def start_time(model: Denoiser) -> float:
    """The linear time at which sampling starts: 1, or the last one that the model's schedule reaches."""
    return on_linear_axis(model).linear_range[1]


def from_noise(model: Denoiser) -> float:
    """`start_time`, where samples can be drawn from noise alone.

    Raises:
        InputError: The model's noise ends so early that its states still show the data there.
    """
    start = start_time(model)
    if start < PURE:
        raise InputError(
            f"the noise of {model.name} ends at t = {start:.2f}, where its states still show the data: it can't sample from noise alone",
            "scorescope examine, which starts from noised training rows, or a schedule that ends later",
        )
    return start


def end_time(model: Denoiser) -> float:
    """The linear time at which the model is asked last."""
    return max(END, on_linear_axis(model).linear_range[0])


def trajectory(
    model: Denoiser,
    z: Tensor,
    times: Sequence[float] | Tensor,
    label: Label = None,
    *,
    start: float | None = None,
    solver: Solver = Solver(),
    seed: int = 0,
    items: Sequence[int] | None = None,
) -> Tensor:
    """The states of P sampling trajectories at asked times.

    Args:
        model: What to sample from.
        z: (P, *shape) states at linear time `start`, in the linear schedule's coordinates; noise scaled by `start` to begin from noise.
        times: (T,) ascending linear times in [0, start]; at 0 the state is the finished sample.
        label: A class, (P,) classes, or None.
        start: Linear time of `z`; where the model's schedule begins unless given.
        solver: How.
        seed, items: Name the noise of "ancestral"; `items` are 0 … P − 1 unless given.

    Returns:
        (P, T, *shape) in the dtype of `z`.

    Raises:
        InputError: Unknown method, times out of order or range, a model that returns NaN or Inf (with t and the path).
    """
    if solver.method not in METHODS:
        raise unknown("solver", solver.method, METHODS)
    begin = start_time(model) if start is None else float(start)
    asked = torch.as_tensor(times, dtype=torch.float64).cpu()
    if len(asked) == 0 or bool((asked.diff() <= 0).any()) or asked[0] < 0 or asked[-1] > begin + 1e-12:
        raise InputError(f"times must ascend within [0, {begin:g}]")
    linear, owners = on_linear_axis(model), np.arange(len(z)) if items is None else np.asarray(items)
    tags, out = as_label(label, len(z), z.device), []
    with torch.no_grad():
        for part in torch.arange(len(z)).split(solver.batch):
            field = _Field(linear, None if tags is None else tags[part.to(tags.device)], owners[part.numpy()])
            x = z[part.to(z.device)]
            if solver.method == "dopri5":
                out.append(_dopri5(field, x, begin, asked, solver, end_time(model)))
            else:
                out.append(_fixed(field, x, begin, asked, solver, seed, end_time(model)))
    return torch.cat(out) if out else z.new_zeros(0, len(asked), *z.shape[1:])


def ends(model: Denoiser, z: Tensor, start: Tensor, label: Label = None, *, steps: int = 16, batch: int = 256) -> Tensor:
    """The finished samples of paths that begin each at its own time: Heun's method, steps in proportion to the way to go.

    Path i takes n = max(2, round(steps · t_i)) steps, at t_k = (√t_i + (√END − √t_i) k/n)²: short ones near the data, where a network's
    velocity bends most. With 16 steps 17 evaluations from t = 0.5 end as near to an exact solution as 31 even steps do.

    Args:
        model: What to sample from.
        z: (P, *shape) states at their times, in the linear schedule's coordinates.
        start: (P,) linear times, as far as the model's schedule reaches; a state at the end of the way stays as it is.
        label: A class, (P,) classes, or None.
        steps: What a path from t = 1 takes.
        batch: Paths that are integrated together.

    Returns:
        (P, *shape) in the dtype of `z`.

    Raises:
        InputError: A time outside the model's range, a model that returns NaN or Inf.
    """
    begin, last, end = start.to(z.device, torch.float64), start_time(model), end_time(model)
    if begin.shape != (len(z),) or bool(((begin < 0) | (begin > last + 1e-12)).any()):
        raise InputError(f"start must be one time in [0, {last:g}] for each of {len(z)} states")
    linear, tags, out = on_linear_axis(model), as_label(label, len(z), z.device), z.clone()
    with torch.no_grad():
        moving = (begin > end).nonzero().flatten()
        for part in moving.split(batch) if len(moving) else ():
            field = _Field(linear, None if tags is None else tags[part], part.cpu().numpy())
            out[part] = _heun_ends(field, z[part], begin[part], (steps * begin[part]).round().clamp(min=2), end)
    return out


def _heun_ends(field: _Field, z: Tensor, begin: Tensor, count: Tensor, end: float) -> Tensor:
    """Each path by its own `count` (P,) of steps; those that have arrived wait for the others."""
    z, which = z.clone(), torch.arange(len(z), device=z.device)
    for k in range(int(count.max())):
        which = which[count[which] > k]
        now, then = ((begin[which].sqrt() + (end**0.5 - begin[which].sqrt()) * (k + j) / count[which]).square() for j in (0, 1))
        state, step = z[which], _like(then - now, z)
        slope = field.velocity(state, now, which)
        z[which] = state + 0.5 * step * (slope + field.velocity(state + step * slope, then, which))
    every = torch.arange(len(z), device=z.device)
    return field.mean(z, torch.full_like(begin, end), every)


def sample(
    model: Denoiser,
    n: int,
    label: Label = None,
    *,
    seed: int = 0,
    shape: tuple[int, ...] | None = None,
    device: str = "cpu",
    solver: Solver = Solver(),
) -> Tensor:
    """`n` finished samples (n, *shape); sample k depends on (seed, k) alone."""
    form = shape or model.shape
    if form is None:
        raise InputError(f"{model.name} does not say which shape it takes", "shape=(channels, height, width)")
    noise = from_noise(model) * seeds.normal(seed, "path", range(n), form).to(device)
    return trajectory(model, noise, [0.0], label, solver=solver, seed=seed)[:, 0]


class _Field:
    """The velocity field of some paths, refusing values that are not finite."""

    def __init__(self, model: Denoiser, label: Tensor | None, owners: np.ndarray) -> None:
        self.model, self.label, self.owners = model, label, owners

    def mean(self, z: Tensor, t: Tensor, which: Tensor) -> Tensor:
        """Posterior means of paths `which` at their times (B,)."""
        rows = torch.arange(len(z) + -len(z) % ROWS, device=z.device).clamp(max=len(z) - 1)  # the last one stands in for those that lack
        x = self.model(z[rows], t[rows], None if self.label is None else self.label[which[rows]])[: len(z)]
        bad = (~x.isfinite().flatten(1).all(1)).nonzero().flatten()
        if len(bad):
            path, time = int(self.owners[int(which[bad[0]])]), float(t[bad[0]])
            finite = "finite" if bool(z[bad[0]].isfinite().all()) else "itself not finite"
            raise InputError(
                f"{self.model.name} returned NaN or Inf at t = {time:.4f} for path {path} (the state is {finite})",
                "a smaller guidance, or a sound checkpoint",
            )
        return x

    def velocity(self, z: Tensor, t: Tensor, which: Tensor) -> Tensor:
        """dz/dt = (z − x̂)/t, (B, *shape)."""
        return (z - self.mean(z, t, which)) / _like(t, z)


def _like(t: Tensor, z: Tensor) -> Tensor:
    return t.to(z.device, z.dtype).reshape(-1, *[1] * (z.ndim - 1))


A, B, C, E, P = (torch.from_numpy(np.array(getattr(RK45, name))) for name in ("A", "B", "C", "E", "P"))


def _combine(weights: Tensor, stages: Sequence[Tensor]) -> Tensor:
    """Σ_k w_k K_k for weights (k,) or (B, k) and k stages (B, *); term by term, so that a path's sum does not depend on its batch."""
    shared = weights.to(stages[0])
    terms = [shared[k] * stage if shared.ndim == 1 else _like(shared[:, k], stage) * stage for k, stage in enumerate(stages)]
    return sum(terms[1:], terms[0])


def _rms(value: Tensor) -> Tensor:
    return value.double().flatten(1).square().mean(1).sqrt()


def _dopri5(field: _Field, z: Tensor, begin: float, asked: Tensor, solver: Solver, end: float) -> Tensor:
    """Each path with its own steps; states between steps from the fourth-order interpolant."""
    out = torch.full((len(z), len(asked), *z.shape[1:]), torch.nan, dtype=z.dtype, device=z.device)
    for k in (asked >= begin).nonzero().flatten().tolist():
        out[:, k] = z
    which = torch.arange(len(z), device=z.device)
    t = torch.full((len(z),), begin, dtype=torch.float64, device=z.device)
    slope = field.velocity(z, t, which) if begin > end else torch.zeros_like(z)
    step = _first_step(field, z, t, slope, which, solver).clamp(max=max(begin - end, 1e-12)) if begin > end else t
    final = torch.empty_like(z)
    inner = asked.to(z.device)
    tried = 0
    while len(which):
        running = t > end
        if not bool(running.all()):
            done = ~running
            final[which[done]] = z[done]
            which, t, z, slope, step = which[running], t[running], z[running], slope[running], step[running]
            continue
        tried += 1
        if tried > MOST_STEPS or (tried > TRIED and bool(((t - end) / step > FAR).any())):
            raise _stalled(field, which, t, step, tried)
        step = torch.minimum(step, t - end)
        h = _like(step, z)
        stages = [slope]
        for k in range(1, 6):
            inside = z - h * _combine(A[k, :k], stages)
            stages.append(field.velocity(inside, t - C[k].item() * step, which))
        after = z - h * _combine(B, stages)
        later = torch.where(step >= t - end, end, t - step)
        last = field.velocity(after, later, which)
        all_stages = [*stages, last]
        error = h * _combine(E, all_stages)
        ratio = _rms(error / (solver.atol + solver.rtol * torch.maximum(z.abs(), after.abs())))
        taken = ratio <= 1
        for k in range(len(asked)):
            inside_step = taken & (inner[k] < t) & (inner[k] >= later)
            if bool(inside_step.any()):
                out[which[inside_step], k] = _interpolate(z, all_stages, t, step, inner[k], inside_step)
        keep = _like(taken, z).bool()
        z, slope, t = torch.where(keep, after, z), torch.where(keep, last, slope), torch.where(taken, later, t)
        step = step * (0.9 * ratio.clamp(min=1e-10) ** -0.2).clamp(0.2, 10.0)
    rest = torch.arange(len(out), device=z.device)
    finished = field.mean(final, torch.full((len(rest),), min(begin, end), dtype=torch.float64, device=z.device), rest)
    for k in (asked < min(begin, end)).nonzero().flatten().tolist():
        out[:, k] = _toward(final, finished, min(begin, end), float(asked[k]))
    return out


def _stalled(field: _Field, which: Tensor, t: Tensor, step: Tensor, tried: int) -> InputError:
    """Why no end is in sight, of the path with the smallest step."""
    k = int(step.argmin())
    return InputError(
        f"dopri5 stalls at t = {float(t[k]):.4f} on path {int(field.owners[int(which[k])])}: after {6 * tried:,} evaluations its steps are "
        f"{float(step[k]):.1g} long, so {field.model.name} is not smooth there",
        "the unit of t that the network was trained with (time=…), or the right kind of prediction; --solver heun takes even steps",
    )


def _interpolate(z: Tensor, stages: Sequence[Tensor], t: Tensor, step: Tensor, at: Tensor, which: Tensor) -> Tensor:
    theta = ((t - at) / step)[which]
    powers = torch.stack([theta, theta**2, theta**3, theta**4], dim=1)
    weights = powers @ P.to(powers).T
    return z[which] - _like(step[which], z) * _combine(weights, [stage[which] for stage in stages])


def _toward(z: Tensor, x: Tensor, t: float, to: float) -> Tensor:
    """The state at `to` < t on the straight line from z at t to its posterior mean at 0."""
    return x + (z - x) * (to / t)


def _first_step(field: _Field, z: Tensor, t: Tensor, slope: Tensor, which: Tensor, solver: Solver) -> Tensor:
    """Hairer, Nørsett & Wanner's starting step (II.4), for each path."""
    scale = solver.atol + solver.rtol * z.abs()
    size, speed = _rms(z / scale), _rms(slope / scale)
    trial = torch.where((size < 1e-5) | (speed < 1e-5), 1e-6, 0.01 * size / speed)
    ahead = field.velocity(z - _like(trial, z) * slope, (t - trial).clamp(min=END), which)
    bend = _rms((ahead - slope) / scale) / trial
    most = torch.maximum(speed, bend)
    second = torch.where(most <= 1e-15, (trial * 1e-3).clamp(min=1e-6), (0.01 / most) ** 0.2)
    return torch.minimum(100 * trial, second)


def _fixed(field: _Field, z: Tensor, begin: float, asked: Tensor, solver: Solver, seed: int, end: float) -> Tensor:
    """Even steps from `begin` to `end` (`solver.steps` of them from 1 to 0), with the asked times as additional stops."""
    count = max(1, round(solver.steps * begin))
    grid = torch.cat([torch.linspace(end, begin, count + 1, dtype=torch.float64), asked[(asked > end) & (asked < begin)]]).unique().flip(0)
    out = torch.empty(len(z), len(asked), *z.shape[1:], dtype=z.dtype, device=z.device)
    which = torch.arange(len(z), device=z.device)
    stops = {float(t): k for k, t in enumerate(asked)}
    for k in (asked >= begin).nonzero().flatten().tolist():
        out[:, k] = z
    for number, (now, then) in enumerate(zip(grid[:-1].tolist(), grid[1:].tolist(), strict=True)):
        t, s = (torch.full((len(z),), value, dtype=torch.float64, device=z.device) for value in (now, then))
        if solver.method == "ancestral":
            z = _ancestral_step(
                z, field.mean(z, t, which), now, then, seeds.normal(seed, "ancestral", field.owners, z.shape[1:], number).to(z)
            )
        else:
            slope = field.velocity(z, t, which)
            ahead = z + (then - now) * slope
            z = z + (then - now) * 0.5 * (slope + field.velocity(ahead, s, which)) if solver.method == "heun" else ahead
        if then in stops:
            out[:, stops[then]] = z
    finished = field.mean(z, torch.full((len(z),), min(begin, end), dtype=torch.float64, device=z.device), which)
    for k in (asked < min(begin, end)).nonzero().flatten().tolist():
        out[:, k] = _toward(z, finished, min(begin, end), float(asked[k]))
    return out


def _ancestral_step(z: Tensor, x: Tensor, t: float, s: float, noise: Tensor) -> Tensor:
    """A draw from the Gaussian q(z_s | z_t, x̂).

    With a = α_t/α_s and v = σ_t² − a² σ_s² its mean is (a σ_s² z + α_s v x̂)/σ_t², its variance v σ_s²/σ_t².
    """
    ratio = (1 - t) / (1 - s)
    variance = t**2 - ratio**2 * s**2
    mean = (ratio * s**2 * z + (1 - s) * variance * x) / t**2
    return mean + (max(variance, 0.0) * s**2 / t**2) ** 0.5 * noise
