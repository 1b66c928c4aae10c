"""Make official_families.npz anew: `python -m tests.data.make_official_families FOLDER`, with the code in FOLDER as README.md says."""

from __future__ import annotations

import importlib
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from tests.official import SPREAD, drawn

FILE = Path(__file__).parent / "official_families.npz"
SMALL = {"image_size": 8, "in_channels": 3, "model_channels": 32, "out_channels": 3, "num_res_blocks": 1, "attention_resolutions": (2,)}
DIT = {"input_size": 8, "patch_size": 2, "in_channels": 4, "hidden_size": 48, "depth": 2, "num_heads": 3, "num_classes": 6}
PATHS, KINDS = ("Linear", "GVP", "VP"), ("velocity", "noise", "score")
REPA = {"decoder_hidden_size": 48, "encoder_depth": 1, "use_cfg": True, "z_dims": [32], "projector_dim": 64, "qk_norm": False}


def of(folder: str, *modules: str) -> list[Any]:
    """Modules of one project, whose names may be those of another project's."""
    for name in [name for name in sys.modules if name.partition(".")[0] in {one.partition(".")[0] for one in modules} | {"models"}]:
        del sys.modules[name]
    sys.path.insert(0, str(Path(sys.argv[1]) / folder))
    found = [importlib.import_module(name) for name in modules]
    sys.path.pop(0)
    return found


def weighted(net: torch.nn.Module, *, keep: tuple[str, ...] = ()) -> torch.nn.Module:
    """The network in evaluation, with weights drawn from their names; those that `keep` begins stay as they are."""
    own = net.state_dict()
    net.load_state_dict({name: value if name.startswith(keep) else drawn(name, tuple(value.shape)) for name, value in own.items()})
    return net.eval()


def subject(
    net: torch.nn.Module, shape: tuple[int, ...], t: list[float], mean: Callable[..., Any], y: list[int] | None = None, **more: Any
) -> dict[str, Any]:
    """Names and shapes, times in the project's own unit, labels, and the posterior mean of `z`, which is drawn: `mean(net, z, t, y)`."""
    z, at = drawn("z", shape) / SPREAD, torch.tensor(t)
    label = None if y is None else torch.tensor(y)
    with torch.no_grad():
        found = mean(net, z, at, label)
    shapes = {name: list(value.shape) for name, value in net.state_dict().items()}
    labels = {} if label is None else {"y": label.numpy()}
    return {"shapes": json.dumps(shapes), "shape": np.array(shape), "t": at.numpy(), "mean": found.numpy(), **labels, **more}


# ---- transformers -------------------------------------------------------------------------------------------------------------


def dit() -> dict[str, Any]:
    (models, diffusion) = of("DiT", "models", "diffusion")
    process = diffusion.create_diffusion("")

    def mean(net, z, t, y):
        return process.p_mean_variance(net, z, t, clip_denoised=False, model_kwargs={"y": y})["pred_xstart"]

    return subject(weighted(models.DiT(**DIT)), (3, 4, 8, 8), [0, 400, 900], mean, [0, 6, 5])


def sit(path: str, prediction: str) -> dict[str, Any]:
    (models, transport) = of("SiT", "models", "transport")
    process = transport.create_transport(path, prediction)

    def mean(net, z, t, y):
        score = process.get_score()(z, t, net, y=y)
        alpha, sigma = (
            scale(t[:, None, None, None])[0] for scale in (process.path_sampler.compute_alpha_t, process.path_sampler.compute_sigma_t)
        )
        return (z + sigma**2 * score) / alpha

    return subject(weighted(models.SiT(**DIT)), (2, 4, 8, 8), [0.3, 0.8], mean, [6, 2])


def repa() -> dict[str, Any]:
    (models, samplers) = of("REPA", "models.sit", "samplers")

    def mean(net, z, t, y):
        score = samplers.get_score_from_velocity(net(z, t, y)[0], z, t, "cosine")
        alpha, sigma = torch.cos(t * np.pi / 2)[:, None, None, None], torch.sin(t * np.pi / 2)[:, None, None, None]
        return (z + sigma**2 * score) / alpha

    return subject(weighted(models.SiT("cosine", **DIT, **REPA)), (2, 4, 8, 8), [0.3, 0.8], mean, [6, 2])


# ---- ADM's U-Net --------------------------------------------------------------------------------------------------------------


def improved() -> dict[str, Any]:
    (unet, script) = of("improved-diffusion", "improved_diffusion.unet", "improved_diffusion.script_util")
    net = unet.UNetModel(**{key: value for key, value in SMALL.items() if key != "image_size"}, channel_mult=(1, 2), num_heads=4)
    process = script.create_gaussian_diffusion(steps=4000, noise_schedule="cosine", predict_xstart=True, rescale_timesteps=True)

    def mean(net, z, t, y):
        return process.p_mean_variance(net, z, t, clip_denoised=False)["pred_xstart"]

    return subject(weighted(net), (2, 3, 8, 8), [50, 2001], mean)


def torchcfm(kind: str) -> dict[str, Any]:
    """Of torchcfm the network; its matcher gives z and dz/dt of a clean x, in place of a network that answers so."""
    from torchcfm import conditional_flow_matching as matching
    from torchcfm.models.unet.unet import UNetModelWrapper

    net = UNetModelWrapper(
        (3, 8, 8), 32, 1, channel_mult=[1, 2], num_heads=4, num_head_channels=16, attention_resolutions="4", class_cond=True, num_classes=5
    )
    flow = {"cfm": matching.ConditionalFlowMatcher, "si": matching.VariancePreservingConditionalFlowMatcher}[kind](sigma=0.0)

    def mean(net, z, t, y):
        velocity, at = net(t, z, y), t[:, None, None, None]
        turn = at * np.pi / 2
        return z + (1 - at) * velocity if kind == "cfm" else turn.sin() * z + turn.cos() * velocity * 2 / np.pi

    x, noise, t = drawn("x", (2, 3, 4, 4)) / SPREAD, drawn("noise", (2, 3, 4, 4)) / SPREAD, torch.tensor([0.2, 0.7])
    _, state, velocity = flow.sample_location_and_conditional_flow(noise, x, t)
    flows = {"flow_z": state.numpy(), "flow_v": velocity.numpy(), "flow_t": t.numpy()}
    return subject(weighted(net), (2, 3, 8, 8), [0.2, 0.7], mean, [4, 1], **flows)


def consistency() -> dict[str, Any]:
    """In float32: the attention of this code casts to half, which is switched off."""
    (unet, karras) = of("consistency_models", "cm.unet", "cm.karras_diffusion")
    unet.AttentionBlock.__init__.__defaults__ = tuple(
        "plain" if one == "flash" else one for one in unet.AttentionBlock.__init__.__defaults__
    )
    net = unet.UNetModel(**SMALL, channel_mult=(1, 2), num_classes=5, num_head_channels=16, use_scale_shift_norm=True, resblock_updown=True)
    process, half = karras.KarrasDenoiser(loss_norm="l2"), torch.Tensor.half
    torch.Tensor.half = lambda value: value  # type: ignore[method-assign]
    try:
        return subject(weighted(net), (2, 3, 8, 8), [0.05, 3.0], lambda net, z, t, y: process.denoise(net, z, t, y=y)[1], [4, 1])
    finally:
        torch.Tensor.half = half  # type: ignore[method-assign]


def meta() -> dict[str, Any]:
    """Without convolutions where the resolution changes, as in its CIFAR-10 configuration, and with classes."""
    (unet,) = of("flow_matching/examples/image", "models.unet")
    own = {key: value for key, value in SMALL.items() if key != "image_size"}
    net = unet.UNetModel(
        **own,
        channel_mult=(2, 2, 2),
        conv_resample=False,
        num_classes=5,
        num_heads=1,
        use_scale_shift_norm=True,
        use_new_attention_order=True,
    )
    weighted(net)
    with torch.no_grad():
        net.label_emb.weight[5] = 0.0  # as `padding_idx` leaves it

    def mean(net, z, t, y):
        classes = y.clamp(max=4)
        absent, given = net(z, t, extra={}), net(z, t, extra={"label": classes})
        return z + (1 - t)[:, None, None, None] * torch.where((y == 5)[:, None, None, None], absent, given)

    return subject(net, (2, 3, 8, 8), [0.2, 0.7], mean, [5, 1])


def latent() -> dict[str, Any]:
    (unet, util) = of("latent-diffusion", "ldm.modules.diffusionmodules.openaimodel", "ldm.modules.diffusionmodules.util")
    net = weighted(unet.UNetModel(**SMALL, channel_mult=(1, 2), num_head_channels=16))
    betas = util.make_beta_schedule("linear", 20, linear_start=0.0015, linear_end=0.0195)
    bar = np.cumprod(1 - betas)
    buffers = {"betas": betas, "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / bar - 1)}

    def mean(net, z, t, y):
        recip, recipm1 = (torch.tensor(value[t.numpy()]).float()[:, None, None, None] for value in (np.sqrt(1 / bar), np.sqrt(1 / bar - 1)))
        return recip * z - recipm1 * net(z, t)

    return subject(net, (2, 3, 8, 8), [3, 19], mean, **{f"b:{name}": value.astype(np.float32) for name, value in buffers.items()})


# ---- others -------------------------------------------------------------------------------------------------------------------


def pytorch_ddpm() -> dict[str, Any]:
    (model, diffusion) = of("pytorch-ddpm", "model", "diffusion")
    net = weighted(model.UNet(1000, 32, [1, 2], [1], 1, 0.0), keep=("time_embedding.timembedding.0",))
    process = diffusion.GaussianDiffusionSampler(net, 1e-4, 0.02, 1000, mean_type="epsilon")
    return subject(net, (2, 3, 8, 8), [10, 700], lambda net, z, t, y: process.predict_xstart_from_eps(z, t, net(z, t)))


def lucidrains(objective: str, betas: str, clipped: bool = False, conditioned: bool = False) -> dict[str, Any]:
    from denoising_diffusion_pytorch import denoising_diffusion_pytorch as code

    net = code.Unet(8, dim_mults=(1, 2), self_condition=conditioned, full_attn=(False, True), attn_heads=(4, 2), attn_dim_head=(8, 16))
    kwargs = {"objective": objective, "beta_schedule": betas, "min_snr_loss_weight": clipped}
    return diffused(code.GaussianDiffusion(net, image_size=8, timesteps=50, **kwargs))


def guidance() -> dict[str, Any]:
    from denoising_diffusion_pytorch import classifier_free_guidance as code

    net = code.Unet(8, 5, dim_mults=(1, 2))
    process = code.GaussianDiffusion(net, image_size=8, timesteps=50)

    def mean(process, z, t, y):
        given, absent = (process.model(z, t, y.clamp(max=4), cond_drop_prob=drop) for drop in (0.0, 1.0))
        return process.predict_start_from_noise(z, t, torch.where((y == 5)[:, None, None, None], absent, given))

    return diffused(process, mean, [5, 1])


def diffused(process: Any, mean: Callable[..., Any] | None = None, y: list[int] | None = None) -> dict[str, Any]:
    """A `GaussianDiffusion` with the network's weights drawn, and its buffers."""
    buffers = [name for name, _ in process.named_buffers()]
    weighted(process, keep=tuple(buffers))
    mean = mean or (lambda process, z, t, y: process.model_predictions(z, t).pred_x_start)
    kept = {f"b:{name}": getattr(process, name).numpy() for name in ("betas", "sqrt_recipm1_alphas_cumprod", "loss_weight")}
    return subject(process, (2, 3, 8, 8), [3, 15], mean, y, **kept)


def score_sde(kind: str, plus: bool) -> dict[str, Any]:
    (ncsnpp, utils, sdes) = of("score_sde_pytorch", "models.ncsnpp", "models.utils", "sde_lib")
    explodes = kind == "vesde"
    model = {
        "nf": 16, "ch_mult": (1, 2), "num_res_blocks": 2, "attn_resolutions": (4,), "dropout": 0.1, "resamp_with_conv": True,
        "conditional": True, "fir": plus, "fir_kernel": [1, 3, 3, 1], "skip_rescale": True, "resblock_type": "biggan",
        "progressive": "none", "progressive_input": "residual" if plus else "none", "progressive_combine": "sum", "init_scale": 0.0,
        "embedding_type": "fourier" if explodes else "positional", "fourier_scale": 16, "scale_by_sigma": explodes, "nonlinearity": "swish",
        "sigma_min": 0.01, "sigma_max": 50, "num_scales": 1000,
    }  # fmt: skip
    data = {"image_size": 8, "num_channels": 3, "centered": not explodes}
    config = SimpleNamespace(model=SimpleNamespace(**model), data=SimpleNamespace(**data), training=SimpleNamespace(continuous=True))
    net = weighted(ncsnpp.NCSNpp(config), keep=("sigmas",))
    sde = {"vpsde": sdes.VPSDE, "subvpsde": sdes.subVPSDE, "vesde": sdes.VESDE}[kind]()
    answer = utils.get_score_fn(sde, net, continuous=True)

    def mean(net, z, t, y):
        state = (z + 1) / 2 if explodes else z  # images in [0, 1]
        alpha, sigma = (sde.marginal_prob(torch.ones_like(state), t)[k] for k in (0, 1))
        found = (state + sigma[:, None, None, None] ** 2 * answer(state, t)) / alpha
        return 2 * found - 1 if explodes else found

    return subject(net, (2, 3, 8, 8), [0.15, 0.6], mean, **{"b:sigmas": net.sigmas[[0, -1]].float().numpy()})


SUBJECTS: dict[str, Callable[[], dict[str, Any]]] = {
    "dit": dit,
    **{f"sit_{path}_{kind}": lambda path=path, kind=kind: sit(path, kind) for path, kind in itertools.product(PATHS, KINDS)},
    "repa_cosine": repa,
    "adm_improved": improved,
    "adm_cfm": lambda: torchcfm("cfm"),
    "adm_si": lambda: torchcfm("si"),
    "adm_edm": consistency,
    "adm_meta": meta,
    "ldm": latent,
    "ddpm": pytorch_ddpm,
    "lucidrains_v": lambda: lucidrains("pred_v", "sigmoid"),
    "lucidrains_x": lambda: lucidrains("pred_x0", "cosine", clipped=True),
    "lucidrains_eps": lambda: lucidrains("pred_noise", "linear", clipped=True, conditioned=True),
    "lucidrains_classes": guidance,
    "score_sde_vp": lambda: score_sde("vpsde", plus=False),
    "score_sde_subvp": lambda: score_sde("subvpsde", plus=True),
    "score_sde_ve": lambda: score_sde("vesde", plus=True),
}  # fmt: skip


if __name__ == "__main__":
    made = {name: make() for name, make in SUBJECTS.items()}
    for name, found in made.items():
        print(name, float(np.abs(found["mean"]).max()))
    np.savez_compressed(FILE, **{f"{name}/{key}": value for name, found in made.items() for key, value in found.items()})
