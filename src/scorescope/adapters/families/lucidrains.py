"""denoising-diffusion-pytorch (lucidrains): its U-Net, and what else it needs among the buffers of its `GaussianDiffusion`.

    init_conv, time_mlp.{1,3}, downs.i.{0,1,2,3}, mid_block1, mid_attn, mid_block2, ups.i.{0,1,2,3}, final_res_block, final_conv;
    a residual block: mlp.1, block1.{proj, norm}, block2.{proj, norm}, res_conv; attention: norm, mem_kv, to_qkv, to_out

The objective is told by `loss_weight`, with s = ᾱ/(1 − ᾱ), or min(s, γ) in its numerator: 1 = s/s for ε, s for x, s/(s + 1) for v. The
file of classifier-free guidance has a vector `null_classes_emb` for "no class". Images are scaled to [−1, 1] before the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scorescope.adapters.families import Checkpoint, Weights, checked, chosen, counted, filled, whole
from scorescope.adapters.parts import conv, count, linear, sinusoids, trained_schedule, tried
from scorescope.denoiser import Denoiser, NetworkDenoiser
from scorescope.errors import InputError
from scorescope.schedule import DiscreteSchedule

MARK = "model.init_conv.weight"
OPTIONS = {
    "objective": "pred_noise, pred_x0 or pred_v, where loss_weight does not tell it",
    "heads": "attention heads, where they are neither 4 of width 32 nor told by mem_kv",
}
OBJECTIVES = {"pred_noise": "eps", "pred_x0": "x", "pred_v": "v"}
NAMES = {".fn.norm.": ".norm.", ".fn.fn.": "."}  # of the file of classifier-free guidance, which wraps its attention
HIDDEN = 128  # 4 heads of width 32, as always


def belongs(checkpoint: Checkpoint) -> bool | None:
    """By the first convolution and the blocks."""
    return any(checkpoint.has(f"{prefix}init_conv.weight", f"{prefix}downs.0.0.", f"{prefix}final_res_block.") for prefix in ("model.", ""))


def build(checkpoint: Checkpoint, options: Mapping[str, Any]) -> Denoiser:
    """The model: on the schedule of its buffers; the last row of its label table is `null_classes_emb`."""
    told = checked(options, OPTIONS, "lucidrains")
    buffers = checkpoint.weights
    if "betas" not in buffers:
        raise InputError("the state dict is of the U-Net alone, without the betas of its diffusion", "the whole checkpoint, model-N.pt")
    schedule = trained_schedule(buffers)
    asked = "objective" in told
    objective = chosen(told, "objective", OBJECTIVES, "lucidrains") if asked else objective_of(buffers, schedule)
    own = network_weights(buffers)
    if "downs.0.0.block1.norm.weight" in own:
        raise InputError("its blocks have group norms: it is of an older version of the code, which differs in more than names")
    with whole("denoising-diffusion-pytorch U-Net"):
        net = filled(lambda weights: UNet(weights, counted(told, "heads")), own, own)
    classes = len(own["classes_emb.weight"]) - 1 if "classes_emb.weight" in own else 0
    prediction, null = OBJECTIVES[objective], classes or None
    assert isinstance(net, UNet)
    tried(net, net.channels, 2 ** len(net.downs), torch.tensor([null]) if null else None)
    return NetworkDenoiser(net, schedule, prediction, time="steps", classes=classes, null_label=null, name="lucidrains")


def objective_of(buffers: Weights, schedule: DiscreteSchedule) -> str:
    """The objective whose weights of the loss these are.

    Raises:
        InputError: They are of none, or of several.
    """
    found, told = list[str](), buffers.get("loss_weight")
    bar = torch.tensor(schedule.alpha_bar, dtype=torch.float64)
    if told is not None and told.shape == bar.shape:
        snr = bar / (1 - bar)
        for objective, over in {"pred_noise": snr, "pred_x0": torch.ones_like(snr), "pred_v": snr + 1}.items():
            clipped = told.double() * over  # the numerator: s, or min(s, γ), whose maximum is γ
            if torch.allclose(clipped, snr.clamp(max=float(clipped.max())), rtol=1e-3, atol=0.0):
                found.append(objective)
    if len(found) != 1:
        raise InputError("its loss_weight does not tell what it predicts", 'objective="pred_v", "pred_noise" or "pred_x0"')
    return found[0]


def network_weights(weights: Weights) -> Weights:
    """Those of the U-Net, under one set of names, with the null vector as the last row of the label table."""
    prefix = "model." if any(name.startswith("model.") for name in weights) else ""
    own = {name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)}
    for old, new in NAMES.items():
        own = {name.replace(old, new): value for name, value in own.items()}
    if not prefix:  # buffers of the diffusion have no part before a dot, unlike all of the network's but one
        own = {name: value for name, value in own.items() if "." in name or name == "null_classes_emb"}
    if "classes_emb.weight" in own:
        with whole("denoising-diffusion-pytorch U-Net with classes"):
            own["classes_emb.weight"] = torch.cat([own["classes_emb.weight"], own.pop("null_classes_emb")[None]])
    return own


class _RMSNorm(nn.Module):
    """√C g z/‖z‖ over the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.empty(1, channels, 1, 1))

    def forward(self, h: Tensor) -> Tensor:
        return F.normalize(h, dim=1) * self.g * h.shape[1] ** 0.5


class _Attention(nn.Module):
    """Attention of all positions, and of a few learned keys and values where the file has them; linear where its output has a norm.

    Linear: softmax(q) over a head's channels, softmax(k) over the positions, and (k vᵀ) q instead of a softmax of q k.
    """

    def __init__(self, weights: Weights, name: str, heads: int) -> None:
        super().__init__()
        self.linear = f"{name}.to_out.0.weight" in weights
        self.to_qkv = conv(weights, f"{name}.to_qkv", bias=False)
        self.norm = _RMSNorm(self.to_qkv.in_channels)
        self.hidden = self.to_qkv.out_channels // 3
        if self.linear:
            self.to_out: nn.Module = nn.Sequential(conv(weights, f"{name}.to_out.0"), _RMSNorm(self.to_qkv.in_channels))
        else:
            self.to_out = conv(weights, f"{name}.to_out")
        memory = weights.get(f"{name}.mem_kv")
        self.mem_kv = None if memory is None else nn.Parameter(torch.empty(memory.shape))
        self.heads = memory.shape[1] if memory is not None else 4 if self.hidden == HIDDEN else heads
        if not self.heads:
            raise InputError(f"attention of width {self.hidden} does not tell its heads", "heads=4, or as many as it was trained with")
        if self.hidden % self.heads:
            raise InputError(f"heads={self.heads} does not divide an attention of width {self.hidden}", "the number it was trained with")

    def forward(self, h: Tensor) -> Tensor:
        parts = self.to_qkv(self.norm(h)).chunk(3, dim=1)
        q, k, v = (part.reshape(len(h), self.heads, self.hidden // self.heads, -1).mT for part in parts)  # (B, heads, positions, width)
        if self.mem_kv is not None:
            kept = (part.mT if self.linear else part for part in self.mem_kv)
            k, v = (torch.cat([part.expand(len(h), *part.shape), old], dim=2) for part, old in zip(kept, (k, v), strict=True))
        if self.linear:
            out = q.softmax(dim=3) * q.shape[3] ** -0.5 @ (k.softmax(dim=2).mT @ v)
        else:
            out = F.scaled_dot_product_attention(q, k, v)
        return h + self.to_out(out.mT.reshape(len(h), self.hidden, *h.shape[2:]))


class _Convolved(nn.Module):
    """A convolution, a norm, and SiLU."""

    def __init__(self, weights: Weights, name: str) -> None:
        super().__init__()
        self.proj = conv(weights, f"{name}.proj")
        self.norm = _RMSNorm(self.proj.out_channels)

    def forward(self, h: Tensor, scale: Tensor | float = 0.0, shift: Tensor | float = 0.0) -> Tensor:
        return F.silu(self.norm(self.proj(h)) * (scale + 1) + shift)


class _Block(nn.Module):
    """Two of them, the first scaled and shifted by the condition, and a skip."""

    def __init__(self, weights: Weights, name: str) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), linear(weights, f"{name}.mlp.1"))
        self.block1, self.block2 = _Convolved(weights, f"{name}.block1"), _Convolved(weights, f"{name}.block2")
        same = self.block1.proj.in_channels == self.block1.proj.out_channels
        self.res_conv = nn.Identity() if same else conv(weights, f"{name}.res_conv")

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.mlp(condition)[..., None, None].chunk(2, dim=1)
        return self.block2(self.block1(h, scale, shift)) + self.res_conv(h)


def downsample(weights: Weights, name: str) -> nn.Module:
    """2×2 positions as channels and a 1×1 convolution, or a 4×4 convolution of stride 2; on the last level a 3×3 convolution alone."""
    if f"{name}.1.weight" in weights:
        return nn.Sequential(nn.PixelUnshuffle(2), conv(weights, f"{name}.1"))
    return conv(weights, name, stride=2, padding=1) if weights[f"{name}.weight"].shape[2] == 4 else conv(weights, name)


def upsample(weights: Weights, name: str) -> nn.Module:
    """Twice the side by repetition and a convolution; on the last level the convolution alone."""
    if f"{name}.1.weight" in weights:
        return nn.Sequential(nn.Upsample(scale_factor=2.0, mode="nearest"), conv(weights, f"{name}.1"))
    return conv(weights, name)


def perceptron(weights: Weights, name: str, first: int) -> nn.Sequential:
    """Two linear layers with GELU between them, the first at place 0 or 1."""
    idle = [nn.Identity()] * first
    return nn.Sequential(*idle, linear(weights, f"{name}.{first}"), nn.GELU(), linear(weights, f"{name}.{first + 2}"))


class UNet(nn.Module):
    """The network. `forward(z, step, label)`: z (B, C, H, W), step (B,), label (B,), the number of classes meaning none."""

    def __init__(self, weights: Weights, heads: int) -> None:
        super().__init__()

        def level(name: str, resample: Any) -> nn.ModuleList:
            parts = [_Block(weights, f"{name}.0"), _Block(weights, f"{name}.1"), _Attention(weights, f"{name}.2", heads)]
            return nn.ModuleList([*parts, resample(weights, f"{name}.3")])

        self.init_conv, self.final_conv = conv(weights, "init_conv"), conv(weights, "final_conv")
        self.channels = min(self.init_conv.in_channels, self.final_conv.out_channels)
        self.conditioned = self.init_conv.in_channels == 2 * self.final_conv.out_channels  # on an estimate of x, or on zeros
        self.time_mlp, self.width = perceptron(weights, "time_mlp", 1), weights["time_mlp.1.weight"].shape[1]
        self.classes_emb = self.classes_mlp = None
        if "classes_emb.weight" in weights:
            self.classes_emb = nn.Embedding(*weights["classes_emb.weight"].shape)
            self.classes_mlp = perceptron(weights, "classes_mlp", 0)
        self.downs = nn.ModuleList(level(f"downs.{k}", downsample) for k in range(count(weights, "downs.")))
        self.ups = nn.ModuleList(level(f"ups.{k}", upsample) for k in range(count(weights, "ups.")))
        if len(self.downs) != len(self.ups):
            raise ValueError(f"{len(self.downs)} levels down and {len(self.ups)} up")
        self.mid_block1, self.mid_block2 = _Block(weights, "mid_block1"), _Block(weights, "mid_block2")
        self.mid_attn = _Attention(weights, "mid_attn", heads)
        attentions = [module for module in self.modules() if isinstance(module, _Attention)]
        if len({module.mem_kv is None for module in attentions}) > 1:
            raise ValueError("mem_kv of some of its attentions")
        self.final_res_block = _Block(weights, "final_res_block")

    def forward(self, z: Tensor, step: Tensor, label: Tensor | None = None) -> Tensor:
        """Evaluate the network; see the class for shapes."""
        condition = self.time_mlp(sinusoids(step, self.width, last=1))
        if self.classes_emb is not None and self.classes_mlp is not None:
            condition = torch.cat([condition, self.classes_mlp(self.classes_emb(label))], dim=1)
        first = h = self.init_conv(torch.cat([torch.zeros_like(z), z], dim=1) if self.conditioned else z)
        kept = []
        for level in self.downs:
            block1, block2, attention, resample = level.children()
            kept.append(h := block1(h, condition))
            kept.append(h := attention(block2(h, condition)))
            h = resample(h)
        h = self.mid_block2(self.mid_attn(self.mid_block1(h, condition)), condition)
        for level in self.ups:
            block1, block2, attention, resample = level.children()
            h = block1(torch.cat([h, kept.pop()], dim=1), condition)
            h = resample(attention(block2(torch.cat([h, kept.pop()], dim=1), condition)))
        return self.final_conv(self.final_res_block(torch.cat([h, first], dim=1), condition))[:, : z.shape[1]]
