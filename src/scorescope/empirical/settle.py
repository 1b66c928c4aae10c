"""Few rows: their logits again from direct differences in float64, in which near-ties cancel before they are squared."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from scorescope.empirical.buffers import Buffers
from scorescope.empirical.partial import LAST, Partial
from scorescope.empirical.ranks import Ranks
from scorescope.empirical.shelf import Shelf
from scorescope.empirical.states import States
from scorescope.search.products import U64

VALUES = 1 << 19  # float64 values of one step: what a cache holds


def settle(states: States, shelf: Shelf, state: Tensor, row: Tensor, ranks: Ranks) -> Partial:
    """Partials of B states (B, d) from (state, row) pairs, each of weight 1 or less and none other of weight worth counting.

    A state whose rows lie with several processes is settled relative to the nearest of all, which its owner shows to the others:
    peaks that each had rounded by itself would not tell near-ties apart.
    """
    result = Partial.nothing(len(states.z), states.d, states.z.device)
    state, row = closest_alone(states, shelf, state, row, ranks)
    order = torch.argsort(state, stable=True)
    state, row = state[order], row[order]
    found, counts = state.unique_consecutive(return_counts=True)
    here = torch.zeros(len(states.z), dtype=torch.int64, device=state.device)
    here.scatter_(0, found, 1 + (counts * states.d > shelf.at_once(VALUES)).long())  # so many that they are taken in parts
    shared = (ranks.total(here) > 1).nonzero().flatten()
    if len(shared):
        mine = torch.isin(state, shared)
        _shared(states, shelf, shared, state[mine], row[mine], result, ranks)
        here = ~torch.isin(found, shared)
        found, counts, state, row = found[here], counts[here], state[~mine], row[~mine]
    ends = counts.cumsum(0)
    for part in _parts(counts, max(1, shelf.at_once(VALUES) // states.d)):
        own = slice(int(ends[part.start] - counts[part.start]), int(ends[part.stop - 1]))
        result.put(found[part], _few(states, shelf, found[part], state[own], row[own]))
    return result


def _parts(counts: Tensor, room: int) -> list[slice]:
    """Consecutive states whose pairs number about `room` together, or one with more."""
    sizes = ((counts.cumsum(0) - 1) // room).unique_consecutive(return_counts=True)[1]
    return [slice(stop - size, stop) for size, stop in zip(sizes.tolist(), sizes.cumsum(0).tolist(), strict=True)]


def _shared(states: States, shelf: Shelf, shared: Tensor, state: Tensor, row: Tensor, result: Partial, ranks: Ranks) -> None:
    """The states `shared` whose rows lie with several processes, or are too many to be taken at once; (state, row) are one's own."""
    slot, count = torch.searchsorted(shared, state), len(shared)
    square = squares(states, shelf, state, row)
    closest = least_of(square, slot, count, ranks)
    nearest = _first_of(shelf, slot, row, square == closest[slot], count, ranks)
    for own in torch.arange(len(state), device=state.device).split(max(1, shelf.at_once(VALUES) // states.d)) if len(state) else ():
        found = state[own].unique_consecutive()
        place = torch.searchsorted(shared, found)
        part = _few(states, shelf, found, state[own], row[own], (closest[place], nearest[place]))
        result.put(found, result[found].merge(part))


def _few(states: States, shelf: Shelf, wanted: Tensor, state: Tensor, row: Tensor, given: tuple[Tensor, Tensor] | None = None) -> Partial:
    """States `wanted` with several rows each, or with the nearest row `given`: its squared distance and itself."""
    slot, own, x = torch.searchsorted(wanted, state), states[wanted], shelf.fetch(row)
    last, zero = torch.full_like(wanted, LAST), torch.zeros(len(wanted), dtype=torch.float64, device=row.device)
    # A state's rows come with the one that is most likely the nearest first.
    nearest = x[slot.diff(prepend=slot[:1] - 1).nonzero().flatten()] if given is None else given[1]
    gap, doubt, apart, far = _gaps(own, slot, x, nearest, shelf.buffers)
    for _ in range(2):
        if given is not None or not bool((gap < 0).any()):
            break
        least = (zero + torch.inf).scatter_reduce(0, slot, gap, "amin")
        top = last.scatter_reduce(0, slot, torch.where(gap == least[slot], row, LAST), "amin")
        chosen = (row == top[slot]).nonzero().flatten()
        nearest = x[chosen[torch.argsort(slot[chosen])]]
        gap, doubt, apart, far = _gaps(own, slot, x, nearest, shelf.buffers)
    # Rows of which each is said to be nearer than the other: float64 does not resolve which, and that is all that is known.
    doubt, gap = doubt - gap.clamp(max=0.0), gap.clamp(min=0.0)
    # The nearest row and its duplicates; of these the first of all processes is the first in the merge.
    top = last.scatter_reduce(0, slot, torch.where(gap == 0, row, LAST), "amin")
    weight = (-gap).exp()
    mass = zero.index_add(0, slot, weight)
    moment = -torch.zeros_like(nearest).index_add_(0, slot, apart.mul_(weight[:, None]))  # relative to the nearest row
    # Each weight is off by at most its own factor; ‖x − mean‖² from what both are away from the nearest row.
    off = torch.where(doubt < 1, weight * torch.expm1(doubt), (doubt - gap).clamp(max=50).exp()).masked_fill_(own.at_data[slot], 0.0)
    mean = moment / mass.clamp(min=1e-300)[:, None]
    means = torch.index_select(mean, 0, slot, out=shelf.buffers.take("middle", tuple(x.shape), x.dtype))
    lean, beside = torch.linalg.vecdot(apart, means) / weight.clamp(min=1e-300), mean.norm(dim=1)[slot]
    away = (far**2 + 2 * lean + beside**2).clamp(min=0).sqrt() + 1e-7 * (far + beside)
    closest = torch.addcmul(own.z, own.alpha[:, None], nearest, value=-1).square_().sum(1) if given is None else given[0]
    peak, moment = -0.5 * own.true_precision * closest, moment.addcmul_(mass[:, None], nearest - shelf.centre)
    below = torch.where(weight > 0, -weight * gap, 0.0)
    tilt, mass2, doubt, error = (zero.index_add(0, slot, v) for v in (below, weight.square(), off, 2 * off * away))
    return Partial(peak, top, mass, moment, tilt, mass2, doubt, error, zero + torch.inf)


def _gaps(own: States, slot: Tensor, x: Tensor, nearest: Tensor, buffers: Buffers) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logit of the nearest row minus that of row x (M, d), of states in `slot` (M,) with nearest rows (B, d), and a bound on its rounding.

    ‖z − αx‖² − ‖z − αx_k‖² = α⟨x_k − x, 2(z − αx_k) + α(x_k − x)⟩, in which near-ties cancel; with them x_k − x, for now, and its norm.
    """
    apart, middle = (buffers.take(name, tuple(x.shape), x.dtype) for name in ("apart", "middle"))
    alpha, aside = own.alpha[:, None], 2 * torch.addcmul(own.z, own.alpha[:, None], nearest, value=-1)
    torch.index_select(nearest, 0, slot, out=apart).sub_(x)
    torch.index_select(aside, 0, slot, out=middle).addcmul_(alpha[slot], apart)
    far, scale = torch.linalg.vector_norm(apart, dim=1), 0.5 * own.alpha * own.true_precision
    entering = 8 * (own.z.norm(dim=1) + own.alpha * nearest.norm(dim=1))[slot] + 4 * own.alpha[slot] * far
    doubt = scale[slot] * far * U64 * ((x.shape[1] + 8) * torch.linalg.vector_norm(middle, dim=1) + entering)
    gap = scale[slot] * torch.linalg.vecdot(apart, middle)
    return gap.masked_fill_(own.at_data[slot], 0.0), doubt.clamp_(max=1e300), apart, far


def gaps_of(states: States, shelf: Shelf, state: Tensor, row: Tensor, ranks: Ranks) -> Tensor:
    """(M,) logit of the nearest row of a state's minus that of the row, of (state, row) pairs; 0 at σ = 0."""
    square, count = squares(states, shelf, state, row), len(states.z)
    nearest = _first_of(shelf, state, row, square == least_of(square, state, count, ranks)[state], count, ranks)
    found = torch.zeros_like(square)
    for part in torch.arange(len(state), device=state.device).split(max(1, shelf.at_once(VALUES) // states.d)):
        wanted, slot = state[part].unique(return_inverse=True)
        found[part] = _gaps(states[wanted], slot, shelf.fetch(row[part]), nearest[wanted], shelf.buffers)[0]
    return found


def ratios(states: States, shelf: Shelf, state: Tensor, row: Tensor, result: Tensor) -> None:
    """Bring `result` (B,) nearer to 1 by the distance ratios (Eq. 4) of (state, row) pairs, from direct differences in float64."""
    ratio = squares(states, shelf, state, row).sqrt() / (states.sigma[state] * states.d**0.5)
    closest = torch.full_like(result, torch.inf).scatter_reduce(0, state, (ratio - 1).abs(), "amin")
    # Of the two sides at an equal distance from 1 either is right; the first is taken.
    hit = ((ratio - 1).abs() == closest[state]).nonzero().flatten().flip(0)
    better = (closest[state[hit]] < (result[state[hit]] - 1).abs()) | result[state[hit]].isinf()
    result[state[hit[better]]] = ratio[hit[better]]


def squares(states: States, shelf: Shelf, state: Tensor, row: Tensor) -> Tensor:
    """‖z − αx‖² (M,) of (state, row) pairs, from direct differences in float64."""
    found = torch.empty(len(state), dtype=torch.float64, device=state.device)
    for part in torch.arange(len(state), device=state.device).split(max(1, shelf.at_once(VALUES) // states.d)):
        x, which = shelf.fetch(row[part]), state[part]
        found[part] = (states.z[which] - states.alpha[which, None] * x).square().sum(1)
    return found


def _first_of(shelf: Shelf, state: Tensor, row: Tensor, which: Tensor, count: int, ranks: Ranks) -> Tensor:
    """(count, d) of each state the first row, in all processes, of the (state, row) pairs for which `which` (M,) holds."""
    top = torch.full((count,), LAST, device=state.device)
    top = ranks.smallest(top.scatter_reduce(0, state[which], row[which], "amin"))
    found = torch.zeros(count, shelf.bank.d, dtype=torch.float64, device=state.device)
    own = (row == top[state]).nonzero().flatten()
    found[state[own]] = shelf.fetch(row[own])
    return ranks.total(found)


def closest_alone(states: States, shelf: Shelf, state: Tensor, row: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """The (state, row) pairs without those that, at σ = 0, are farther than another; float64 where it tells, else exact arithmetic."""
    at_data = states.at_data
    if not bool(at_data.any()):
        return state, row
    asked = at_data[state].nonzero().flatten()
    own, among = state[asked], row[asked]
    apart = squares(states, shelf, own, among).sqrt()
    limit = _within(states, shelf, least_of(apart, own, len(at_data), ranks), 0.0)
    near = (apart <= limit[own]).nonzero().flatten()
    several = ranks.total(torch.bincount(own[near], minlength=len(at_data))) > 1
    unclear = near[several[own[near]]]
    own, among = own[unclear], among[unclear]
    nearest = _first_of(shelf, own, among, unclear >= 0, len(at_data), ranks)
    while bool(several.any()):
        pairs = zip(shelf.fetch(among).cpu().numpy(), own.tolist(), strict=True)
        gaps = [_exact_gap(x, nearest[k].cpu().numpy(), states.z[k].cpu().numpy(), float(states.alpha[k])) for x, k in pairs]
        gap = torch.tensor(gaps, dtype=torch.float64, device=own.device)
        least = least_of(gap, own, len(at_data), ranks).clamp(max=0.0)
        if not bool((least < 0).any()):
            break
        nearest = _first_of(shelf, own, among, gap == least[own], len(at_data), ranks)
    kept = torch.ones_like(state, dtype=torch.bool)
    kept[asked] = False
    kept[asked[near[~several[state[asked[near]]]]]] = True
    if bool(several.any()):
        kept[asked[unclear[gap == 0]]] = True
    return state[kept], row[kept]


def least_of(value: Tensor, state: Tensor, count: int, ranks: Ranks) -> Tensor:
    """(count,) the least of the values (M,) of each state, in all processes."""
    none = torch.full((count,), torch.inf, dtype=torch.float64, device=value.device)
    return ranks.smallest(none.scatter_reduce(0, state, value, "amin"))


def _within(states: States, shelf: Shelf, apart: Tensor, margin: float) -> Tensor:
    """(B,) the distance from z that float64 may find of a row no farther than `apart` (B,) and `margin` nats more."""
    alpha, sigma, centre = states.alpha, states.sigma, states.centre.norm()
    entering = states.norm + alpha * (2 * centre + shelf.reach)
    off = U64 * (2 * (states.d + 8) * apart + 8 * entering)
    return (apart.square() + 2 * margin * sigma**2).sqrt() + 2 * off


def _exact_gap(x: np.ndarray, nearest: np.ndarray, z: np.ndarray, alpha: float) -> float:
    """(‖z − αx‖² − ‖z − αx_k‖²)/α of float64 vectors (d,), α > 0, in whole numbers and then rounded: 0 only for equals."""
    mantissa, exponent = np.frexp(np.stack([x, nearest, z]))
    exponent = np.where(mantissa == 0, 0, exponent - 53)
    low = int(exponent.min())
    own, other, state = (mantissa * 2.0**53).astype(np.int64).astype(object) << (exponent - low).astype(object)
    over, under = alpha.as_integer_ratio()
    gap = int(((own - other) * (over * (own + other) - 2 * under * state)).sum())
    value = gap * 4 ** max(low, 0) / (under * 4 ** max(-low, 0))
    return value or math.copysign(5e-324, gap) * (gap != 0)


def steep_rows(states: States, shelf: Shelf, label: int | None, margin: float, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """(state, row) pairs of one state (1, d) and all rows of a class, or of all, within `margin` nats of the nearest."""
    row = torch.from_numpy(shelf.indices(label)).to(states.z.device)
    row = torch.cat([row, row + len(shelf.bank.rows)]) if shelf.bank.flips else row
    apart = squares(states, shelf, torch.zeros_like(row), row).sqrt()
    row = row[apart <= _within(states, shelf, least_of(apart, torch.zeros_like(row), 1, ranks), margin)]
    return torch.zeros_like(row), row
