"""State dicts from elsewhere, in safetensors or in a pickle, which is read without running its code (`inert`).

A training checkpoint holds several state dicts, the parts of the file: the model, its moving average (EMA), others. The average is taken
under any of its names; another part only if it is asked for by name.

    {"ema": {…}, "model": {…}}, model_ema, ema_model, …    an average with the model's names
    {"ema": {"shadow_params": [t, t, …]}}                   a list in the order of the model's trainable parameters, so without names
    {"ema": {"ema_model.NAME": t, "online_model.NAME": t}}  both in one, as ema-pytorch keeps them
    {"model.NAME": t, "shadow_params.3": t}                 the list beside the model in one state dict, as flow_matching keeps it
    {"model.NAME": t, "model_ema.NAMEWITHOUTDOTS": t}       as CompVis keeps it
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from scorescope.adapters import families, inert
from scorescope.adapters.families import Checkpoint, Weights, family_of
from scorescope.denoiser import Denoiser
from scorescope.errors import InputError, unknown
from scorescope.files import sha256

PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin")
ALL = "all"  # the part of a file that is one state dict
LIST = "shadow_params"  # what several libraries call an average without names
EMA = ("ema", "model_ema", "ema_model", "ema_state_dict", "model_ema1", "params_ema", "g_ema")  # the first that is there is taken
MODEL = ("model", "state_dict", "model_state_dict", "module", "net_model", "net", "params")  # likewise, where there is no average
AVERAGED = re.compile(r"(^|_)ema(_|\d|$)")  # in the name of any other average
INSIDE = ("shadow", "module", "model", "state_dict", "ema_model", "params")  # where a part keeps its tensors, if not at once
COUNTERS = ("num_updates", "decay", "initted", "step", "n_averaged", "optimization_step")  # numbers that averages keep beside weights
WRAPPERS = ("module.", "model.", "net.", "online_model.", "diffusion_model.")  # before every name, in any order
COMPILED = "_orig_mod."  # of torch.compile, anywhere in a name
LATENT = "model.diffusion_model."  # CompVis' network, beside its encoder and buffers
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # which no average of parameters holds
OWN = ("family", "weights")  # options of every family
NAMED = 3  # classes that are named of those that were left out

Part = Callable[[], Weights]


def accepts(path: Path) -> bool:
    """A file of tensors that does not say itself what it is."""
    if not path.is_file():
        return False
    if path.suffix == ".safetensors":
        return described(path) is None
    return path.suffix.lower() in PICKLES and "weights" in kinds(path)


def described(path: Path) -> str | None:
    """The description that `scorescope train` writes into a safetensors file, if it is there."""
    try:
        with safe_open(path, framework="pt") as opened:
            return (opened.metadata() or {}).get("scorescope")
    except (SafetensorError, OSError):
        return "unreadable"  # for the adapter that says so


def kinds(path: Path) -> tuple[str, ...]:
    """What a pickle can be read as: "weights" (also a file that is damaged, which `load` says), an "object", or both, as a network is."""
    about = path.stat()
    return _kinds(path, about.st_mtime_ns, about.st_size)


@functools.lru_cache(maxsize=16)
def _kinds(path: Path, changed: int, size: int) -> tuple[str, ...]:
    """As `kinds`, for a file as it is now."""
    try:
        found = inert.read(path)
    except InputError:
        return ("weights",)
    if not isinstance(found, inert.Inert):
        return ("weights",)
    return ("weights", "object") if inert.is_network(found) else ("object",)


def load(path: Path, options: dict[str, Any]) -> Denoiser:
    """The model of a state dict; `family`, `weights` (the part of the file) and what else the dict cannot tell are keywords."""
    checkpoint = read(path, options.get("weights"))
    own = {name: value for name, value in options.items() if name not in ("family", "weights")}
    try:
        module = _family(checkpoint, options)
        family = module.__name__.rpartition(".")[2]
        model: Denoiser = module.build(checkpoint, own)
    except InputError as problem:
        trusted = ", or --trust if it is a Denoiser that you made" if path.suffix.lower() in PICKLES and "object" in kinds(path) else ""
        raise InputError(f"{path}: {problem.problem}", f"{problem.hint}{trusted}") from problem
    except (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError) as problem:  # shapes or options that no network has
        reason = str(problem).splitlines()[0]
        raise InputError(f"{path}: its weights make no network of family {family} ({reason})", "an undamaged copy") from problem
    model.name = path.stem
    told = {"family": family, "weights": checkpoint.part, "options": own, "file": str(path), "sha256": sha256(path)}
    model.about = {**model.about, **told}
    if checkpoint.left_out:
        model.about = {**model.about, "left_out": _short(checkpoint.left_out)}
    return model


def _family(checkpoint: Checkpoint, options: dict[str, Any]) -> Any:
    """The family of a checkpoint; where it must be asked for, a misspelt option is told first."""
    try:
        return family_of(checkpoint, options.get("family"))
    except InputError:
        families.known_options(options, OWN)
        raise


def read(path: Path, asked: str | int | None = None) -> Checkpoint:
    """The tensors of one part of the file, and what else the file holds.

    Args:
        path: A safetensors file or a pickle.
        asked: Name of the part; "model" is whatever the file calls its model, "ema" its average. Without it the average is taken, or
            else the model.

    Raises:
        InputError: A file that is damaged or holds no weights; several models of which none is known to be the one; a part that is not
            there; an average without names that can't be told from the model beside it; NaN or Inf among the weights.
    """
    found = _content(path)
    try:
        return checkpoint(found, asked)
    except InputError as problem:
        raise InputError(f"{path} {problem.problem}", problem.hint) from problem


def checkpoint(found: Any, asked: str | int | None = None) -> Checkpoint:
    """As `read`, of what a file holds; errors leave its name out."""
    if isinstance(found, (list, tuple)):
        found = {str(index): value for index, value in enumerate(found)}
    parts = _parts(found)
    if not parts:
        raise InputError("holds no weights", "a state dict, or {'model': …, 'ema': …}")
    name = _chosen(parts, asked)
    weights, beside = _bare(parts[name]())
    _refuse_non_finite(weights)
    rest: dict[str, Any] = {}
    if isinstance(found, Mapping):
        rest = {key: value for key, value in found.items() if not any(isinstance(one, Tensor) for one in inert.walk(value))}
    record = found if name == ALL else found.get(name) if isinstance(found, Mapping) else None
    if isinstance(record, inert.Inert):
        rest[name] = record
    return Checkpoint(weights, name, {**rest, **beside}, tuple(inert.left_out(found)))


def _content(path: Path) -> Any:
    """What the file holds; of a safetensors file its metadata, too."""
    if path.suffix != ".safetensors":
        return inert.read(path)
    with safe_open(path, framework="pt") as opened:
        about = {name: value for name, value in (opened.metadata() or {}).items() if name != "format"}
        return {**about, **{name: opened.get_tensor(name) for name in opened.keys()}}  # noqa: SIM118


# ---- the parts of a file --------------------------------------------------------------------------------------------------------


def _parts(found: Any) -> dict[str, Part]:
    """The state dicts of a file by name."""
    held = {str(name): value for name, value in found.items()} if isinstance(found, Mapping) else {}
    dicts = {name: tensors for name, value in held.items() if (tensors := _tensors(value))}
    whole = _tensors_at_once(found)
    if any("." in name for name in whole) or (whole and not dicts):  # a state dict itself, whatever it keeps beside
        dicts = {ALL: whole}
    parts: dict[str, Part] = {}
    for name, tensors in dicts.items():
        averages, model = _apart(tensors)
        if model or not averages:
            parts["model" if averages and name == ALL else name] = functools.partial(dict, model)
        for own, average in averages.items():
            parts[name if AVERAGED.search(name) else own] = average
    models = [name for name in (*MODEL, *parts) if name in parts and not AVERAGED.search(name)]
    for name, value in held.items():
        if AVERAGED.search(name) and name not in parts and (listed := _listed(value)):
            parts[name] = functools.partial(_named, listed, parts[models[0]]() if models else {})
    return parts


def _tensors(value: Any) -> Weights:
    """The state dict that a value is or wraps; empty where it is none."""
    if inert.is_network(value):
        return inert.state_dict(value)
    if not isinstance(value, Mapping):
        return {}
    own = {name: one for name, one in value.items() if isinstance(name, str) and isinstance(one, Tensor)}
    if own.keys() - COUNTERS:
        return own
    return next((inner for name in INSIDE if (inner := _tensors_at_once(value.get(name)))), {})


def _tensors_at_once(value: Any) -> Weights:
    """A state dict, not one inside another."""
    if inert.is_network(value):
        return inert.state_dict(value)
    return {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, Tensor)} if isinstance(value, Mapping) else {}


def _listed(value: Any) -> list[Tensor]:
    """An average without names."""
    listed = value.get(LIST) if isinstance(value, Mapping) else value
    return list(listed) if isinstance(listed, (list, tuple)) and all(isinstance(one, Tensor) for one in listed) else []


def _apart(tensors: Weights) -> tuple[dict[str, Part], Weights]:
    """The averages inside a state dict, told by what their names begin with, and the model without them."""
    heads = {name.partition(".")[0] for name in tensors if "." in name}
    averaged = sorted(head for head in heads if head == LIST or AVERAGED.search(head))
    if not averaged:
        return {}, tensors
    model = {name: value for name, value in tensors.items() if name.partition(".")[0] not in (*averaged, *COUNTERS)}
    averages: dict[str, Part] = {}
    for head in averaged:
        inner = {name[len(head) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{head}.")}
        if head == LIST:
            listed = [inner[name] for name in sorted(inner, key=lambda name: (len(name), name))]
            averages["ema"] = functools.partial(_named, listed, model)
        elif any("." in name for name in inner):
            averages[head] = functools.partial(dict, inner)
        else:
            averages[head] = functools.partial(_dotted, inner, model)
    return averages, model


def _named(listed: list[Tensor], model: Weights) -> Weights:
    """The model with its trainable parameters replaced by those of a list in their order.

    A state dict holds buffers among the parameters. By shape, each tensor of the list gets the first name possible after the last one's,
    and the last name possible: where the two differ, the shapes leave a choice, and the list is refused.
    """
    hint = 'weights="model", which is not averaged'
    if not model:
        raise InputError("keeps its average as a list without names, and no model beside it has them", "the checkpoint that holds both")
    names = [name for name, value in model.items() if value.is_floating_point() and not name.endswith(BUFFERS)]
    first = _in_order([value.shape for value in listed], [(name, model[name].shape) for name in names])
    last = _in_order([value.shape for value in listed[::-1]], [(name, model[name].shape) for name in names[::-1]])
    if first is None or last is None:
        raise InputError(f"keeps its average as a list of {len(listed):,} tensors, which do not fit the model beside it", hint)
    if first != last[::-1]:
        raise InputError("keeps its average as a list without names, and shapes do not tell which tensor is which", hint)
    return {**model, **dict(zip(first, listed, strict=True))}


def _in_order(shapes: list[torch.Size], names: Iterable[tuple[str, torch.Size]]) -> list[str] | None:
    """For each shape the first name with it after the name of the shape before; None where there is none."""
    left, found = iter(names), []
    for shape in shapes:
        name = next((name for name, one in left if one == shape), None)
        if name is None:
            return None
        found.append(name)
    return found


def _dotted(average: Weights, model: Weights) -> Weights:
    """The model with its averaged weights, whose names have lost their dots and the "model." before them."""
    plain: dict[str, str] = {}
    for name in model:
        key = name.removeprefix("model.").replace(".", "")
        if key in plain and key in average:
            raise InputError(f"averages {key}, which may be {plain[key]} or {name}", 'weights="model", which is not averaged')
        plain[key] = name
    strange = [name for name in average if name not in plain and name not in COUNTERS]
    if strange:
        raise InputError(f"averages {strange[0]}, which no weight of the model is called", 'weights="model", which is not averaged')
    return {**model, **{plain[name]: value for name, value in average.items() if name in plain}}


def _chosen(parts: Mapping[str, Part], asked: str | int | None) -> str:
    """The part that is asked for, the average, or else the model."""
    averages = [*(name for name in EMA if name in parts), *(name for name in parts if AVERAGED.search(name) and name not in EMA)]
    models = [*(name for name in MODEL if name in parts), *(name for name in parts if name not in (*MODEL, *averages))]
    known = {"ema": [averages, EMA], "model": [models, MODEL]}
    if asked is not None and str(asked) in parts:
        return str(asked)
    if asked is not None and (str(asked) not in known or not known[str(asked)][0]):
        raise unknown("part of it", str(asked), parts)
    fitting, names = known["ema" if averages else "model"] if asked is None else known[str(asked)]
    if fitting[0] in names or len(fitting) == 1:
        return fitting[0]
    raise InputError(f"holds several models ({', '.join(parts)})", " or ".join(f'weights="{name}"' for name in fitting))


# ---- the weights of a part --------------------------------------------------------------------------------------------------------


def _bare(tensors: Weights) -> tuple[Weights, Weights]:
    """Weights without what wrappers put before their names, in float32; and what a latent model keeps beside its network."""
    found = {name.replace(COMPILED, ""): value for name, value in tensors.items()}
    found = {name: value for name, value in found.items() if name not in COUNTERS or value.numel() > 1}
    beside: Weights = {}
    while found:
        wrapper = next((one for one in WRAPPERS if all(name.startswith(one) for name in found)), None)
        if wrapper is None and any(name.startswith(LATENT) for name in found):
            wrapper, beside = LATENT, {name: value for name, value in found.items() if not name.startswith(LATENT)}
        if wrapper is None:
            break
        found = {name.removeprefix(wrapper): value for name, value in found.items() if name not in beside}
    return {name: value.float() if value.is_floating_point() else value for name, value in found.items()}, beside


def _refuse_non_finite(weights: Weights) -> None:
    for name, value in weights.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            count = int((~value.isfinite()).sum())
            raise InputError(
                f"holds NaN or Inf: {count:,} of the {value.numel():,} numbers of {name}", "a copy that was not saved in half precision"
            )


def _short(names: Iterable[str]) -> str:
    """A few of the classes that were left out, and how many more."""
    named = list(names)
    more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
    return f"{', '.join(named[:NAMED])}{more}"
