"""Training and sampling steps beside diffusers': the same architecture, batch, optimizer and numbers of threads, in one run.

Steps take turns, first the one side and then the other, and medians over the repeats are shown. Peak memory is that of a process of
its own which makes two training steps. MFU counts the forward pass's products and convolutions once for sampling and three times for
training, over the seconds and over what a large matrix product of the same precision reaches on the same machine in the same run.

Compiled, both networks go through the same torch.compile. What that takes is measured apart: the seconds of the first training step and the
first sampling step, which compile and run. Peak memory includes the compiler's own.

diffusers' `DiTTransformer2DModel` has an embedding of time and class in every block where SiT has one for all; its parameters and a
negligible part of its operations are more for it. `UNet2DModel` changes the resolution by convolutions, so ours does here, too.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scorescope import nets
from scorescope.bench.record import machine
from scorescope.errors import InputError, unknown
from scorescope.evaluate import flops
from scorescope.files import write_json
from scorescope.nets.sit import SiTSize
from scorescope.nets.unet import UNetConfig, UNetSize
from scorescope.runs import Kind, claimed
from scorescope.training.compiling import check_compiler, compiled, told
from scorescope.training.presets import preset

RECORD = "training.json"
KIND = Kind("a benchmark of training", (RECORD,), before=(RECORD,))
SHAPES = {"sit-desk": (3, 32, 32), "unet-desk": (3, 32, 32)}
LATENTS, CLASSES = (4, 32, 32), 1000
TURN = 1.0  # seconds of a turn, if steps are shorter
MATRIX = 1024  # side of the product that says what the machine can do


@dataclass(frozen=True)
class Case:
    """What is compared: the preset's network on one batch."""

    preset: str
    batch: int
    device: str
    precision: str
    threads: int
    compile: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one state."""
        return SHAPES.get(self.preset, LATENTS)

    @property
    def classes(self) -> int:
        """Of the labels."""
        return 10 if self.preset in SHAPES else CLASSES


def ours(case: Case) -> nn.Module:
    """The preset's network; a U-Net with convolutions where its resolution changes, since diffusers has no more without attention."""
    config = preset(case.preset).net.on(case.shape, case.classes)
    return nets.build(replace(config, updown=False) if isinstance(config, UNetConfig) else config)


def theirs(case: Case) -> nn.Module:
    """Diffusers' network of the same architecture.

    Raises:
        InputError: diffusers is not installed.
    """
    try:
        diffusers = importlib.import_module("diffusers")
    except ModuleNotFoundError as missing:
        raise InputError("the comparison needs diffusers, which is not installed", "pip install 'scorescope[bench]'") from missing
    size = preset(case.preset).net
    channels, side, _ = case.shape
    if isinstance(size, SiTSize):
        return diffusers.DiTTransformer2DModel(
            num_attention_heads=size.heads, attention_head_dim=size.width // size.heads, in_channels=channels, out_channels=channels,
            num_layers=size.depth, sample_size=side, patch_size=size.patch, num_embeds_ada_norm=case.classes,
        )  # fmt: skip
    config: UNetConfig = size.on(case.shape, case.classes)
    factors = [2**level for level in range(len(config.multipliers))]
    down = ["AttnDownBlock2D" if factor in config.attention else "DownBlock2D" for factor in factors]
    return diffusers.UNet2DModel(
        sample_size=side, in_channels=channels, out_channels=channels, layers_per_block=config.residual_blocks,
        block_out_channels=[config.channels * multiplier for multiplier in config.multipliers], attention_head_dim=config.head_width,
        down_block_types=down, up_block_types=[name.replace("Down", "Up") for name in reversed(down)],
        resnet_time_scale_shift="scale_shift",
        num_class_embeds=case.classes + 1, add_attention=config.middle_attention,
    )  # fmt: skip


SIDES: dict[str, Callable[[Case], nn.Module]] = {"scorescope": ours, "diffusers": theirs}


class Runner:
    """One side: a network, its optimizer, and one batch to step on again and again."""

    def __init__(self, case: Case, side: str) -> None:
        torch.manual_seed(0)
        self.case, self.side = case, side
        self.net = SIDES[side](case).to(case.device)
        if isinstance(preset(case.preset).net, UNetSize):
            self.net = self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.asked = compiled(self.net) if case.compile else self.net
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-4, weight_decay=0.0, fused=True)
        self.x, self.eps = (torch.randn(case.batch, *case.shape, device=case.device) for _ in range(2))
        self.t = torch.rand(case.batch, device=case.device)
        self.label = torch.randint(case.classes, (case.batch,), device=case.device)

    def ask(self, z: Tensor) -> Tensor:
        """The network's answer, in its own calling convention."""
        with torch.autocast(self.case.device.partition(":")[0], torch.bfloat16, enabled=self.case.precision == "bf16"):
            if self.side == "scorescope":
                return self.asked(z, self.t, self.label)
            found = self.asked(z, timestep=(1000 * self.t).long(), class_labels=self.label)
        return found.sample

    def train(self) -> None:
        """A step of v-prediction."""
        t = self.t[:, None, None, None]
        loss = (self.ask((1 - t) * self.x + t * self.eps).float() - (self.eps - self.x)).square().mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def sample(self) -> None:
        """One evaluation of the network."""
        with torch.inference_mode():
            self.ask(self.x)


def seconds(step: Callable[[], None], device: str, count: int = 1) -> float:
    """Of one step, by so many."""
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.synchronize()
    begun = time.perf_counter()
    for _ in range(count):
        step()
    if cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - begun) / count


def measure(case: Case, repeats: int, tick: Callable[[], None]) -> dict[str, Any]:
    """Medians of both sides, the ratio, MFU and peak memory of one case."""
    torch.set_num_threads(case.threads)
    runners = {side: Runner(case, side) for side in SIDES}
    work = float(flops(runners["scorescope"].net).total) * case.batch  # of either side: the same architecture
    kinds = ("train", "sample")
    with told() if case.compile else contextlib.nullcontext():
        first = {(side, kind): seconds(getattr(runner, kind), case.device) for side, runner in runners.items() for kind in kinds}
    counts: dict[str, int] = {}
    for _ in range(2):  # the first step of all finds memory as nobody will find it again
        for runner in runners.values():
            for kind in kinds:
                counts[kind] = math.ceil(TURN / seconds(getattr(runner, kind), case.device))
    times: dict[tuple[str, str], list[float]] = {(side, kind): [] for side in SIDES for kind in kinds}
    peaks: list[float] = []
    for turn in range(repeats):
        for kind in kinds:
            for side, runner in reversed(runners.items()) if turn % 2 else runners.items():  # who comes after whom is not theirs to pay
                times[side, kind].append(seconds(getattr(runner, kind), case.device, counts[kind]))
        peaks.append(peak(case))
        tick()
    reached = statistics.median(peaks)
    found: dict[str, Any] = {**asdict(case), "repeats": repeats, "peak_flops": reached}
    for side, runner in runners.items():
        mid = {kind: statistics.median(times[side, kind]) for kind in kinds}
        found[side] = {
            "parameters": sum(p.numel() for p in runner.net.parameters()),
            **{f"{kind}_seconds": mid[kind] for kind in kinds},
            **{f"{kind}_all": times[side, kind] for kind in kinds},
            **{f"{kind}_first": first[side, kind] for kind in kinds},
            "train_mfu": 3 * work / mid["train"] / reached,
            "sample_mfu": work / mid["sample"] / reached,
            "memory": memory(case, side),
        }
    for kind in kinds:
        pairs = zip(times["diffusers", kind], times["scorescope", kind], strict=True)
        found[f"{kind}_ratio"] = statistics.median(other / own for other, own in pairs)
    return found


def peak(case: Case) -> float:
    """Operations a second of a large matrix product."""
    kind = torch.bfloat16 if case.precision == "bf16" else torch.float32
    a, b = (torch.randn(MATRIX, MATRIX, dtype=kind, device=case.device) for _ in range(2))

    def step() -> None:
        torch.mm(a, b)

    return 2 * MATRIX**3 / min(seconds(step, case.device) for _ in range(3))


def memory(case: Case, side: str) -> int:
    """Bytes that a process of its own holds at most while it makes two training steps."""
    code = "import json, sys; from scorescope.bench.training import alone; print(alone(json.loads(sys.argv[1]), sys.argv[2]))"
    done = subprocess.run([sys.executable, "-c", code, json.dumps(asdict(case)), side], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def alone(case: dict[str, Any], side: str) -> int:
    """`memory`, from inside that process."""
    torch.set_num_threads(case["threads"])
    runner = Runner(Case(**case), side)
    for _ in range(2):
        runner.train()
    if runner.case.device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():  # what the parent held does not count
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def compare(cases: list[Case], repeats: int, out: Path, tick: Callable[[], None], force: bool = False) -> list[dict[str, Any]]:
    """All cases, written to `out`/training.json; those that are there already, of the same run, are not measured again.

    Raises:
        InputError: A preset that diffusers has no counterpart of, a folder of another run, a machine where nothing can be compiled.
    """
    if any(case.compile for case in cases):
        check_compiler(cases[0].device)
    for case in cases:
        size = preset(case.preset).net
        if not isinstance(size, (SiTSize, UNetSize)):
            raise unknown("preset with a counterpart in diffusers", case.preset, [*SHAPES, "sit-s", "sit-b", "unet-xs"])
    device = torch.device(cases[0].device) if cases else torch.device("cpu")
    settings = {"cases": [asdict(case) for case in cases], "repeats": repeats, "machine": machine(device)}
    with claimed(out, KIND, settings, force=force):
        found: list[dict[str, Any]] = []
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found = [dict(case) for case in json.loads((out / RECORD).read_text(encoding="utf-8"))["cases"] if case["sample_ratio"]]
        for case in cases[len(found) :]:
            found.append(measure(case, repeats, tick))
            write_json(out / RECORD, {"torch": str(torch.__version__), "cases": found})
    return found
