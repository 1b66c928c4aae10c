"""Make official-modern.npz anew: `python -m tests.data.make_official_modern` with the codes importable as README.md says."""

from __future__ import annotations

import json
import sys
from types import ModuleType
from unittest.mock import MagicMock

import numpy as np
import torch
from tests.official import SPREAD, drawn
from tests.official_modern import FILE, fixed

for name in ("fairscale", "fairscale.nn", "fairscale.nn.model_parallel", "fairscale.nn.model_parallel.initialize"):
    sys.modules[name] = ModuleType(name)
sys.modules["fairscale.nn.model_parallel.layers"] = MagicMock()  # imported beside LightningDiT's RMSNorm, and not used
torch.Tensor.cuda = lambda self: self  # JiT asks for it always

import model_jit  # noqa: E402
from models.lightningdit import LightningDiT  # noqa: E402

JIT = {"input_size": 8, "patch_size": 2, "in_channels": 3, "hidden_size": 24, "depth": 3, "num_heads": 3, "num_classes": 6}
LIGHTNING = {"input_size": 4, "patch_size": 1, "in_channels": 4, "hidden_size": 24, "depth": 2, "num_heads": 3, "num_classes": 6}
NETWORKS = {
    "jit": lambda: model_jit.JiT(**JIT, bottleneck_dim=8, in_context_len=2, in_context_start=1),
    "lightningdit": lambda: LightningDiT(**LIGHTNING, use_swiglu=True, use_rope=True, use_rmsnorm=True),
    "lightningdit_noshift": lambda: LightningDiT(**LIGHTNING, use_qknorm=True, use_rmsnorm=True, wo_shift=True, learn_sigma=True),
    "lightningdit_layer": lambda: LightningDiT(**LIGHTNING, use_qknorm=True, use_rope=True),
}


def answers(network: str) -> dict[str, np.ndarray]:
    """Shapes of the weights as JSON, inputs and outputs."""
    net = NETWORKS[network]().eval()
    shapes = {name: list(value.shape) for name, value in net.state_dict().items() if not fixed(name)}
    net.load_state_dict({name: drawn(name, tuple(shape)) for name, shape in shapes.items()}, strict=False)
    x = drawn("x", (4, 3, 8, 8) if network == "jit" else (4, 4, 4, 4)) / SPREAD
    t, y = torch.tensor([0.01, 0.3, 0.6, 0.99]), torch.tensor([0, 6, 2, 6])
    with torch.no_grad():
        out = net(x, t, y)
    return {"shapes": np.array(json.dumps(shapes)), "x": x.numpy(), "t": t.numpy(), "y": y.numpy(), "out": out.numpy()}


if __name__ == "__main__":
    np.savez_compressed(FILE, **{f"{network}/{key}": value for network in NETWORKS for key, value in answers(network).items()})
