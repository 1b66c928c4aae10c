"""Is a model read right? Asked in seconds, before anything is measured.

What a network answers means something only with a schedule, a prediction, a time map and a range of values. A wrong one gives numbers,
too. Clean rows x of the bank are noised to levels k = σ/(α s), where s is the standard deviation of the rows, and

    e(k) = mean ‖x̂ − x‖²/d            of the model, as it is read
    m    = s²                          of the rows' mean
    r(k) = k² s²                       of z/α
    w(k) = s² k²/(1 + k²)              of the best mixture of these two
    Q    = exp(mean_k log e(k)/w(k))   of a reading; no function of the form a z + b has Q below 1 for centred rows, so that a model
                                       whose Q is below 1 has seen something of the rows

The same network is read in other ways, at the same levels k: as x, ε, v, score or their negatives; at other times; on other schedules; for
rows in another range; and as its rivals, what else its checkpoint could be (`scorescope.choice`). A model is refused where

    another reading   has Q < `INFORMED`, and the present Q is more than `BETTER` times as large; or
    Q > 1, and        at some k, e(k) > `FAR` m, or more than `SPILL` of the values of a few samples lie outside the rows' range, by more
                      than a tenth of it.

Where Q < 1 these last two are cautions: a network of 200 steps that predicts ε gives samples far outside, and is read right.

Thresholds were found on the demo's models, a transformer and a U-Net of 200 steps on the digits, an MLP on 8×8 digits as vectors, and one
on points of a ring. No right reading was worse than another one. Wrong ones were worse by 1.66 times or more in prediction, range or
sign. In time they were worse by 3.6 times or more, but for networks of 200 steps, which hardly depend on their time (1.01 to 1.66): what
matters little can't be told.

The rule was then tried on transformers of 400 and 500 steps on garments in [0, 1] (v), garments (ε, cosine schedule), CIFAR-10 (x) and
latents (v), and on a U-Net of 200 steps on CIFAR-10 (ε, VP schedule). All passed. Of 55 wrong readings it refused 50; the other five,
times and schedules by which the error grew by at most 1.18 times, are cautions. A transformer of 50 steps, whose samples are still noise,
is refused.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorescope import convert, seeds
from scorescope.denoiser import TIMES, Denoiser, Guided, NetworkDenoiser
from scorescope.errors import InputError
from scorescope.rows import Bank
from scorescope.sampler import Solver, start_time, trajectory
from scorescope.schedule import CosineSchedule, DiscreteSchedule, LinearSchedule, Schedule, VPSchedule
from scorescope.theories.gaussian import GaussianScore

ROWS = 32  # that are noised
OTHERS = 1024  # rows whose mean, range and Gaussian they are compared with, fewer where rows are large
WORK = 10**10  # multiplications for the Gaussian
LEVELS = (0.5, 1.5, 4.0)  # k of the readings
ALL_LEVELS = (0.1, *LEVELS, 12.0, 40.0)  # k of the comparison with simple denoisers
SAMPLES, STEPS = 8, 24  # drawn by Euler's method: its last step ends at the expected clean row, where Heun's can throw a stiff network off
FLOOR = 0.01  # of e(k)/w(k): below it a reading is right, and a copier, whose errors are rare, would be compared by chance
INFORMED, BETTER, FAR, SPILL = 0.97, 1.2, 10.0, 0.25
SOME_BETTER, SOME_FAR, SOME_SPILL = 1.03, 2.0, 0.01  # from where on a caution is due
TENTH = 0.1  # of the range of the rows, by which a value must lie outside to count
LATENT = 0.18215  # by which the latents of Stable Diffusion's first autoencoder are multiplied
SHOWN = 6  # readings in a table
ROUNDING = 1e-4  # by which errors of one network that is read in two ways may differ
ROUNDS = 3  # in each, one thing more is read in another way

PREDICTIONS = {"x": "x", "eps": "ε", "v": "v", "score": "score"}
TimeMap = Callable[[Schedule, Tensor], Tensor]


@dataclass(frozen=True)
class Line:
    """One reading: what it is, the option that asks for it, and Q; NaN where the network can't be asked so."""

    name: str
    option: str
    quality: float
    present: bool = False


@dataclass(frozen=True)
class Level:
    """Errors e at one noise level: linear time t, then the model, the rows' mean, z/α and the Gaussian of the rows; in data units²."""

    t: float
    model: float
    mean: float
    state: float
    gaussian: float


@dataclass(frozen=True)
class Reading:
    """Whether a model is read right.

    Attributes:
        model: Its name.
        verdict: "right", "caution" or "refused"; "not judged" of a model whose target is not E[x | z_t].
        reason: Why, in one line; empty where it is right.
        hint: The option that names the reading that fits best; empty where the present one does.
        outside: Share of the values of a few samples that lie more than a tenth of the rows' range outside it; NaN if none were drawn.
        lines: Readings, best first.
        levels: Errors beside those of simple denoisers.
        remarks: The cautions of the errors alone, for a run that looks at its own samples.
    """

    model: str
    verdict: str
    reason: str = ""
    hint: str = ""
    outside: float = math.nan
    lines: tuple[Line, ...] = ()
    levels: tuple[Level, ...] = ()
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.table

    @property
    def table(self) -> str:
        """Readings, errors and samples as text."""
        if not self.lines:
            return f"{self.model}: {self.reason}"
        shown = [*self.lines[:SHOWN], *(line for line in self.lines[SHOWN:] if line.present)]
        names = [f"{'▸' if line.present else ' '} {line.name}" for line in shown]
        wide = max(map(len, names))
        rows = {"t": "t", "model": "this model", "mean": "the rows' mean", "state": "z/α", "gaussian": "Gaussian of rows"}
        errors = [f"  {title:<18}" + "".join(f"{getattr(one, name):>10.3g}" for one in self.levels) for name, title in rows.items()]
        return "\n".join([
            f"{self.model}: error of each reading over that of the best mixture of mean and z/α; ▸ the present one",
            *(f"{name:<{wide}}  {line.quality:>8.3g}  {line.option}".rstrip() for name, line in zip(names, shown, strict=True)),
            "mean squared error of the expected clean row, for each value",
            *errors,
            f"values of samples more than a tenth of the rows' range outside it: {share_text(self.outside)}",
        ])  # fmt: skip

    def record(self) -> dict[str, Any]:
        """What a run keeps of it, as values that JSON holds."""
        outside = self.outside if math.isfinite(self.outside) else None
        plain = {name: getattr(self, name) for name in ("verdict", "reason", "hint", "table")}
        return {**plain, "outside": outside, "remarks": list(self.remarks)}

    def refuse(self, table: bool = True) -> Reading:
        """Itself.

        Raises:
            InputError: The model is refused; the table is the error's `details` if asked for.
        """
        if self.verdict == "refused":
            hint = f"{self.hint}, or --as-is to measure all the same" if self.hint else "--as-is to measure all the same"
            raise InputError(f"{self.model} is not read right: {self.reason}", hint, self.table if table else "")
        return self


def share_text(share: float) -> str:
    """A share as "0.2 %"."""
    return "unknown" if not math.isfinite(share) else f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def value_range(bank: Bank) -> tuple[float, float]:
    """Least and largest value of the bank's rows: those that 8-bit 0 and 255 stand for, as recorded, or of a subset of rows."""
    if bank.rows.dtype == np.uint8:
        return bank.low, bank.high
    if {"minimum", "maximum"} <= bank.manifest.keys():
        return float(bank.manifest["minimum"]), float(bank.manifest["maximum"])
    rows = bank[_chosen(np.arange(len(bank.rows)), OTHERS, 0)]
    return float(rows.min()), float(rows.max())


def outside(samples: Tensor | np.ndarray, low: float, high: float) -> float:
    """Share of values more than a tenth of the range outside it."""
    values, margin = torch.as_tensor(samples), TENTH * (high - low)
    return float(((values < low - margin) | (values > high + margin)).double().mean())


Rivals = Mapping[str, Denoiser]
NONE: Rivals = MappingProxyType({})


def check(
    model: Denoiser,
    bank: Bank,
    *,
    labels: str | Sequence[int] = "auto",
    seed: int = 0,
    device: str | torch.device = "cpu",
    rivals: Rivals = NONE,
) -> Reading:
    """Whether a model is read right on its bank; takes about a thousand evaluations of the network.

    Args:
        model: The model. Guidance is left aside: the reading is that of the network.
        bank: What it was trained on.
        labels: "auto" (the classes of the rows, where the model has classes), "none", or the classes that are looked at.
        seed: Names the rows, the noise and the samples.
        device: Where to compute.
        rivals: What else its weights could be, by the option that says so.

    Raises:
        InputError: The model can't be run on such rows, or answers with NaN or Inf.
    """
    while isinstance(model, Guided):
        model = model.model
    if model.samples_only:
        why = f"its target is not E[x | z_t] ({model.samples_only}), so that its samples and states alone are measured, its samples judged"
        return Reading(model.name, "not judged", why, remarks=(why,))
    if bank.radius == 0:
        same = "all rows of the bank are the same, so that no reading can be told from another"
        return Reading(model.name, "caution", same, remarks=(same,))
    with torch.no_grad():
        others = {option: quality(rival, bank, seed=seed, device=device) for option, rival in rivals.items()}
        return _Check(model.to(device), bank, labels, seed, torch.device(device)).reading(others)


def quality(model: Denoiser, bank: Bank, *, seed: int = 0, device: str | torch.device = "cpu") -> float:
    """Q of a model as it is read, on the rows and noise of `check`; about a hundred evaluations of the network.

    Raises:
        InputError: The model can't be asked about such rows.
    """
    with torch.no_grad():
        return _Check(model.to(device), bank, "auto", seed, torch.device(device)).present()


def _chosen(index: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Up to n of these, at random and without repetition."""
    return seeds.generator(seed, "reading", 0).permutation(index)[:n]


View = tuple[str, str, str]  # options for the schedule, the time and the range that differ from the present ones, which are ""
PRESENT: View = ("", "", "")


class _Check:
    """One check under way."""

    def __init__(self, model: Denoiser, bank: Bank, labels: str | Sequence[int], seed: int, device: torch.device) -> None:
        self.model, self.bank, self.seed, self.device = model, bank, seed, device
        asked = bool(model.classes) and bank.labels is not None and labels != "none" and len(labels) > 0
        index = np.arange(len(bank.rows))
        if asked and not isinstance(labels, str):
            assert bank.labels is not None
            index = index[np.isin(bank.labels, list(labels))]
        n = max(ROWS, min(OTHERS, math.isqrt(WORK // bank.d)))
        chosen = _chosen(index, ROWS + n, seed)
        own, others = chosen[:ROWS], chosen[ROWS:] if len(chosen) > 3 * ROWS else chosen
        self.x, self.others = bank[own].to(device), bank[others]
        self.label = torch.as_tensor(bank.labels[own], device=device) if asked and bank.labels is not None else None
        self.s2 = bank.radius**2 / bank.d
        self.first, self.last = model.linear_range
        self.network = isinstance(model, NetworkDenoiser) or bool(model.modules())
        self.own = getattr(model, "prediction", "x")
        self.schedules = self._schedules()
        self.times = self._times()
        self.ranges = self._ranges() if self.network else {"": (1.0, 0.0)}

    # ---- other readings ---------------------------------------------------------------------------------------------------------

    def _schedules(self) -> dict[str, Schedule]:
        own = self.model.schedule
        others = {"ss.LinearSchedule()": LinearSchedule(), "ss.VPSchedule()": VPSchedule(), "ss.CosineSchedule()": CosineSchedule()}
        simple = isinstance(self.model, NetworkDenoiser) and not isinstance(own, DiscreteSchedule)
        return {"": own} | {f"schedule={name}": one for name, one in others.items() if simple and not isinstance(own, type(one))}

    def _times(self) -> dict[str, TimeMap]:
        """Time maps: backwards, and in another unit."""
        if not isinstance(self.model, NetworkDenoiser):
            return {"": lambda schedule, t: t} | ({"its time at 1 - t": lambda schedule, t: 1 - t} if self.network else {})
        told, grid = self.model._time, torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
        own: TimeMap = TIMES[told] if isinstance(told, str) else lambda schedule, t: told(t)
        schedule = self.model.schedule
        n = schedule.steps if isinstance(schedule, DiscreteSchedule) else 1000
        words, back = ("t", "(1 - t)") if told == "t" else ("its time", "its time at 1 - t")
        found: dict[str, TimeMap] = {"": own, back.strip("()"): lambda s, t: own(s, 1 - t)}
        if float(own(schedule, grid).abs().max()) <= 2:  # larger numbers could be beyond the end of an embedding's table
            found |= {f"{n} * {words}": lambda s, t: n * own(s, t), f"{n} * {back}": lambda s, t: n * own(s, 1 - t)}
        else:
            found |= {f"{words} / {n}": lambda s, t: own(s, t) / n, f"{back} / {n}": lambda s, t: own(s, 1 - t) / n}
            found |= {"t": TIMES["t"], "1 - t": lambda s, t: 1 - t}
        kept: dict[str, TimeMap] = {}
        for name, one in found.items():
            if not any(torch.allclose(one(schedule, grid), other(schedule, grid)) for other in kept.values()):
                kept[f"time=lambda t: {name}" if name and "its" not in name else name] = one
        return kept

    def _ranges(self) -> dict[str, tuple[float, float]]:
        """Scale and shift of the rows."""
        low, high = value_range(self.bank)
        stored = self.bank.rows.dtype == np.uint8
        found = {"": (1.0, 0.0)}
        for bottom, top in ((0.0, 1.0), (-1.0, 1.0)):
            scale = (top - bottom) / max(high - low, 1e-12)
            if abs(low - bottom) + abs(high - top) > 1e-2 * (top - bottom):
                option = f"bank build --range {bottom:g} {top:g}" if stored else f"rows scaled to [{bottom:g}, {top:g}]"
                found[option] = (scale, bottom - scale * low)
        if not stored:
            found |= {f"rows {sign} {LATENT}": (scale, 0.0) for sign, scale in (("×", LATENT), ("/", 1 / LATENT))}
        return found

    def _around(self, view: View) -> list[View]:
        """The view, and those that differ from it in one thing."""
        schedule, time, span = view
        return list(dict.fromkeys([
            view,
            *((one, time, span) for one in self.schedules),
            *((schedule, one, span) for one in self.times),
            *((schedule, time, one) for one in self.ranges),
        ]))  # fmt: skip

    # ---- asking -----------------------------------------------------------------------------------------------------------------

    def _state(self, k: float, view: View = PRESENT) -> tuple[Tensor, Tensor, float]:
        """Rows as the view scales them, noised to level k (float64, in its schedule's coordinates); its times (B,); the linear time."""
        schedule, (scale, shift) = self.schedules[view[0]], self.ranges[view[2]]
        u = k * self.s2**0.5 * scale
        first, last = schedule.linear_range
        at = min(max(u / (1 + u), first + 1e-6), last - 1e-6)
        noise = seeds.normal(self.seed, "reading", range(len(self.x)), self.bank.shape, 1 + ALL_LEVELS.index(k)).to(self.device)
        linear = (1 - at) * (scale * self.x.double() + shift) + at * noise.double()
        z, t = convert.from_linear(linear, torch.full((len(self.x),), at, dtype=torch.float64, device=self.device), schedule)
        return z, t, at

    def _asked(self, z: Tensor, t: Tensor, view: View) -> Tensor:
        """What the network itself answers, (B, *shape)."""
        schedule, time = self.schedules[view[0]], self.times[view[1]]
        if not isinstance(self.model, NetworkDenoiser):
            return self.model.forward(z.float(), time(schedule, t), self.label)
        other = copy.copy(self.model)
        other.schedule = schedule
        if view[1]:
            other._time = lambda at: time(schedule, at)
        return other._ask(z.float(), t, self.label)

    def _qualities(self, view: View) -> dict[tuple[str, View], float]:
        """Q of each prediction and its negative."""
        found: dict[tuple[str, View], list[float]] = {}
        (scale, shift), schedule = self.ranges[view[2]], self.schedules[view[0]]
        for k in LEVELS:
            z, t, _ = self._state(k, view)
            try:
                answer = self._asked(z, t, view).double()
            except Exception:  # another reading than the present one may be anything to the user's code
                if view == PRESENT:
                    raise
                return {}
            for name in PREDICTIONS:
                for sign in ("", "−"):
                    mean = convert.mean_from(name)(z, -answer if sign else answer, t, schedule)
                    error = float(((mean - shift) / scale - self.x).square().mean()) / self._mixture(k)
                    found.setdefault((sign + name, view), []).append(math.log(max(error, FLOOR)) if math.isfinite(error) else math.inf)
        return {key: math.exp(min(sum(logs) / len(logs), 300.0)) for key, logs in found.items()}

    def _mixture(self, k: float) -> float:
        return self.s2 * k**2 / (1 + k**2)

    def _levels(self) -> tuple[Level, ...]:
        """Errors of the model, as it is read, and of simple denoisers; asked first, so that what can't be run is found here."""
        gaussian = GaussianScore(Bank.from_arrays(self.others), device=self.device)
        mean = self.bank.mean.to(self.device)
        found = []
        for k in ALL_LEVELS:
            u = k * self.s2**0.5
            if not self.first < u / (1 + u) < self.last:
                continue
            z, t, at = self._state(k)
            linear, _ = convert.to_linear(z, t, self.model.schedule)
            answer = self._run(z.float(), t)
            bad = (~answer.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()
            if bad:
                raise InputError(
                    f"{self.model.name} returned NaN or Inf at t = {float(t[0]):.4f} for row {bad[0]} of {len(self.x)} noised rows",
                    "a sound checkpoint",
                )
            guesses = (answer.double(), mean, linear / (1 - at), gaussian(linear, at))
            found.append(Level(at, *(float((guess - self.x).square().mean()) for guess in guesses)))
        return tuple(found)

    def _run(self, z: Tensor, t: Tensor) -> Tensor:
        """The model's posterior mean; what goes wrong in a network is one line."""
        try:
            found = convert.as_states(self.model(z, t, self.label), f"the answers of {self.model.name}")
        except InputError:
            raise
        except Exception as problem:
            said = " ".join(str(problem).split()) or "no message"
            raise InputError(
                f"{self.model.name} can't be asked about rows of shape {self.bank.shape} ({type(problem).__name__}: {said})",
                "the bank that it was trained on, or what the network is called with",
            ) from problem
        if found.shape != z.shape:
            raise InputError(f"{self.model.name} answers states of shape {tuple(z.shape[1:])} with shape {tuple(found.shape[1:])}")
        return found

    @cached_property
    def _outside(self) -> float:
        """Of a few samples; 1 where sampling ends in NaN or Inf."""
        start = start_time(self.model)
        label = None if self.label is None else self.label[torch.arange(SAMPLES) % len(self.label)]
        noise = seeds.normal(self.seed, "path", range(SAMPLES), self.bank.shape).to(self.device)
        rows = self.x[torch.arange(SAMPLES) % len(self.x)]  # a schedule that ends early begins at them
        try:
            begun, solver = (1 - start) * rows + start * noise, Solver("euler", STEPS)
            made = trajectory(self.model, begun, [0.0], label, start=start, solver=solver, seed=self.seed)
        except InputError:
            return 1.0
        return outside(made.cpu(), *value_range(self.bank))

    def present(self) -> float:
        """Q of the reading as it is; what can't be run is found first."""
        z, t, _ = self._state(LEVELS[0])
        self._run(z.float(), t)
        return self._qualities(PRESENT)[self.own, PRESENT]

    # ---- judging ----------------------------------------------------------------------------------------------------------------

    def reading(self, rivals: Mapping[str, float]) -> Reading:
        levels = self._levels()
        present: tuple[str, View] = (self.own, PRESENT)
        found, best = dict[tuple[str, View], float](), present
        for _ in range(ROUNDS):
            seen = {view for _, view in found}
            fresh = [view for view in self._around(best[1]) if view not in seen]
            found |= {key: value for view in fresh for key, value in self._qualities(view).items()}
            before, best = best, min(found, key=lambda key: (found[key], key != present))
            if best == before or found[best] * BETTER > found.get(present, math.inf):
                break
        lines = [Line(_name(*key), self._option(*key), found[key], key == present) for key in found]
        lines += [Line(option, option, value) for option, value in rivals.items()]
        # Two readings can be one network said in two ways, whose errors differ by rounding: what is simpler to say comes first.
        least = min(line.quality for line in lines) * (1 + ROUNDING)
        lines.sort(key=lambda line: (max(line.quality, least), not line.present, line.option not in rivals, line.quality))
        return self._judged(tuple(lines), levels)

    def _option(self, prediction: str, view: View) -> str:
        """What to say to read it so."""
        bare, own = prediction.removeprefix("−"), isinstance(self.model, NetworkDenoiser)
        other = f'prediction="{bare}"' if own else f'ss.NetworkDenoiser(net, schedule, prediction="{bare}")'
        said = [other if bare != self.own else "", "the network's answer negated" if bare != prediction else "", *view]
        return ", ".join(part for part in said if part)

    def _judged(self, lines: tuple[Line, ...], levels: tuple[Level, ...]) -> Reading:
        """The rule, see the module."""
        best, present = lines[0], next(line for line in lines if line.present)
        far = max(levels, key=lambda one: one.model / one.mean)
        spilled, ratio, better = self._outside, far.model / far.mean, present.quality / best.quality
        fits = f"read as {best.name} its error is {better:.3g} times smaller than as {present.name}"
        at = f"at t = {far.t:.2g} its squared error is {ratio:.3g} times that of always answering the mean row"
        spill = f"{share_text(spilled)} of the values of {SAMPLES} samples lie outside the range of the rows, by more than a tenth of it"
        useless = "at no noise level is it nearer to the clean rows than both the mean row and the noised row"
        remarks = list[str]()
        if best.quality < INFORMED and better > BETTER:
            found = ("refused", fits)
        elif present.quality > 1 and (ratio > FAR or spilled > SPILL):
            said = [text for text, holds in ((at, ratio > FAR), (spill, spilled > SPILL)) if holds]
            found = ("refused", "; ".join([*said, "no other reading that was tried fits, or it is hardly trained"]))
        else:
            if all(one.model >= min(one.mean, one.state) for one in levels):
                remarks = [useless]
            else:
                remarks = [text for text, held in ((fits, better > SOME_BETTER and self.network), (at, ratio > SOME_FAR)) if held]
            said = [*remarks, *([spill] if spilled > SOME_SPILL else [])]
            found = ("caution" if said else "right", "; ".join(said))
        hint = best.option if fits in found[1] else ""
        return Reading(self.model.name, *found, hint, spilled, lines, levels, tuple(remarks))


def _name(prediction: str, view: View) -> str:
    """A reading in words."""
    bare = prediction.removeprefix("−")
    words = [("−" if bare != prediction else "") + PREDICTIONS[bare], *(part.removeprefix("bank build --") for part in view)]
    return ", ".join(part.replace("time=lambda t: ", "time ") for part in words if part)


def readings(
    models: Mapping[str, Denoiser],
    bank: Bank,
    classes: Sequence[int],
    seed: int,
    device: str,
    as_is: bool,
    rivals: Callable[[Denoiser], Rivals],
) -> dict[str, Any]:
    """The checks of all models of an examination, as records by name.

    Raises:
        InputError: A model is refused, or can't be run, and `as_is` does not say to measure it all the same.
    """
    found = {}
    for name, model in models.items():
        try:
            told = check(model, bank, labels=list(classes), seed=seed, device=device, rivals=rivals(model))
        except InputError as problem:
            if not as_is:
                raise
            told = Reading(name, "refused", str(problem))
        found[name] = (told if as_is else told.refuse()).record() | {"as_is": as_is}
    return found


def warnings_of(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the report of a run must warn of, given `readings`."""
    refused = {name: one["reason"] for name, one in found.items() if one["verdict"] == "refused"}
    said = [f"{name} is measured as it is, though it is not read right: {reason}." for name, reason in refused.items()]
    return said + [f"{name}: {remark}." for name, one in found.items() if name not in refused for remark in one["remarks"]]


def spill_warning(name: str, share: float, low: float, high: float) -> list[str]:
    """A warning where more than a few values of a model's finished samples lie outside the rows' range."""
    if not share > SOME_SPILL:
        return []
    said = f"{share_text(share)} of the values of its samples lie more than a tenth of the rows' range, {low:.3g} to {high:.3g}, outside it"
    return [f"{name}: {said}; drawn, they are clipped."]
