"""The process that a diffusers scheduler names: α, σ, what the network predicts and which time it is given, in float64, without diffusers.

    β schedulers    α = √ᾱ, ᾱ_k = ∏_{i ≤ k} (1 − β_i), asked at the steps k = 0 … n − 1; epsilon: ε, sample: x, v_prediction: α ε − σ x
    flow matching   α = 1 − t, σ = t; v = ε − x, asked at n t; with `invert_sigmas` x − ε at n (1 − t)
    EDM             α = 1; x̂ = c_skip z + c_out F(c_in z, ¼ ln σ) (Karras et al. 2022, Eq. 7), c_out negated for v_prediction
    SDE-VE          α = 1; the score, asked at σ, of data in [0, 1]

What moves a sampler's times only (`shift`, Karras sigmas, spacing, the number of steps) has no part in it, nor has what a sampler does to
an estimate of x (`clip_sample`, `thresholding`): the network's own posterior mean is meant. Absent keys have diffusers' defaults.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from scorescope.errors import InputError, unknown
from scorescope.schedule import DiscreteSchedule, LinearSchedule, Schedule, VESchedule

PLAIN, LATENT, SCALED = (1e-4, 0.02, "linear"), (0.00085, 0.012, "linear"), (0.00085, 0.012, "scaled_linear")
BETAS = {  # first and last β, and how they grow, where the JSON does not say
    **dict.fromkeys(("DDPMScheduler", "DDPMParallelScheduler", "DDIMScheduler", "DDIMParallelScheduler", "DDIMInverseScheduler"), PLAIN),
    **dict.fromkeys(("PNDMScheduler", "RePaintScheduler", "LMSDiscreteScheduler", "DEISMultistepScheduler", "SASolverScheduler"), PLAIN),
    **dict.fromkeys(("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "UniPCMultistepScheduler"), PLAIN),
    **dict.fromkeys(("DPMSolverMultistepScheduler", "DPMSolverMultistepInverseScheduler", "DPMSolverSinglestepScheduler"), PLAIN),
    **dict.fromkeys(("HeunDiscreteScheduler", "DPMSolverSDEScheduler"), LATENT),
    **dict.fromkeys(("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler"), LATENT),
    **dict.fromkeys(("LCMScheduler", "TCDScheduler"), SCALED),
}
EDM = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
FLOW = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler")
CONSISTENCY, VE = "CMStochasticIterativeScheduler", "ScoreSdeVeScheduler"
KNOWN = (*BETAS, *EDM, *FLOW, CONSISTENCY, VE)
JUMPS = "it was trained to jump to a sample, so that what it says is no mean of the data"
ONLY_SAMPLES = dict.fromkeys((CONSISTENCY, "LCMScheduler", "TCDScheduler", "FlowMatchLCMScheduler"), JUMPS)
PREDICTIONS = {"epsilon": "eps", "sample": "x", "v_prediction": "v"}
MOST_STEPS = 10**6


@dataclass(frozen=True)
class Process:
    """How a network is to be asked.

    Attributes:
        schedule: α and σ.
        prediction: As `NetworkDenoiser` takes it.
        time: Likewise.
        around: Makes of the network the module that gives that prediction.
        data: The range that the data have, and that `clip` cuts to.
        samples_only: Why nothing but its samples can be judged; empty where all can.
    """

    schedule: Schedule
    prediction: str
    time: str | Callable[[Tensor], Tensor]
    around: Callable[[nn.Module], nn.Module] = lambda net: net
    data: tuple[float, float] = (-1.0, 1.0)
    samples_only: str = ""


def process_of(config: Mapping[str, Any]) -> Process:
    """The process of a scheduler, given what its `scheduler_config.json` holds.

    Raises:
        InputError: A scheduler that is not known, or values that make no schedule.
    """
    name = config.get("_class_name")
    if name not in KNOWN:
        raise InputError(
            f"the scheduler {name} is not among those whose process is known ({', '.join(KNOWN)})",
            "my_model.py:build, a function that returns ss.NetworkDenoiser(net, schedule, prediction=…)",
        )
    try:
        return _built(name, config)
    except (TypeError, ValueError, ArithmeticError) as problem:
        said = problem.problem if isinstance(problem, InputError) else f"{type(problem).__name__}: {problem}"
        raise InputError(f"the configuration of {name} makes no schedule ({said})", "the scheduler that it was trained with") from problem


def _built(name: str, config: Mapping[str, Any]) -> Process:
    why = ONLY_SAMPLES.get(name, "")
    if name in FLOW or config.get("use_flow_sigmas"):
        return _flow(name, config, why)
    if name == VE:
        exploding = VESchedule(float(config.get("sigma_min", 0.01)), float(config.get("sigma_max", 1348.0)))
        return Process(exploding, "score", "sigma", data=(0.0, 1.0))
    if name in EDM or name == CONSISTENCY:
        least, most, data = (
            float(config.get(key, usual)) for key, usual in (("sigma_min", 0.002), ("sigma_max", 80.0), ("sigma_data", 0.5))
        )
        if not 0 < data < np.inf:
            raise InputError(f"sigma_data is {data}, not a positive number")
        if name == CONSISTENCY:
            around = functools.partial(Preconditioned, data=data, scale=1000.0, least=least)
        else:
            told = _prediction(config, {"epsilon": 1.0, "v_prediction": -1.0})
            around = functools.partial(Preconditioned, data=data, sign=told)
        return Process(VESchedule(least, most), "x", "sigma", around, samples_only=why)
    if config.get("timestep_type", "discrete") != "discrete":
        raise InputError(f"timestep_type is {config['timestep_type']!r}, and only discrete is known")
    reach = float(config.get("clip_sample_range", 1.0))
    schedule = DiscreteSchedule(alpha_bar(config, BETAS[name]).tolist())
    return Process(schedule, _prediction(config, PREDICTIONS), "steps", data=(-reach, reach), samples_only=why)


def _prediction(config: Mapping[str, Any], known: Mapping[str, Any]) -> Any:
    told = config.get("prediction_type", "epsilon")
    if told not in known:
        raise unknown("prediction_type", str(told), known)
    return known[told]


def _steps(config: Mapping[str, Any]) -> int:
    steps = config.get("num_train_timesteps", 1000)
    if not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS:
        raise InputError(f"num_train_timesteps is {steps!r}")
    return steps


# ---- β --------------------------------------------------------------------------------------------------------------------------------


def alpha_bar(config: Mapping[str, Any], usual: tuple[float, float, str] = PLAIN) -> np.ndarray:
    """ᾱ of the n steps, float64; `usual` are the first and the last β, and how they grow, where `config` does not say.

    With `rescale_betas_zero_snr`, √ᾱ is shifted and scaled so that its last value is 0 and its first one stays (Lin et al. 2024,
    Algorithm 1): here also for samplers that take no such option and only hand it on, since it tells how the network was trained.

    Raises:
        InputError: An unknown family of β.
    """
    trained = config.get("trained_betas")
    found = np.cumprod(1 - (_betas(config, usual) if trained is None else np.asarray(trained, dtype=np.float64)))
    if config.get("rescale_betas_zero_snr"):
        root = np.sqrt(found)
        found = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return found


def _betas(config: Mapping[str, Any], usual: tuple[float, float, str]) -> np.ndarray:
    n = _steps(config)
    first, last = float(config.get("beta_start", usual[0])), float(config.get("beta_end", usual[1]))
    families: dict[str, Callable[[], np.ndarray]] = {
        "linear": lambda: np.linspace(first, last, n),
        "scaled_linear": lambda: np.linspace(first**0.5, last**0.5, n) ** 2,
        "sigmoid": lambda: first + (last - first) / (1 + np.exp(-np.linspace(-6, 6, n))),
        "squaredcos_cap_v2": lambda: _from_bar(lambda t: np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2, n),
        "laplace": lambda: _from_bar(_laplace, n),
        "exp": lambda: _from_bar(lambda t: np.exp(-12.0 * t), n),
    }
    told = config.get("beta_schedule", usual[2])
    if told not in families:
        raise unknown("beta_schedule", str(told), families)
    return families[told]()


def _from_bar(bar: Callable[[np.ndarray], np.ndarray], n: int) -> np.ndarray:
    """β of an ᾱ(t) given on [0, 1], at most 0.999."""
    values = bar(np.arange(n + 1) / n)
    return np.minimum(1 - values[1:] / values[:-1], 0.999)


def _laplace(t: np.ndarray) -> np.ndarray:
    """√(s/(1 + s)) with the signal-to-noise ratio s = (1 − |1 − 2t| + 1e-6)^∓½, − up to t = ½ and + beyond: diffusers' own ᾱ."""
    away = 0.5 - t
    ratio = np.exp(-0.5 * np.copysign(1, away) * np.log(1 - 2 * np.abs(away) + 1e-6))
    return np.sqrt(ratio / (1 + ratio))


# ---- flow matching ----------------------------------------------------------------------------------------------------------------------


def _flow(name: str, config: Mapping[str, Any], why: str) -> Process:
    if name in FLOW:
        turned = bool(config.get("invert_sigmas", False))
        time = functools.partial(flow_time, _steps(config), turned)
        return Process(LinearSchedule(), "v", time, Negated if turned else lambda net: net, samples_only=why)
    known = {"flow_prediction": "v", "epsilon": "eps", "sample": "x"}
    return Process(LinearSchedule(), _prediction(config, known), functools.partial(flow_time, _steps(config), False), samples_only=why)


def flow_time(steps: int, turned: bool, t: Tensor) -> Tensor:
    """Time n t, or n (1 − t)."""
    return steps * (1 - t if turned else t)


class Negated(nn.Module):
    """A network with its sign turned."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, z: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """−F."""
        return -_answer(self.net, z, time, label)


def _answer(net: nn.Module, z: Tensor, time: Tensor, label: Tensor | None) -> Tensor:
    """What any network says, a tensor or an object with `sample`."""
    found = net(z, time) if label is None else net(z, time, label)
    answer: Tensor = found if isinstance(found, Tensor) else found.sample
    return answer


# ---- EDM --------------------------------------------------------------------------------------------------------------------------------


class Preconditioned(nn.Module):
    """x̂ = c_skip z + c_out F(c_in z, scale · ¼ ln σ) at states x + σ ε.

    c_skip = s²/((σ − m)² + s²), c_out = ± (σ − m) s/√(σ² + s²), c_in = 1/√(σ² + s²), with the spread s of the data; m = 0 but for
    consistency models, which answer the state itself at their least σ (Karras et al. 2022, Table 1; Song et al. 2023, Appendix C).

    Args:
        net: F.
        data: The spread s.
        sign: −1 to negate c_out.
        scale: Of the time.
        least: The least σ, m.
    """

    def __init__(self, net: nn.Module, data: float, sign: float = 1.0, scale: float = 1.0, least: float = 0.0) -> None:
        super().__init__()
        self.net, self.data, self.sign, self.scale, self.least = net, data, sign, scale, least

    def forward(self, z: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """Posterior mean (B, *shape) of states z (B, *shape) at σ (B,)."""
        each = sigma.reshape(-1, *[1] * (z.ndim - 1))
        total, past = (each**2 + self.data**2).sqrt(), each - self.least
        answer = _answer(self.net, z / total, self.scale * 0.25 * sigma.log(), label)
        mean: Tensor = self.data**2 / (past**2 + self.data**2) * z + self.sign * past * self.data / total * answer
        return mean
