"""The training loop: killed at any instant, the same command continues, and ends with the same weights.

`OUT/checkpoints/step-*.safetensors` hold the network, its EMA and the optimizer's moments, written atomically; the newest whole one
is found by reading. A finished run leaves `model.safetensors` (EMA weights; the architecture in its metadata), `recipe.json`
(recipe, bank, versions, final loss) and `loss.csv`.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from scorescope import __version__
from scorescope.bank import Bank
from scorescope.errors import InputError
from scorescope.files import write_json, write_tensors, write_text
from scorescope.nets.sit import SiT, SiTConfig
from scorescope.training.examples import batch
from scorescope.training.objective import dsm_loss
from scorescope.training.recipe import Recipe

WINDOW = 50  # steps that one point of the loss curve averages over


@dataclass
class Progress:
    """What a live line shows: step, loss of the last window, seconds since this process began, steps it has made."""

    step: int
    steps: int
    loss: float
    seconds: float
    made: int


@dataclass
class State:
    """Everything that a step reads and changes."""

    net: SiT
    ema: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    step: int = 0
    losses: list[float] = field(default_factory=list)
    window: float = 0.0


def architecture(recipe: Recipe, bank: Bank) -> SiTConfig:
    """The SiT that a recipe makes of a bank of square images or latents (C, H, H).

    Raises:
        InputError: Rows of another form, or a side that the patch does not divide.
    """
    if len(bank.shape) != 3 or bank.shape[1] != bank.shape[2]:
        raise InputError(f"a SiT takes square images or latents (C, H, H); the bank's rows are {bank.shape}", "building the bank with --size")
    if bank.shape[1] % recipe.patch:
        raise InputError(f"images of side {bank.shape[1]} are not divisible by patch {recipe.patch}", "--patch with a divisor of the side")
    if recipe.width % recipe.heads or recipe.width % 4:
        raise InputError(f"width {recipe.width} must be divisible by heads {recipe.heads} and by 4", "another --width or --heads")
    return SiTConfig(bank.shape[0], bank.shape[1], recipe.patch, recipe.width, recipe.depth, recipe.heads, bank.classes)


def train(recipe: Recipe, bank: Bank, out: str | Path, *, device: str = "cpu", report: Callable[[Progress], None] | None = None, save_every: float = 60.0) -> Path:
    """Train, or continue training, and return the path of the finished EMA weights.

    Args:
        recipe: What to train.
        bank: On what; class-conditional if it has labels.
        out: Folder of the run.
        device: Where the network lives.
        report: Called after every `WINDOW` steps.
        save_every: Seconds between checkpoints.

    Raises:
        InputError: A folder that belongs to another recipe or bank, a bank the architecture can't take, a loss that is not finite.
    """
    folder = Path(out)
    record = {"recipe": recipe.record(), "bank": {"fingerprint": bank.fingerprint, "name": bank.name, "rows": len(bank.rows)}}
    _same_run(folder, record)
    finished = folder / "model.safetensors"
    if finished.exists():
        return finished
    config = architecture(recipe, bank)
    write_json(folder / "run.json", record)
    state = _start(recipe, config, device)
    _restore(state, folder)
    stopping: list[int] = []
    before = _on_sigterm(stopping)
    begun, saved, first = time.monotonic(), time.monotonic(), state.step
    try:
        while state.step < recipe.steps:
            _step(state, recipe, bank, device)
            if state.step % WINDOW == 0:
                loss, state.window = state.window / WINDOW, 0.0
                state.losses.append(loss)
                if report:
                    report(Progress(state.step, recipe.steps, loss, time.monotonic() - begun, state.step - first))
            if stopping or time.monotonic() - saved > save_every:
                _save(state, folder)
                saved = time.monotonic()
            if stopping:
                raise SystemExit(0)
    finally:
        signal.signal(signal.SIGTERM, before)
    return _finish(state, recipe, config, record, folder)


def _same_run(folder: Path, record: dict[str, Any]) -> None:
    path = folder / "run.json"
    if not path.exists():
        return
    known = json.loads(path.read_text())
    differing = [f"{key} {known['recipe'].get(key)} → {value}" for key, value in record["recipe"].items() if known["recipe"].get(key) != value]
    if known["bank"]["fingerprint"] != record["bank"]["fingerprint"]:
        differing.append(f"bank {known['bank']['fingerprint'][:12]} → {record['bank']['fingerprint'][:12]}")
    if differing:
        raise InputError(f"{folder} holds a run with other settings ({', '.join(differing)})", "another --out")


def _start(recipe: Recipe, config: SiTConfig, device: str) -> State:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        net = SiT(config)
    net.to(device)
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.rate, betas=(0.9, 0.999), weight_decay=0.0)
    return State(net, {name: value.detach().clone() for name, value in net.state_dict().items()}, optimizer)


def _step(state: State, recipe: Recipe, bank: Bank, device: str) -> None:
    """One optimizer step on items step·batch … , and the EMA's."""
    examples = batch(bank, recipe.seed, state.step * recipe.batch, recipe.batch, recipe.class_dropout)
    loss = dsm_loss(state.net, examples.to(device))
    value = float(loss.detach())
    if not math.isfinite(value):
        raise InputError(f"the loss is {value} at step {state.step + 1}; the last good checkpoint is kept", "a smaller --rate")
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    state.optimizer.step()
    state.step += 1
    state.window += value
    decay = min(recipe.ema, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        for name, value in state.net.state_dict().items():
            state.ema[name].lerp_(value, 1 - decay)


def _moments(state: State) -> dict[str, Tensor]:
    names = [name for name, p in state.net.named_parameters() if p.requires_grad]
    saved: dict[str, Tensor] = {}
    for name, parameter in zip(names, state.optimizer.param_groups[0]["params"], strict=True):
        for key, value in state.optimizer.state[parameter].items():
            saved[f"optimizer:{key}:{name}"] = value
    return saved


def _save(state: State, folder: Path) -> None:
    tensors = {f"net:{k}": v for k, v in state.net.state_dict().items()} | {f"ema:{k}": v for k, v in state.ema.items()}
    tensors |= _moments(state) | {"losses": torch.tensor(state.losses, dtype=torch.float64), "window": torch.tensor(state.window, dtype=torch.float64)}
    path = folder / "checkpoints" / f"step-{state.step:08d}.safetensors"
    write_tensors(path, tensors, {"step": str(state.step)})
    for older in sorted(path.parent.glob("step-*.safetensors"))[:-2]:
        older.unlink()


def _restore(state: State, folder: Path) -> None:
    """Continue from the newest checkpoint that can be read whole, if there is one."""
    for path in sorted((folder / "checkpoints").glob("step-*.safetensors"), reverse=True):
        try:
            with safe_open(path, framework="pt") as opened:
                tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
                step = int(opened.metadata()["step"])
        except (SafetensorError, OSError, KeyError):
            continue
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


def _on_sigterm(stopping: list[int]) -> Any:
    try:
        return signal.signal(signal.SIGTERM, lambda number, frame: stopping.append(number))
    except ValueError:  # only the main thread may listen
        return signal.SIG_DFL


def _finish(state: State, recipe: Recipe, config: SiTConfig, record: dict[str, Any], folder: Path) -> Path:
    rows = "".join(f"{(i + 1) * WINDOW},{loss:.6f}\n" for i, loss in enumerate(state.losses))
    write_text(folder / "loss.csv", "step,loss\n" + rows)
    about = {"family": "sit", "architecture": vars(config), "prediction": "v", "schedule": "linear", **record}
    write_json(folder / "recipe.json", {**about, "version": __version__, "torch": str(torch.__version__), "final_loss": state.losses[-1] if state.losses else None})
    write_tensors(folder / "model.safetensors", state.ema, {"scorescope": json.dumps(about, sort_keys=True)})
    for path in (folder / "checkpoints").glob("step-*.safetensors"):
        path.unlink()
    return folder / "model.safetensors"
