"""Make official.npz anew: `python -m tests.data.make_official` with the three projects' code importable as README.md says."""

from __future__ import annotations

import numpy as np
import repa_models
import sit_models
import torch
from guided_diffusion.unet import UNetModel
from tests.official import FILE, SPREAD, drawn

SIT = {"input_size": 8, "patch_size": 2, "in_channels": 4, "hidden_size": 48, "depth": 2, "num_heads": 3, "num_classes": 6}
REPA = {"decoder_hidden_size": 48, "encoder_depth": 1, "use_cfg": True, "z_dims": [32], "projector_dim": 64, "qk_norm": False}
ADM = {
    "image_size": 16, "in_channels": 3, "model_channels": 32, "out_channels": 6, "num_res_blocks": 1, "attention_resolutions": (2,),
    "channel_mult": (1, 2), "num_classes": 10, "num_heads": 4, "num_head_channels": 16, "use_scale_shift_norm": True,
    "resblock_updown": True,
}  # fmt: skip
NETWORKS = {
    "sit": lambda: sit_models.SiT(**SIT, learn_sigma=False),
    "sit_sigma": lambda: sit_models.SiT(**SIT),
    "repa": lambda: repa_models.SiT("linear", **SIT, **REPA),
    "adm_legacy": lambda: UNetModel(**ADM),
    "adm_new": lambda: UNetModel(**ADM, use_new_attention_order=True),
}


def answers(network: str) -> dict[str, np.ndarray]:
    """Shapes of the weights, inputs and outputs."""
    net = NETWORKS[network]().eval()
    net.load_state_dict({name: drawn(name, tuple(value.shape)) for name, value in net.state_dict().items()})
    guided = network.startswith("adm")
    x = drawn("x", (3, 3, 16, 16) if guided else (5, 4, 8, 8)) / SPREAD
    t = torch.tensor([0, 500, 999]) if guided else torch.tensor([0.01, 0.25, 0.5, 0.75, 0.99])
    y = torch.tensor([0, 3, 9]) if guided else torch.tensor([0, 6, 2, 6, 5])
    with torch.no_grad():
        out = net(x, t, y)
    found = {"x": x, "t": t, "y": y, "out": out[0] if isinstance(out, tuple) else out}
    found |= {"z": out[1][0]} if isinstance(out, tuple) else {}
    shapes = {f"w:{name}": np.array(value.shape) for name, value in net.state_dict().items()}
    return shapes | {name: value.numpy() for name, value in found.items()}


if __name__ == "__main__":
    np.savez_compressed(FILE, **{f"{network}/{key}": value for network in NETWORKS for key, value in answers(network).items()})
