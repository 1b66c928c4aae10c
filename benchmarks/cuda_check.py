"""One GPU in four minutes: are the answers right there, and how fast are they?

    python benchmarks/cuda_check.py                                   prints one table, writes cuda-check.json
    python benchmarks/cuda_check.py --device cpu --rows 2000 --pairs 8 --times 10 --preset sit-desk     the same code where there is no GPU

Banks of noise with a natural spectrum, as floats (latents) and as bytes (photographs). Answers are compared with Eq. 2 by direct
differences in float64, draws with those of the CPU, which must be the same rows. Speeds are beside plain PyTorch, two products and a
streaming softmax, with TF32 off and on; steps of a network beside diffusers' where that is installed. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import scorescope as ss
from scorescope.bench import gaussian, training, workloads
from scorescope.bench.methods.naive import METHODS
from scorescope.bench.record import machine
from scorescope.bench.synthetic import synthetic
from scorescope.empirical.integers import costs_of
from scorescope.empirical.score import COSTS

JUDGED = 48  # states of a workload


def exact(bank: ss.Bank, z: Tensor, t: Tensor, device: torch.device) -> Tensor:
    """Posterior means (B, d) by direct differences in float64."""
    rows = torch.cat([block.x for block in bank.blocks(4096)]).to(device)
    found = []
    for state, time_ in zip(z.to(device).double().flatten(1), t.to(device).double(), strict=True):
        square = torch.cat([(state - (1 - time_) * x.double()).square().sum(1) for x in rows.split(4096)])
        weight = torch.softmax(-square / (2 * time_**2), 0)
        found.append(sum(w @ x.double() for w, x in zip(weight.split(4096), rows.split(4096), strict=True)))
    return torch.stack(found)


def worst(found: Tensor, right: Tensor, bank: ss.Bank) -> float:
    """The largest relative error of posterior means."""
    size = right.norm(dim=1).clamp(min=1e-3 * bank.radius, max=bank.radius)
    return float(((found.to(right).flatten(1) - right).norm(dim=1) / size).max())


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Products of float32 numbers with 10 bits of mantissa inside, or not."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of the second of two runs."""
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begun = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun


def scores(kind: str, arithmetic: str, told: argparse.Namespace) -> list[dict[str, Any]]:
    """A row of the table for each workload on a bank, by products of floats or of integers."""
    device = torch.device(told.device)
    bank = synthetic(f"synthetic:{kind}:{told.rows}")
    truth, rows = ss.EmpiricalScore(bank, device=device, arithmetic=arithmetic), []
    named = {"bank": kind, "arithmetic": arithmetic}
    plain = next(method for method in METHODS if method.name == "naive-float32").prepare(bank, device, None)
    for work in (
        workloads.pairs(bank, told.pairs, told.times, 0, device),
        gaussian.trajectories(bank, told.pairs, told.times, 0, device),
        workloads.batches(bank, told.pairs, 0, device),
    ):
        every = max(1, work.steps * work.states // JUDGED)
        answers = dict(work.sweep(truth))
        z, t, found = [], [], []
        for item in range(0, work.steps * work.states, every):
            k, state = divmod(item, work.states)
            states, times = work.step(k)
            z.append(states[state])
            t.append(times[state])
            found.append(answers[k][state])
        error = worst(torch.stack(found).cpu(), exact(bank, torch.stack(z), torch.stack(t), device).cpu(), bank)
        some = work.narrow(work.states, slice(None, None, max(1, work.steps // 10)))
        share = work.steps / some.steps
        ours = seconds(lambda work=work: [None for _ in work.sweep(truth)], device)  # type: ignore[misc]
        naive = {}
        for allowed in (False, True):
            with tf32(allowed):
                naive[allowed] = share * seconds(lambda some=some: list(plain.answers(some)), device)  # type: ignore[misc]
        rows.append({**named, "what": work.name, "error": error, "seconds": ours, "plain": naive[False], "plain TF32": naive[True]})
    z, t = work.step(0)
    same = torch.equal(truth.sample(z, t, seed=1)[1].cpu(), ss.EmpiricalScore(bank, arithmetic="floats").sample(z.cpu(), t, seed=1)[1])
    rows.append({**named, "what": "draws are those of the CPU", "same": same})
    return rows


def main() -> None:
    """Do it all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--pairs", type=int, default=256)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--preset", default="sit-b", help="the network whose steps are timed")
    parser.add_argument("--out", type=Path, default=Path("cuda-check.json"))
    told = parser.parse_args()
    if told.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no GPU here; --device cpu runs the same code")
    device = torch.device(told.device)
    costs = costs_of(device, torch.get_num_threads())
    found: dict[str, Any] = {"machine": machine(device), "torch": torch.__version__, "costs": vars(costs), "scores": []}
    print(f"products, times a float32 one: float64 {costs.double / costs.single:.2f}, 8-bit integers {costs.integer / costs.single:.2f}")
    for kind, arithmetic in product(("latents", "photographs"), COSTS):
        for row in scores(kind, arithmetic, told):
            found["scores"].append(row)
            if "same" in row:
                print(f"{row['bank']:<12} {row['arithmetic']:<9} {row['what']}: {'yes' if row['same'] else 'NO'}", flush=True)
                continue
            ratios = " ".join(f"{row[name] / row['seconds']:6.1f}×" for name in ("plain", "plain TF32"))
            named = f"{row['bank']:<12} {row['arithmetic']:<9} {row['what']:<12}"
            print(f"{named} error {row['error']:.1e}  {row['seconds']:8.3f} s  {ratios} (TF32 off, on)", flush=True)
    if told.device.startswith("cuda"):
        found["peak bytes of scores"] = torch.cuda.max_memory_allocated()
        print(f"peak memory of scores: {found['peak bytes of scores'] / 1e9:.2f} GB")
    if find_spec("diffusers"):
        case = training.Case(told.preset, 8, told.device, "bf16" if told.device.startswith("cuda") else "fp32", torch.get_num_threads())
        found["training"] = training.measure(case, 5, lambda: None)
        for kind in ("train", "sample"):
            own, ratio = found["training"]["scorescope"][f"{kind}_seconds"], found["training"][f"{kind}_ratio"]
            print(f"{told.preset}, {kind} step of 8: {own:.4f} s, {ratio:.2f} times as fast as diffusers")
    told.out.write_text(json.dumps(found, indent=1))
    print(told.out)


if __name__ == "__main__":
    main()
