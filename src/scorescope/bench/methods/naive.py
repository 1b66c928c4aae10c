"""What a good user writes in plain torch: all rows resident, two products a chunk, and a streaming softmax over the chunks.

logit = (α⟨z, x⟩ − α²‖x‖²/2)/σ², with squared norms made once, everything element-wise in place and all states of a batch together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor

from scorescope.bench.methods.base import Method, Ready, all_rows, stepwise
from scorescope.rows import Bank
from scorescope.search.products import product

CHUNK = 8192
LEAST = -60.0
"""A smaller logit under the peak counts as nothing (e⁻⁶⁰). Without this cut weights near e⁻⁹⁰ are subnormal numbers, slow on a CPU:
on CIFAR-10 a step took up to eight times as long (t ≈ 0.7), and as long as any other with it. This is for the peer's sake."""


Product = Callable[[Tensor, Tensor], Tensor]
"""⟨a_i, b_j⟩ (m, n) of vectors a (m, d) and b (n, d)."""


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """As everybody writes it."""
    return a @ b.T


def prepare(bank: Bank, device: torch.device, memory: int | None, *, dtype: torch.dtype, product: Product = matmul) -> Ready:
    """Rows in `dtype` and their squared norms in float32."""
    rows = all_rows(bank, device, dtype)
    half = torch.cat([part.float().square().sum(1) for part in rows.split(CHUNK)]) / 2

    def means(z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        with torch.no_grad():
            return means_of(z, alpha, sigma, zip(rows.split(CHUNK), half.split(CHUNK), strict=True), product)

    return stepwise(means)


def means_of(z: Tensor, alpha: Tensor, sigma: Tensor, chunks: Iterable[tuple[Tensor, Tensor]], product: Product = matmul) -> Tensor:
    """Posterior means of states (B, d) from rows (n, d) and half their squared norms (n,), a chunk at a time."""
    gain, weight_of_norm = (alpha / sigma**2).float()[:, None], ((alpha / sigma) ** 2).float()[:, None]
    peak = torch.full((len(z), 1), -torch.inf, device=z.device)
    mass, total = torch.zeros_like(peak), torch.zeros_like(z, dtype=torch.float32)
    for x, norm in chunks:
        low = x.dtype != torch.float32
        # The scale of the logits goes into the states, but not where a narrow type would round the product.
        states = z.to(x.dtype) if low else z.float() * gain
        logit = product(states, x).float().mul_(gain) if low else product(states, x)
        logit.addcmul_(weight_of_norm, norm[None], value=-1)
        higher = torch.maximum(peak, logit.amax(1, keepdim=True))
        weight = torch.threshold_(logit.sub_(higher), LEAST, -torch.inf).exp_()
        kept = (peak - higher).exp_()
        mass.mul_(kept).add_(weight.sum(1, keepdim=True))
        total.mul_(kept)
        if low or product is not matmul:
            total.add_(product(weight.to(x.dtype), x.T))
        else:
            total.addmm_(weight, x)
        peak = higher
    return total.div_(mass)


METHODS = (
    Method(
        "naive-float32", 0, "plain torch: two float32 products and a streaming softmax", partial(prepare, dtype=torch.float32), resident=4
    ),
    Method(
        "naive-float32-onednn",
        1,
        "the same with products by oneDNN, where that is the faster library",
        partial(prepare, dtype=torch.float32, product=product),
        resident=4,
    ),
    Method("naive-bfloat16", 2, "the same with bfloat16 products", partial(prepare, dtype=torch.bfloat16), resident=2),
)
