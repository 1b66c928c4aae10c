"""Does `error_bound` hold? A million random questions, each answered by the engine and by the definition in 80-bit arithmetic.

    python benchmarks/error_bounds.py --cases 1000000 --out runs/error-bounds.json      an hour on one core; goes on where it was stopped

Bank k has its rows (8 bits, float16, float32; 1 to 300, of 1 to 192 values, now and then 3,072; of any scale, some of them equal, with
classes, mirrored), its schedule, its tolerance (10⁻¹ to 10⁻¹⁰) and its 64 states (on shells, between two rows and a hair off the middle,
off all shells, far away; at any time, 0, 10⁻⁶ and 1 among them) drawn from (seed, k) alone. They are asked one by one, of all rows at
once or not, or as sweeps, by products of floats or of integers. The definition is Eq. 2 by direct differences in numbers of 64 bits of
mantissa, whose own rounding is 2,000 times less than that of float64. A case fails if ‖mean − exact mean‖ is more than its `error_bound`
and what 80 bits leave open.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

import scorescope as ss
from scorescope.empirical import engine
from scorescope.progress import Board

STATES = 64  # of a bank
AT_ONCE = engine.AT_ONCE  # logits that are looked at in one step
SCHEDULES = {
    "linear": ss.LinearSchedule(), "variance preserving": ss.VPSchedule(), "cosine": ss.CosineSchedule(),
    "variance exploding": ss.VESchedule(0.01, 50.0),
}  # fmt: skip
KINDS = ("shell", "between", "hair", "off", "mean", "far")
UNIT = np.finfo(np.longdouble).eps


def bank_of(rng: np.random.Generator) -> ss.Bank:
    """A random bank."""
    flips = bool(rng.random() < 0.3)
    d = 3072 if rng.random() < 0.01 else int(2 ** rng.uniform(0, 7.6))
    shape = (1, max(1, d // 8), min(d, 8)) if flips else (d,)
    n = int(300 ** rng.random())
    kind = rng.choice(["bytes", "bytes", "black and white", "half", "float", "heavy", "shifted"])
    x = rng.standard_normal((n, *shape))
    if kind == "heavy":
        x = np.clip(rng.standard_t(1.5, (n, *shape)), -300, 300)
    labels = rng.integers(0, 3, n) if rng.random() < 0.3 else None
    x[rng.integers(0, n, n // 4)] = x[0]
    if kind in ("bytes", "black and white"):
        stored = np.where(x > 0, 255, 0) if kind == "black and white" else np.clip(128 + 50 * x, 0, 255)
        return ss.Bank.from_arrays(stored.astype(np.uint8), labels, flips=flips)
    x = x * 10 ** rng.uniform(-3, 2) if kind != "half" else x
    x = x + 100 * x.std() * rng.standard_normal(shape) if kind == "shifted" and not flips else x
    return ss.Bank.from_arrays(x.astype(np.float16 if kind == "half" else np.float32), labels, flips=flips)


def times_of(rng: np.random.Generator, count: int) -> torch.Tensor:
    """Random times, some near the ends and at them."""
    t = np.select(
        [rng.random(count) < 0.6, rng.random(count) < 0.6, rng.random(count) < 0.9],
        [rng.uniform(0.001, 0.999, count), 10 ** rng.uniform(-6, -1, count), 1 - 10 ** rng.uniform(-6, -1, count)],
        rng.choice([0.0, 1e-6, 1.0], count),
    )
    return torch.from_numpy(t)


def states_of(bank: ss.Bank, schedule: Any, t: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """A random state (B, *shape) float64 at each time."""
    found = []
    for alpha, sigma in zip(*(value.tolist() for value in schedule(t)[:2]), strict=True):
        a, b = (bank[int(i)].double() for i in rng.integers(0, len(bank), 2))
        eps, hair = torch.from_numpy(rng.standard_normal(bank.shape)), 10 ** rng.uniform(-14, -1)
        found.append(
            {
                "shell": lambda a=a, eps=eps, alpha=alpha, sigma=sigma: alpha * a + sigma * eps,
                "between": lambda a=a, b=b, alpha=alpha: alpha * (a + b) / 2,
                "hair": lambda a=a, b=b, alpha=alpha, hair=hair: alpha * ((0.5 + hair) * a + (0.5 - hair) * b),
                "off": lambda a=a, b=b, eps=eps, alpha=alpha, sigma=sigma: alpha * (0.7 * a + 0.3 * b) + 0.3 * sigma * eps,
                "mean": lambda eps=eps, alpha=alpha: alpha * bank.mean + 0.2 * bank.radius / bank.d**0.5 * eps,
                "far": lambda a=a, eps=eps, alpha=alpha: alpha * a + 30 * bank.radius / bank.d**0.5 * eps,
            }[str(rng.choice(KINDS))]()
        )
    return torch.stack(found)


def exact_of(bank: ss.Bank, schedule: Any, z: torch.Tensor, t: torch.Tensor, labels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The mean (B, d) by the definition, in 80 bits, and (B,) what these leave open of it."""
    rows = bank[np.arange(len(bank))].flatten(1).numpy().astype(np.longdouble)
    tags = None if bank.labels is None else np.tile(bank.labels, len(bank) // len(bank.labels))
    means, open_ = [], []
    for k, (state, time) in enumerate(zip(z.flatten(1).numpy(), t, strict=True)):
        x = rows if labels is None or tags is None else rows[tags == labels[k]]
        alpha, sigma = (np.longdouble(float(value)) for value in schedule(time)[:2])
        square = ((state.astype(np.longdouble) - alpha * x) ** 2).sum(1)
        if sigma > 0:
            logit = -(square - square.min()) / (2 * sigma**2)
            weight = np.exp(logit)
            reach = np.linalg.norm(state) + float(alpha) * np.linalg.norm(x.astype(float), axis=1).max()
            off = min(float(UNIT) * (len(state) + 8) * float(np.sqrt(square.min())) * reach / float(sigma) ** 2 * 4, 1.0)
        else:
            weight, off = (square == square.min()).astype(np.longdouble), 0.0
        mean = (weight[:, None] * x).sum(0) / weight.sum()
        means.append(mean.astype(float))
        spread = float(np.linalg.norm((x - mean).astype(float), axis=1).max())
        open_.append(off * spread + 4e-16 * float(np.linalg.norm(mean.astype(float))))
    return np.stack(means), np.array(open_)


def examined(seed: int, k: int) -> dict[str, Any]:
    """Bank k: how many cases, how many failed, and the largest shares of the bound and of the tolerance that errors reached."""
    rng = np.random.default_rng([seed, k])
    bank, schedule = bank_of(rng), SCHEDULES[str(rng.choice(list(SCHEDULES)))]
    arithmetic = str(rng.choice(["floats", "integers"]))
    tolerance = float(10 ** -(rng.uniform(1, 5.5) if rng.random() < 0.5 else rng.uniform(1, 10)))
    truth = ss.EmpiricalScore(bank, schedule, tolerance, arithmetic=arithmetic)
    labels = rng.choice(bank.labels, STATES) if bank.labels is not None and rng.random() < 0.7 else None
    how, found = str(rng.choice(["single", "at once", "pairs", "trajectories"])), np.empty((STATES, bank.d))
    bound = np.empty(STATES)
    engine.AT_ONCE = 0 if how == "single" else AT_ONCE
    if how in ("single", "at once"):
        t = times_of(rng, STATES)
        z = states_of(bank, schedule, t, rng)
        post = truth.posterior(z, t, None if labels is None else torch.from_numpy(labels))
        found, bound = post.mean.flatten(1).numpy(), post.error_bound.numpy()
    else:
        count, steps = 4, STATES // 4
        times = times_of(rng, steps)
        labels = None if labels is None else np.repeat(labels[:count], steps)
        tags = None if labels is None else torch.from_numpy(labels[::steps].copy())
        if how == "pairs":
            x = bank[rng.integers(0, len(bank), count)].double()
            eps = torch.from_numpy(rng.standard_normal(x.shape))
            alpha, sigma = (value.view(-1, *[1] * len(bank.shape)) for value in schedule(times)[:2])
            z, sweep = alpha * x[:, None] + sigma * eps[:, None], truth.supervision_sweep(x, eps, times, tags)
        else:
            z = torch.stack([states_of(bank, schedule, times, rng) for _ in range(count)])
            sweep = truth.trajectory_sweep(z, times, tags)
        means, bounds = np.empty((count, steps, bank.d)), np.empty((count, steps))
        for step, post in sweep:
            means[:, step], bounds[:, step] = post.mean.flatten(1).numpy(), post.error_bound.numpy()
        z, t, found, bound = z.flatten(0, 1), times.repeat(count), means.reshape(STATES, -1), bounds.flatten()
    exact, left = exact_of(bank, schedule, z, t, labels)
    error = np.linalg.norm(found - exact, axis=1)
    scale = np.clip(np.linalg.norm(exact, axis=1), 1e-3 * bank.radius, max(bank.radius, 1e-300))
    failed = ~(error <= bound + left)
    told = left < 0.01 * tolerance * scale
    share = (error / np.maximum(bound, 1e-300))[told & (bound > 0) & (error > 10 * left)]
    return {
        "cases": STATES,
        "failed": int(failed.sum()),
        "share": float(share.max()) if len(share) else 0.0,
        "within": int((bound <= tolerance * scale * (1 + 1e-9)).sum()),
        "way": f"{arithmetic}, {how}",
        "first": k if failed.any() else None,
    }


def main() -> None:
    """Ask, a bank at a time, and write down what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1_000_000, help="how many questions")
    parser.add_argument("--seed", type=int, default=0, help="of everything")
    parser.add_argument("--out", type=Path, default=Path("runs/error-bounds.json"), help="where the result is, and goes on")
    told = parser.parse_args()
    torch.set_num_threads(1)
    known: dict[str, Any] = {"seed": told.seed, "banks": 0, "failed banks": [], "ways": {}}
    if told.out.exists():
        known = json.loads(told.out.read_text())
        if known["seed"] != told.seed:
            parser.error(f"{told.out} has seed {known['seed']}; give another --out")
    told.out.parent.mkdir(parents=True, exist_ok=True)
    banks = math.ceil(told.cases / STATES)
    with Board() as board, board.row("banks", banks) as row:
        row(known["banks"])
        while known["banks"] < banks:
            one = examined(told.seed, known["banks"])
            way = known["ways"].setdefault(one["way"], {"cases": 0, "failed": 0, "share": 0.0, "within": 0})
            for name in ("cases", "failed", "within"):
                way[name] += one[name]
            way["share"] = max(way["share"], one["share"])
            known["failed banks"] += [] if one["first"] is None else [one["first"]]
            known["banks"] += 1
            row(1)
            if known["banks"] % 200 == 0 or known["banks"] == banks:
                part = told.out.with_suffix(".part")
                part.write_text(json.dumps(known, indent=1))
                part.replace(told.out)
    print("| way | cases | bound broken | largest share of its bound that an error reached | bound within the tolerance |")
    print("|---|---|---|---|---|")
    for name, way in sorted(known["ways"].items()):
        within = f"{100 * way['within'] / way['cases']:.1f} %"
        print(f"| {name} | {way['cases']:,} | {way['failed']} | {way['share']:.2g} | {within} |")


if __name__ == "__main__":
    main()
