"""What is asked of the empirical score: three workloads, each a list of steps with a batch of states.

    supervision   z_t = α x + σ ε of training pairs at every timestep: what a training loss is compared with
    trajectory    the states of sampling trajectories at every timestep: what a trained model meets
    random        states on the shells, each at a time of its own, a few batches: single queries with nothing to share

A method either answers step by step, or takes the first two as the sweeps that they are. States lie on a device, times on the CPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scorescope import seeds
from scorescope.denoiser import Denoiser
from scorescope.empirical.score import EmpiricalScore
from scorescope.progress import Row
from scorescope.rows import Bank
from scorescope.sampler import Solver, start_time, trajectory

NAMES = ("supervision", "trajectory", "random")
BATCHES = 4  # of the random workload
FIRST, LAST = 1e-3, 1 - 1e-3  # the range of its times


class Workload(ABC):
    """Steps k = 0 … steps − 1, each with the same number of states."""

    name: str
    swept: bool  # whether the steps are timesteps of one sweep

    @property
    @abstractmethod
    def steps(self) -> int:
        """Number of steps."""

    @property
    @abstractmethod
    def states(self) -> int:
        """States in every step."""

    @abstractmethod
    def step(self, k: int) -> tuple[Tensor, Tensor]:
        """States (P, *shape) of one step and their times (P,) float64."""

    @abstractmethod
    def sweep(self, truth: EmpiricalScore) -> Iterator[tuple[int, Tensor]]:
        """The answers of an EmpiricalScore by its best way: (k, posterior means (P, *shape)), in the order that suits it."""

    @abstractmethod
    def narrow(self, states: int, every: slice) -> Workload:
        """The first `states` states of some of the steps."""

    def audited(self, count: int, seed: int) -> list[tuple[int, int]]:
        """(step, state) of `count` queries to judge: steps evenly spaced from first to last, the states in them drawn."""
        count = min(count, self.steps * self.states)
        chosen = torch.linspace(0, self.steps - 1, count, dtype=torch.float64).round().long().tolist()
        states = (seeds.choose(seed, "bench audit", [0], self.states)[0] + torch.arange(count)) % self.states
        return list(zip(chosen, states.tolist(), strict=True))

    def gather(self, queries: list[tuple[int, int]]) -> Batches:
        """These queries as one batch."""
        found = [(z[p], t[p]) for k, p in queries for z, t in [self.step(k)]]
        return Batches(self.name, torch.stack([z for z, _ in found])[None], torch.stack([t for _, t in found])[None])


@dataclass(frozen=True)
class Pairs(Workload):
    """Training pairs x, eps (P, *shape) at times (T,)."""

    name: str
    x: Tensor
    eps: Tensor
    times: Tensor
    swept = True

    @property
    def steps(self) -> int:
        """Number of timesteps."""
        return len(self.times)

    @property
    def states(self) -> int:
        """Number of pairs."""
        return len(self.x)

    def step(self, k: int) -> tuple[Tensor, Tensor]:
        """States z = (1 − t) x + t ε in float64, which is where the sum of two float32 numbers can be held."""
        t = float(self.times[k])
        return torch.lerp(self.x.double(), self.eps.double(), t), self.times[k].expand(len(self.x))

    def sweep(self, truth: EmpiricalScore) -> Iterator[tuple[int, Tensor]]:
        """By the supervision sweep."""
        for k, posterior in truth.supervision_sweep(self.x, self.eps, self.times):
            yield k, posterior.mean

    def narrow(self, states: int, every: slice) -> Pairs:
        """Some of the pairs and of the timesteps."""
        return replace(self, x=self.x[:states], eps=self.eps[:states], times=self.times[every])


@dataclass(frozen=True)
class Trajectories(Workload):
    """States z (P, T, *shape) of trajectories at times (T,)."""

    name: str
    z: Tensor
    times: Tensor
    swept = True

    @property
    def steps(self) -> int:
        """Number of timesteps."""
        return len(self.times)

    @property
    def states(self) -> int:
        """Number of trajectories."""
        return len(self.z)

    def step(self, k: int) -> tuple[Tensor, Tensor]:
        """All trajectories at one timestep."""
        return self.z[:, k], self.times[k].expand(len(self.z))

    def sweep(self, truth: EmpiricalScore) -> Iterator[tuple[int, Tensor]]:
        """By the trajectory sweep."""
        for k, posterior in truth.trajectory_sweep(self.z, self.times):
            yield k, posterior.mean

    def narrow(self, states: int, every: slice) -> Trajectories:
        """Some of the trajectories and of the timesteps."""
        return replace(self, z=self.z[:states, every], times=self.times[every])


@dataclass(frozen=True)
class Batches(Workload):
    """States z (K, P, *shape), each at its own time (K, P), in K batches."""

    name: str
    z: Tensor
    times: Tensor
    swept = False

    @property
    def steps(self) -> int:
        """Number of batches."""
        return len(self.z)

    @property
    def states(self) -> int:
        """States in a batch."""
        return self.z.shape[1]

    def step(self, k: int) -> tuple[Tensor, Tensor]:
        """One batch."""
        return self.z[k], self.times[k]

    def sweep(self, truth: EmpiricalScore) -> Iterator[tuple[int, Tensor]]:
        """Batch after batch: there is nothing to share."""
        for k in range(self.steps):
            yield k, truth.posterior(*self.step(k)).mean

    def narrow(self, states: int, every: slice) -> Batches:
        """Some of the states of some of the batches."""
        return replace(self, z=self.z[every, :states], times=self.times[every, :states])

    def audited(self, count: int, seed: int) -> list[tuple[int, int]]:
        """Queries evenly spaced in the order of their times, the smallest and the largest among them."""
        order = self.times.flatten().argsort()
        chosen = order[torch.linspace(0, len(order) - 1, min(count, len(order)), dtype=torch.float64).round().long()]
        return [(int(k) // self.states, int(k) % self.states) for k in chosen]


def times(steps: int) -> Tensor:
    """Times t = (k + ½)/T, (T,) float64."""
    return (torch.arange(steps, dtype=torch.float64) + 0.5) / steps


def pairs(bank: Bank, count: int, steps: int, seed: int, device: torch.device) -> Pairs:
    """The supervision workload: rows and noise of pair k depend on (seed, k) alone."""
    rows = seeds.choose(seed, "bench row", range(count), len(bank))
    eps = seeds.normal(seed, "bench pair", range(count), bank.shape)
    return Pairs("supervision", bank[rows].to(device), eps.to(device), times(steps))


def sampled(model: Denoiser, count: int, shape: tuple[int, ...], steps: int, seed: int, device: torch.device, row: Row) -> Trajectories:
    """The trajectory workload of a trained model, at the times that its schedule reaches; `row` is told of finished paths."""
    start = start_time(model)
    reached = times(steps)[times(steps) <= start]
    noise = start * seeds.normal(seed, "bench path", range(count), shape)
    label = None if model.has_null or not model.classes else torch.arange(count) % model.classes
    model, solver, states = model.to(device), Solver("heun"), []
    for part in torch.arange(count).split(solver.batch):
        tags = None if label is None else label[part]
        states.append(trajectory(model, noise[part].to(device), reached, tags, solver=solver, items=part.tolist()))
        row(len(part))
    return Trajectories("trajectory", torch.cat(states), reached)


def batches(bank: Bank, count: int, seed: int, device: torch.device) -> Batches:
    """The random workload: (1 − t) x + t ε of random rows at random times, rounded to float32."""
    items = range(BATCHES * count)
    drawn = torch.tensor([seeds.generator(seed, "bench time", k).uniform(FIRST, LAST) for k in items], dtype=torch.float64)
    rows, eps = bank[seeds.choose(seed, "bench random row", items, len(bank))], seeds.normal(seed, "bench random", items, bank.shape)
    t = drawn.reshape(-1, *[1] * len(bank.shape))
    z = ((1 - t) * rows.double() + t * eps.double()).float()
    return Batches("random", z.reshape(BATCHES, count, *bank.shape).to(device), drawn.reshape(BATCHES, count))
