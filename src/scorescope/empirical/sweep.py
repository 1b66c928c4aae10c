"""Sweeps: many timesteps of the same pairs or trajectories, which share their products with the rows.

Memory does not grow with the number of timesteps: a few are answered at a time, from noise to data.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from scorescope.empirical.engine import FINE, Engine
from scorescope.empirical.family import Family, pairs, trajectories
from scorescope.empirical.posterior import Posterior
from scorescope.empirical.products import Logits
from scorescope.empirical.screen import Screen
from scorescope.empirical.states import States
from scorescope.empirical.walk import SLACK, Walk, level
from scorescope.schedule import Schedule

TOGETHER = 32  # timesteps of one chunk, unless the rows come from disk
SETTLED = 96  # rows with which a pair enters its walk
WORTH = 0.75  # directions for each state of a trajectory that are worth their while, at most
SHARE = 0.2  # of the states to which many rows must matter for as many to be expected of the next ones


def chunk(engine: Engine, count: int, times: int) -> int:
    """Timesteps to answer at a time: the more the fewer passes over rows from disk, else no more than share their products."""
    shelf = engine.shelf
    size = shelf.memory // 4 // max(count * shelf.bank.d * 8 * 4, 1)
    if engine.resident:
        size = min(size, TOGETHER)
    # The same in all processes, whatever memory each has.
    return max(1, min(times, int(engine.ranks.smallest(torch.tensor(size, device=shelf.device)))))


class PairSweep:
    """Posteriors of pairs x, eps (P, d) float64 of one class, or of all, at times (T,) in the order of falling σ."""

    def __init__(self, engine: Engine, schedule: Schedule, x: Tensor, eps: Tensor, times: Tensor, label: int | None) -> None:
        self.engine, self.schedule, self.x, self.eps, self.times, self.label = engine, schedule, x, eps, times, label
        self.walk = Walk(x, eps, level(eps, engine.margin(label)[0]), engine.shelf)
        self.lost = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.products = engine.products(self._family(slice(0, 1), torch.arange(len(x), device=x.device)), label, "fine")

    def _family(self, part: slice, which: Tensor) -> Family:
        """The states of some pairs at some times."""
        x, eps, shelf = self.x[which], self.eps[which], self.engine.shelf
        alpha, sigma, *_ = self.schedule(self.times[part])
        z = (alpha[:, None] * x[:, None]).addcmul_(sigma[:, None], eps[:, None]).flatten(0, 1)
        states = States(z, alpha.repeat(len(x)), sigma.repeat(len(x)), shelf.centre, shelf.reach)
        return pairs(x, eps, states, which)

    def run(self, part: slice) -> Posterior:
        """Posteriors of one chunk, flat (P·T); chunks must come in order."""
        p, t, shelf = len(self.x), part.stop - part.start, self.engine.shelf
        result = Posterior.empty(p * t, shelf.bank.shape, self.x.device)
        index = torch.arange(p * t, device=self.x.device).view(p, t)
        here = self.walk.here.nonzero().flatten()
        if len(here):
            flat = index[here].flatten()
            self.engine.work["few rows, closed form"] += len(flat)
            states = self._family(part, here).states
            total = self.walk.posterior(*self.schedule(self.times[part])[:2])[flat]
            total = self.engine.merged(self.engine.without(total, states, self.label), states)
            self.engine.checked(total, states, self.label).scatter_to(result, flat)
        away = (~self.walk.here).nonzero().flatten()
        if len(away):
            self.engine.posterior(Logits(self._family(part, away), self.products))[0].scatter_to(result, index[away].flatten())
            self._settle(part.stop - 1, away)
        return result

    def _settle(self, last: int, away: Tensor) -> None:
        """Let the pairs walk that few rows can matter to at the last timestep of the chunk, and so at every later one."""
        away = away[~self.lost[away]]
        if not len(away) or last + 1 == len(self.times):
            return
        ranks, family = self.engine.ranks, self._family(slice(last, last + 1), away)
        margin = self.walk.levels[away] + SLACK
        found = Screen(Logits(family, self.products), margin, SETTLED, ranks, near=False).run()
        u = family.states.alpha / family.states.sigma.clamp(min=1e-300)
        self.lost |= self.walk.settle(away, u, found.many, away[found.state], found.row)


class TrajectorySweep:
    """Posteriors of the states z (P, T, d) of trajectories of one class, or of all, at times (T,) in the order of falling σ."""

    def __init__(self, engine: Engine, schedule: Schedule, z: Tensor, times: Tensor, label: int | None) -> None:
        self.engine, self.schedule, self.z, self.times, self.label = engine, schedule, z, times, label
        self.crowd = False  # whether many rows are expected to matter

    def run(self, part: slice) -> Posterior:
        """Posteriors of one chunk, flat (P·T); chunks must come in order."""
        shelf, p, t = self.engine.shelf, len(self.z), part.stop - part.start
        result = Posterior.empty(p * t, shelf.bank.shape, shelf.device)
        index = torch.arange(p * t, device=shelf.device).view(p, t)
        states = States.of(self.z[:, part].flatten(0, 1).double(), self.times[part].repeat(p), self.schedule, shelf.centre, shelf.reach)
        # Where many rows matter products are fine, with directions that leave next to nothing; where few do, coarse, with fewer.
        crowded = self.engine.crowded(states, self.label)
        self.crowd = self.crowd or bool(crowded.any())
        family = trajectories(states, p, self.engine.wanted(states, crowded | self.crowd))
        # Directions that float64 finds leave more than a tight tolerance allows.
        costly = family.vectors.shape[1] > WORTH * t or (self.crowd and self.engine.tolerance < FINE)
        apart = torch.tensor(costly, device=shelf.device)
        if not bool(self.engine.ranks.any(apart)):
            found, many = self.engine.posterior(self.engine.logits(family, self.label, "fine" if self.crowd else "coarse"))
            found.scatter_to(result, index.flatten())
            self.crowd = bool(many.view(p, t)[:, -1].double().mean() > SHARE)
            return result
        for some in index.flatten().split(256):  # they have little in common
            self.engine.alone(states[some], self.label).scatter_to(result, some)
        return result


Sweep = PairSweep | TrajectorySweep


def sweep(engine: Engine, runs: list[tuple[Tensor, Sweep]], count: int, order: Tensor) -> Iterator[tuple[int, Posterior]]:
    """(k, posterior of all P) for each timestep; `runs` are (which of the P, their sweep), `order` (T,) the timesteps by falling σ."""
    size = chunk(engine, count, len(order))
    for start in range(0, len(order), size):
        part = slice(start, min(start + size, len(order)))
        t = part.stop - part.start
        index = torch.arange(count * t, device=engine.shelf.device).view(count, t)
        if len(runs) == 1:
            whole = runs[0][1].run(part)
        else:
            whole = Posterior.empty(count * t, engine.shelf.bank.shape, engine.shelf.device)
            for which, run in runs:
                run.run(part).scatter_to(whole, index[which].flatten())
        for k in range(t):
            yield int(order[start + k]), whole[index[:, k]]
