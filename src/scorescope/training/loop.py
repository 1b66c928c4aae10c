"""The training loop: killed at any instant, the same command continues, and ends with the same weights.

`OUT/checkpoints/step-*.safetensors` hold the network, its EMA and the optimizer's moments, written atomically; the newest whole one
is found by reading. A finished run leaves `model.safetensors` (EMA weights; the architecture in its metadata), `recipe.json`
(recipe, bank, versions, final loss) and `loss.csv`.
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from scorescope import __version__
from scorescope.bank import Bank
from scorescope.errors import InputError
from scorescope.files import write_json, write_tensors, write_text
from scorescope.nets import build
from scorescope.training.examples import batch
from scorescope.training.objectives import Setting
from scorescope.training.recipe import Recipe, plain

WINDOW = 50  # steps that one point of the loss curve averages over
EVERY = 10.0  # seconds after which a live line is due even within a window
REMEDY = "a smaller --rate, with another --out"


@dataclass
class Progress:
    """What a live line shows: step, loss of the window so far, seconds since this process began, steps it has made."""

    step: int
    steps: int
    loss: float
    seconds: float
    made: int


@dataclass
class State:
    """Everything that a step reads and changes."""

    net: nn.Module
    loss: nn.Module
    rows: Bank
    ema: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    step: int = 0
    losses: list[float] = field(default_factory=list)
    window: float = 0.0


def train(
    recipe: Recipe[Any, Any],
    bank: Bank,
    out: str | Path,
    *,
    device: str = "cpu",
    report: Callable[[Progress], None] | None = None,
    save_every: float = 60.0,
) -> Path:
    """Train, or continue training, and return the path of the finished EMA weights.

    Args:
        recipe: What to train.
        bank: On what; class-conditional if it has labels.
        out: Folder of the run.
        device: Where the network lives.
        report: Called after every `WINDOW` steps, and every ten seconds where those take longer.
        save_every: Seconds between checkpoints. SIGTERM and the first Ctrl-C finish the step, save, and end the process.

    Raises:
        InputError: A value of the recipe, a folder that belongs to another recipe or bank, a bank the architecture can't take, a loss
            that is not finite.
    """
    folder = Path(out)
    recipe.validate()
    record = {"recipe": recipe.record(), "bank": {"fingerprint": bank.fingerprint, "name": bank.name, "rows": len(bank.rows)}}
    _same_run(folder, record)
    finished = folder / "model.safetensors"
    if finished.exists():
        return finished
    config = recipe.net.on(bank.shape, bank.classes)
    write_json(folder / "run.json", record)
    state = _start(recipe, config, bank, device)
    _restore(state, folder)
    begun = told = saved = time.monotonic()
    first = state.step
    with _listening() as stopping:
        while state.step < recipe.steps:
            _step(state, recipe, device)
            full, now = state.step % WINDOW == 0, time.monotonic()
            loss = state.window / (state.step % WINDOW or WINDOW)
            if full:
                state.losses.append(loss)
                state.window = 0.0
            if report and (full or now - told > EVERY):
                told = now
                report(Progress(state.step, recipe.steps, loss, now - begun, state.step - first))
            asked = stopping[:1]
            if asked or now - saved > save_every:
                _save(state, folder)
                saved = time.monotonic()
            if asked:
                raise KeyboardInterrupt if asked[0] == signal.SIGINT else SystemExit(0)
    return _finish(state, recipe, config, record, folder)


def _same_run(folder: Path, record: dict[str, Any]) -> None:
    """Refuse a folder in which something else lies than this run."""
    path = folder / "run.json"
    if not path.exists():
        if (folder / "model.safetensors").exists():
            raise InputError(f"{folder} holds a model.safetensors, but no run.json that says how it was trained", "another --out")
        return
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        recipe, bank = dict(known["recipe"]), str(known["bank"]["fingerprint"])
    except (ValueError, KeyError, TypeError) as problem:
        raise InputError(f"{path} is not the record of a training run", "another --out") from problem
    differing = [f"{key} {recipe.get(key)} → {value}" for key, value in record["recipe"].items() if recipe.get(key) != value]
    if bank != record["bank"]["fingerprint"]:
        differing.append(f"bank {bank[:12]} → {record['bank']['fingerprint'][:12]}")
    if differing:
        raise InputError(f"{folder} holds a run with other settings ({', '.join(differing)})", "another --out")


def _start(recipe: Recipe[Any, Any], config: Any, bank: Bank, device: str) -> State:
    rows = recipe.objective.rows(bank, recipe.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        net = build(config).to(device)
        loss = recipe.objective.loss(Setting(bank, rows, recipe.interpolant, net, recipe.seed, device)).to(device)
    trained = [p for p in (*net.parameters(), *loss.parameters()) if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.rate, betas=(0.9, 0.999), weight_decay=0.0)
    return State(net, loss, rows, {name: value.detach().clone() for name, value in net.state_dict().items()}, optimizer)


def _step(state: State, recipe: Recipe[Any, Any], device: str) -> None:
    """One optimizer step on items step·batch … , and the EMA's."""
    examples = batch(state.rows, recipe.seed, state.step * recipe.batch, recipe.batch, recipe.class_dropout)
    loss = state.loss(state.net, examples.to(device))["loss"]
    value = float(loss.detach())
    if not math.isfinite(value):
        raise InputError(f"the loss is {value} at step {state.step + 1}; the last good checkpoint is kept", REMEDY)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    state.optimizer.step()
    state.step += 1
    state.window += value
    decay = min(recipe.ema, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        for name, weight in state.net.state_dict().items():
            state.ema[name].lerp_(weight, 1 - decay)


def _refuse_broken(state: State) -> None:
    """A step may break the weights while its own loss was still finite; such weights are never written. The EMA sees them all."""
    if not all(bool(weight.isfinite().all()) for weight in state.ema.values()):
        raise InputError(f"the weights are not finite after step {state.step}; the last good checkpoint is kept", REMEDY)


def _moments(state: State) -> dict[str, Tensor]:
    names = [name for name, p in state.net.named_parameters() if p.requires_grad]
    saved: dict[str, Tensor] = {}
    for name, parameter in zip(names, state.optimizer.param_groups[0]["params"], strict=True):
        for key, value in state.optimizer.state[parameter].items():
            saved[f"optimizer:{key}:{name}"] = value
    return saved


def _save(state: State, folder: Path) -> None:
    _refuse_broken(state)
    tensors = {f"net:{k}": v for k, v in state.net.state_dict().items()} | {f"ema:{k}": v for k, v in state.ema.items()}
    curve = {"losses": torch.tensor(state.losses, dtype=torch.float64), "window": torch.tensor(state.window, dtype=torch.float64)}
    tensors |= _moments(state) | curve
    path = folder / "checkpoints" / f"step-{state.step:08d}.safetensors"
    write_tensors(path, tensors, {"step": str(state.step)})
    for older in sorted(path.parent.glob("step-*.safetensors"))[:-2]:
        older.unlink(missing_ok=True)


def _read(path: Path) -> tuple[int, dict[str, Tensor]] | None:
    """Step and tensors of a checkpoint, or None where it can't be read whole."""
    try:
        with safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
            return int(opened.metadata()["step"]), tensors
    except (SafetensorError, OSError, KeyError, TypeError):
        return None


def _restore(state: State, folder: Path) -> None:
    """Continue from the newest checkpoint that can be read whole, if there is one."""
    for path in sorted((folder / "checkpoints").glob("step-*.safetensors"), reverse=True):
        found = _read(path)
        if found is None:
            continue
        step, tensors = found
        device = next(state.net.parameters()).device
        state.net.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("net:")})
        for name in state.ema:
            state.ema[name] = tensors[f"ema:{name}"].to(device)
        names = [name for name, p in state.net.named_parameters() if p.requires_grad]
        for name, parameter in zip(names, state.optimizer.param_groups[0]["params"], strict=True):
            keys = ("step", "exp_avg", "exp_avg_sq")
            state.optimizer.state[parameter] = {k: tensors[f"optimizer:{k}:{name}"].to("cpu" if k == "step" else device) for k in keys}
        state.step, state.losses, state.window = step, tensors["losses"].tolist(), float(tensors["window"])
        return


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


def _finish(state: State, recipe: Recipe[Any, Any], config: Any, record: dict[str, Any], folder: Path) -> Path:
    _refuse_broken(state)
    rows = "".join(f"{(i + 1) * WINDOW},{loss:.6f}\n" for i, loss in enumerate(state.losses))
    write_text(folder / "loss.csv", "step,loss\n" + rows)
    about = {"family": recipe.family, "architecture": plain(config), **plain(recipe.interpolant), **record}
    final = {"version": __version__, "torch": str(torch.__version__), "final_loss": state.losses[-1] if state.losses else None}
    write_json(folder / "recipe.json", {**about, **final})
    write_tensors(folder / "model.safetensors", state.ema, {"scorescope": json.dumps(about, sort_keys=True)})
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # with what killed processes left half written
    return folder / "model.safetensors"
