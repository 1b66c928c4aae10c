"""Return to origin (Experiment 4.2, Fig. 4, C.4): noise a training row to t, denoise it, and see whether the row comes back.

Each origin keeps its noise for all t, so that z_t = (1 − t) x + t ε is a line, and its return changes at few points of it. They are found
by bisection on C.4's 21 times: the middle of every stretch whose ends differ is measured, until none is left. That takes return to be
the same between two times at which it is; this is checked two times further on each side, and where it fails the search goes on from
there. Times in between are inferred: there `returned` has a value and `return_distance` has none.

Rows that training never saw are asked the same, with the same noise: what comes back of them says how much of it is memory. Both
searches are generators, which say what they ask next, so that the model answers both in one batch.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from scorescope import regions
from scorescope.probes.base import ROW, Subject, Variable, WholeProbe, squared
from scorescope.regions import Noised
from scorescope.rows import Bank
from scorescope.sampler import end_time, ends, start_time, trajectory
from scorescope.search import neighbours

TIMES = np.round(np.linspace(0.0, 1.0, 21), 2)  # C.4
NEAR = 0.005  # a time this little beyond the model's range is measured at its end: half of what two decimals can tell
STRIP = 3  # rows whose outputs are kept as pictures: they are measured at every time
ABOUT = 2  # times beyond the change at which it is checked
HALVINGS = 2  # of the stretch in which a row is first lost: to 0.0125
ROUNDS, EACH = 10, 23  # how often most origins are denoised, and what the model is asked each time
ADAPTIVE = 60  # evaluations of the run's solver, from a time in the middle


Asked = tuple[np.ndarray, np.ndarray]  # which origins (M,), and to which times (M,) they are noised
Found = tuple[np.ndarray, np.ndarray, Tensor]  # whether each returned, its distance, the outputs
Search = Generator[Asked, Found, None]


@dataclass
class Origins:
    """Noised rows of one bank, and what is known of their return.

    Attributes:
        subject: Whose model denoises them.
        bank: Theirs.
        others: Banks whose rows an output must not be nearer to, either.
        times: (T,) those that the model reaches.
        pairs: Rows and noise.
        returned, distance: (P, T); NaN where nothing is known.
        pictures: (STRIP, T, *shape) outputs of the first few.
        last, lost: (P,) between which times each row is first lost, once the search is over.
    """

    subject: Subject
    bank: Bank
    others: Sequence[Bank]
    times: np.ndarray
    pairs: Noised = field(init=False)
    returned: np.ndarray = field(init=False)
    distance: np.ndarray = field(init=False)
    pictures: Tensor = field(init=False)
    last: np.ndarray = field(init=False)
    lost: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        setting = self.subject.setting
        self.pairs = regions.supervision(self.bank, setting.sizes["origins"], setting.seed, setting.classes, purpose="origin ")
        shape = (len(self.pairs.x), len(self.times))
        self.returned, self.distance = np.full(shape, np.nan), np.full(shape, np.nan)
        self.pictures = torch.full((min(STRIP, shape[0]), shape[1], *self.bank.shape), torch.nan)

    def states(self, which: np.ndarray, times: np.ndarray) -> tuple[Tensor, Tensor, Tensor | None]:
        """Origins `which` (M,) noised to `times` (M,): states, the times as far as the model reaches, labels."""
        chosen, device = torch.from_numpy(which), self.subject.truth.device
        x, t = self.pairs.x[chosen], torch.from_numpy(np.minimum(times, start_time(self.subject.model)))
        at = t.reshape(-1, *[1] * (x.ndim - 1))
        z = ((1 - at) * x.double() + at * self.pairs.eps[chosen].double()).to(x.dtype).to(device)
        return z, t, None if self.pairs.label is None else self.pairs.label[chosen].to(device)

    def judged(self, which: np.ndarray, outputs: Tensor) -> Found:
        """Of outputs (M, *shape) of origins `which`: whether each returned, its distance per √d, and the outputs."""
        assert self.pairs.row is not None
        x = self.pairs.x[torch.from_numpy(which)]
        original = squared(outputs.double().cpu() - x.double()).sqrt()
        index, nearest = (part[:, 0].cpu() for part in neighbours(self.bank, outputs, 1))
        same = (index.numpy() == self.pairs.row[which]) | (original <= nearest).numpy()
        for other in self.others:
            same &= (nearest <= neighbours(other, outputs, 1)[1][:, 0].cpu()).numpy()
        self.subject.tick(len(which))
        return same, (original / x[0].numel() ** 0.5).numpy(), outputs.float().cpu()

    def search(self) -> Search:
        """Ask where return changes, and around; at every time the rows whose pictures are shown, those of training; then finer."""
        origins, shown = np.arange(len(self.returned)), 0 if self.others else STRIP
        every = origins if self.subject.setting.returns != "search" else origins[:shown]
        yield from self._fill(np.isin(origins, every)[:, None] & np.ones(len(self.times), bool))
        yield from self._fill(np.arange(len(self.times)) == np.zeros((len(origins), 1)))
        yield from self._halve()
        yield from self._fill(_beside(self.returned))
        yield from self._halve()
        yield from self._first_loss()

    def _halve(self) -> Search:
        """Ask the middle of every stretch whose ends differ, until none is left; beyond the last time a row counts as lost."""
        while (wanted := _middles(self.returned)).any():
            yield from self._fill(wanted)

    def _fill(self, wanted: np.ndarray) -> Search:
        """Ask where `wanted` (P, T) and nothing is known."""
        which, k = np.nonzero(wanted & np.isnan(self.returned))
        if len(which):
            self.returned[which, k], self.distance[which, k], outputs = yield which, self.times[k]
            for place in np.flatnonzero(which < len(self.pictures)):
                self.pictures[which[place], k[place]] = outputs[place]

    def _first_loss(self) -> Search:
        """`last` and `lost` (P,): the last time at which each row came back before it is first lost, and the first at which it is; NaN
        if it never is.
        """
        whole = inferred(self.returned)
        first = np.where((whole == 0).any(1), np.argmax(whole == 0, axis=1), whole.shape[1])
        self.last, self.lost = self.times[np.maximum(first - 1, 0)], np.append(self.times, np.nan)[first]
        for _ in range(HALVINGS if self.subject.setting.returns == "search" else 0):
            middle = (self.last + self.lost) / 2
            which = np.flatnonzero(np.isfinite(self.lost) & (first > 0) & (middle > end_time(self.subject.model)))
            if len(which):
                back = (yield which, middle[which])[0].astype(bool)
                self.last[which], self.lost[which] = (
                    np.where(back, middle[which], self.last[which]),
                    np.where(back, self.lost[which], middle[which]),
                )


def answered_together(subject: Subject, every: Sequence[Origins]) -> None:
    """All searches at once, whose rows all have labels or none: what they ask is denoised in one batch."""
    running = [(origins, search, next(search, None)) for origins in every for search in [origins.search()]]
    while asking := [(origins, search, asked) for origins, search, asked in running if asked is not None]:
        states, times, labels = zip(*(origins.states(*asked) for origins, _, asked in asking), strict=True)
        label = None if labels[0] is None else torch.cat(labels)
        outputs = _denoised(subject, torch.cat(states), torch.cat(times), label).split([len(z) for z in states])
        running = [
            (origins, search, _answered(search, origins.judged(asked[0], output)))
            for (origins, search, asked), output in zip(asking, outputs, strict=True)
        ]


def _answered(search: Search, found: Found) -> Asked | None:
    """What a search asks next; None at its end."""
    try:
        return search.send(found)
    except StopIteration:
        return None


def _denoised(subject: Subject, z: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
    """By a few Heun steps for the search; by the run's solver where every time is asked for."""
    setting, model = subject.setting, subject.model
    if setting.returns == "search":
        return ends(model, z, t, label, batch=setting.solver.batch)
    outputs = z.clone()
    for time in t.unique().tolist():
        here = (t == time).nonzero().flatten().to(z.device)
        tags = None if label is None else label[here]
        if time > end_time(model):
            outputs[here] = trajectory(model, z[here], [0.0], tags, start=time, solver=setting.solver, seed=setting.seed)[:, 0]
    return outputs


def _known(returned: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of (P, T + 1), where the last place is beyond all times: values, and the nearest known places before and after."""
    value = np.pad(returned, ((0, 0), (0, 1)), constant_values=0)
    place, known = np.arange(value.shape[1]), np.isfinite(value)
    before = np.maximum.accumulate(np.where(known, place, 0), axis=1)
    after = np.minimum.accumulate(np.where(known, place, value.shape[1] - 1)[:, ::-1], axis=1)[:, ::-1]
    return value, before, after


def _middles(returned: np.ndarray) -> np.ndarray:
    """(P, T) true in the middle of every stretch of unknown values whose known ends differ."""
    value, before, after = _known(returned)
    differ = np.take_along_axis(value, before, 1) != np.take_along_axis(value, after, 1)
    middle = (before + after) // 2 == np.arange(value.shape[1])
    return (np.isnan(value) & differ & middle)[:, :-1]


def _beside(returned: np.ndarray) -> np.ndarray:
    """(P, T) true `ABOUT` times before and after every change."""
    whole = np.pad(inferred(returned), ((0, 0), (0, 1)), constant_values=0)
    found = np.zeros(whole.shape, dtype=bool)
    row, last = np.nonzero(whole[:, 1:] != whole[:, :-1])
    for place in (last - ABOUT, last + 1 + ABOUT):
        inside = (place >= 0) & (place < whole.shape[1])
        found[row[inside], place[inside]] = True
    return found[:, :-1]


def inferred(returned: np.ndarray) -> np.ndarray:
    """(P, T) with unknown values taken from the known ones on both sides, which agree."""
    value, before, _ = _known(returned)
    return np.take_along_axis(value, before, 1)[:, :-1]


def measure(subject: Subject) -> Mapping[str, Any]:
    """`returned` by the paper's criterion: the nearest row of the output is the original (its exact duplicates count as it)."""
    times = TIMES[(TIMES == 0) | ((end_time(subject.model) <= TIMES) & (start_time(subject.model) + NEAR >= TIMES))]
    searches = {suffix: Origins(subject, bank, others, times) for suffix, bank, others in _banks(subject)}
    alike = len({origins.pairs.label is None for origins in searches.values()}) == 1
    for group in [list(searches.values())] if alike else [[origins] for origins in searches.values()]:
        answered_together(subject, group)
    found: dict[str, Any] = {"origin_time": TIMES}
    for suffix, origins in searches.items():
        found |= {
            f"returned{suffix}": _on_grid(inferred(origins.returned), times),
            f"return_distance{suffix}": _on_grid(origins.distance, times),
            f"return_last{suffix}": origins.last,
            f"return_lost{suffix}": origins.lost,
            f"origin_row{suffix}": origins.pairs.row,
        }
    found["return_image"] = _on_grid(searches[""].pictures.numpy(), times)
    return found


def _on_grid(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(P, T, …) at `times`, as (P, len(TIMES), …) with NaN at those of C.4 that the model does not reach."""
    whole = np.full((len(values), len(TIMES), *values.shape[2:]), np.nan, values.dtype)
    whole[:, np.isin(TIMES, times)] = values
    return whole


def _banks(subject: Subject) -> list[tuple[str, Bank, Sequence[Bank]]]:
    """The suffix of the variables, the rows that are noised, and what else an output may be nearest to."""
    unseen = [] if subject.held_out is None else [("_held_out", subject.held_out, [subject.bank])]
    return [("", subject.bank, ()), *unseen]


def work(subject: Subject) -> int:
    """One unit for each time that an origin is denoised, as often as most need."""
    origins, searched = subject.setting.sizes["origins"], subject.setting.returns == "search"
    every = [(origins if not searched else 0 if others else min(STRIP, origins)) for _, _, others in _banks(subject)]
    return sum(len(TIMES) * some + ROUNDS * (origins - some) for some in every)


def cost(subject: Subject) -> tuple[float, float]:
    """Evaluations of the model, and none of the exact score."""
    return float(work(subject) * (EACH if subject.setting.returns == "search" else ADAPTIVE)), 0.0


def rows(results: xr.Dataset) -> Sequence[np.ndarray]:
    """The origins whose outputs are kept."""
    return [results["origin_row"].values[: results.sizes["strip"]]] if "origin_row" in results else ()


def _variables(suffix: str, of: str) -> dict[str, Variable]:
    curve = ("origin", "origin_time")
    return {
        f"returned{suffix}": Variable(f"whether the nearest row of the output is the original, of {of}", "1", curve, "float32"),
        f"return_distance{suffix}": Variable(f"distance of the output from the original, per √dimension, of {of}", "data units", curve),
        f"return_last{suffix}": Variable(f"the last time before its first loss at which a row came back, of {of}", "1", ("origin",)),
        f"return_lost{suffix}": Variable(f"the first time at which a row was lost, of {of}", "1", ("origin",)),
        f"origin_row{suffix}": Variable(f"which of {of} were noised", "row", ("origin",), "int64", of_bank=True),
    }


PROBE = WholeProbe(
    "return-to-origin",
    "return to the noised training row",
    {
        **_variables("", "training rows"),
        **_variables("_held_out", "held-out rows"),
        "return_image": Variable("outputs of the first few", "data units", ("strip", "origin_time", ROW), "float32"),
    },
    measure,
    work,
    rows=rows,
    cost=cost,
)
