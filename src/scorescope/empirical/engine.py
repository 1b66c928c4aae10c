"""One answer: a first look lists the rows that can matter; few are settled one by one, many are summed, as tight as was asked for.

    screen   all logits with a bound on their error: lists the rows that can matter, or names states to which many do
    settle   few rows: direct differences in float64
    sums     many rows: logits put together in float64, sums whose rounding is bounded
    at_once  sums without a first look, where few states or rows make that the cheaper way
All in float64 where that is not tight enough.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from scorescope.empirical.at_once import AtOnce
from scorescope.empirical.family import Family, alone
from scorescope.empirical.integers import Costs
from scorescope.empirical.moments import PLANES, UNIT
from scorescope.empirical.partial import Partial
from scorescope.empirical.planes import MOST, IntegerProducts, Rows, enough
from scorescope.empirical.posterior import Posterior
from scorescope.empirical.products import FloatProducts, Logits, Products
from scorescope.empirical.ranks import Ranks
from scorescope.empirical.screen import Screen
from scorescope.empirical.settle import ratios, settle, squares, steep_rows
from scorescope.empirical.shelf import Shelf
from scorescope.empirical.states import States
from scorescope.empirical.sums import Sums

FEW, LEAST, EACH = 128, 8, 400  # rows of a state that are settled one by one, at most; one of so many, which cost what all rows do
AT_ONCE = 1 << 22  # logits of all rows and states that are looked at in one step, at most
LOOK, READ = 2e-3, 32  # seconds that a look takes beside its products; vectors whose products take as long as reading the rows
GUESS = 0.1  # share of the radius that a posterior mean is assumed to have until it is known
SHORT = 2  # times as much as other products those of a few rows cost, which sums in float32 are made of
FINE = 2e-5  # a tighter tolerance than this is left to float64: sums in float32 hardly ever meet it
NOISE = 2e-8  # share of a state's norm that directions need not hold: about a third of the rounding of float32
MISSED, TOLD = 0.05, 1e-6  # share of what is dropped that products of one vector may miss of a logit, and of a logit's largest size
LEVELS = {"coarse": 2, "fine": MOST}  # planes that tell rows apart as float32 does, and for the weights of sums
FEW_ROWS, SUMMED, WHOLE = "few rows, float64 differences", "all rows, float32 sums", "all rows, sums of integers"
TOGETHER = "all rows at once"
ALL_DOUBLE, AGAIN = "all rows, float64", {"fine": "again, each alone", "double": "again, all rows, float64"}


class Engine:
    """Posteriors of families among the rows of one class, or of all.

    Attributes:
        work: How many states each way has answered.
    """

    def __init__(self, shelf: Shelf, tolerance: float, ranks: Ranks, costs: Costs) -> None:
        self.shelf, self.tolerance, self.ranks = shelf, tolerance, ranks
        # Those of the slowest process, so that all go the same ways.
        self.costs = Costs(*ranks.largest(torch.tensor([costs.single, costs.double, costs.integer], dtype=torch.float64)).tolist())
        self.work: Counter[str] = Counter()

    @cached_property
    def planes(self) -> Rows | None:
        """The rows as integers, where products of these are the faster ones and memory holds them; so in all processes, or in none."""
        most = MOST if MOST * (MOST + 1) // 2 * self.costs.integer < self.costs.double else LEVELS["coarse"]
        each = 4 + (1 if self.shelf.bank.rows.dtype == np.uint8 else most)  # bytes of a value, with those of float32
        fits = self.shelf.resident and each * len(self.shelf.own) * self.shelf.bank.d <= self.shelf.memory * 3 // 4
        slower = not fits or self.costs.integer >= self.costs.single
        return None if bool(self.ranks.any(torch.tensor(slower, device=self.shelf.device))) else Rows.of(self.shelf, most)

    @cached_property
    def resident(self) -> bool:
        """Whether the rows are in memory, in all processes."""
        return not bool(self.ranks.any(torch.tensor(not self.shelf.resident, device=self.shelf.device)))

    @cached_property
    def grid(self) -> Rows | None:
        """The rows, where they lie on a grid and sums by integers are the faster ones, and can't leave the rows' own region."""
        rows, faster = self.planes, PLANES * self.costs.integer < SHORT * self.costs.single
        if not rows or len(rows.planes) > 1 or not faster:
            return None
        return rows if (self.rows(None) * UNIT / 127 + 1e-6) * rows.left[0] + rows.left[1] <= self.shelf.reach else None

    @cached_property
    def share(self) -> float:
        """What sums may leave of the weights."""
        far = max(2 * self.shelf.reach, self.grid.left[0] if self.grid else 0.0, 1e-30)
        return self.tolerance * GUESS * self.shelf.bank.radius / (4 * far)

    @cached_property
    def classes(self) -> list[int]:
        """Those that have rows in the whole bank."""
        labels = self.shelf.bank.labels
        return [] if labels is None else np.unique(labels).tolist()

    def rows(self, label: int | None) -> int:
        """Rows of a class, or all, of the whole bank."""
        return len(self.shelf.bank.indices(label)) * len(self.shelf.sides)

    def margin(self, label: int | None) -> tuple[float, float]:
        """How far below the largest logit a row is dropped; the share that all dropped rows together can have."""
        scale = max(self.shelf.bank.radius, torch.finfo(torch.float32).tiny)
        # What is dropped moves a mean by less than a quarter of the tolerance.
        dropped = self.tolerance * GUESS * scale / (8 * max(self.shelf.reach, scale))
        return math.log(self.rows(label) / dropped), dropped

    def wanted(self, states: States, crowded: Tensor) -> Tensor:
        """(B,) norm of what may be left of a state: where it is `crowded` (B,) it moves a mean by slope·‖rest‖·spread² at most."""
        radius = max(self.shelf.bank.radius, torch.finfo(torch.float32).tiny)
        slope = states.slope.clamp(min=1e-12)
        # Few directions can't hold what float32 rounded of every state, and where they try, the noisiest states are known less well.
        sharp = torch.maximum(0.1 * self.tolerance * GUESS / (slope * radius), NOISE * states.norm)
        # Where few rows matter, a small share of what sets rows apart leaves them few.
        loose = 0.01 * self.apart(states).clamp(min=1.0) / (slope * max(self.shelf.reach, radius))
        return torch.where(crowded, sharp, loose)

    def apart(self, states: States) -> Tensor:
        """(B,) how many nats rows are apart on average: their squared distances in units of 2σ²/α²."""
        return states.curve * self.shelf.bank.radius**2

    def crowded(self, states: States, label: int | None) -> Tensor:
        """(B,) whether rows are closer to each other, on average, than what matters: nearly all do. The same in all processes."""
        return self.ranks.any((self.apart(states) < self.margin(label)[0]) & ~states.steep)

    def small(self, count: int, label: int | None) -> bool:
        """Whether so many states are asked of all rows at once; the same in all processes."""
        rows, planes, costs = self.rows(label), self.planes, self.costs
        if self.tolerance < FINE or not self.resident or not 0 < count * rows <= AT_ONCE:
            return False
        takes = [planes.count(torch.tensor([LEVELS[kind]])) if planes else torch.inf for kind in ("coarse", "fine")]
        coarse, fine = min(takes[0] * costs.integer, costs.single), min(takes[1] * costs.integer, costs.double)
        # Otherwise all would be looked at coarsely, and about half of them closer.
        return max(count, READ) * rows * self.shelf.bank.d * (fine / 2 - coarse) < LOOK

    def missed(self, family: Family) -> Tensor:
        """(P, R) what products of a vector may miss: hardly any of the mean, nor of what tells the states' rows apart."""
        states, c = family.states, family.coefficients.abs().clamp(min=1e-300)
        told = TOLD * states.norm * max(self.shelf.reach, 1e-300)
        allowed = torch.minimum(self.tolerance * GUESS * MISSED / states.slope.clamp(min=1e-300), told)
        return (allowed.view(*c.shape[:2], 1) / c).amin(1)

    def products(self, family: Family, label: int | None, kind: str, once: bool = False) -> Products:
        """Of a family's vectors with the rows: the fastest that are "coarse" or "fine" (`LEVELS`), or "double" ones."""
        # What a class may keep is its share: sweeps of all classes go side by side.
        memory, planes = 0 if once else self.shelf.memory // 4 * self.rows(label) // self.rows(None), self.planes
        if kind in LEVELS and planes and not (kind == "fine" and self.tolerance < FINE):
            fine, levels = kind == "fine", torch.full(family.vectors.shape[:2], LEVELS[kind], device=self.shelf.device)
            if fine and family.whole:  # no more planes than what is missed asks for
                levels = self.ranks.largest(enough(family.vectors, self.missed(family), planes))
            if planes.count(levels) * self.costs.integer < levels.numel() * (self.costs.double if fine else self.costs.single):
                return IntegerProducts(family.vectors, levels, fine, planes, self.shelf, label, memory)
        return FloatProducts(family.vectors, kind in ("fine", "double"), self.shelf, label, memory)

    def logits(self, family: Family, label: int | None, kind: str, once: bool = False) -> Logits:
        """Of a family, by such products, of which none is kept if they are looked at `once`."""
        return Logits(family, self.products(family, label, kind, once))

    def posterior(self, logits: Logits) -> tuple[Posterior, Tensor]:
        """Posteriors of a family's states (B,), and to which of them many rows matter."""
        states, label = logits.family.states, logits.products.label
        total, many, many_near = self._few(logits)
        if logits.products.fine:
            self._many(logits, total, many, many_near)
        else:
            self._many_alone(states, label, total, many, many_near)
        return self.checked(self.merged(total, states), states, label), many

    def alone(self, states: States, label: int | None) -> Posterior:
        """Posteriors of states (B,) that share nothing."""
        if not self.small(len(states), label):
            return self._alone(states, label)
        sums = AtOnce(self.logits(alone(states), label, "fine", once=True), self.grid, self.share, self.rows(label))
        part = sums.run()
        peak, top = part.peak, part.top
        total = self.merged(part, states)
        result = total.posterior(states, self.rows(label), self.shelf.bank.shape)
        unclear = sums.tied | ((top != total.top) & (peak + sums.slip >= total.peak - sums.slip))  # with a row of another process
        # Scores are differences of states and means, and r* is told by logits.
        unclear |= (result.error_bound * states.alpha > self.tolerance * states.sigma * states.d**0.5) | self._wide(result, states)
        unclear |= states.steep | (sums.doubt > self.tolerance * states.d)
        which = self.ranks.any(unclear).nonzero().flatten()
        self.work[TOGETHER] += len(states) - len(which)
        if len(which):
            self._alone(states[which], label).scatter_to(result, which)
        return result

    def _alone(self, states: States, label: int | None) -> Posterior:
        """As `alone`, by closer looks."""
        many = self.crowded(states, label)
        many_near = many.clone()
        total = Partial.nothing(len(states), states.d, states.z.device)
        which = (~many).nonzero().flatten()
        if len(which):
            part, many[which], many_near[which] = self._few(self.logits(alone(states[which]), label, "coarse"))
            total.put(which, part)
        self._many_alone(states, label, total, many, many_near)
        return self.checked(self.merged(total, states), states, label, shared=False)

    def without(self, total: Partial, states: States, label: int | None) -> Partial:
        """Partials of the rows within the margin, whose error knows that the others are missing."""
        total.error += (~states.at_data).double() * (2 * self.margin(label)[1] * self.shelf.reach) * total.mass
        return total

    def merged(self, total: Partial, states: States) -> Partial:
        """The partials of all processes as one."""
        total, at_data = self.ranks.merge(total), states.at_data
        total.ratio = torch.where(at_data, torch.where(total.peak == 0, 1.0, torch.inf), total.ratio)
        return total

    def _few(self, logits: Logits) -> tuple[Partial, Tensor, Tensor]:
        """Partials of the states to which few rows matter, with their r*; to whose posteriors and to whose r* many do."""
        states, label = logits.family.states, logits.products.label
        apart = self.margin(label)[0]
        # Of a steep state with its nearest row inside the shell, no row farther than 2σ√d can be nearer to the shell.
        margin = (apart + 2 * states.d * states.steep.double()).masked_fill(states.at_data, 1.0)
        few = max(LEAST, min(FEW, self.rows(label) // EACH))
        found = Screen(logits, margin, few, self.ranks).run()
        total = self.without(settle(states, self.shelf, found.state, found.row, self.ranks), states, label)
        inside = (states.steep & ~states.at_data)[found.state]
        ratios(states, self.shelf, found.state[inside], found.row[inside], total.ratio)
        steep = found.many & states.steep
        for some in steep.nonzero():
            self.work["all rows, float64 differences"] += 1
            pairs = steep_rows(states[some], self.shelf, label, apart + 2 * states.d, self.ranks)
            part = settle(states[some], self.shelf, *pairs, self.ranks)
            ratios(states[some], self.shelf, *pairs, part.ratio)
            total.put(some, self.without(part, states[some], label))
        many = found.many & ~steep
        near = ~(many | found.many_near)[found.near_state]  # sums of all rows look for the nearest themselves
        ratios(states, self.shelf, found.near_state[near], found.near_row[near], total.ratio)
        self.work[FEW_ROWS] += int((~found.many).sum())
        return total, many, found.many_near

    def _many_alone(self, states: States, label: int | None, total: Partial, many: Tensor, many_near: Tensor) -> None:
        """As `_many`, by products of each state's own."""
        which = (many | many_near).nonzero().flatten()
        if len(which):
            part = total[which]
            self._many(self.logits(alone(states[which]), label, "fine", once=True), part, many[which], many_near[which])
            total.put(which, part)

    def _many(self, logits: Logits, total: Partial, many: Tensor, many_near: Tensor) -> None:
        """Put into `total` what sums of all rows say of the states to which many matter, by logits that are fine."""
        which = (many | many_near).nonzero().flatten()
        if not len(which):
            return
        part = self._summed(logits, which, many[which])
        part.ratio = torch.where((part.ratio - 1).abs() < (total.ratio[which] - 1).abs(), part.ratio, total.ratio[which])
        total.ratio[which] = part.ratio
        summed = many[which]
        total.put(which[summed], part[summed])

    def _summed(self, logits: Logits, which: Tensor, summed: Tensor, again: str = "") -> Partial:
        """Partials of the states `which` of a family from all rows, with their r*; those that are not `summed` have r* alone."""
        double = again == "double" or self.tolerance < FINE
        grid = None if double else self.grid
        sums = Sums(logits, which, summed, double, grid, self.share, self.rows(logits.products.label))
        part = sums.run()
        if again:  # where logits are hard to tell, the nearest row is asked itself
            seen = (part.mass > 0).nonzero().flatten()
            apart = squares(logits.family.states, self.shelf, which[seen], part.top[seen])
            part.peak[seen] = -0.5 * logits.family.states.true_precision[which[seen]] * apart
        state, row = sums.nearest.pairs(torch.arange(len(which), device=which.device))
        ratios(logits.family.states[which], self.shelf, state, row, part.ratio)
        self.work[AGAIN[again] if again else ALL_DOUBLE if double else WHOLE if grid else SUMMED] += int(summed.sum())
        return part

    def checked(self, total: Partial, states: States, label: int | None, shared: bool = True) -> Posterior:
        """The posterior, after another look at those whose bound is too wide: what is `shared` by each alone, then all in float64."""
        count, shape = self.rows(label), self.shelf.bank.shape
        result = total.posterior(states, count, shape)
        which = torch.arange(len(states), device=states.z.device)
        for kind in ("fine", "double") if shared and self.tolerance >= FINE else ("double",):
            which = which[self.ranks.any(self._wide(result, states)[which])]
            for some in which.split(256) if len(which) else ():
                own, every = states[some], torch.arange(len(some), device=some.device)
                part = self._summed(self.logits(alone(own), label, kind, once=True), every, every >= 0, kind)
                part.ratio = torch.where((part.ratio - 1).abs() < (total.ratio[some] - 1).abs(), part.ratio, total.ratio[some])
                better = self.merged(part, own).posterior(own, count, shape)
                keep = better.error_bound <= result.error_bound[some]
                better[keep.nonzero().flatten()].scatter_to(result, some[keep])
        return result

    def _wide(self, result: Posterior, states: States) -> Tensor:
        """(B,) whether the bound is wider than was asked for; steep states were asked as exactly as can be."""
        radius = self.shelf.bank.radius
        size = torch.linalg.vector_norm(result.mean.flatten(1), dim=1).clamp(max=radius, min=1e-3 * radius)
        return (result.error_bound > self.tolerance * size) & ~states.steep
