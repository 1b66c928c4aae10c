"""Make official-modern.npz anew: `python -m tests.data.make_official_modern` with the codes importable as README.md says."""

from __future__ import annotations

import json
import sys
from types import ModuleType
from unittest.mock import MagicMock

import numpy as np
import torch
import torch.nn.functional as F
from tests.official_modern import FILE, asked, fixed, weight

for name in ("fairscale", "fairscale.nn", "fairscale.nn.model_parallel", "fairscale.nn.model_parallel.initialize"):
    sys.modules[name] = ModuleType(name)
sys.modules["fairscale.nn.model_parallel.layers"] = MagicMock()  # imported beside LightningDiT's RMSNorm, and not used
torch.Tensor.cuda = lambda self: self  # JiT asks for it always

import dico_models  # noqa: E402
import model_jit  # noqa: E402
from models.lightningdit import LightningDiT  # noqa: E402
from training import networks as edm  # noqa: E402
from training import networks_edm2 as edm2  # noqa: E402

JIT = {"input_size": 8, "patch_size": 2, "in_channels": 3, "hidden_size": 24, "depth": 3, "num_heads": 3, "num_classes": 6}
LIGHTNING = {"input_size": 4, "patch_size": 1, "in_channels": 4, "hidden_size": 24, "depth": 2, "num_heads": 3, "num_classes": 6}
STATE = {"img_resolution": 8, "img_channels": 3, "label_dim": 5, "augment_dim": 9}
SONG = STATE | {"model_type": "SongUNet", "model_channels": 16, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}
NCSN = {"embedding_type": "fourier", "channel_mult_noise": 2, "encoder_type": "residual", "resample_filter": [1, 3, 3, 1]}
ADM = STATE | {"model_type": "DhariwalUNet", "model_channels": 32, "channel_mult": [1, 4], "num_blocks": 1, "attn_resolutions": [4]}
NETWORKS = {
    "jit": lambda: model_jit.JiT(**JIT, bottleneck_dim=8, in_context_len=2, in_context_start=1),
    "lightningdit": lambda: LightningDiT(**LIGHTNING, use_swiglu=True, use_rope=True, use_rmsnorm=True),
    "lightningdit_noshift": lambda: LightningDiT(**LIGHTNING, use_qknorm=True, use_rmsnorm=True, wo_shift=True, learn_sigma=True),
    "lightningdit_layer": lambda: LightningDiT(**LIGHTNING, use_qknorm=True, use_rope=True),
    "dico": lambda: dico_models.DiCo(hidden_size=8, depth=[1, 2, 1, 1, 2], mlp_ratio=2, num_classes=6),
    "edm": lambda: edm.EDMPrecond(**SONG),
    "edm_vp": lambda: edm.VPPrecond(**SONG | {"label_dim": 0}),
    "edm_ve": lambda: edm.VEPrecond(**SONG | NCSN | {"channel_mult": [2, 2]}),
    "edm_adm": lambda: edm.EDMPrecond(**ADM),
    "edm2": lambda: edm2.Precond(8, 4, 5, model_channels=16, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[4], channels_per_head=16),
    "edm_iddpm": lambda: edm.iDDPMPrecond(**ADM | {"label_dim": 0}),
}


def answers(network: str) -> dict[str, np.ndarray]:
    """Shapes of the weights as JSON, and the outputs."""
    net = NETWORKS[network]().eval()
    shapes = {name: list(value.shape) for name, value in net.state_dict().items() if not fixed(name)}
    net.load_state_dict({name: weight(name, shape) for name, shape in shapes.items()}, strict=False)
    x, t, y = asked(network)
    with torch.no_grad():
        out = net(x, t, F.one_hot(y, 6)[:, :5] if network.startswith("edm") else y)
    return {"shapes": np.array(json.dumps(shapes)), "out": out.numpy()}


if __name__ == "__main__":
    np.savez_compressed(FILE, **{f"{network}/{key}": value for network in NETWORKS for key, value in answers(network).items()})
