"""Many rows: a softmax in two passes over the logits, whose weights are summed as 8-bit digits or, where few of them weigh, row by row.

The first pass finds the mass of the weights, and which rows are nearest to the shell. The second rounds each weight to whole numbers of
a unit that the mass allows. Σ whole·q are integers, exact in any order and on any number of machines. Weights are rounded up or down at
random, with odds that make them right on average; row j's lot is the same for all states and on every machine. The error of the sum is
then Σ δ_j (x_j − mean) with independent δ_j of mean 0 within an interval of one unit, and by McDiarmid's inequality

    ‖Σ δ_j (x_j − mean)‖ ≤ unit (½ + 4) (Σ ‖x_j − mean‖²)^½    but for a probability of e⁻³² = 1.3·10⁻¹⁴.

Weights that few digits can't hold, and all weights of states that a few thousand rows carry, are summed one by one in float32 (`compiled`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from scorescope.empirical.chance import SAFE, lots
from scorescope.empirical.digits import compiled
from scorescope.empirical.digits.arithmetic import product
from scorescope.empirical.digits.family import Family
from scorescope.empirical.digits.nominate import error_of
from scorescope.empirical.digits.products import Products
from scorescope.empirical.digits.shelf import Shelf
from scorescope.empirical.partial import LAST, Partial
from scorescope.search.products import U64, Workspace
from scorescope.search.quantize import BASE

VALUES = 1 << 20  # logits of one step: what the caches of a processor hold
SAMPLE = 1024  # rows that tell how large logits are
EXACT = 1 << 17  # rows whose digits' products 32 bits can add up
ONE = 126.0  # units that one digit holds
MOST = 3  # digits beyond which float32 has nothing to tell
LEVELS = (1.0, 2.0, 3.0, 4.0, 6.0, 9.0, 12.0, 15.0, 18.0, 22.0)  # logits below the peak at which rows may be left out
ASTRAY = 40.0  # how far the largest logit may be from where it was expected
WORTH = 10  # digits of a row that cost as much as the row by itself


class Nearest:
    """For `count` states the nearest row on either side of the shell: one of the two has the distance ratio nearest to 1 (Eq. 4).

    Attributes:
        best: (2, count) float32 distance of its logit from the shell's: inside, outside; infinite where none was seen.
        row: (2, count) int64 its index.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self.best = torch.full((2, count), torch.inf, dtype=torch.float32, device=device)
        self.row = torch.full((2, count), -1, dtype=torch.int64, device=device)

    def pairs(self) -> tuple[Tensor, Tensor]:
        """(state, row) of every row that is the nearest on its side."""
        state = torch.arange(self.row.shape[1], device=self.row.device).expand(2, -1)
        found = self.row >= 0
        return state[found], self.row[found]


class Dense:
    """Partials of some states of a family (flat indices `wanted`, ascending) from all rows.

    Args:
        family: Its digits must leave little.
        shelf: The rows.
        wanted: (Q,) flat indices p·T + k.
        summed: Whether the posterior is wanted; r* alone otherwise.
        start: (Q,) about the largest logit, the same on all ranks; that of a few rows where None.
        count: Rows that are summed on all ranks.
        tolerance: Error of a mean, relative to its norm, half of which weights may cause.
        size: (Q,) norms that the means may be expected to have; guessed unless given.
    """

    def __init__(
        self,
        family: Family,
        shelf: Shelf,
        wanted: Tensor,
        summed: bool,
        start: Tensor | None,
        count: int,
        tolerance: float,
        size: Tensor | None = None,
    ) -> None:
        self.family, self.shelf, self.wanted, self.summed = family, shelf, wanted, summed
        self.count, self.tolerance, self.ranks, self.size = count, tolerance, shelf.ranks, size
        states, self.r, self.t = family.states, family.norms.shape[1], family.states.sigma.shape[1]
        self.device, many = states.z.device, len(wanted)
        self.group, self.which = torch.div(wanted, self.t, rounding_mode="floor"), wanted % self.t
        scale = states.slope[..., None] * family.coefficients * shelf.step
        self.columns = torch.cat([scale, -0.5 * states.curve[..., None]], 2)
        self.shell = states.shell.flatten()[wanted]
        self.nearest = Nearest(many, self.device)
        self.levels = torch.tensor(LEVELS, dtype=torch.float32, device=self.device)
        none = torch.zeros(many, dtype=torch.float64, device=self.device)
        self.start, self.known = none.clone() if start is None else start, start is not None
        # Of the second pass: units in digits, mass that was summed row by row, mass that was left out.
        self.whole, self.mass, self.lost = (none.clone() for _ in range(3))

    def run(self, products: Products) -> tuple[Partial, Nearest]:
        """The partials, and the rows of each state that are nearest to its shell."""
        self.label = products.label
        if not self.known:
            self.start = self._expected(products)
        self._look(products)
        highest = self.ranks.largest(self.high)
        astray = (highest.abs() > ASTRAY).nonzero().flatten()
        if self.summed and len(astray):
            self.start = torch.where(highest.abs() > ASTRAY, self.start + highest, self.start)
            own = self._of(astray)
            own._look(products)
            for name in ("sums", "high", "top", "below", "above"):
                getattr(self, name)[..., astray] = getattr(own, name)
        if not self.summed:
            return Partial.nothing(len(self.wanted), self.family.states.d, self.device), self.nearest
        self._decide()
        result = self._finish(self._moments(products))
        if self.size is None:
            self._mend(result, products)
        return result, self.nearest

    def _of(self, some: Tensor, size: Tensor | None = None) -> Dense:
        """The same for some of the states."""
        return Dense(self.family, self.shelf, self.wanted[some], True, self.start[some], self.count, self.tolerance, size)

    def _mend(self, result: Partial, products: Products) -> None:
        """Sum again, with finer units, for means that turned out shorter than they were guessed to be."""
        size = self.norm.clamp(min=1e-3 * self.shelf.bank.radius)
        short = (self.bound > 0.9 * self.tolerance * size.clamp(max=self.shelf.bank.radius)).nonzero().flatten()
        if not len(short):
            return
        result.put(short, self._of(short, size[short] / 2).run(products)[0])

    # ---- first pass -------------------------------------------------------------------------------------------------------

    def _expected(self, products: Products) -> Tensor:
        """(Q,) the largest logit of a few rows."""
        found = torch.full_like(self.start, -torch.inf)
        for tile in products:
            some = tile.first(SAMPLE)
            square = some.rows.square.expand(1, 1, -1)
            size = max(1, VALUES // (len(some.index) * max(self.t, self.r + 1)))
            for first in range(int(self.group[0]), int(self.group[-1]) + 1, size):
                begin, end = torch.searchsorted(self.group, torch.tensor([first, first + size], device=self.device)).tolist()
                if begin == end:
                    continue
                groups, part = slice(first, min(first + size, len(self.family.norms))), slice(begin, end)
                exact = self.family.products(some.exact, groups).double()
                logit = torch.bmm(self.columns[groups], torch.cat([exact, square.expand(len(exact), -1, -1)], 1)).flatten(0, 1)
                found[part] = logit[self.wanted[part] - first * self.t].amax(1)
            break
        return self.ranks.largest(found)

    def _look(self, products: Products) -> None:
        """What can be known of the weights before they are rounded."""
        many = len(self.wanted)
        # Σ w, Σ w (l − start), Σ w², Σ w ‖x‖² with w = e^(l − start), the largest l − start, and whose it is.
        self.sums = torch.zeros(4, many, dtype=torch.float64, device=self.device)
        self.high = torch.full((many,), -torch.inf, dtype=torch.float64, device=self.device)
        self.top = torch.full((many,), LAST, dtype=torch.int64, device=self.device)
        # By level: the mass of what lies below, and how many rows lie above.
        self.below, self.above = (torch.zeros(len(LEVELS), many, dtype=torch.float64, device=self.device) for _ in range(2))
        self.rows, self.square = 0, 0.0
        for tile in products:
            self.rows, self.square = self.rows + len(tile.index), self.square + float(tile.rows.square.sum())
            compiled.weigh(self, tile.exact, tile.rows.square, tile.index)

    # ---- what the first pass tells the second ------------------------------------------------------------------------------

    def _decide(self) -> None:
        """The unit of each state's digits; which states are summed row by row, and which rows these are."""
        # From here on relative to the very largest logit of all ranks.
        highest = self.ranks.largest(self.high)
        self.start, self.high = self.start + highest, self.high - highest
        self.sums[1] -= highest * self.sums[0]
        self.sums *= torch.stack([-highest, -highest, -2 * highest, -highest]).exp()
        self.below *= torch.exp(-highest)
        told = self.ranks.total(torch.cat([self.sums[[0, 2]], self.below, self.above, torch.full_like(self.sums[:1], self.square)]))
        (mass, mass2), (below, above), square = told[:2], told[2:-1].chunk(2), told[-1]
        size = self.size
        levels = torch.tensor(LEVELS, dtype=torch.float64, device=self.device)[:, None] + highest  # they were below the old start
        if size is None:  # means of few rows are longer than those of many; whatever the guess, the bound tells
            size = self.shelf.bank.radius * (0.4 * (mass2 / mass.square()).clamp(max=1) ** 0.15).clamp(min=0.1)
        allowed = 0.4 * self.tolerance * size * mass
        fraction, power = torch.frexp((allowed / (SAFE * 1.2 * square.clamp(min=1e-300).sqrt())).clamp(min=1e-30))
        self.unit = torch.ldexp(torch.floor(fraction * 256) / 256, power)  # the last bits of a sum may depend on the number of ranks
        fits = below <= allowed / (3 * max(self.shelf.reach, 1e-300))
        level = torch.where(fits.any(0), fits.long().argmax(0), len(LEVELS) - 1)
        self.deep = torch.exp(-levels.gather(0, level[None])[0]).float()
        costs = [torch.where(fits.any(0), above.gather(0, level[None])[0] * WORTH, torch.inf)]
        for planes in range(1, MOST + 1):
            # Rows that so many digits can't hold are summed by themselves: about as many as lie above the next level.
            held = -(self.unit * ONE * float(BASE) ** (planes - 1)).log()
            beyond = (levels < held).sum(0).clamp(max=len(LEVELS) - 1)
            rows = torch.where(held < 0, 0.0, above.gather(0, beyond[None])[0])
            costs.append(rows * WORTH + self.count * planes)
        self.planes = torch.stack(costs).argmin(0)
        self.slot = self.planes.cumsum(0) - self.planes

    # ---- second pass ------------------------------------------------------------------------------------------------------

    def _moments(self, products: Products) -> Tensor:
        """Σ w q over the rows, (Q, d) float64."""
        sides = 2 if self.shelf.bank.flips else 1
        moment = torch.zeros(sides, len(self.wanted), self.family.states.d, dtype=torch.float64, device=self.device)
        total = torch.zeros(sides, int(self.planes.sum()), moment.shape[2], dtype=torch.int32, device=self.device)
        cut: list[tuple[int, Tensor, Tensor]] = []  # digits of weights, and those of the rows that they are to be multiplied with
        rows, held = 0, 0
        for tile in products:
            n, side, dither = len(tile.index), int(tile.mirrored), lots(tile.index)
            if rows + n > EXACT or held > self.shelf.memory // 16:
                self._add(cut, total)
                if rows + n > EXACT:
                    self._carry(total, moment)
                    rows = 0
                cut, held = [], 0
            digits = torch.empty(total.shape[1], n, dtype=torch.int8, device=self.device)
            compiled.cut(self, tile.exact, tile.rows.square, tile.rows.q, dither, digits, moment[side])
            cut.append((side, digits, tile.rows.q))
            rows, held = rows + n, held + digits.numel() + tile.rows.q.numel()
        self._add(cut, total)
        self._carry(total, moment)
        return moment[0] + self.shelf.mirror(moment[1]) if sides == 2 else moment[0]

    def _add(self, cut: list[tuple[int, Tensor, Tensor]], total: Tensor) -> None:
        """Add the products of digits of weights and rows to their sums: many at a time, since products and loops wake different threads."""
        workspace = Workspace()
        for side, digits, q in cut if total.shape[1] else []:
            workspace.begin()
            total[side] += product(digits, q, workspace.take(len(digits), total.shape[2], self.device))

    def _carry(self, total: Tensor, moment: Tensor) -> None:
        """Add the sums of digits to the moments, and begin them anew."""
        for k in range(int(self.planes.max())):
            for some in (self.planes > k).nonzero().flatten().split(256):
                unit = self.unit[some, None] * float(BASE) ** k
                for side, sums in enumerate(total):
                    moment[side, some] += sums[self.slot[some] + k] * unit
        total.zero_()

    # ---- the answer -------------------------------------------------------------------------------------------------------

    def _finish(self, moment: Tensor) -> Partial:
        """The partial of one's own rows. What bounds its error is known of all ranks' rows together, and shared by mass."""
        shelf, ranks, states = self.shelf, self.ranks, self.family.states
        tilt, mass2, square = self.sums[1:]
        mass = self.mass + self.whole * self.unit
        moment *= shelf.step
        rows, squares = torch.full_like(mass, self.rows), torch.full_like(mass, self.square)
        all_mass, all_square, single, lost, rows, squares = ranks.total(torch.stack([mass, square, self.mass, self.lost, rows, squares]))
        seen = all_mass.clamp(min=1e-300)
        self.norm, own, lean = (torch.empty_like(mass) for _ in range(3))
        total = shelf.total(self.label)
        for some in torch.arange(len(mass), device=self.device).split(256):
            mean = ranks.total(moment[some]) / seen[some, None]
            own[some], lean[some] = mean.norm(dim=1), mean @ total
            self.norm[some] = mean.add_(self.family.states.centre).norm(dim=1)
        size = (all_square / seen).sqrt()
        # The mean square is a sum in float32: far from the centre it knows little of what is left when the mean's is taken off.
        spread = ((size**2 - own**2).clamp(min=0) + 2.0**-18 * size**2).sqrt()
        # What the digits leave of a state tilts weights by e^δ with δ = slope⟨rest, x⟩: at first order the mean moves by at most the
        # drift times the slope and the trace of the covariance. Rounding tilts them as it likes: Σ w(e^δ − 1)(x − mean)/Σ w e^δ.
        rest, drift = ((self.family.states.slope * left).flatten()[self.wanted] for left in (self.family.rest, self.family.drift))
        error = error_of(self.family, shelf, U64, rest=False).flatten()[self.wanted].clamp(max=50)
        moved = (torch.expm1(error) * error.exp() + 2.0**-22) * (spread + 1e-6 * shelf.reach) + shelf.rounded
        moved += (drift + rest * torch.expm1((4 * rest * (shelf.reach + own)).clamp(max=100))) * spread**2
        # Exponentials are right to 2^-22, and sums of single rows pass `DEPTH` roundings in float32; by Cauchy–Schwarz these rows'
        # Σ w ‖x‖ is no more than the root of their mass times Σ w ‖x‖².
        moved += compiled.DEPTH * 2.0**-24 * size * (single / seen).sqrt()
        # Σ ‖x − mean‖² is that of the bank about the mean.
        away = (squares - 2 * lean + rows * own**2).clamp(min=0).sqrt() * (1 + 1e-9)
        self.bound = moved + torch.where(self.planes > 0, SAFE * self.unit * away, lost * (shelf.reach + own)) / seen
        # Relative to the largest logit.
        none = ~(mass > 0)
        down = torch.where(none, 1.0, torch.exp(-self.high))
        high = torch.where(none, 0.0, self.high)
        constant = (0.5 * states.precision * states.norm**2).flatten()[self.wanted]
        return Partial(
            torch.where(none, -torch.inf, self.start + high - constant),
            self.top,
            down * mass,
            moment.mul_(down[:, None]),
            down * square,
            down * (tilt - high * mass),
            down**2 * mass2,
            torch.zeros_like(mass),
            down * mass * self.bound,
            torch.full_like(mass, torch.inf),
        )
