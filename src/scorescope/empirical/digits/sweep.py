"""Sweeps: many timesteps of the same pairs or trajectories, which share their products with the rows.

Memory does not grow with the number of timesteps: a few are answered at a time, from noise to data.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scorescope.empirical.digits.engine import Engine
from scorescope.empirical.digits.family import Family, States, pairs, trajectories
from scorescope.empirical.digits.nominate import Nominator
from scorescope.empirical.digits.products import Products
from scorescope.empirical.posterior import Posterior
from scorescope.empirical.walk import SLACK, Walk, level
from scorescope.schedule import Schedule
from scorescope.search.products import Workspace

FAR = 64  # timesteps towards the data that share a basis; others share that of their chunk
GROUP, LEAST = 128, 16  # trajectories that go together at most; that are worth a pass over the rows
LAX = 1.9  # how much more than wanted the digits of crowded states may let a mean drift
SETTLED = 96  # rows with which a pair enters its walk


def vacant(engine: Engine) -> Workspace:
    """Memory of an earlier sweep, if one has ended: a sweep's products are large, and fresh memory is slow to touch."""
    workspace = engine.workspaces.pop() if engine.workspaces else Workspace()
    workspace.begin()
    return workspace


class PairSweep:
    """Posteriors of pairs x, eps (P, d) float64 of one class, or of all, at times (T,) in the order of falling σ."""

    def __init__(self, engine: Engine, schedule: Schedule, x: Tensor, eps: Tensor, times: Tensor, label: int | None) -> None:
        self.engine, self.schedule, self.x, self.eps, self.times, self.label = engine, schedule, x, eps, times, label
        shelf = engine.shelf
        self.count, self.margin, self.dropped = engine.margin(label)
        self.walk = Walk(x, eps, level(eps, self.margin), shelf)
        every = self._states(slice(0, len(times)), meant=False)
        self.family, digits = pairs(x, eps, every, engine.wanted(every), shelf.step)
        self.workspace = vacant(engine)
        self.products = Products(shelf, digits, label, shelf.memory // 4, self.workspace)
        self.lost = torch.zeros(len(x), dtype=torch.bool, device=x.device)

    def _states(self, part: slice, meant: bool = True, which: Tensor | None = None) -> States:
        """The states of a chunk; without their values where only their constants are meant."""
        x, eps = (self.x, self.eps) if which is None else (self.x[which], self.eps[which])
        alpha, sigma, *_ = self.schedule(self.times[part])
        z = (alpha[:, None] * x[:, None]).addcmul_(sigma[:, None], eps[:, None]) if meant else x[:, None].expand(-1, len(alpha), -1)
        shelf = self.engine.shelf
        found = States(z, alpha.expand(len(x), -1), sigma.expand(len(x), -1), shelf.centre, shelf.reach)
        if not meant:  # their norms are no more than this
            found.__dict__["norm"] = alpha * (x - shelf.centre).norm(dim=1)[:, None] + sigma * eps.norm(dim=1)[:, None]
        return found

    def end(self) -> None:
        """Leave the memory to the next sweep."""
        self.engine.workspaces.append(self.workspace)

    def run(self, part: slice) -> Posterior:
        """Posteriors of one chunk, flat (P·T); chunks must come in order."""
        p, t = len(self.x), part.stop - part.start
        result = Posterior.empty(p * t, self.engine.shelf.bank.shape, self.x.device)
        index = torch.arange(p * t, device=self.x.device).view(p, t)
        here = self.walk.here.nonzero().flatten()
        if len(here):
            self._walked(part, here, index, result)
        away = (~self.walk.here).nonzero().flatten()
        if len(away):
            states = self._states(part, which=away)
            family = self._family(states, part, away)
            self.engine.posterior(family, self.products, self.label).scatter_to(result, index[away].flatten())
            self._settle(part.stop - 1, away)
        return result

    def _family(self, states: States, part: slice, which: Tensor) -> Family:
        return self.family.some(states, which, part)

    def _walked(self, part: slice, here: Tensor, index: Tensor, result: Posterior) -> None:
        """Answer the pairs that walk."""
        states = self._states(part)
        flat = index[here].flatten()
        self.engine.work["few rows, closed form"] += len(flat)
        every = states.flat[flat]
        total = self.engine.merged(self.walk.posterior(*self.schedule(self.times[part])[:2])[flat], every, self.dropped)
        self.engine.checked(total, every, self.label, self.count).scatter_to(result, flat)

    def _settle(self, last: int, away: Tensor) -> None:
        """Let the pairs walk that few rows can matter to at the last timestep of the chunk, and so at every later one."""
        away = away[~self.lost[away]]
        if not len(away) or last + 1 == len(self.times):
            return
        part = slice(last, last + 1)
        states = self._states(part, which=away)
        family = self._family(states, part, away)
        margin = self.walk.levels[away, None] + SLACK
        found = Nominator(family, self.engine.shelf, margin, SETTLED, near=False).run(self.products)
        kept = ~found.many[found.state]
        u = (states.alpha / states.sigma.clamp(min=1e-300))[:, 0]
        self.lost |= self.walk.settle(away, u, found.many, away[found.state[kept]], found.row[kept])


class TrajectorySweep:
    """Posteriors of the states z (P, T, d) of trajectories of one class, or of all, at times (T,) in the order of falling σ."""

    def __init__(self, engine: Engine, schedule: Schedule, z: Tensor, times: Tensor, label: int | None) -> None:
        self.engine, self.schedule, self.z, self.times, self.label = engine, schedule, z, times, label
        alpha, sigma, *_ = schedule(times)
        self.sparse = engine.sparse(alpha**2 / sigma.clamp(min=1e-300) ** 2)
        self.range, self.workspace, self.memory = slice(0, 0), vacant(engine), engine.shelf.memory // 4
        self.shares = True

    def end(self) -> None:
        """Leave the memory to the next sweep."""
        self.engine.workspaces.append(self.workspace)

    def run(self, part: slice) -> Posterior:
        """Posteriors of one chunk, flat (P·T)."""
        if self.shares and bool(self.sparse[part].all()) and self._shared(part):
            inner = slice(part.start - self.range.start, part.stop - self.range.start)
            family = self.family.some(self.family.states[:, inner], slice(None), inner)
            return self.engine.posterior(family, self.products, self.label)
        shelf, p, t = self.engine.shelf, len(self.z), part.stop - part.start
        result = Posterior.empty(p * t, shelf.bank.shape, shelf.device)
        index = torch.arange(p * t, device=shelf.device).view(p, t)
        # One that needs more digits makes all need them that go with it. Products, of three planes a state, should stay in memory.
        size = min(GROUP, self.memory // max(1, self._bytes(3 * t)))
        size = int(self.engine.ranks.smallest(torch.tensor(max(LEAST, size), device=shelf.device)))
        size = -(-p // -(-p // size))  # even parts
        for some in torch.arange(p, device=shelf.device).split(size):
            family, products = self._family(some, part)
            self.engine.posterior(family, products, self.label).scatter_to(result, index[some].flatten())
        return result

    def _shared(self, part: slice) -> bool:
        """Whether there are products for this chunk that later ones share: few rows matter towards the data, and fewer digits do."""
        if self.range.start <= part.start and part.stop <= self.range.stop:
            return True
        shelf = self.engine.shelf
        # A plane for every second state is what is usually needed.
        length = min(FAR, 2 * self.memory // max(1, self._bytes(len(self.z))))
        length = int(self.engine.ranks.smallest(torch.tensor(length, device=shelf.device)))
        whole = slice(part.start, max(part.stop, min(part.start + length, len(self.times))))
        family, products = self._family(torch.arange(len(self.z), device=shelf.device), whole)
        fits = self._bytes(len(products.digits)) <= self.memory * products.sides
        self.shares = not bool(self.engine.ranks.any(torch.tensor(not fits, device=shelf.device)))
        if not self.shares:
            return False
        self.range, self.family, self.products = whole, family, products
        return True

    def _bytes(self, vectors: int) -> int:
        """Of the products of so many vectors of digits with one's own rows and their mirror images."""
        shelf = self.engine.shelf
        return 4 * vectors * len(shelf.indices(self.label)) * (2 if shelf.bank.flips else 1)

    def _family(self, which: Tensor, part: slice) -> tuple[Family, Products]:
        """Some trajectories by a basis for some timesteps, and its products."""
        shelf, times = self.engine.shelf, self.times[part].expand(len(which), -1)
        states = States.of(self.z[which, part].double(), times, self.schedule, shelf.centre, shelf.reach)
        crowd = self.engine.crowded(states)
        wanted = self.engine.wanted(states)
        family, digits = trajectories(states, torch.where(crowd, LAX * wanted, wanted))
        self.workspace.begin()
        return family, Products(self.engine.shelf, digits, self.label, self.memory, self.workspace)
