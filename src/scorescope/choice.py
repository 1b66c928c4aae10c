"""What a checkpoint's names leave open, the bank decides: `load`, which reads it in each way that fits and takes the one that denoises.

Families of weights may have the same names and shapes and another meaning: SiT's are REPA's, with time the other way round. Each reading's
Q (see `reading`) is measured on the same rows and noise. The best one is taken where

    Q < `INFORMED`, and every other reading's Q is more than `BETTER` times as large,

as by `reading.check`. Otherwise the error lists the readings with their numbers, and asks. Without a bank the names alone must tell.

A family's module may name what else is to be tried, in `READINGS`: dictionaries of options, as ({"process": "ddpm"}, {"process": "cfm"}).

A model whose family or process was named is compared with the same rivals when it is checked, so that a wrong name is refused.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scorescope import adapters, reading
from scorescope.adapters import families, weights
from scorescope.denoiser import Denoiser
from scorescope.errors import InputError
from scorescope.reading import BETTER, INFORMED, Reading, quality
from scorescope.registry import module, names
from scorescope.rows import Bank

Options = Mapping[str, Any]


def load(path: Any, *, bank: Bank | None = None, trust: bool = False, samples_only: str | None = None, **options: Any) -> Denoiser:
    """A model from a file, a folder, a function, or an object of another library: see `adapters.load`.

    Args:
        path: What `adapters.load` takes.
        bank: Of a theory; of a checkpoint whose names leave open how it is read, the rows by which that is chosen
            (`about["read_as"]` says what, and by how much).
        trust: Allow a pickled `Denoiser` to be opened, which runs whatever code is inside.
        samples_only: Why the model's target is not E[x | z_t], in words; its samples alone are judged then.
        **options: As `adapters.load` takes them.

    Raises:
        InputError: As `adapters.load`; or several readings fit the rows alike, or none does.
    """
    return opened(path, bank, {"trust": trust, "samples_only": samples_only, **options})


def opened(path: Any, bank: Bank | None, options: Options, device: str = "cpu", say: Callable[[str], None] | None = None) -> Denoiser:
    """`load`, which says what was chosen and measures on a device."""
    try:
        return adapters.load(path, bank=bank, **options)
    except InputError as open_one:
        several = list(_readings(path, options)) if bank is not None and options.get("samples_only") is None else []
        if bank is None or len(several) < 2:
            raise
        model = _chosen(path, bank, options, several, device, open_one)
        if say is not None:
            say(f"{path} is {model.about['read_as']}")
        return model


def check(model: Denoiser, bank: Bank, **how: Any) -> Reading:
    """Whether a model is read right on its bank: see `reading.check`, which is given the model's rivals."""
    return reading.check(model, bank, rivals=rivals(model), **how)


def rivals(model: Denoiser) -> dict[str, Denoiser]:
    """What else the checkpoint of a model could be, by the options that name it; nothing for a model of another kind."""
    about, found = model.about, dict[str, Denoiser]()
    file, own = str(about.get("file", "")), dict(about.get("options") or {})
    if "family" not in about or not Path(file).is_file():
        return found
    part = {"weights": about["weights"]} if about.get("weights") not in (None, weights.ALL) else {}
    several = list(_readings(file, part))
    named = {key for more in several for key in more}
    shared = {key: value for key, value in own.items() if key not in named}
    for more in several:
        if all({**own, "family": about["family"]}.get(key) == value for key, value in more.items()):
            continue  # the model itself
        with contextlib.suppress(InputError):
            found[", ".join(f'{key}="{value}"' for key, value in more.items())] = adapters.load(file, **{**shared, **part, **more})
    return found


def _readings(path: Any, options: Options) -> Iterator[dict[str, Any]]:
    """The options that would name each family that fits a checkpoint, and what else it leaves open; none where it is no checkpoint."""
    if not isinstance(path, str | Path) or not weights.accepts(Path(path)):
        return
    try:
        checkpoint = weights.read(Path(path), options.get("weights"))
    except InputError:
        return
    known = {name: module(families.__name__, name, "family") for name in names(families.__name__)}
    told = {name: one.belongs(checkpoint) for name, one in known.items() if options.get("family") in (None, name)}
    fitting = [name for name in told if told[name]] or [name for name in told if told[name] is not False]
    for name in fitting:
        tried: Sequence[dict[str, Any]] = getattr(known[name], "READINGS", ({},))
        for more in tried:
            if all(options.get(key, value) == value for key, value in more.items()):
                yield {"family": name, **more}


def _chosen(path: Any, bank: Bank, options: Options, several: list[dict[str, Any]], device: str, asked: InputError) -> Denoiser:
    """The one reading that the rows allow."""
    found, failed = dict[str, float](), dict[str, InputError]()
    wanted = {_words(more): {**options, **more} for more in several}
    for name, told in wanted.items():
        try:
            found[name] = quality(adapters.load(path, bank=bank, **told), bank, device=device)
        except InputError as problem:
            failed[name] = problem
    if not found:  # what all of them lack is asked for first
        raise asked if len({str(problem) for problem in failed.values()}) > 1 else next(iter(failed.values()))
    best, *others = sorted(found, key=lambda name: found[name])
    margin = found[others[0]] / found[best] if others else math.inf
    if not (found[best] < INFORMED and margin > BETTER):
        listed = ", ".join(f"{name} {found[name]:.3g}" for name in (best, *others))
        why = "none of them denoises" if found[best] >= INFORMED else "none fits them clearly better than the others"
        lines = [f"{name:<12} can't be read: {problem.problem}" for name, problem in failed.items()]
        said = f"{asked.problem}; by the rows of {bank.name} {why} (error over that of mean and z/α: {listed})"
        raise InputError(said, asked.hint, "\n".join(lines))
    model = adapters.load(path, bank=bank, **wanted[best])
    told_apart = (
        f"its error is {margin:.3g} times smaller than as {others[0]}" if others else "nothing else that fits its names can be read"
    )
    model.about = {**model.about, "read_as": f"read as {best} by the rows of {bank.name}: {told_apart}"}
    return model


def _words(options: Options) -> str:
    """A reading in words: its family, and what else was said."""
    return ", ".join(str(value) if name == "family" else f"{name}={value}" for name, value in options.items())
