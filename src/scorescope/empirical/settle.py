"""Few rows: their logits again from direct differences in float64, in which near-ties cancel before they are squared."""

from __future__ import annotations

import torch
from torch import Tensor

from scorescope.empirical import compiled
from scorescope.empirical.family import States
from scorescope.empirical.partial import LAST, Partial
from scorescope.empirical.ranks import Ranks
from scorescope.empirical.shelf import Shelf
from scorescope.search.products import U64

VALUES = 1 << 22  # float64 values of one step


def settle(states: States, shelf: Shelf, state: Tensor, row: Tensor, ranks: Ranks) -> Partial:
    """Partials of B states (B, 1, d) from (state, row) pairs, each of weight 1 or less and none other of weight worth counting.

    A state whose rows lie with several processes is settled relative to the nearest of all, which its owner shows to the others:
    peaks that each had rounded by itself would not tell near-ties apart.
    """
    result = Partial.nothing(len(states.z), states.d, states.z.device)
    order = torch.argsort(state, stable=True)
    state, row = state[order], row[order]
    found, counts = state.unique_consecutive(return_counts=True)
    here = torch.zeros(len(states.z), dtype=torch.int64, device=state.device)
    here[found] = 1
    shared = (ranks.total(here) > 1).nonzero().flatten()
    if len(shared):
        mine = torch.isin(state, shared)
        _shared(states, shelf, shared, state[mine], row[mine], result, ranks)
        here = ~torch.isin(found, shared)
        found, counts, state, row = found[here], counts[here], state[~mine], row[~mine]
    ends = counts.cumsum(0)
    for part in _parts(counts, max(1, VALUES // states.d)):
        own = slice(int(ends[part.start] - counts[part.start]), int(ends[part.stop - 1]))
        _few(states, shelf, found[part], state[own], row[own], result)
    return result


def _parts(counts: Tensor, room: int) -> list[slice]:
    """Consecutive states whose pairs number at most `room` together, or one state with more."""
    parts, start, held = [], 0, 0
    for k, count in enumerate(counts.tolist()):
        if held and held + count > room:
            parts.append(slice(start, k))
            start, held = k, 0
        held += count
    return [*parts, slice(start, len(counts))] if held else parts


def _shared(states: States, shelf: Shelf, shared: Tensor, state: Tensor, row: Tensor, result: Partial, ranks: Ranks) -> None:
    """The states `shared` whose rows lie with several processes; (state, row) are one's own."""
    slot, count = torch.searchsorted(shared, state), len(shared)
    square = squares(states, shelf, state, row)
    closest = torch.full((count,), torch.inf, dtype=torch.float64, device=state.device)
    closest = ranks.smallest(closest.scatter_reduce(0, slot, square, "amin"))
    top = torch.full((count,), LAST, device=state.device)
    top = ranks.smallest(top.scatter_reduce(0, slot, torch.where(square == closest[slot], row, LAST), "amin"))
    nearest = torch.zeros(count, states.d, dtype=torch.float64, device=state.device)
    owned = (row == top[slot]).nonzero().flatten()
    nearest[slot[owned]] = shelf.fetch(row[owned])
    nearest = ranks.total(nearest)
    found, counts = state.unique_consecutive(return_counts=True)
    ends = counts.cumsum(0)
    for part in _parts(counts, max(1, VALUES // states.d)):
        own = slice(int(ends[part.start] - counts[part.start]), int(ends[part.stop - 1]))
        place = torch.searchsorted(shared, found[part])
        _few(states, shelf, found[part], state[own], row[own], result, (closest[place], nearest[place]))


def _few(
    states: States, shelf: Shelf, wanted: Tensor, state: Tensor, row: Tensor, result: Partial, given: tuple[Tensor, Tensor] | None = None
) -> None:
    """States `wanted` with several rows each, or with the nearest row `given`: its squared distance and itself."""
    slot = torch.searchsorted(wanted, state)
    if shelf.exact and shelf.resident:
        x = shelf.fetch(row)
    else:
        unique, place = row.unique(return_inverse=True)
        x = shelf.fetch(unique)[place]
    if compiled.usable(x.device):
        counts = torch.bincount(slot, minlength=len(wanted))
        own = (states.z[:, 0], states.alpha[:, 0], states.precision[:, 0], states.at_data[:, 0], states.centre)
        closest, top, mass, moment, size, tilt, mass2, doubt, error = compiled.few(x, row, counts, wanted, *own, U64, given)
        peak, none = -0.5 * own[2][wanted] * closest, torch.full_like(closest, torch.inf)
        result.put(wanted, Partial(peak, top, mass, moment, size, tilt, mass2, doubt, error, none))
        return
    z, alpha, precision, at_data = (v[wanted] for v in (states.z[:, 0], states.alpha[:, 0], states.precision[:, 0], states.at_data[:, 0]))
    count, device = len(wanted), x.device
    zero = torch.zeros(count, dtype=torch.float64, device=device)
    last = torch.full((count,), LAST, device=device)
    if given is None:
        square = (z[slot] - alpha[slot, None] * x).square().sum(1)
        closest = (zero + torch.inf).scatter_reduce(0, slot, square, "amin")
        top = last.scatter_reduce(0, slot, torch.where(square == closest[slot], row, LAST), "amin")
        chosen = (row == top[slot]).nonzero().flatten()
        nearest = x[chosen[torch.argsort(slot[chosen])]]
    else:
        closest, nearest = given
    gap, doubt = _gaps(x, nearest[slot], z[slot], alpha[slot], precision[slot])
    if given is not None:
        # The nearest row and its duplicates; of these the first of all processes is the first in the merge.
        top = last.scatter_reduce(0, slot, torch.where(gap == 0, row, LAST), "amin")
    weight = torch.where(at_data[slot], (gap == 0).double(), (-gap).exp())
    centred = x - states.centre
    mass = zero.index_add(0, slot, weight)
    moment = torch.zeros(count, states.d, dtype=torch.float64, device=device).index_add(0, slot, weight[:, None] * centred)
    # Each weight is off by at most its own factor.
    off = torch.where(at_data[slot], 0.0, weight * torch.expm1(doubt))
    away = (centred - (moment / mass.clamp(min=1e-300)[:, None])[slot]).norm(dim=1)
    result.put(
        wanted,
        Partial(
            -0.5 * precision * closest,
            top,
            mass,
            moment,
            zero.index_add(0, slot, weight * centred.square().sum(1)),
            zero.index_add(0, slot, -torch.where(weight > 0, weight * gap, 0.0)),
            zero.index_add(0, slot, weight.square()),
            zero.index_add(0, slot, off),
            2 * zero.index_add(0, slot, off * away),
            zero + torch.inf,
        ),
    )


def _gaps(x: Tensor, nearest: Tensor, z: Tensor, alpha: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
    """Logit of the nearest row minus that of row x, and a bound on its rounding.

    ‖z − αx‖² − ‖z − αx_k‖² = α⟨x_k − x, 2z − α(x + x_k)⟩, in which near-ties cancel before they are squared.
    """
    apart, middle = nearest - x, 2 * z - alpha[:, None] * (x + nearest)
    scale = 0.5 * alpha * precision
    entering = 4 * (2 * z.norm(dim=1) + alpha * (x.norm(dim=1) + nearest.norm(dim=1)))
    doubt = scale * apart.norm(dim=1) * U64 * ((x.shape[1] + 8) * middle.norm(dim=1) + entering)
    return scale * (apart * middle).sum(1), doubt.clamp(max=50)


def ratios(states: States, shelf: Shelf, state: Tensor, row: Tensor, result: Tensor) -> None:
    """Bring `result` (B,) nearer to 1 by the distance ratios (Eq. 4) of (state, row) pairs, from direct differences in float64."""
    ratio = squares(states, shelf, state, row).sqrt() / (states.sigma[state, 0] * states.d**0.5)
    closest = torch.full_like(result, torch.inf).scatter_reduce(0, state, (ratio - 1).abs(), "amin")
    # Of the two sides at an equal distance from 1 either is right; the first is taken.
    hit = ((ratio - 1).abs() == closest[state]).nonzero().flatten().flip(0)
    better = (closest[state[hit]] < (result[state[hit]] - 1).abs()) | result[state[hit]].isinf()
    result[state[hit[better]]] = ratio[hit[better]]


def squares(states: States, shelf: Shelf, state: Tensor, row: Tensor) -> Tensor:
    """‖z − αx‖² (M,) of (state, row) pairs, from direct differences in float64."""
    if shelf.exact and shelf.resident and compiled.usable(state.device):
        return compiled.apart(shelf, row, states.z[:, 0], states.alpha[:, 0], state)
    found = torch.empty(len(state), dtype=torch.float64, device=state.device)
    for part in torch.arange(len(state), device=state.device).split(max(1, VALUES // states.d)):
        x, which = shelf.fetch(row[part]), state[part]
        if compiled.usable(x.device):
            found[part] = compiled.squares(x, states.z[:, 0], states.alpha[:, 0], which)
        else:
            found[part] = (states.z[which, 0] - states.alpha[which] * x).square().sum(1)
    return found
