"""Checkpoints: `step-*.safetensors` (network, EMA, loss module, the optimizer's moments) and, written after it, `step-*.json`.

The JSON file holds the step, the loss curve and the schema; a checkpoint counts only if both can be read whole and agree. The newest
such is found by reading, not by trusting names.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from scorescope.errors import InputError
from scorescope.files import write_json, write_tensors
from scorescope.runs import Kind

SCHEMA = 2
KEPT = 2  # of a run's checkpoints: the newest, and the one before in case the newest is damaged
STEP = "step-" + 8 * "[0-9]"
KIND = Kind(
    "a training run",
    own=(
        *(f"checkpoints/{STEP}.safetensors", f"checkpoints/{STEP}.json", "model.safetensors", "recipe.json", "loss.csv", "watch.nc"),
        f"kept/{STEP}.safetensors",
        "tensorboard/events.out.tfevents.*",
    ),
    keys=("recipe", "bank"),
)
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass
class Curve:
    """Means over windows of steps of every logged term, and the sums of the window that is under way.

    `named` are the terms, "loss" first; `points` has a row (step, mean, …) for each window.
    """

    named: list[str] = field(default_factory=list)
    points: list[list[float]] = field(default_factory=list)
    sums: list[float] = field(default_factory=list)
    count: int = 0

    def add(self, names: list[str], values: list[float]) -> None:
        """One step's values."""
        if not self.named:
            self.named, self.sums = names, [0.0] * len(names)
        self.sums = [total + value for total, value in zip(self.sums, values, strict=True)]
        self.count += 1

    def close(self, step: int) -> None:
        """The window ends with this step."""
        self.points.append([step, *(total / self.count for total in self.sums)])
        self.sums, self.count = [0.0] * len(self.named), 0

    @property
    def loss(self) -> float:
        """Mean loss of the window under way, else of the last one."""
        return self.sums[0] / self.count if self.count else self.points[-1][1] if self.points else float("nan")

    def table(self, step: int) -> str:
        """As CSV; a window that is still under way at `step` is its last row."""
        last = [[step, *(total / self.count for total in self.sums)]] if self.count else []
        rows = "".join(f"{int(at)}," + ",".join(f"{value:.6f}" for value in values) + "\n" for at, *values in [*self.points, *last])
        return ",".join(["step", *(self.named or ["loss"])]) + "\n" + rows


@dataclass
class State:
    """Everything that a step reads and changes."""

    net: nn.Module
    loss: nn.Module
    ema: nn.Module
    optimizer: torch.optim.AdamW
    step: int = 0
    curve: Curve = field(default_factory=Curve)

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """Parameters of the network and of the loss, by the names under which their moments are stored."""
        both = [(f"net:{name}", p) for name, p in self.net.named_parameters()]
        both += [(f"loss:{name}", p) for name, p in self.loss.named_parameters()]
        return {name: p for name, p in both if p.requires_grad}


def save(state: State, folder: Path, kept: int = KEPT) -> None:
    """Write the state, and remove all but the newest `kept`."""
    modules = {"net": state.net, "ema": state.ema, "loss": state.loss}
    tensors = {f"{part}:{name}": value for part, module in modules.items() for name, value in module.state_dict().items()}
    for name, parameter in state.trained.items():
        tensors |= {f"{key}:{name}": value for key, value in state.optimizer.state[parameter].items()}
    path = folder / "checkpoints" / f"step-{state.step:08d}.safetensors"
    write_tensors(path, tensors, {"step": str(state.step)})
    write_json(path.with_suffix(".json"), {"schema": SCHEMA, "step": state.step, "curve": asdict(state.curve)})
    for older in sorted(path.parent.glob(f"{STEP}.safetensors"))[:-kept]:
        older.with_suffix(".json").unlink(missing_ok=True)
        older.unlink(missing_ok=True)


def newest(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """The JSON and the tensors of the newest checkpoint that can be read whole.

    Raises:
        InputError: One that a newer version has written.
    """
    for path in sorted((folder / "checkpoints").glob(f"{STEP}.json"), reverse=True):
        try:
            record = dict(json.loads(path.read_text(encoding="utf-8")))
            if int(record["schema"]) > SCHEMA:
                raise InputError(f"{path} is of schema {record['schema']}, this version knows up to {SCHEMA}", "a newer scorescope")
            Curve(**record["curve"])
            with safe_open(path.with_suffix(".safetensors"), framework="pt") as opened:
                if opened.metadata()["step"] != str(record["step"]):
                    continue
                return record, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except InputError:
            raise
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            continue
    return None


def restore(state: State, record: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Take up a checkpoint. Moments of parameters that it lacks begin at zero.

    Raises:
        InputError: Weights of another shape.
    """
    for name, module in (("net", state.net), ("ema", state.ema), ("loss", state.loss)):
        own = {key.partition(":")[2]: value for key, value in tensors.items() if key.startswith(f"{name}:")}
        if name == "loss" and own.keys() != module.state_dict().keys():
            continue  # another objective's
        try:
            module.load_state_dict(own)
        except RuntimeError as problem:
            reason = str(problem).splitlines()[-1].strip()
            raise InputError(
                f"the checkpoint's weights do not fit the network ({reason})", "the network that it was trained with"
            ) from problem
    for name, parameter in state.trained.items():
        found = {key: tensors[f"{key}:{name}"] for key in MOMENTS if f"{key}:{name}" in tensors}
        if len(found) == len(MOMENTS) and found["exp_avg"].shape == parameter.shape:
            state.optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in found.items()}
    state.step, state.curve = int(record["step"]), Curve(**record["curve"])
