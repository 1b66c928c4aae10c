"""One answer: nominate, then settle the states that few rows matter to and sum all rows for the others, as tight as was asked for.

See `EmpiricalScore` for why the answer is exact.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from scorescope.empirical.digits import shaped
from scorescope.empirical.digits.arithmetic import arithmetic
from scorescope.empirical.digits.coarse import Coarse, matter, suits
from scorescope.empirical.digits.dense import Dense
from scorescope.empirical.digits.double import double
from scorescope.empirical.digits.family import Family, States, alone
from scorescope.empirical.digits.listed import listed
from scorescope.empirical.digits.nominate import Nominator, rounding
from scorescope.empirical.digits.products import Products, together
from scorescope.empirical.digits.shaped import Shaping
from scorescope.empirical.digits.shelf import Shelf
from scorescope.empirical.partial import Partial
from scorescope.empirical.posterior import Posterior
from scorescope.empirical.ranks import Ranks
from scorescope.empirical.settle import ratios, settle, steep_rows
from scorescope.search.products import Workspace

FEW = 128  # rows that are settled one by one
ALONE = 4  # rows that are settled where the others are listed
SOME = 5120  # rows that are listed at most
LISTED = 10  # rows whose digits are summed in the time in which one is asked alone
LEFT = 2e-3  # of the tolerance, the share of a state's mass that a long list may lack
SPARSE = 1000.0  # squared distances between rows, in units of 2σ²/α², beyond which few rows are expected to matter
BLUNT = 1e-2  # error of a logit that is small enough there, in units of the same distances
CROWDED = 60.0  # the same distances, below which more rows are expected to matter than are listed, so that more digits are asked for
CLOSE = 130.0  # the same, below which one plane of digits would list too many rows, unless its errors are shaped
FAR = 550.0  # the same, above which few axes tell nearly all rows from the one that is meant
BLURRED = 0.1  # of the tolerance, what products in float64 may round of a logit
GUESS = 0.1  # share of the radius that a posterior mean is assumed to have until it is known
Make = Callable[[States], tuple[Family, Tensor]]  # a family and its digits
Answer = Callable[[Family, Products, int | None], Posterior]


class Engine:
    """Posteriors of families among the rows of one class, or of all.

    Attributes:
        work: How many states each path has answered.
    """

    def __init__(self, shelf: Shelf, tolerance: float, ranks: Ranks) -> None:
        self.shelf, self.tolerance, self.ranks = shelf, tolerance, ranks
        self.work: Counter[str] = Counter()
        self.workspace = Workspace()  # of queries that share nothing
        self.workspaces: list[Workspace] = []  # of sweeps that have ended

    @cached_property
    def coarse(self) -> Coarse | None:
        """The rows along few axes, where these hold nearly all of them; on all ranks or on none."""
        if not self.ranks.smallest(torch.tensor(int(suits(self.shelf.bank)), device=self.shelf.device)):
            return None
        found = Coarse(self.shelf)
        return found if found.worth else None

    @cached_property
    def shaping(self) -> Shaping | None:
        """How rounding errors of single states are shaped, where that is worth it; on all ranks or on none."""
        if not self.ranks.smallest(torch.tensor(int(shaped.suits(self.shelf.bank)), device=self.shelf.device)):
            return None
        found = Shaping(self.shelf)
        return found if found.worth else None

    def some(self, label: int | None) -> int:
        """Rows of a state, at most, that are asked one by one."""
        return min(SOME, self.rows(label) // LISTED)

    def rows(self, label: int | None) -> int:
        """Rows of a class, or all, of the whole bank."""
        return len(self.shelf.bank.indices(label)) * (2 if self.shelf.bank.flips else 1)

    def margin(self, label: int | None) -> tuple[int, float, float]:
        """Rows of a class; how far below the largest logit a row is dropped; the share that all dropped rows together can have."""
        count = self.rows(label)
        scale = max(self.shelf.bank.radius, torch.finfo(torch.float32).tiny)
        # What is dropped moves a mean by less than a quarter of the tolerance.
        dropped = self.tolerance * GUESS * scale / (8 * max(self.shelf.reach, scale))
        return count, math.log(count / dropped), dropped

    def sharp(self, states: States) -> Tensor:
        """(P, T) how much of a state its digits may leave where many rows matter: ‖Δmean‖ ≤ slope·‖rest‖·spread² is then small enough.

        Towards the data means get longer and spreads smaller: a guess that decides on costs alone, as the bound tells.
        """
        radius = max(self.shelf.bank.radius, torch.finfo(torch.float32).tiny)
        guess = GUESS * (1 + states.curve * radius**2) ** 0.3
        return self.tolerance * guess / (states.slope.clamp(min=1e-12) * radius)

    def wanted(self, states: States) -> Tensor:
        """(P, T) how much of a state its digits should leave: less where many rows are expected to matter."""
        reach = max(self.shelf.reach, torch.finfo(torch.float32).tiny)
        # An error of a few thousandths of what sets rows apart leaves few of them.
        loose = (BLUNT * self.apart(states.curve)).clamp(min=1.0) / (states.slope.clamp(min=1e-12) * reach)
        return torch.where(self.crowded(states), self.sharp(states), torch.maximum(loose, self.sharp(states)))

    def apart(self, curve: Tensor) -> Tensor:
        """How far apart rows are where α²/σ² is `curve`: their squared distances in units of 2σ²/α², on average."""
        return curve * self.shelf.bank.radius**2

    def sparse(self, curve: Tensor) -> Tensor:
        """Whether few rows are expected to matter where α²/σ² is `curve`."""
        return self.apart(curve) > SPARSE

    def posterior(self, family: Family, products: Products, label: int | None) -> Posterior:
        """Posteriors of a family's states, flat (P·T)."""
        flat = family.states.flat
        total = self.merged(self._partials(family, products, label), flat, self.margin(label)[2])
        return self.checked(total, flat, label, self.rows(label))

    def crowded(self, states: States) -> Tensor:
        """(P, T) whether so many rows are expected to matter that more digits of a state are worth asking for at once."""
        return (states.alpha > 0) & ~states.steep & (self.apart(states.curve) < CROWDED)

    def alone(self, states: States, label: int | None, result: Posterior, place: Tensor) -> None:
        """Posteriors of states (B, 1, d) that share nothing, written into `result` at `place` (B,).

        By few axes where few rows are sure to matter, else by planes of digits.
        """
        left = self._far(states, label, result, place)
        crowded = left & self.crowded(states)[:, 0]
        # A second plane where one would list too many rows.
        close = left & ~crowded & (self.apart(states.curve)[:, 0] < (0.0 if self.shaping else CLOSE))
        ways: list[tuple[Tensor, Make, Answer]] = [
            (crowded, lambda own: alone(own, 1.5 * self.sharp(own)), self._many),
            (close, lambda own: alone(own, self.wanted(own)), self.posterior),
            (left & ~crowded & ~close, self.shaping.states if self.shaping else alone, self.posterior),
        ]
        made = [(which, *make(states[which]), answer) for chosen, make, answer in ways if len(which := chosen.nonzero().flatten())]
        shared = together(self.shelf, [digits for _, _, digits, _ in made], label, self.shelf.memory // 8, self.workspace)
        for (which, family, _, answer), products in zip(made, shared, strict=True):
            answer(family, products, label).scatter_to(result, place[which])

    def _many(self, family: Family, products: Products, label: int | None) -> Posterior:
        """Posteriors of a family's states to which so many rows are expected to matter that none is listed."""
        flat = family.states.flat
        which, none = torch.arange(len(flat.z), device=flat.z.device), torch.full_like(flat.shell[:, 0], torch.inf)
        total = self._dense(family, products, label, which, None, none)
        return self.checked(self.merged(total, flat, 0.0), flat, label, self.rows(label))

    def _far(self, states: States, label: int | None, result: Posterior, place: Tensor) -> Tensor:
        """Answer those of the states (B, 1, d) that lie so close to a row that few axes tell it from the others; (B,) which are left."""
        apart = self.apart(states.curve)[:, 0]
        far = (apart > FAR) & ~states.steep[:, 0]
        left = torch.ones_like(far)
        if not bool(far.any()) or self.coarse is None:
            return left
        which, (_, margin, dropped) = far.nonzero().flatten(), self.margin(label)
        own = states[which]
        self.workspace.begin()
        state, row, many = matter(own, self.coarse, label, margin, self.ranks, FEW, self.workspace)
        total = settle(own.single, self.shelf, state, row, self.ranks)
        ratios(own.single, self.shelf, state, row, total.ratio)
        done = (~many).nonzero().flatten()
        self.work["few rows by few axes, float64 differences"] += len(done)
        if len(done) < len(own.z):
            total, own, which = total[done], own[done], which[done]
        total = self.merged(total, own, dropped)
        self.checked(total, own, label, self.rows(label)).scatter_to(result, place[which])
        left[which] = False
        return left

    def merged(self, total: Partial, flat: States, dropped: float) -> Partial:
        """The partials of all processes as one; of rows that were left out, no more than the share `dropped` is missing."""
        total, at_data = self.ranks.merge(total), flat.at_data[:, 0]
        total.error += (~at_data).double() * (2 * dropped * self.shelf.reach) * total.mass
        total.ratio = torch.where(at_data, torch.where(total.peak == 0, 1.0, torch.inf), total.ratio)
        return total

    def _partials(self, family: Family, products: Products, label: int | None, last: bool = False) -> Partial:
        """Partials of a family's states, flat, with their r*; `last`: these are the most digits that a state can have."""
        states = family.states
        flat = states.flat
        _, apart, _ = self.margin(label)
        # Of a steep state with its nearest row inside the shell, no row farther than 2σ√d can be nearer to the shell.
        margin = (apart + 2 * states.d * states.steep.double()).masked_fill(states.at_data, 1.0)
        # Differences in float64 tell near-ties apart, products in float64 do so where they round little.
        clear = rounding(flat, self.shelf)[:, 0] < BLURRED * self.tolerance
        paired, some, left = torch.where(clear, ALONE, FEW), self.some(label), LEFT * self.tolerance
        found = Nominator(family, self.shelf, margin, FEW, paired=paired, some=some, left=left).run(products)
        total = settle(flat.single, self.shelf, found.state, found.row, self.ranks)
        steep, inside = flat.steep[:, 0], (flat.steep & ~flat.at_data)[found.state, 0]
        ratios(flat.single, self.shelf, found.state[inside], found.row[inside], total.ratio)
        crowds = self.ranks.any(found.many & steep)
        for one in crowds.nonzero():
            self.work["all rows, float64 differences"] += 1
            pairs = steep_rows(flat[one].single, self.shelf, label, apart + 2 * states.d, self.ranks)
            part = settle(flat[one].single, self.shelf, *pairs, self.ranks)
            ratios(flat[one].single, self.shelf, *pairs, part.ratio)
            total.put(one, part)
        rest = (found.many | found.many_near) & ~steep
        near = ~rest[found.near_state]  # sums of all rows look for the nearest themselves
        ratios(flat.single, self.shelf, found.near_state[near], found.near_row[near], total.ratio)
        # Rounding may differ among processes, what they do next may not.
        blunt = self.ranks.any(rest & (family.drift > 2 * self.sharp(states)).flatten() & (flat.alpha[:, 0] > 0))
        which = blunt.nonzero().flatten()
        if len(which) and not last:
            # Their own digits, more of them: then few rows are left, or sums are exact.
            own, digits = alone(flat[which], 1.5 * self.sharp(flat[which]))
            total.put(which, self._partials(own, Products(self.shelf, digits, label, self.shelf.memory // 8), label, last=True))
            rest, found.some = rest & ~blunt, found.some & ~blunt
        which = found.some.nonzero().flatten()
        if len(which):
            self.work["some rows, one by one"] += len(which)
            part = listed(flat, self.shelf, which, found.lists, found.error, self.tolerance, left)
            part.ratio = total.ratio[which]
            total.put(which, part)
        self.work["few rows, float64 differences"] += int((~rest & ~blunt & ~found.some & ~crowds).sum())
        for chosen, summed in ((rest & found.many, True), (rest & ~found.many, False)):
            which = chosen.nonzero().flatten()
            if not len(which):
                continue
            part = self._dense(family, products, label, which, found.peak[which], total.ratio[which], summed)
            if summed:
                total.put(which, part)
            else:
                total.ratio[which] = part.ratio
        return total

    def _dense(
        self,
        family: Family,
        products: Products,
        label: int | None,
        which: Tensor,
        start: Tensor | None,
        ratio: Tensor,
        summed: bool = True,
    ) -> Partial:
        """Partials of the states `which` (flat indices) from digits of all rows, with their r*; without `summed` r* alone.

        The largest logits are about `start`, if that is known, and `ratio` is what is known of r* so far.
        """
        flat = family.states.flat[which]
        way = Dense(family, self.shelf, which, summed, start, self.rows(label), self.tolerance)
        part, nearest = way.run(products)
        part.ratio = ratio
        ratios(flat.single, self.shelf, *nearest.pairs(), part.ratio)
        self.work[f"all rows, {arithmetic(self.shelf.device)} digits"] += len(which) * summed
        return part

    def checked(self, total: Partial, flat: States, label: int | None, count: int) -> Posterior:
        """The posterior, after another look at those whose bound is too wide: with more digits, then in float64."""
        result = total.posterior(flat.single, count, self.shelf.bank.shape)
        for again in (self._finer, self._float64):
            size = torch.linalg.vector_norm(result.mean.flatten(1), dim=1)
            size = size.clamp(max=self.shelf.bank.radius, min=1e-3 * self.shelf.bank.radius)
            wide = (result.error_bound > self.tolerance * size) & ~flat.steep[:, 0]  # which were asked as exactly as can be
            which = self.ranks.any(wide).nonzero().flatten()
            for some in which.split(256) if len(which) else ():
                part = again(flat[some], label)
                part.ratio = torch.where((part.ratio - 1).abs() < (total.ratio[some] - 1).abs(), part.ratio, total.ratio[some])
                dropped = self.margin(label)[2] if again == self._finer else 0.0
                better = self.merged(part, flat[some], dropped).posterior(flat[some].single, count, self.shelf.bank.shape)
                keep = better.error_bound < result.error_bound[some]
                better[keep.nonzero().flatten()].scatter_to(result, some[keep])
        return result

    def _finer(self, states: States, label: int | None) -> Partial:
        """Partials from more digits."""
        self.work["again, more digits"] += len(states.z)
        family, digits = alone(states, self.sharp(states) / 16)
        return self._partials(family, Products(self.shelf, digits, label, self.shelf.memory // 8), label, last=True)

    def _float64(self, states: States, label: int | None) -> Partial:
        """Partials from all rows in float64."""
        self.work["again, all rows, float64"] += len(states.z)
        return double(states, self.shelf, label)
