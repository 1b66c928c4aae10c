"""Denoiser: one interface for every model, with the posterior mean E[x | z_t] as the one currency.

A model from elsewhere needs a `schedule` and a `forward(z, t, label=None)`; score, noise and velocity follow from `convert`.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from scorescope import convert, user_file
from scorescope.errors import InputError, unknown
from scorescope.identity import identity_of, network_identity
from scorescope.networks import held, label_argument
from scorescope.schedule import DiscreteSchedule, LinearSchedule, Schedule, Time, as_schedule

Label = int | Tensor | None


def as_label(label: Label, batch: int, device: torch.device | str) -> Tensor | None:
    """A class for each state as int64 (B,), or None."""
    if label is None:
        return None
    try:
        value = torch.as_tensor(label, device=device)
        if value.dtype.is_floating_point or value.dtype.is_complex or value.dtype == torch.bool:
            raise TypeError(f"its type is {value.dtype}")
        value = value.to(torch.int64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as problem:
        raise InputError(f"label {label!r} can't be a class number ({problem})", "one whole number, or (B,) of them") from problem
    value = value.expand(batch) if value.ndim == 0 else value
    if value.shape != (batch,):
        raise InputError(f"labels of shape {tuple(value.shape)} do not match {batch} states", "one label, or one for each state")
    return value


class Denoiser(ABC):
    """A model of E[x | z_t].

    Attributes:
        schedule: α and σ of the states that `forward` takes.
        classes: Number of classes, 0 for an unconditional model.
        has_null: Whether `label=None` asks a class-conditional model for its unconditional prediction.
        null_label: A label that asks the same, so that one batch may hold both; None where there is no such number.
        shape: Shape of one state, or None where the model takes any.
        name: What reports call the model.
        about: Where it comes from, for reports: file, sha256, recipe, bank; empty for a model made in Python. "samples_only" says in
            words why the model's target is not E[x | z_t]: then its samples alone are judged.
    """

    schedule: Schedule = LinearSchedule()
    classes: int = 0
    has_null: bool = True
    null_label: int | None = None
    shape: tuple[int, ...] | None = None
    name: str = "model"
    about: Mapping[str, Any] = MappingProxyType({})
    NOT_IDENTITY: ClassVar[tuple[str, ...]] = ("name", "about")  # attributes on which no answer depends

    @abstractmethod
    def forward(self, z: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Posterior mean (B, *shape) of states z (B, *shape) at times t (B,) float64, for classes label (B,) or None."""

    def __call__(self, z: Tensor, t: Time, label: Label = None) -> Tensor:
        """Posterior mean of `z` (B, *shape); t is one number or (B,), label one class, (B,) or None.

        Raises:
            InputError: Shapes that do not match, t outside [0, 1], a label outside the model's classes; any error of a model from a
                user's file, with that file's line.
        """
        at, tags = self._read(z, t, label)
        if not user_file.accepts(made := str(self.about.get("file", ""))):
            return self.forward(z, at, tags)
        labels = "" if tags is None else ", with labels"
        when = f"asked about {z.dtype} states of shape {tuple(z.shape)}{labels}"
        with user_file.inside(user_file.split(made)[0], when.replace("torch.", "")):
            return self.forward(z, at, tags)

    def _read(self, z: Tensor, t: Time, label: Label) -> tuple[Tensor, Tensor | None]:
        """Times and labels, one for each state."""
        convert.as_states(z, f"the states of {self.name}")
        if self.shape is not None and tuple(z.shape[1:]) != self.shape:
            raise InputError(f"{self.name} takes states of shape {self.shape}, got {tuple(z.shape[1:])}")
        at = convert.broadcast(t, z).flatten()
        tags = as_label(label, len(z), z.device)
        strange = [] if tags is None else [k for k in tags.unique().tolist() if not 0 <= k < self.classes and k != self.null_label]
        if strange:
            known = f"classes 0 to {self.classes - 1}" if self.classes else "no classes"
            raise InputError(f"label {strange[-1]} is outside the classes of {self.name}, which has {known}")
        return at, tags

    def score(self, z: Tensor, t: Time, label: Label = None) -> Tensor:
        """s(z, t) = (α x̂ − z)/σ², Eq. 2; (B, *shape)."""
        return convert.score(z, self(z, t, label), t, self.schedule)

    def noise(self, z: Tensor, t: Time, label: Label = None) -> Tensor:
        """ε̂ = (z − α x̂)/σ; (B, *shape)."""
        return convert.noise(z, self(z, t, label), t, self.schedule)

    def velocity(self, z: Tensor, t: Time, label: Label = None) -> Tensor:
        """dz/dt of the probability-flow ODE; (z − x̂)/t on the linear path; (B, *shape)."""
        return convert.velocity(z, self(z, t, label), t, self.schedule)

    def identity(self) -> dict[str, Any]:
        """All that answers depend on: every attribute but those in `NOT_IDENTITY`, and the hash of the model's file.

        Raises:
            NoIdentity: An attribute that can't be told from another (see `scorescope.identity`).
        """
        stated = {name: getattr(self, name) for name in ("schedule", "classes", "has_null", "null_label", "shape")}
        own = {} if isinstance(self, nn.Module) else vars(self)
        kept = {name: value for name, value in (stated | own).items() if name not in self.NOT_IDENTITY}
        file = {"file": self.about["sha256"]} if "sha256" in self.about else {}
        if isinstance(self, nn.Module):
            file |= {"network": network_identity(self, self.name)}
        return {
            "type": identity_of(type(self)),
            **file,
            **{name: identity_of(value, f"{self.name}.{name}") for name, value in kept.items()},
        }

    @property
    def samples_only(self) -> str:
        """Why its target is not E[x | z_t] (another coupling, reflow, consistency, distillation …); empty where it is that."""
        return str(self.about.get("samples_only", ""))

    @property
    def linear_range(self) -> tuple[float, float]:
        """The linear times at which the model can be asked."""
        return self.schedule.linear_range

    def modules(self) -> list[nn.Module]:
        """The networks inside, each once, found in what the attributes hold: for moving between devices and counting parameters."""
        return [self] if isinstance(self, nn.Module) else list(held(list(vars(self).values())))

    def to(self, device: torch.device | str) -> Denoiser:
        """Move the networks inside to a device and set them to evaluation; returns self."""
        for module in self.modules():
            nn.Module.to(module, device)
            module.eval()
        return self

    @property
    def parameters_count(self) -> int:
        """Number of trainable parameters inside."""
        found = {id(p): p.numel() for module in self.modules() for p in nn.Module.parameters(module) if p.requires_grad}
        return sum(found.values())


TIMES: dict[str, Callable[[Schedule, Tensor], Tensor]] = {
    "t": lambda schedule, t: t,
    "steps": lambda schedule, t: (t * _steps(schedule) - 1).clamp(min=0),
    "sigma": lambda schedule, t: schedule(t).sigma / schedule(t).alpha,
    "log_snr": lambda schedule, t: 2 * (schedule(t).alpha.log() - schedule(t).sigma.log()),
    "none": lambda schedule, t: torch.zeros_like(t),
}


def _steps(schedule: Schedule) -> int:
    if not isinstance(schedule, DiscreteSchedule):
        raise InputError("time='steps' needs a DiscreteSchedule, which knows how many steps there are", "time=lambda t: 1000 * t")
    return schedule.steps


def _range(clip: bool | tuple[float, float]) -> tuple[float, float] | None:
    """Where posterior means are cut, or None."""
    if isinstance(clip, bool):
        return (-1.0, 1.0) if clip else None
    try:
        low, high = (float(end) for end in clip)
    except (TypeError, ValueError) as problem:
        raise InputError(f"clip = {clip!r} is no range", "True for −1 to 1, or (low, high)") from problem
    if not -math.inf < low < high < math.inf:
        raise InputError(f"clip = {clip!r} is no range", "True for −1 to 1, or (low, high)")
    return low, high


class NetworkDenoiser(Denoiser):
    """A network, its schedule and what it predicts.

    Args:
        net: Called as `net(z, time, label)`, or `net(z, time)` where its signature has no place for a label (`networks.label_argument`);
            returns (B, *shape), or an object whose `sample` is that (diffusers). An `nn.Module`, or any callable; the parameters of the
            modules that it holds are counted, and moved between devices.
        schedule: α and σ of the states the network was trained on.
        prediction: "x", "eps", "v" (the schedule's `v_weights`) or "score".
        time: What the network wants for t: "t" itself, "steps" (0 to n − 1 of a `DiscreteSchedule`), "sigma" (σ/α), "log_snr",
            "none", or a function of t (B,) float64. It gets numbers of the states' type, and whole ones where the function gives such.
            Steps may lie between two whole ones; a network that refuses fractions (it looks them up in a table) gets the nearest whole
            one as int64, which its first call finds out.
        classes: Number of classes; 0 passes `label=None` to a network that must have a label.
        null_label: The label that stands for "no class", or None where the network has none.
        shape: Shape of one state, if fixed.
        name: What reports call the model.
    """

    NOT_IDENTITY = (*Denoiser.NOT_IDENTITY, "_mean", "_argument", "_whole")  # which follow from the rest

    def __init__(
        self,
        net: Callable[..., Any],
        schedule: Schedule | None = None,
        prediction: str = "v",
        *,
        time: str | Callable[[Tensor], Tensor] = "t",
        classes: int = 0,
        null_label: int | None = None,
        shape: tuple[int, ...] | None = None,
        name: str = "network",
    ) -> None:
        if classes < 0:
            raise InputError(f"classes = {classes} is not a number of classes", "0 for an unconditional network")
        self.clip: tuple[float, float] | None = None  # see `clipped`
        self.net, self.schedule, self.prediction = net, as_schedule(schedule), prediction
        self.classes, self.null_label, self.shape, self.name = classes, null_label, shape, name
        self.has_null = not classes or null_label is not None
        self._mean = convert.mean_from(prediction)
        if isinstance(time, str) and time not in TIMES:
            raise unknown("time", time, TIMES)
        if time == "steps":
            _steps(self.schedule)
        self._time = time
        self._whole = False
        self._argument = label_argument(net, classes)
        if classes and self._argument is None:
            raise InputError(f"{name} has {classes} classes, but its network takes no label", "classes=0, or a forward(z, t, label)")

    def clipped(self, to: bool | tuple[float, float] = True) -> NetworkDenoiser:
        """The model with its posterior mean cut to the data's range, as its own sampler may cut it; the network is shared.

        Args:
            to: True for −1 to 1, or the range; False for no cut.

        Raises:
            InputError: No range.
        """
        model = copy.copy(self)
        model.clip = _range(to)
        return model

    def forward(self, z: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The network's prediction as a posterior mean."""
        x = self._mean(z, self._ask(z, t, label), t, self.schedule)
        return x if self.clip is None else x.clamp(*self.clip)

    def noise(self, z: Tensor, t: Time, label: Label = None) -> Tensor:
        """ε̂ (B, *shape): of a network that predicts it in its own words, without the rounding of the way over x̂ at small t."""
        return self._ask(z, *self._read(z, t, label)) if self.prediction == "eps" and self.clip is None else super().noise(z, t, label)

    def velocity(self, z: Tensor, t: Time, label: Label = None) -> Tensor:
        """dz/dt of the probability-flow ODE (B, *shape): likewise where v is that, on the linear path."""
        own = self.prediction == "v" and isinstance(self.schedule, LinearSchedule) and self.clip is None
        return self._ask(z, *self._read(z, t, label)) if own else super().velocity(z, t, label)

    def _ask(self, z: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        """The network's prediction."""
        if self.classes and label is None:
            if self.null_label is None:
                raise InputError(f"{self.name} has no null label, so it has no unconditional prediction", "a label")
            label = torch.full((len(z),), self.null_label, dtype=torch.int64, device=z.device)
        time = TIMES[self._time](self.schedule, t) if isinstance(self._time, str) else self._time(t)
        found = self._called(z, time, label)
        prediction: Tensor = found if isinstance(found, Tensor) else found.sample
        if prediction.shape != z.shape:
            raise InputError(
                f"{self.name} answers states of shape {tuple(z.shape[1:])} with shape {tuple(prediction.shape[1:])}",
                "a function that returns only the part that predicts",
            )
        return prediction

    def _called(self, z: Tensor, time: Tensor, label: Tensor | None) -> Any:
        """What the network returns; steps become whole ones from the first time on that it refuses fractions and takes those."""
        placed, named = ((label,) if self._argument == 2 else ()), ({self._argument: label} if isinstance(self._argument, str) else {})

        def ask(at: Tensor) -> Any:
            return self.net(z, at, *placed, **named)

        if self._whole or not time.is_floating_point():
            return ask(time.round().to(torch.int64) if self._whole else time)
        try:
            return ask(time.to(z.dtype))
        except (RuntimeError, TypeError, IndexError) as refused:
            if self._time != "steps" or isinstance(refused, torch.cuda.OutOfMemoryError):
                raise
            try:
                found = ask(time.round().to(torch.int64))
            except Exception:
                raise refused from None
            self._whole = True
            return found

    @property
    def linear_range(self) -> tuple[float, float]:
        """As the schedule's; predictions that say nothing at α = 0 stop just short of it."""
        first, last = self.schedule.linear_range
        return first, min(last, 1 - 1e-3) if self.prediction in ("eps", "score") else last


class Wrapped(Denoiser):
    """A model seen through another object, which forwards all that it does not change: the base of every wrapper.

    Its identity is its type, its own attributes, and the model's identity.
    """

    def __init__(self, model: Denoiser) -> None:
        self.model = model
        self.schedule, self.classes, self.has_null, self.null_label = model.schedule, model.classes, model.has_null, model.null_label
        self.shape, self.name, self.about = model.shape, model.name, model.about

    def modules(self) -> list[nn.Module]:
        """The model's networks."""
        return self.model.modules()

    def to(self, device: torch.device | str) -> Denoiser:
        """Move the model to a device; returns self."""
        self.model = self.model.to(device)
        return self

    @property
    def linear_range(self) -> tuple[float, float]:
        """The model's."""
        return self.model.linear_range


class Guided(Wrapped):
    """Classifier-free guidance, s = s^c + (ω − 1)(s^c − s^∅) (Example 3.1); the same combination holds for posterior means."""

    def __init__(self, model: Denoiser, weight: float) -> None:
        if not model.classes or not model.has_null:
            raise InputError(f"{model.name} has no conditional and unconditional prediction to combine", "no guidance")
        if not math.isfinite(weight):
            raise InputError(f"a guidance of {weight} is not a weight", "a finite number, 1 for none")
        super().__init__(model)
        self.weight, self.name = weight, f"{model.name}, guidance {weight:g}"

    def forward(self, z: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The guided posterior mean; without a label, the unconditional one."""
        free = self.model(z, t)
        return free if label is None else free + self.weight * (self.model(z, t, label) - free)


class OnLinearAxis(Wrapped):
    """Any model seen on the paper's axis: linear schedule, states z/(α + σ). The posterior mean is the same."""

    def __init__(self, model: Denoiser) -> None:
        super().__init__(model)
        self.schedule = LinearSchedule()

    def forward(self, z: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Ask the model in its own coordinates."""
        own_z, own_t = convert.from_linear(z, t, self.model.schedule)
        return self.model(own_z, own_t, label)


def on_linear_axis(model: Denoiser) -> Denoiser:
    """`model` itself if it is linear already, else seen through `OnLinearAxis`."""
    return model if isinstance(model.schedule, LinearSchedule) else OnLinearAxis(model)
