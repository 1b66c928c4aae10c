"""Time steps of the desk's networks against the operations that `reproduce --dry-run` counts.

python benchmarks/cost_model.py        one core, a minute; writes docs/cost-model.md
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from scorescope import nets
from scorescope.experiments.cost import CORE
from scorescope.experiments.shared import FASHION

STEPS = 9


def seconds(name: str) -> float:
    """Of a step, the median of some after the first two."""
    recipe = FASHION.recipes[name]
    net = nets.build(recipe.net.on(FASHION.shape, FASHION.classes))
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)
    z, t = torch.randn(recipe.batch, *FASHION.shape), torch.rand(recipe.batch)
    label, took = torch.randint(FASHION.classes, (recipe.batch,)), []
    for _ in range(STEPS):
        begun = time.perf_counter()
        net(z, t, label).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        took.append(time.perf_counter() - begun)
    return sorted(took[2:])[len(took[2:]) // 2]


def main() -> None:
    """Measure and write."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--out", type=Path, default=Path("docs/cost-model.md"))
    asked = words.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# What a step costs, counted and timed",
        "",
        "Written by `python benchmarks/cost_model.py` on one core. Operations are three forward passes of the batch, as `scorescope "
        f"reproduce --dry-run` counts them; that takes {CORE / 1e9:.0f} G of them a second on a core.",
        "",
        "| network | operations of a step (G) | seconds | G a second | foretold over timed |",
        "|---|---|---|---|---|",
    ]
    for name, recipe in FASHION.recipes.items():
        step, took = FASHION.training(name).counted()[1] / recipe.steps, seconds(name)
        lines.append(f"| {name} | {step / 1e9:.2f} | {took:.3f} | {step / took / 1e9:.0f} | {step / CORE / took:.2f} |")
        print(lines[-1], flush=True)
    asked.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
