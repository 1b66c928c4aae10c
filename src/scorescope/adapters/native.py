"""Weights that `scorescope train` wrote: safetensors whose metadata says what network they belong to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from scorescope.adapters.families import filled
from scorescope.adapters.weights import described
from scorescope.convert import PREDICTIONS
from scorescope.denoiser import Denoiser, NetworkDenoiser
from scorescope.errors import InputError
from scorescope.files import sha256
from scorescope.nets import families, module
from scorescope.runs import record_of
from scorescope.schedule import SCHEDULES, Schedule
from scorescope.training import keep
from scorescope.training.checkpoint import KIND

WEIGHTS = "model.safetensors"
REMEDY = "the file from an undamaged copy"


def accepts(path: Path) -> bool:
    """A safetensors file, or the folder of a training run; its checkpoints, too, to say what they are."""
    if _run_of(path) is not None or _kept(path):
        return True
    if path.is_dir():
        return (path / WEIGHTS).is_file() or _trained(path)
    return path.suffix == ".safetensors" and path.is_file() and described(path) is not None


def load(path: Path, options: dict[str, Any]) -> Denoiser:
    """The EMA network as a denoiser, named after its folder or file."""
    if options:
        raise InputError(f"{path} says itself what it is and takes no options ({', '.join(options)} given)")
    run, asked = _run_of(path), _kept(path)
    if run is not None:
        known = f"{run}, which is finished" if (run / WEIGHTS).is_file() else "running the command of its training again; it continues"
        raise InputError(f"{path} is what the training run in {run} continues from, not a model", known)
    file = keep.place(*asked) if asked else path / WEIGHTS if path.is_dir() else path
    if asked and not file.is_file():
        known = ", ".join(f"{asked[0]}@{int(one.stem[5:])}" for one in sorted(file.parent.glob("step-*.safetensors")))
        raise InputError(f"the training run in {asked[0]} did not keep the weights of step {asked[1]:,}", known or "train --keep")
    if not file.is_file():
        raise InputError(f"the training run in {path} is not finished", "running its command again; it continues")
    try:
        with safe_open(file, framework="pt") as opened:
            about = (opened.metadata() or {}).get("scorescope")
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as problem:
        raise InputError(f"{file} can't be read as safetensors ({problem})", REMEDY) from problem
    if about is None:
        raise InputError(f"{file} does not say which network its weights belong to", "the file from the training run, unchanged")
    record, config, schedule = _described(file, about)
    try:  # The network has no memory of its own: it takes the file's, once all names and shapes agree.
        net = filled(module(record["family"]).NETWORK, config, {name: value.float() for name, value in weights.items()})
    except InputError as problem:
        raise InputError(f"{file} does not hold the weights that its metadata names ({problem.problem})", REMEDY) from problem
    except (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError) as problem:
        raise InputError(f"the metadata of {file} make no network ({str(problem).splitlines()[0]})", REMEDY) from problem
    name = path.name if asked else file.parent.name if file.name == WEIGHTS and file.parent.name else file.stem
    null = config.classes or None
    model = NetworkDenoiser(
        net, schedule, record["prediction"], classes=config.classes, null_label=null, shape=config.shape, name=name
    )  # fmt: skip
    model.about = {**record, "file": str(file), "sha256": sha256(file)}
    return model


def _kept(path: Path) -> tuple[Path, int] | None:
    """The training run and the step that a path like runs/photos@4000 names."""
    found = None if path.exists() else keep.named(path)
    return found if found and _trained(found[0]) else None


def _trained(folder: Path) -> bool:
    """Whether the folder belongs to a training run, finished or not; those of the version before named no kind."""
    found = record_of(folder) or {}
    return found.get("kind") == KIND.name or ("kind" not in found and found.keys() >= set(KIND.keys))


def _run_of(path: Path) -> Path | None:
    """The training run whose checkpoints lie at `path`, if they are that."""
    folder = path if path.is_dir() else path.parent
    return folder.parent if folder.name == "checkpoints" and path.exists() and _trained(folder.parent) else None


def _described(file: Path, about: str) -> tuple[dict[str, Any], Any, Schedule]:
    """The metadata, the architecture and the schedule that it names."""
    try:
        record = dict(json.loads(about))
        family, prediction, schedule = record["family"], record["prediction"], record["schedule"]
        if not isinstance(record.get("bank", {}), dict):
            raise TypeError("its bank is no record")
        known = family in families() and prediction in PREDICTIONS and schedule in SCHEDULES
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise InputError(f"the metadata of {file} can't be read ({problem})", REMEDY) from problem
    if not known:
        raise InputError(
            f"{file} holds a model that this version does not know ({family}, {prediction}, {schedule})", "upgrading scorescope"
        )
    try:
        config = module(family).CONFIG(**record["architecture"])
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise InputError(f"the metadata of {file} can't be read ({problem})", REMEDY) from problem
    return record, config, SCHEDULES[schedule]()
