"""One answer: nominate, then settle the states that few rows matter to and sum all rows for the others, as tight as was asked for.

See `EmpiricalScore` for why the answer is exact.
"""

from __future__ import annotations

import math
from collections import Counter

import torch
from torch import Tensor

from scorescope.empirical.dense import Dense
from scorescope.empirical.digits import arithmetic
from scorescope.empirical.double import double
from scorescope.empirical.family import Family, States, alone
from scorescope.empirical.nominate import Nominator
from scorescope.empirical.partial import Partial
from scorescope.empirical.posterior import Posterior
from scorescope.empirical.products import Products
from scorescope.empirical.ranks import Ranks
from scorescope.empirical.settle import ratios, settle
from scorescope.empirical.shelf import Shelf

FEW = 64  # rows that are settled one by one
FINE = 1e-6  # a tighter tolerance than this is left to float64
SPARSE = 1000.0  # squared distances between rows, in units of 2σ²/α², beyond which few rows are expected to matter
GUESS = 0.1  # share of the radius that a posterior mean is assumed to have until it is known


class Engine:
    """Posteriors of families among the rows of one class, or of all.

    Attributes:
        work: How many states each path has answered.
    """

    def __init__(self, shelf: Shelf, tolerance: float, ranks: Ranks) -> None:
        self.shelf, self.tolerance, self.ranks = shelf, tolerance, ranks
        self.work: Counter[str] = Counter()

    @property
    def digits_suffice(self) -> bool:
        """Whether sums of digits can be as exact as was asked for."""
        return self.shelf.exact and self.tolerance >= FINE

    def rows(self, label: int | None) -> int:
        """Rows of a class, or all, in all processes."""
        own = len(self.shelf.bank.indices(label)) * (2 if self.shelf.bank.flips else 1)
        return int(self.ranks.total(torch.tensor(own, device=self.shelf.device)))

    def margin(self, label: int | None) -> tuple[int, float, float]:
        """Rows of a class; how far below the largest logit a row is dropped; the share that all dropped rows together can have."""
        count = self.rows(label)
        scale = max(self.shelf.bank.radius, torch.finfo(torch.float32).tiny)
        # What is dropped moves a mean by less than a quarter of the tolerance.
        dropped = self.tolerance * GUESS * scale / (8 * max(self.shelf.reach, scale))
        return count, math.log(count / dropped), dropped

    def sharp(self, states: States) -> Tensor:
        """(P, T) how much of a state its digits may leave where many rows matter: then the mean is exact enough (at first order)."""
        scale = max(self.shelf.bank.radius, torch.finfo(torch.float32).tiny)
        return 0.3 * self.tolerance * GUESS / (states.slope.clamp(min=1e-12) * scale)

    def wanted(self, states: States) -> Tensor:
        """(P, T) how much of a state its digits should leave: less where many rows are expected to matter."""
        reach = max(self.shelf.reach, torch.finfo(torch.float32).tiny)
        sharp = self.sharp(states)
        loose = torch.maximum(sharp, 1 / (states.slope.clamp(min=1e-12) * reach))
        return torch.where(states.curve * self.shelf.bank.radius**2 > SPARSE, loose, sharp)

    def posterior(self, family: Family, products: Products, label: int | None, least: Tensor | None = None) -> Posterior:
        """Posteriors of a family's states, flat (P·T). `least` (P, T) is a lower bound on the largest logit, where one is known."""
        states = family.states
        flat = states.flat()
        count, apart, dropped = self.margin(label)
        margin = torch.where(states.at_data, 0.0, apart)
        found = Nominator(family, self.shelf, margin, FEW, least, self.ranks).run(products)
        total = settle(flat, self.shelf, found.state, found.row)
        total.error += torch.where(flat.at_data[:, 0], 0.0, 2 * dropped * self.shelf.reach) * total.mass
        near_state, near_row = found.near_state, found.near_row
        self.work["few rows, float64 differences"] += int((~found.many).sum())
        for chosen, summed in ((found.many, True), (found.many_near & ~found.many, False)):
            which = chosen.nonzero().flatten()
            if not len(which):
                continue
            part, row = self._all(family, products, label, which, summed, found.peak, count)
            near_state, near_row = torch.cat([near_state, which]), torch.cat([near_row, row])
            if summed:
                total.put(which, part)
        ratios(flat, self.shelf, near_state, near_row, total.ratio)
        total = self.ranks.merge(total)
        total.ratio = torch.where(flat.at_data[:, 0], torch.where(total.peak == 0, 1.0, torch.inf), total.ratio)
        return self.checked(total, flat, label, count)

    def _all(
        self, family: Family, products: Products, label: int | None, which: Tensor, summed: bool, peak: Tensor, count: int
    ) -> tuple[Partial, Tensor]:
        """Partials of some states from all rows, of digits where these suffice, and the row of each that is nearest to its shell."""
        whole, row = Partial.nothing(len(which), family.states.d, peak.device), torch.zeros_like(which)
        if summed and not self.digits_suffice:
            self.work["all rows, float64"] += len(which)
            for some in torch.arange(len(which), device=peak.device).split(256):
                part, row[some] = double(family.states.flat(which[some]), self.shelf, label)
                whole.put(some, part)
            return whole, row
        if summed:
            self.work[f"all rows, {arithmetic(self.shelf.device)} digits"] += len(which)
        enough = (family.rest <= self.sharp(family.states)).flatten()[which]
        some = enough.nonzero().flatten()
        if len(some):
            ready = Dense(family, self.shelf, which[some], summed, peak[which[some]], count, self.tolerance * GUESS)
            part, row[some] = ready.run(products)
            whole.put(some, part)
        others = (~enough).nonzero().flatten()
        for some in others.split(256) if len(others) else ():
            own, digits = alone(family.states.flat(which[some]), 4)
            afresh = Products(self.shelf, digits, label, 0)
            each = torch.arange(len(some), device=peak.device)
            part, row[some] = Dense(own, self.shelf, each, summed, peak[which[some]], count, self.tolerance * GUESS).run(afresh)
            whole.put(some, part)
        return whole, row

    def checked(self, total: Partial, flat: States, label: int | None, count: int) -> Posterior:
        """The posterior, after float64 has had another look at those whose bound is too wide."""
        result = total.posterior(flat, count, self.shelf.bank.shape)
        size = torch.linalg.vector_norm(result.mean.flatten(1), dim=1).clamp(max=self.shelf.bank.radius, min=1e-3 * self.shelf.bank.radius)
        wide = (result.error_bound > self.tolerance * size) & (flat.alpha[:, 0] > 0)
        which = wide.nonzero().flatten()
        if not len(which):
            return result
        self.work["again, all rows, float64"] += len(which)
        for some in which.split(256):
            part, row = double(flat[some], self.shelf, label)
            part.ratio = total.ratio[some]
            part = self.ranks.merge(part)
            better = part.posterior(flat[some], count, self.shelf.bank.shape)
            keep = better.error_bound < result.error_bound[some]
            better[keep.nonzero().flatten()].scatter_to(result, some[keep])
        return result
