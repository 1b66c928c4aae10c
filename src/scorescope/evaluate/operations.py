"""Floating-point operations of one forward pass, by torch's own counter.

Convention: an operation is an addition or a multiplication, so a product of (m, k) and (k, n) matrices is 2mkn operations; only matrix
products, convolutions and attention are counted. Papers on diffusion transformers, and ptflops, call a multiply-accumulate one "FLOP":
that is half as many, `Flops.macs`. SiT-B/2 on 32×32×4 has 46.0 G operations, 23.0 G multiply-accumulates.

Attention is counted whatever kernel runs it: torch's table lacks the one for CPUs. ptflops sees attention only where it is written as
products (its "aten" backend under `sdpa_kernel(SDPBackend.MATH)`); otherwise its number is `(total − attention)/2`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from scorescope.denoiser import Denoiser, Guided
from scorescope.errors import InputError


@dataclass(frozen=True)
class Flops:
    """Operations of one forward pass of one example.

    Attributes:
        total: Additions and multiplications.
        attention: Those of `scaled_dot_product_attention` among them.
    """

    total: int
    attention: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates: half of the operations."""
        return self.total // 2

    def __str__(self) -> str:
        return f"{si(self.total)}FLOP a forward pass ({si(self.macs)}MAC)"


def si(value: float) -> str:
    """1234567 as "1.23 M"."""
    units = ["", "k", "M", "G", "T", "P", "E"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.3g} {units[0]}"


def _cpu_attention(query: Any, key: Any, value: Any, *rest: Any, out_val: Any = None, **named: Any) -> int:
    """The kernel for CPUs, counted as torch counts its kernels for GPUs."""
    return int(sdpa_flop_count(tuple(query.shape), tuple(key.shape), tuple(value.shape)))


_cpu_attention._get_raw = True  # type: ignore[attr-defined]  # torch then passes the tensors themselves, not their shapes
EXTRA = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention}


def flops(model: Denoiser | nn.Module, shape: tuple[int, ...] | None = None, label: int | None = None) -> Flops:
    """Operations of one evaluation of `model` for one state.

    Args:
        model: A denoiser, or a network called as `net(z, t, label)`. A guided model is two evaluations.
        shape: Of one state; the model's own unless given.
        label: Class to ask about; 0 for a denoiser with classes unless given.

    Raises:
        InputError: The shape is not known.
    """
    config = getattr(model, "config", None)
    form = shape or getattr(model, "shape", None) or getattr(config, "shape", None)
    if form is None:
        raise InputError("the model does not say which shape it takes", "flops(model, shape=(channels, height, width))")
    denoiser = isinstance(model, Denoiser)
    inside = model.modules() if denoiser else [model]
    device = next((p.device for module in inside for p in nn.Module.parameters(module)), torch.device("cpu"))  # type: ignore[arg-type]
    z, t = torch.zeros(1, *form, device=device), torch.full((1,), 0.5, device=device)
    if label is None and denoiser and (isinstance(model, Guided) or model.classes):
        label = 0
    tag = None if label is None else torch.tensor([label], device=device)
    with torch.inference_mode(), FlopCounterMode(display=False, custom_mapping=EXTRA) as counter:
        model(z, t.double() if denoiser else t, tag)
    parts = {str(name): int(count) for name, count in counter.get_flop_counts().get("Global", {}).items()}
    return Flops(sum(parts.values()), sum(count for name, count in parts.items() if "attention" in name))
