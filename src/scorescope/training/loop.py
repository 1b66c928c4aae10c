"""The training loop: killed at any instant, the same command continues, and ends with the same weights.

A finished run leaves `model.safetensors` (EMA weights; in its metadata the architecture, the recipe, the bank that was shown and the one
whose score was learned), `recipe.json` (the same, versions, final loss), `loss.csv` and its last checkpoint, from which `fork` can go on.

Ranks and accumulation change nothing but memory and speed: step k takes items k·batch … (k + 1)·batch − 1, each rank an equal share.
"""

from __future__ import annotations

import copy
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from scorescope import __version__, runs
from scorescope.errors import InputError
from scorescope.files import write_json, write_tensors, write_text
from scorescope.nets import build
from scorescope.rows import Bank
from scorescope.training.checkpoint import KIND, State, newest, restore, save
from scorescope.training.compiling import check_compiler, compiled, told
from scorescope.training.examples import Batch, ahead, batch
from scorescope.training.objectives import Setting, Terms
from scorescope.training.recipe import Recipe, plain

if TYPE_CHECKING:
    from accelerate import Accelerator

WINDOW = 50  # steps that one point of the loss curve averages over
EVERY = 10.0  # seconds after which a live line is due even within a window
REMEDY = "a smaller --rate, with another --out"
STOPPED = 128 + signal.SIGTERM  # exit status of a process that SIGTERM has ended, once its step is saved


@dataclass
class Progress:
    """What a live line shows: step, loss of the window so far, seconds since this process began, steps it has made."""

    step: int
    steps: int
    loss: float
    seconds: float
    made: int


@dataclass
class Snapshot:
    """What a watcher sees: the step, the EMA network (in evaluation, not to be changed), the mean loss, the run's folder."""

    step: int
    network: nn.Module
    loss: float
    folder: Path


class Watcher(Protocol):
    """Looks at a run without changing it, on the first rank, after every `every` steps and after the last."""

    every: int

    def __call__(self, snapshot: Snapshot) -> None:
        """Look."""


@dataclass(frozen=True)
class Hooks:
    """Who is told, and how often is saved, while steps are made; no weight depends on it.

    Attributes:
        report: Called before the first step, after every `WINDOW` steps, and every ten seconds where those take longer.
        save_every: Seconds between checkpoints.
        watchers: Look at the EMA network while it is trained.
    """

    report: Callable[[Progress], None] | None = None
    save_every: float = 60.0
    watchers: Sequence[Watcher] = ()


class Task(nn.Module):
    """Network and loss as one module: what is wrapped for many ranks. `task(batch)` gives the terms."""

    def __init__(self, net: nn.Module, loss: nn.Module, precision: str) -> None:
        super().__init__()
        self.net, self.loss, self.precision = net, loss, precision

    def forward(self, batch: Batch) -> Terms:
        """The loss's terms."""
        with torch.autocast(batch.x.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            terms: Terms = self.loss(self.net, batch)
        return terms


def train(
    recipe: Recipe[Any, Any],
    bank: Bank,
    out: str | Path,
    *,
    device: str = "cpu",
    hooks: Hooks = Hooks(),
    fork: str | Path | None = None,
    force: bool = False,
) -> Path:
    """Train, or continue training, and return the path of the finished EMA weights.

    Under `torchrun` every rank makes the same call; only the first claims the folder (`scorescope.runs`) and writes. SIGTERM and the
    first Ctrl-C finish the step, save, and end the process (`SystemExit` with status 143, `KeyboardInterrupt`).

    Args:
        recipe: What to train.
        bank: On what.
        out: Folder of the run.
        device: Where the network lives; "cuda" is each rank's own, "cuda:1" for a single process.
        hooks: Who is told, and how often is saved.
        fork: Folder of another run, whose last checkpoint a new run begins with.
        force: Begin again, in place of the training run that is there.

    Raises:
        InputError: A value of the recipe, a folder that holds another run or anything else or is being written, a bank the architecture
            can't take, a batch that the ranks can't share, a network that can't be compiled, a loss that is not finite.
    """
    folder = Path(out)
    recipe.validate()
    settings = {**recipe.record(), "bank": bank.fingerprint} | ({} if fork is None else {"fork": Path(fork).resolve().name})
    hint = f"another --out, with --fork {folder} to begin where this run stands; or --force to begin again"
    continued = runs.continues(folder, KIND, settings, force=force, hint=hint)
    finished = folder / "model.safetensors"
    if continued and finished.exists():
        return finished
    whole, bank = bank, recipe.shown(bank)
    config = recipe.net.on(bank.shape, bank.classes)
    hardware = _hardware(device)
    if recipe.batch % (hardware.num_processes * recipe.accumulate):
        parts = f"{hardware.num_processes} ranks × --accumulate {recipe.accumulate}"
        raise InputError(f"--batch {recipe.batch} can't be shared evenly by {parts}", "a multiple of their product")
    if recipe.compile:
        check_compiler(device)
    state, rows = _start(recipe, config, bank, str(hardware.device))
    saved = newest(folder) if continued else None
    notes = {"bank": _named(whole)}
    if saved:
        restore(state, *saved)
    elif fork is not None:
        notes["forked"] = _forked(state, Path(fork))
    del saved
    net = compiled(state.net) if recipe.compile else state.net
    task = hardware.prepare(Task(net, state.loss, recipe.precision))  # type: ignore[arg-type]
    if recipe.compile:
        _compile(state, task, recipe, rows, hardware)
    main = hardware.is_main_process
    hardware.wait_for_everyone()  # all have read the folder before the first writes
    with runs.claimed(folder, KIND, settings, notes=notes, force=force, hint=hint) if main else nullcontext():
        _run(state, task, recipe, rows, hardware, folder, hooks)
        if main:
            _finish(state, recipe, described(recipe, whole), folder)
        hardware.wait_for_everyone()
    return finished


def described(recipe: Recipe[Any, Any], bank: Bank) -> dict[str, Any]:
    """What the file of a network that this recipe trains on this bank says of itself."""
    seen = recipe.shown(bank)
    about = {"family": recipe.family, "architecture": plain(recipe.net.on(seen.shape, seen.classes)), **plain(recipe.interpolant)}
    return {**about, "recipe": recipe.record(), "bank": _named(bank), "learned": _named(recipe.learned(bank))}


def _named(bank: Bank) -> dict[str, Any]:
    return {"fingerprint": bank.fingerprint, "name": bank.name, "rows": len(bank.rows)}


def _run(
    state: State,
    task: nn.Module,
    recipe: Recipe[Any, Any],
    rows: Bank,
    hardware: Accelerator,
    folder: Path,
    hooks: Hooks,
) -> None:
    """All steps that are left."""
    main, share = hardware.is_main_process, _share(recipe, hardware)
    begun = told = saved = time.monotonic()
    first = state.step
    # The items of a rank: of each step its own share, in `accumulate` parts.
    starts = (
        step * recipe.batch + (hardware.process_index * recipe.accumulate + part) * share
        for step in range(state.step, recipe.steps)
        for part in range(recipe.accumulate)
    )
    with _listening() as stopping, ahead(rows, recipe.seed, starts, share, recipe.class_dropout) as examples:
        if hooks.report:
            hooks.report(Progress(first, recipe.steps, state.curve.loss, 0.0, 0))
        while state.step < recipe.steps:
            stop = _step(state, task, recipe, examples, hardware, bool(stopping))
            if state.step % WINDOW == 0:
                state.curve.close(state.step)
            now = time.monotonic()
            if hooks.report and (state.step % WINDOW == 0 or now - told > EVERY):
                hooks.report(Progress(state.step, recipe.steps, state.curve.loss, now - begun, state.step - first))
                told = now
            for watcher in hooks.watchers if main else ():
                if state.step % watcher.every == 0 or state.step == recipe.steps:
                    watcher(Snapshot(state.step, state.ema, state.curve.loss, folder))
            if main and (stop or now - saved > hooks.save_every):
                _refuse_broken(state)
                save(state, folder)
                saved = now
            if stop:
                hardware.wait_for_everyone()
                if stopping and stopping[0] == signal.SIGINT:
                    raise KeyboardInterrupt
                if main:
                    line = f"stopped; step {state.step:,} is saved, and the same command (without --force) continues"
                    print(line, file=sys.stderr, flush=True)
                raise SystemExit(STOPPED)


def _step(state: State, task: nn.Module, recipe: Recipe[Any, Any], examples: Iterator[Batch], hardware: Accelerator, stop: bool) -> bool:
    """One optimizer step and the EMA's; whether any rank was asked to stop."""
    totals: dict[str, torch.Tensor] = {}
    for part in range(recipe.accumulate):
        with hardware.no_sync(task) if part < recipe.accumulate - 1 else nullcontext():
            terms = task(next(examples).to(hardware.device))
            (terms["loss"] / recipe.accumulate).backward()
        for name, value in terms.items():
            totals[name] = totals.get(name, 0.0) + value.detach().double() / recipe.accumulate
    told = torch.stack([*totals.values(), torch.tensor(float(stop), dtype=torch.float64, device=hardware.device)])
    *values, asked = hardware.reduce(told, "mean").tolist()
    if not math.isfinite(values[0]):
        raise InputError(f"the loss is {values[0]} at step {state.step + 1}; the last good checkpoint is kept", REMEDY)
    if recipe.clip:
        torch.nn.utils.clip_grad_norm_(state.trained.values(), recipe.clip)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1
    state.curve.add(list(totals), values)
    # torch's AveragedModel does the same in more lines: its first update copies, and its own count would be saved and restored, too.
    decay = min(recipe.ema, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        torch._foreach_lerp_(list(state.ema.parameters()), list(state.net.parameters()), 1 - decay)
    return asked > 0


def _share(recipe: Recipe[Any, Any], hardware: Accelerator) -> int:
    """Examples of a part of a rank's step."""
    return recipe.batch // (hardware.num_processes * recipe.accumulate)


def _compile(state: State, task: nn.Module, recipe: Recipe[Any, Any], rows: Bank, hardware: Accelerator) -> None:
    """Compile the network by a pass forward and back that changes nothing, so that whatever fails does so before anything is written."""
    examples = batch(rows, recipe.seed, 0, _share(recipe, hardware), recipe.class_dropout)
    with told(), hardware.no_sync(task):
        task(examples.to(hardware.device))["loss"].backward()
    state.optimizer.zero_grad(set_to_none=True)


def _hardware(device: str) -> Accelerator:
    """Devices and ranks; precision is the task's own."""
    try:
        from accelerate import Accelerator
    except ModuleNotFoundError as missing:
        raise InputError("training needs accelerate, which is not installed", "pip install accelerate") from missing
    if ":" in device:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise InputError(f"--device {device} names one device, and each rank has its own", f"--device {device.partition(':')[0]}")
        if device.startswith("cuda"):
            torch.cuda.set_device(device)
    return Accelerator(cpu=not device.startswith("cuda"), mixed_precision="no")


def _start(recipe: Recipe[Any, Any], config: Any, bank: Bank, device: str) -> tuple[State, Bank]:
    """The state before the first step, and the rows that training shows."""
    rows = recipe.objective.rows(bank, recipe.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        net = build(config)
        loss = recipe.objective.loss(Setting(bank, rows, recipe.interpolant, net, recipe.seed, device))
    net, loss = net.to(device), loss.to(device)
    ema = copy.deepcopy(net).eval().requires_grad_(False)
    trained = [p for p in (*net.parameters(), *loss.parameters()) if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.rate, betas=(0.9, 0.999), weight_decay=0.0, fused=True)
    return State(net, loss, ema, optimizer), rows


def _forked(state: State, source: Path) -> dict[str, Any]:
    """Begin where another run stands; what to record of it."""
    found = newest(source)
    if found is None:
        raise InputError(f"{source} holds no checkpoint to begin with", "the folder of a run of scorescope train")
    restore(state, *found)
    return {"run": source.name, "step": state.step}


def _refuse_broken(state: State) -> None:
    """A step may break the weights while its own loss was still finite; such weights are never written. The EMA sees them all."""
    if not all(bool(weight.isfinite().all()) for weight in state.ema.parameters()):
        raise InputError(f"the weights are not finite after step {state.step}; the last good checkpoint is kept", REMEDY)


@contextmanager
def _listening() -> Iterator[list[int]]:
    """The signals that asked the process to stop, for the loop to heed between two steps; a second one acts at once."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only the main thread may listen
        yield received
        return

    def note(number: int, frame: Any) -> None:
        received.append(number)
        signal.signal(number, before[signal.Signals(number)])

    known = {number: signal.getsignal(number) or signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGINT)}
    before = {number: handler for number, handler in known.items() if handler is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _finish(state: State, recipe: Recipe[Any, Any], about: dict[str, Any], folder: Path) -> None:
    """The files of a finished run."""
    _refuse_broken(state)
    save(state, folder, kept=1)
    write_text(folder / "loss.csv", state.curve.table(state.step))
    final = {"version": __version__, "torch": str(torch.__version__), "final_loss": state.curve.loss}
    write_json(folder / "recipe.json", {**about, **final})
    write_tensors(folder / "model.safetensors", state.ema.state_dict(), {"scorescope": json.dumps(about, sort_keys=True)})
