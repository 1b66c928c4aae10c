"""Samples of a model in a folder: killed at any instant, the same command continues.

    OUT/run.json               settings (`scorescope.runs`), and the model's name, origin and operations
    OUT/chunks/…               samples that are done, a batch a file, while the run lasts
    OUT/samples.npz            samples (n, *shape) float32 in model space, items (n,), labels (n,) with −1 for none, seed, low, high
    OUT/grid.png               a picture of the first hundred, where rows are images

A sample belongs to its number: its noise, its class, and on a CPU every bit. Networks are asked about a multiple of 8 states, because
products of fewer rows are rounded in another way (`sampler.ROWS`). Where kernels still round by the size of a batch, as those of GPUs may,
samples agree to about 1e-5 with the solvers of fixed steps and to the solver's own error with dopri5, whose steps rounding can change.
"""

from __future__ import annotations

import contextlib
import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from safetensors import SafetensorError, safe_open

from scorescope import seeds
from scorescope.denoiser import Denoiser, Guided
from scorescope.errors import InputError, unknown
from scorescope.evaluate import grid
from scorescope.evaluate.operations import flops
from scorescope.evaluate.options import Sampling, whole
from scorescope.files import replacing, write_tensors
from scorescope.identity import identity_or_token
from scorescope.progress import Board, Row
from scorescope.rows import Bank
from scorescope.runs import Kind, claimed
from scorescope.sampler import METHODS, Solver, from_noise, start_time, trajectory
from scorescope.watched import Watched

SAMPLES, GRID, CHUNKS = "samples.npz", "grid.png", "chunks"
KIND = Kind("samples", (SAMPLES, GRID, f"{CHUNKS}/from-*.safetensors"), before=("sample.json",))


def generate(
    model: Denoiser,
    sampling: Sampling,
    out: str | Path,
    *,
    bank: Bank | None = None,
    device: str = "cpu",
    force: bool = False,
    quiet: bool = False,
) -> Path:
    """Draw samples, or continue to, and return the folder.

    Args:
        model: What to sample from.
        sampling: Which samples, and how.
        out: Folder of the samples.
        bank: Gives the shape where the model has none, names to the classes, and the value range of pictures.
        device: Where to compute.
        force: Replace other samples in `out`.
        quiet: Show no progress.

    Raises:
        InputError: A value that can't be, a folder with other samples (the settings that differ are named), a model that returns NaN.
    """
    settings, alone = settings_of(model, sampling, bank, device)
    shape, classes = tuple(settings["shape"]), settings["labels"]
    asked = model if sampling.guidance == 1 else Guided(model, sampling.guidance)
    items, folder = np.array(sampling.numbers(), dtype=np.int64), Path(out)
    asked.to(device)
    cost = flops(asked, shape) if asked.modules() else None
    operations = None if cost is None else {"total": cost.total, "attention": cost.attention, "macs": cost.macs}
    about = json.loads(json.dumps(dict(model.about), default=str))
    notes = {"name": model.name, "about": about, "torch": str(torch.__version__), "flops": operations}
    with claimed(folder, KIND, settings, notes=notes, force=force):
        if _whole(folder / SAMPLES, items, shape):
            return folder
        labels = np.array([classes[k % len(classes)] for k in items], dtype=np.int64) if classes else np.full(len(items), -1)
        steps = "" if sampling.solver == "dopri5" else f" {sampling.steps} steps"
        with Board(quiet) as board, board.row(f"sampling {model.name}", len(items)) as row:
            board.say(
                f"sampling {len(items):,} of {model.name}: {sampling.solver}{steps}, guidance {sampling.guidance:g}, seed {sampling.seed}"
            )
            board.say(f"{model.parameters_count:,} parameters{'' if cost is None else f', {cost}'}")
            board.say(alone or f"folder {folder} (killed, the same command continues)")
            rows = _draw(asked, sampling, items, labels if classes else None, shape, folder, device, row)
        low, high = (-1.0, 1.0) if bank is None else (bank.low, bank.high)
        if grid.drawable(shape):
            names = [bank.class_name(int(k)) if bank is not None and 0 <= k < bank.classes else str(k) for k in labels] if classes else None
            caption = (
                f"{model.name}: {sampling.solver}{steps}, guidance {sampling.guidance:g}, seed {sampling.seed}",
                f"small numbers are the samples' own{'; a line is a class' if classes else ''}",
            )
            grid.save(folder / GRID, rows, items, names, low, high, caption)
        with replacing(folder / SAMPLES) as temporary, open(temporary, "wb") as opened:
            np.savez(opened, samples=rows, items=items, labels=labels, seed=sampling.seed, low=low, high=high)
        for path in (folder / CHUNKS).glob("from-*.safetensors"):
            path.unlink()
        with contextlib.suppress(OSError):  # something else is in it
            (folder / CHUNKS).rmdir()
    return folder


def settings_of(model: Denoiser, sampling: Sampling, bank: Bank | None, device: str) -> tuple[dict[str, Any], str]:
    """What samples depend on, and why their run can't be continued, where it can't; `generate` says what is refused."""
    sampling.validate()
    if sampling.solver not in METHODS:
        raise unknown("solver", sampling.solver, METHODS)
    shape = _shape(model, bank)
    from_noise(model)
    classes = class_numbers(model, sampling.labels, bank)
    if sampling.guidance != 1 and not classes:
        raise InputError(f"--guidance {sampling.guidance:g} needs classes to guide towards, and there are none", "--guidance 1")
    items = np.array(sampling.numbers(), dtype=np.int64)
    size, free = 4 * len(items) * math.prod(shape), psutil.virtual_memory().available
    if size > free:
        raise InputError(f"{len(items):,} samples are {size / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB of memory are free", "a smaller --n")
    identity, alone = identity_or_token(model)
    return {
        "model": identity, "shape": list(shape), "items": _ranges(items), "labels": classes, "guidance": sampling.guidance,
        "solver": sampling.solver, "steps": None if sampling.solver == "dopri5" else sampling.steps, "seed": sampling.seed,
        "device": torch.device(device).type,
    }, alone  # fmt: skip


def _draw(
    model: Denoiser,
    sampling: Sampling,
    items: np.ndarray,
    labels: np.ndarray | None,
    shape: tuple[int, ...],
    folder: Path,
    device: str,
    row: Row,
) -> np.ndarray:
    """Samples (n, *shape): those that the folder's chunks hold, and the others, which are put there."""
    rows, done = np.empty((len(items), *shape), np.float32), np.zeros(len(items), dtype=bool)
    for place, found in _chunks(folder, shape, len(items)):
        rows[place], done[place] = found, True
    if done.any():
        row.board.say(f"continuing: {int(done.sum()):,} of {len(items):,} samples done")
    row.skip(int(done.sum()))
    watched, left = Watched(model, row), np.flatnonzero(~done)
    solver = Solver(sampling.solver, sampling.steps, batch=sampling.batch)
    for place in (left[start : start + sampling.batch] for start in range(0, len(left), sampling.batch)):
        noise = start_time(model) * seeds.normal(sampling.seed, "path", items[place], shape).to(device)
        tags = None if labels is None else torch.from_numpy(labels[place]).to(device)
        watched.calls = 0
        made = trajectory(watched, noise, [0.0], tags, solver=solver, seed=sampling.seed, items=items[place].tolist())[:, 0].cpu()
        write_tensors(folder / CHUNKS / f"from-{place[0]:08d}.safetensors", {"place": torch.from_numpy(place), "samples": made})
        rows[place] = made.numpy()
        row(len(place))
    return rows


def class_numbers(model: Denoiser, wanted: tuple[str, ...], bank: Bank | None) -> list[int]:
    """The classes that samples have in turn; empty for none.

    Raises:
        InputError: A class that the model or the bank does not have; none for a model that must be asked for one.
    """
    if wanted in (("auto",), ("none",)):
        if wanted == ("none",) and not model.has_null:
            raise InputError(f"{model.name} has no unconditional prediction", "--labels auto")
        return [] if wanted == ("none",) else list(range(model.classes))
    names = {name: number for number, name in enumerate((bank.class_names if bank is not None else None) or ())}
    found = []
    for text in wanted:
        number = names.get(text) if whole(text) is None else whole(text)
        if number is None and names:
            raise unknown("class", text, names)
        if number is None:
            raise InputError(f"label {text!r} is not a class number", "--labels 0 3 7, or --labels auto")
        if number >= model.classes:
            known = f"classes 0 to {model.classes - 1}" if model.classes else "no classes"
            raise InputError(f"label {number} is outside the classes of {model.name}, which has {known}", "--labels auto")
        found.append(number)
    return found


def _shape(model: Denoiser, bank: Bank | None) -> tuple[int, ...]:
    if bank is not None and model.shape is not None and model.shape != bank.shape:
        raise InputError(
            f"{model.name} makes rows of shape {model.shape}, but those of bank {bank.name} have shape {bank.shape}",
            "the bank that the model was trained on",
        )
    shape = model.shape or (bank.shape if bank is not None else None)
    if shape is None:
        raise InputError(f"{model.name} does not say which shape it makes", "--bank with rows of that shape")
    return shape


def _ranges(items: np.ndarray) -> list[list[int]]:
    """Sample numbers as [first, last] of consecutive ones."""
    parts = np.split(items, np.flatnonzero(np.diff(items) != 1) + 1)
    return [[int(part[0]), int(part[-1])] for part in parts]


def _whole(path: Path, items: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether the finished samples are there and can be read."""
    try:
        with open(path, "rb") as opened, np.load(opened) as found:
            return bool(np.array_equal(found["items"], items) and found["samples"].shape == (len(items), *shape))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return False


def _chunks(folder: Path, shape: tuple[int, ...], n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places and samples of every chunk that can be read whole."""
    for path in sorted((folder / CHUNKS).glob("from-*.safetensors")):
        try:
            with safe_open(path, framework="pt") as opened:
                place, found = opened.get_tensor("place").numpy(), opened.get_tensor("samples").numpy()
        except (SafetensorError, OSError, KeyError):
            continue
        if place.dtype == np.int64 and place.ndim == 1 and found.shape == (len(place), *shape) and ((place >= 0) & (place < n)).all():
            yield place, found
