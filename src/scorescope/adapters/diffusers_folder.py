"""Folders that diffusers writes: a pipeline, a network with its scheduler, or a training checkpoint; and the same as live objects.

    pipeline       model_index.json, unet/ or transformer/, scheduler/; or all of it in one folder
    checkpoint     checkpoint-N/{unet, unet_ema} in the folder of a training run, whose scheduler is taken; the EMA is preferred
    network        config.json and weights, in a folder of its own

The library makes the network of its config.json and fills it, safetensors, `.bin` (tensors alone), half precision and shards alike. Only
classes in `NETWORKS` are made, and no code in the folder is run. The scheduler is read by `diffusers_schedule`. A network of latents says
in `about["latents"]` which autoencoder's, and by what they are multiplied: its bank must hold the same.
"""

from __future__ import annotations

import contextlib
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256 as digest
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from scorescope.adapters.diffusers_schedule import process_of
from scorescope.adapters.families import checked
from scorescope.denoiser import NetworkDenoiser
from scorescope.errors import InputError
from scorescope.files import sha256

INDEX, CONFIG, SCHEDULER = "model_index.json", "config.json", "scheduler_config.json"
STEM = "diffusion_pytorch_model"
WEIGHTS = re.compile(rf"{STEM}(?:\.(?P<variant>[\w-]+?))?(?:-\d+-of-\d+)?\.(?P<kind>safetensors|bin)")
CHECKPOINT = re.compile(r"checkpoint-\d+")
PARTS = ("unet_ema", "transformer_ema", "unet", "transformer")  # the first that is there is taken
TEXT = ("text_encoder", "tokenizer", "bert")  # what parts of a pipeline that takes prompts are called
ENCODERS = {"AutoencoderKL": 0.18215, "VQModel": 0.18215, "AutoencoderTiny": 1.0, "AutoencoderDC": 1.0}  # scaling_factor, if not told
ENCODER_PARTS = ("vae", "vqvae")
OPTIONS = {
    "scheduler": "a scheduler_config.json, or the folder that holds it, where none lies beside the network",
    "null": "the label that stands for no class, where the network was trained with one",
    "clip": "true to cut posterior means to the data's range, as a scheduler with clip_sample does while it samples",
    "variant": "which of several sets of weights, as fp16",
}
INSTALL = "pip install 'scorescope[diffusers]'"
OWN_CODE = "my_model.py:build, a function that returns ss.NetworkDenoiser(net, schedule, prediction=…)"


# ---- folders ----------------------------------------------------------------------------------------------------------------------------


def accepts(path: Path) -> bool:
    """A folder with one of the layouts; the weights in one, too, to say so."""
    if path.is_file():
        return bool(WEIGHTS.fullmatch(path.name)) and _of_diffusers(path.parent)
    checkpoints = (found for found in path.glob("checkpoint-*") if CHECKPOINT.fullmatch(found.name))
    return path.is_dir() and ((path / INDEX).is_file() or any(_of_diffusers(place) for at in (path, *checkpoints) for place in _places(at)))


def _places(folder: Path) -> list[Path]:
    return [folder, *(folder / part for part in PARTS)]


def _of_diffusers(folder: Path) -> bool:
    """Whether the folder's config.json is of a class of diffusers."""
    try:
        return "_class_name" in json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


@dataclass(frozen=True)
class Layout:
    """Where things are.

    Attributes:
        network: The folder with the network's config.json and weights.
        roots: Folders where a pipeline's other parts may lie, nearest first.
        index: What model_index.json says; empty without one.
    """

    network: Path
    roots: tuple[Path, ...]
    index: Mapping[str, Any]

    def scheduler(self) -> Path | None:
        """The scheduler's JSON, the nearest."""
        places = [place for root in self.roots for place in (root / "scheduler" / SCHEDULER, root / SCHEDULER)]
        return next((place for place in places if place.is_file()), None)

    @property
    def name(self) -> str:
        """What reports call the model: the pipeline, and the checkpoint."""
        own = self.network.parent if self.network.name in PARTS else self.network
        return f"{own.parent.name}-{own.name}" if CHECKPOINT.fullmatch(own.name) and own.parent.name else own.name


def layout(path: Path) -> Layout:
    """Of a folder that is accepted.

    Raises:
        InputError: No network in it, or several.
    """
    path = Path(path).absolute()
    network = path
    if not _of_diffusers(path):
        there = [part for part in PARTS if (path / part / CONFIG).is_file()]
        if len({part.removesuffix("_ema") for part in there}) > 1:
            raise InputError(f"{path} holds several networks ({', '.join(there)})", f"one of them, as {path / there[0]}")
        steps = sorted((p.name for p in path.glob("checkpoint-*") if CHECKPOINT.fullmatch(p.name)), key=lambda name: int(name[11:]))
        if not there and steps:
            raise InputError(f"{path} holds checkpoints ({', '.join(steps[-3:])}) and no finished network", str(path / steps[-1]))
        if not there:
            raise InputError(f"{path} has no network: there is no {CONFIG} in it, nor in {' or '.join(PARTS[2:])}", "the whole pipeline")
        network = path / there[0]
    roots = [network]
    if network.name in PARTS or (network.parent / INDEX).is_file():
        roots.append(network.parent)
        if CHECKPOINT.fullmatch(network.parent.name):
            roots.append(network.parent.parent)
    index = next((root / INDEX for root in roots if (root / INDEX).is_file()), None)
    return Layout(network, tuple(roots), {} if index is None else _json(index))


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise InputError(f"{file} can't be read as JSON ({problem})", "the file from an undamaged copy") from problem
    if not isinstance(found, dict):
        raise InputError(f"{file} holds no record", "the file from an undamaged copy")
    return found


def load(path: Path, options: dict[str, Any]) -> NetworkDenoiser:
    """The network of a folder as a denoiser; `OPTIONS` are what the folder cannot tell.

    Raises:
        InputError: Parts that are missing, damaged or of a kind that is not read; diffusers is not installed.
    """
    told = checked(options, OPTIONS, "diffusers")
    if path.is_file():
        raise InputError(f"{path} is the weights of a diffusers network, which the folder around it describes", str(path.parent))
    found = layout(path)
    network, index = found.network, found.index
    told_scheduler = Path(told["scheduler"]) if "scheduler" in told else None
    scheduler = told_scheduler / SCHEDULER if told_scheduler and told_scheduler.is_dir() else told_scheduler or found.scheduler()
    if scheduler is None or not scheduler.is_file():
        where = "there is no scheduler beside it" if scheduler is None else f"there is no {scheduler}"
        raise InputError(f"{network} does not tell its noise schedule: {where}", f"scheduler=FOLDER, or a {SCHEDULER}")
    prompts = [part for part, value in index.items() if part.startswith(TEXT) and isinstance(value, list) and value[0] is not None]
    if prompts:
        raise _text(path, f"{index.get('_class_name')} has {' and '.join(prompts)}")
    config, plan = _json(network / CONFIG), _json(scheduler)
    try:
        given = network_of(str(config.get("_class_name")), config, told.get("null"))
        process_of(plan)  # before anything is loaded
        net, files = _filled(network, given.kind, told.get("variant"))
        model = _denoiser(net, given, plan, _flag(told.get("clip", False)))
    except InputError as problem:
        raise InputError(f"{path}: {problem.problem}", problem.hint) from problem
    model.name = found.name
    model.about = {
        **model.about,
        "pipeline": str(index.get("_class_name", "")),
        "weights": network.name if network.name in PARTS else "all",
        "options": {name: str(value) for name, value in told.items()},
        "file": str(path),
        "sha256": digest("".join(sha256(file) for file in (network / CONFIG, scheduler, *files)).encode()).hexdigest(),
        **_latents(_encoder(found)),
    }
    return model


def _flag(value: Any) -> bool:
    if str(value).lower() not in ("true", "false", "1", "0"):
        raise InputError(f"clip={value} is neither true nor false", "clip=true")
    return str(value).lower() in ("true", "1")


def _encoder(found: Layout) -> Mapping[str, Any]:
    """The configuration of the autoencoder, of a pipeline that has one."""
    for part in ENCODER_PARTS:
        kept = next((root / part / CONFIG for root in found.roots if (root / part / CONFIG).is_file()), None)
        if kept is not None:
            return _json(kept)
        value = found.index.get(part)
        if isinstance(value, list) and value[-1] is not None:
            return {"_class_name": value[-1]}
    return {}


def _latents(encoder: Mapping[str, Any]) -> dict[str, Any]:
    """`about["latents"]`: whose latents, and how they are moved and scaled before the network sees them."""
    if not encoder:
        return {}
    kind = str(encoder.get("_class_name"))
    known = {"encoder": kind, "scaling_factor": encoder.get("scaling_factor", ENCODERS.get(kind))}
    rest = {name: encoder.get(name) for name in ("shift_factor", "latents_mean", "latents_std")}
    return {"latents": known | {name: value for name, value in rest.items() if value is not None}}


# ---- networks ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Given:
    """What a network's configuration says.

    Attributes:
        kind: The class that is made.
        channels: Of a state; None where nothing is known of the network.
        shape: Of a state; None where any size will do.
        classes: Number of classes.
        null: The null label.
        bare: Whether it must be told that there is no text.
    """

    kind: str
    channels: int | None = None
    shape: tuple[int, ...] | None = None
    classes: int = 0
    null: int | None = None
    bare: bool = False


def network_of(kind: str, config: Mapping[str, Any], null: int | None = None) -> Given:
    """What the configuration of a network of that class says.

    Raises:
        InputError: A class that is not read, a network that takes text or an image besides the state.
    """
    if kind not in NETWORKS:
        raise InputError(f"it holds a {kind}, and only {', '.join(NETWORKS)} are read", OWN_CODE)
    if config.get("quantization_config"):
        raise InputError("its weights are quantized", "the weights that they were made of")
    try:
        return NETWORKS[kind](config, null)
    except (TypeError, ValueError) as problem:
        if isinstance(problem, InputError):
            raise
        raise InputError(f"its {CONFIG} makes no {kind} ({problem})", "the file from an undamaged copy") from problem


def _unet(config: Mapping[str, Any], null: int | None) -> Given:
    return _image_net("UNet2DModel", config, (3, 3), null, False)


def _unet_condition(config: Mapping[str, Any], null: int | None) -> Given:
    blocks = [
        *config.get("down_block_types", ("CrossAttnDownBlock2D",)),
        *config.get("up_block_types", ()),
        config.get("mid_block_type", "UNetMidBlock2DCrossAttn") or "",
    ]
    crossed = [block for block in blocks if "CrossAttn" in block]
    more = [name for name in ("encoder_hid_dim_type", "addition_embed_type") if config.get(name)]
    if crossed or more:
        raise _text("it", f"a UNet2DConditionModel with {(crossed or more)[0]}")
    return _image_net("UNet2DConditionModel", config, (4, 4), null, True)


def _image_net(kind: str, config: Mapping[str, Any], usual: tuple[int, int], null: int | None, bare: bool) -> Given:
    """A U-Net: its classes are rows of a table, of which one may be the null label."""
    channels, rows = int(config.get("in_channels", usual[0])), config.get("num_class_embeds")
    embedded = config.get("class_embed_type")
    if embedded is not None:
        raise InputError(f"its classes are embedded as {embedded!r}, which does not tell how many there are", OWN_CODE)
    _outputs(channels, int(config.get("out_channels", usual[1])))
    if rows is None and null is not None:
        raise InputError(f"null={null} is the label of no class, and the network has no classes", "leaving it out")
    if null is not None and not 0 <= int(null) < int(rows or 0):
        raise InputError(f"null={null} is none of the {rows} labels of the network", f"null={int(rows or 1) - 1}")
    classes = int(rows or 0) - (null is not None and int(null) == int(rows or 0) - 1)
    return Given(kind, channels, _shape(channels, config.get("sample_size")), classes, None if null is None else int(null), bare)


def _transformer(config: Mapping[str, Any], null: int | None) -> Given:
    """DiT: the row after the classes' is the null label. The older class is the same network under another name, if it takes no text."""
    if config.get("cross_attention_dim") or config.get("caption_channels"):
        raise _text("it", "a transformer with cross-attention")
    if config.get("_class_name") == "Transformer2DModel" and (config.get("norm_type") != "ada_norm_zero" or not config.get("patch_size")):
        raise InputError("it holds a Transformer2DModel that is no class-conditional DiT (norm_type ada_norm_zero, patch_size)", OWN_CODE)
    channels, classes = int(config.get("in_channels") or 4), int(config.get("num_embeds_ada_norm", 1000))
    _outputs(channels, int(config.get("out_channels") or channels))
    if null is not None and int(null) != classes:
        raise InputError(f"null={null} is not the null label of a DiT with {classes} classes", f"null={classes}, or leaving it out")
    return Given("DiTTransformer2DModel", channels, _shape(channels, config.get("sample_size", 32)), classes, classes)


NETWORKS: dict[str, Callable[[Mapping[str, Any], int | None], Given]] = {
    "UNet2DModel": _unet,
    "DiTTransformer2DModel": _transformer,
    "Transformer2DModel": _transformer,
    "UNet2DConditionModel": _unet_condition,
}


def _outputs(inputs: int, outputs: int) -> None:
    """Refuse a network that answers with other channels than the state's, once or twice (then the second half is a variance)."""
    if outputs not in (inputs, 2 * inputs):
        problem = f"it takes {inputs} channels and answers with {outputs}: part of what it takes is no noised state (an image, a mask)"
        raise InputError(problem, OWN_CODE)


def _shape(channels: int, size: Any) -> tuple[int, ...] | None:
    if size is None:
        return None
    sides = (size, size) if isinstance(size, int) else tuple(int(side) for side in size)
    return (channels, *sides)


def _text(where: Any, why: str) -> InputError:
    return InputError(
        f"{where} is a model of text prompts ({why}), and those are not examined", "an unconditional or class-conditional one"
    )


def _filled(folder: Path, kind: str, variant: str | None) -> tuple[nn.Module, list[Path]]:
    """The network with its weights, float32, and the files that hold them."""
    variant, suffix, files = weights_of(folder, variant)
    library = _library()
    if not hasattr(library, kind):
        raise InputError(f"the installed diffusers {library.__version__} has no {kind}", f"a newer one: {INSTALL} --upgrade")
    try:
        with _quiet(library):
            net, told = getattr(library, kind).from_pretrained(
                str(folder), local_files_only=True, use_safetensors=suffix == "safetensors", variant=variant, output_loading_info=True
            )  # fmt: skip
    except Exception as problem:  # the library's own, of a dozen kinds
        said = (str(problem).strip() or type(problem).__name__).splitlines()[0].rstrip(" .")
        raise InputError(f"{folder} makes no network ({said})", "an undamaged copy") from problem
    for fault in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        names = [str(name) for name in told.get(fault, ())]
        if names:
            few = ", ".join(sorted(names)[:3]) + (", …" if len(names) > 3 else "")
            raise InputError(
                f"the weights do not fit the {kind} that {CONFIG} describes ({fault.replace('_', ' ')}: {few})", "the whole folder"
            )
    net = net.float()
    bad = [name for name, value in net.state_dict().items() if not bool(value.isfinite().all())]
    if bad:
        raise InputError(f"the weights hold NaN or Inf ({len(bad)} tensors, as {bad[0]})", "an undamaged copy")
    net.register_to_config(_name_or_path="")  # where it lies says nothing of what it answers
    return net, files


def weights_of(folder: Path, variant: str | None = None) -> tuple[str | None, str, list[Path]]:
    """Of the weights in a folder: the variant, safetensors or bin, and the files. Plain ones before variants, safetensors before bin.

    Raises:
        InputError: There are none, or only variants of which none is asked for.
    """
    sets: dict[tuple[str | None, str], list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if told := WEIGHTS.fullmatch(file.name):
            sets.setdefault((told["variant"], told["kind"]), []).append(file)
    kinds = sorted({one for one, _ in sets}, key=str)
    if not sets:
        raise InputError(f"{folder} has no weights ({STEM}.safetensors or .bin)", "the whole folder")
    if variant is not None and variant not in kinds:
        raise InputError(f"{folder} has no weights of variant {variant}", ", ".join(f"variant={one}" for one in kinds if one) or "none")
    chosen = variant if variant or None in kinds else kinds[0] if len(kinds) == 1 else None
    if chosen is None and None not in kinds:
        raise InputError(f"{folder} has weights of several variants", " or ".join(f"variant={one}" for one in kinds))
    suffix = "safetensors" if (chosen, "safetensors") in sets else "bin"
    return chosen, suffix, sets[chosen, suffix]


def _library() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import diffusers
    except ImportError as missing:
        raise InputError(f"this network is made by the package diffusers, which can't be imported ({missing})", INSTALL) from missing
    return diffusers


@contextlib.contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """What the library logs of unused settings is of no use here; errors are raised."""
    told = library.utils.logging.get_verbosity()
    library.utils.logging.set_verbosity(50)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        library.utils.logging.set_verbosity(told)


# ---- denoisers --------------------------------------------------------------------------------------------------------------------------


class Called(nn.Module):
    """A network of diffusers as net(z, time, label); of twice the channels, the first half.

    Args:
        net: Takes (z, timestep=, class_labels=) and gives a tuple for `return_dict=False`.
        channels: Of a state.
        bare: Whether it must be told that there is no text.
    """

    def __init__(self, net: nn.Module, channels: int, bare: bool) -> None:
        super().__init__()
        self.net, self.channels, self.bare = net, channels, bare

    def forward(self, z: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """(B, *shape), in the type of z whatever that of the weights is."""
        given: dict[str, Any] = {"encoder_hidden_states": None} if self.bare else {}
        if label is not None:
            given["class_labels"] = label
        own = next(self.net.parameters()).dtype
        answer: Tensor = self.net(z.to(own), timestep=time, return_dict=False, **given)[0]
        return answer[:, : self.channels].to(z.dtype)


def _denoiser(net: nn.Module, given: Given, plan: Mapping[str, Any], clip: bool) -> NetworkDenoiser:
    """A network and the JSON of its scheduler, put together."""
    process = process_of(plan)
    called = net if given.channels is None else Called(net, given.channels, given.bare)
    model = NetworkDenoiser(
        process.around(called).eval(), process.schedule, process.prediction, time=process.time, classes=given.classes,
        null_label=given.null, shape=given.shape, name=given.kind,
    ).clipped(process.data if clip else False)  # fmt: skip
    model.about = {"family": "diffusers", "network": given.kind, "scheduler": str(plan["_class_name"]), "range": list(process.data)}
    if process.samples_only:
        model.about["samples_only"] = process.samples_only
    return model


def of_parts(net: nn.Module, scheduler: Any, *, null: int | None = None, clip: bool = False) -> NetworkDenoiser:
    """A live network and its live scheduler, as `pipeline.unet` and `pipeline.scheduler`; the network is set to evaluation.

    Args:
        net: A network of diffusers, or any module that is called as net(z, time) and gives (B, *shape) or an object with `sample`.
        scheduler: Of diffusers; its configuration is read, and nothing of it is called.
        null: The label that stands for no class, of a U-Net that was trained with one.
        clip: Whether posterior means are cut to the data's range.

    Raises:
        InputError: A network or a scheduler of a kind that is not read.
    """
    bare = getattr(net, "_orig_mod", net)  # what torch.compile wraps
    kind, config = type(bare).__name__, getattr(bare, "config", None)
    of_library = type(bare).__module__.startswith("diffusers.") and isinstance(config, Mapping)
    given = network_of(kind, config, null) if of_library and config is not None else Given(kind)
    plan = {**getattr(scheduler, "config", {}), "_class_name": type(scheduler).__name__}
    return _denoiser(net, given, plan, clip)


def of_pipeline(pipeline: Any, *, null: int | None = None, clip: bool = False) -> NetworkDenoiser:
    """A live pipeline: its network, its scheduler, and of its autoencoder what is done to latents.

    Raises:
        InputError: No network or several, text prompts, and as `of_parts`.
    """
    kind, parts = type(pipeline).__name__, {name: part for name, part in pipeline.components.items() if part is not None}
    prompts = [name for name in parts if name.startswith(TEXT)]
    if prompts:
        raise _text(kind, " and ".join(prompts))
    nets = [name for name in parts if name in PARTS]
    if len(nets) != 1 or "scheduler" not in parts:
        raise InputError(f"{kind} has the parts {', '.join(parts)}, not one network and a scheduler", "a pair (network, scheduler)")
    model = of_parts(parts[nets[0]], parts["scheduler"], null=null, clip=clip)
    encoder = next((parts[name] for name in ENCODER_PARTS if name in parts), None)
    told = {} if encoder is None else _latents({**encoder.config, "_class_name": type(encoder).__name__})
    model.name = Path(str(getattr(pipeline, "name_or_path", "") or kind)).name
    model.about = {**model.about, "pipeline": kind, "weights": nets[0], **told}
    return model
