"""The run itself: all methods on all workloads, repeat after repeat, each repeat in the same order.

All methods stay ready in memory, so that within a repeat they follow each other without a pause in which the machine could change.
Before its first measurement a method answers a few states, untimed: whatever it builds lazily counts as preparation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scorescope.bench import gaussian, workloads
from scorescope.bench.judge import reference_means, relative_errors
from scorescope.bench.load import Stopwatch
from scorescope.bench.methods import Method, chosen, ours
from scorescope.bench.methods.base import Ready
from scorescope.bench.record import KIND, RECORD, Record, about, machine
from scorescope.bench.workloads import Batches, Workload
from scorescope.denoiser import Denoiser
from scorescope.empirical.score import free_memory
from scorescope.errors import InputError, unknown
from scorescope.identity import identity_or_token
from scorescope.progress import Board, Row
from scorescope.rows import Bank
from scorescope.runs import claimed

AUDITED = 64  # queries of each workload that are judged
WARM_STATES, WARM_STEPS = 4, 3


@dataclass(frozen=True)
class Setting:
    """What to measure; everything here is part of a record's identity.

    Attributes:
        pairs: Training pairs, trajectories, and states in a random batch.
        times: Timesteps of a sweep.
        workloads, methods: Names; all where empty.
        repeats: Of everything; medians are reported.
        threads: Of the CPU.
        seed: Names every random stream.
        memory: Bytes that may hold rows, for the methods that keep to a budget; None leaves it to them.
        device: Where to compute.
        full: Whether other methods, too, are timed on every timestep.
    """

    pairs: int = 256
    times: int = 100
    workloads: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    repeats: int = 3
    threads: int = 1
    seed: int = 0
    memory: int | None = None
    device: str = "cpu"
    full: bool = False

    def __post_init__(self) -> None:
        for name in ("pairs", "times", "repeats", "threads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}", f"--{name} {getattr(Setting, name)}")
        for name in self.workloads:
            if name not in workloads.NAMES:
                raise unknown("workload", name, workloads.NAMES)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def measure(
    bank: Bank, setting: Setting, out: Path, model: Denoiser | None = None, board: Board | None = None, force: bool = False
) -> dict[str, Any]:
    """Run what is missing in `out`/bench.json and return its content; `force` begins again.

    Raises:
        InputError: Unknown or missing methods, too little memory for all of them, a folder of another run.
    """
    named = [name for name in workloads.NAMES if not setting.workloads or name in setting.workloads]
    able, lacking = fit(len(bank), bank.shape, setting, model)
    device = torch.device(setting.device)
    shared, alone = conditions(setting, model)
    identity = {**shared, "bank": about(bank)}
    with claimed(out, KIND, identity, force=force), _threads(setting.threads), board or Board(quiet=True) as shown:
        record = Record(out / RECORD, identity)
        record.content["lacking"] |= lacking
        record.content["default"] = ours.name_of(ours.DEFAULT)
        if alone:
            shown.say(alone)
        _Run(bank, setting, device, model, record, shown).run([method for method in able if method.name not in lacking], named)
    return record.content


def fit(rows: int, shape: tuple[int, ...], setting: Setting, model: Denoiser | None) -> tuple[list[Method], dict[str, str]]:
    """Methods that can run on a bank of so many rows of that shape, and why others can't.

    Raises:
        InputError: As `measure`, before there is a bank.
    """
    if model is not None and model.shape is not None and model.shape != shape:
        raise InputError(f"{model.name} takes states of shape {model.shape}, but the bank's rows have shape {shape}", "its own bank")
    device = torch.device(setting.device)
    able, lacking = _able(setting, device)
    _fits(able, rows * math.prod(shape), device)
    return able, lacking


def conditions(setting: Setting, model: Denoiser | None) -> tuple[dict[str, Any], str]:
    """What a record depends on beside the bank, and why it can't be continued, if so."""
    source, alone = (None, "") if model is None else identity_or_token(model)
    return {"arguments": asdict(setting), "trajectories_of": source, "machine": machine(torch.device(setting.device))}, alone


def _able(setting: Setting, device: torch.device) -> tuple[list[Method], dict[str, str]]:
    """Methods that can run, and why others can't."""
    picked = chosen(setting.methods)
    lacking = {method.name: why for method in picked if (why := method.lacking(device))}
    if setting.methods and lacking:
        name, why = next(iter(lacking.items()))
        raise InputError(f"method {name}: {why}", "--methods without it")
    return [method for method in picked if method.name not in lacking], lacking


def _fits(methods: list[Method], values: int, device: torch.device) -> None:
    """Refuse to begin what would not fit: peers hold all rows, all at once."""
    needed, free = sum(method.resident for method in methods) * values, free_memory(device)
    if needed > free:
        holding = ", ".join(method.name for method in methods if method.resident)
        raise InputError(
            f"{holding} hold all rows in memory, {needed / 1e9:.1f} GB together, and {free / 1e9:.1f} GB are free", "fewer --methods"
        )


class _Run:
    """One run: what is made once and used by every repeat."""

    def __init__(self, bank: Bank, setting: Setting, device: torch.device, model: Denoiser | None, record: Record, board: Board) -> None:
        self.bank, self.setting, self.device, self.model, self.record, self.board = bank, setting, device, model, record, board
        self.ready: dict[str, Ready] = {}
        self.workloads: dict[str, Workload] = {}
        self.references: dict[str, Tensor] = {}
        self.warm: set[tuple[str, str]] = set()

    def run(self, methods: list[Method], names: list[str]) -> None:
        """Measure what the record lacks."""
        for repeat in range(self.setting.repeats):
            missing = [(w, m) for w in names for m in methods if not self.record.has(w, m.name, repeat)]
            for name in {w: None for w, _ in missing}:
                self._make(name)
            self._prepare([method for method in methods if any(m is method for _, m in missing)])
            missing = [(w, m) for w, m in missing if m.name in self.ready]
            for name, method in missing:
                self._warm_up(name, method)
            total = sum(self._part(method, self.workloads[name]).steps for name, method in missing)
            if not total:
                continue
            with self.board.row(f"repeat {repeat + 1} of {self.setting.repeats}", total) as row:
                for name, method in missing:
                    self.record.add(self._measured(name, method, repeat, row))
        self.record.write()

    def _make(self, name: str) -> None:
        if name in self.workloads:
            return
        told, count, steps = self.setting, self.setting.pairs, self.setting.times
        with self.board.row(f"states of {name}", count) as row:
            if name == "supervision":
                made: Workload = workloads.pairs(self.bank, count, steps, told.seed, self.device)
            elif name == "random":
                made = workloads.batches(self.bank, count, told.seed, self.device)
            elif self.model is None:
                made = gaussian.trajectories(self.bank, count, steps, told.seed, self.device)
            else:
                made = workloads.sampled(self.model, count, self.bank.shape, steps, told.seed, self.device, row)
        self.workloads[name] = made

    def _prepare(self, methods: list[Method]) -> None:
        methods = [m for m in methods if m.name not in self.ready and m.name not in self.record.content["lacking"]]
        if not methods:
            return
        with self.board.row("preparing methods", len(methods)) as row:
            for method in methods:
                begun = time.perf_counter()
                try:
                    self.ready[method.name] = method.prepare(self.bank, self.device, self.setting.memory)
                except InputError as problem:
                    if method.ours:
                        raise
                    self.record.content["lacking"][method.name] = problem.problem
                self.record.content["prepare_seconds"][method.name] = time.perf_counter() - begun
                row(1, method.name)

    def _warm_up(self, name: str, method: Method) -> None:
        if (name, method.name) in self.warm:
            return
        self.warm.add((name, method.name))
        begun = time.perf_counter()
        whole = self.workloads[name]
        for _ in self.ready[method.name].answers(whole.narrow(WARM_STATES, slice(whole.steps // 2, None, -(-whole.steps // WARM_STEPS)))):
            pass
        self._settle()
        self.record.content["prepare_seconds"][method.name] += time.perf_counter() - begun

    def _part(self, method: Method, workload: Workload) -> Workload:
        """What is timed: everything for our own, an evenly spaced part for the others."""
        if method.ours or self.setting.full:
            return workload
        every = max(1, workload.steps // method.steps) if workload.swept or method.states else 1
        return workload.narrow(method.states or workload.states, slice(every // 2, None, every))

    def _measured(self, name: str, method: Method, repeat: int, row: Row) -> dict[str, Any]:
        whole = self.workloads[name]
        part, answers = self._part(method, whole), self.ready[method.name].answers
        queries = self.queries(name)
        wanted: dict[int, list[int]] = {}
        for place, (k, _) in enumerate(queries if method.ours and repeat == 0 else []):
            wanted.setdefault(k, []).append(place)
        kept: dict[int, Tensor] = {}
        self._settle()
        watch = Stopwatch()
        for k, means in answers(part):
            kept |= {place: means[queries[place][1]].flatten().clone() for place in wanted.get(k, ())}
            row(1, f"{name}, {method.name}")
        self._settle()
        seconds, own, others = watch.stop()
        found = {
            "workload": name, "method": method.name, "ours": method.ours, "repeat": repeat, "measured_seconds": seconds,
            "processor_seconds": own, "others_share": others,
            "measured_steps": part.steps, "measured_states": part.states, "steps": whole.steps, "states": whole.states,
            "seconds": seconds * (whole.steps * whole.states) / (part.steps * part.states), "path": self.ready[method.name].path(),
        }  # fmt: skip
        if repeat == 0:
            if method.ours:
                answered = torch.stack([kept[place] for place in range(len(queries))])
            else:
                _, answered = next(answers(self.audit(name)))
            found["errors"] = relative_errors(answered, self.reference(name))
            found["error_times"] = [float(t) for t in self.audit(name).times.flatten()]
        return found

    def queries(self, name: str) -> list[tuple[int, int]]:
        """(step, state) of what is judged."""
        return self.workloads[name].audited(AUDITED, self.setting.seed)

    def audit(self, name: str) -> Batches:
        """The judged queries as one batch."""
        return self.workloads[name].gather(self.queries(name))

    def reference(self, name: str) -> Tensor:
        """What the judged queries' answers should be, made once."""
        if name not in self.references:
            with self.board.row(f"float64 reference of {name}", len(self.bank)) as row:
                self.references[name] = reference_means(self.bank, *self.audit(name).step(0), row)
        return self.references[name]

    def _settle(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
