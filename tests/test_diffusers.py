"""Folders and objects of diffusers: ours beside what its schedulers say, layouts, weights of every kind, and what is refused."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import scorescope as ss
from scorescope.adapters import diffusers_folder, diffusers_schedule
from scorescope.adapters.diffusers_folder import of_parts, of_pipeline
from scorescope.adapters.diffusers_schedule import alpha_bar, process_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    diffusers = pytest.importorskip("diffusers")

STEPS = 100
ALL = ("epsilon", "sample", "v_prediction")
SMALL = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1, "sample_size": 8}
BLOCKS = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}


class Fixed(torch.nn.Module):
    """A network that has one answer and remembers what it was asked."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, z, time):
        self.asked = (z, time)
        return self.answer


def noise(seed, *shape):
    return torch.randn(shape or (2, 1, 4, 4), generator=torch.Generator().manual_seed(seed))


def close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


# ---- ours beside the schedulers ---------------------------------------------------------------------------------------------------------

# Of each scheduler: what it can be told to predict, and how it gives its estimate of x ("step" says it, "convert" is a method of its own).
SCHEDULERS = {
    "DDPMScheduler": (ALL, "step"),
    "DDPMParallelScheduler": (ALL, "step"),
    "DDIMScheduler": (ALL, "step"),
    "DDIMParallelScheduler": (ALL, "step"),
    "EulerDiscreteScheduler": (ALL, "step"),
    "EulerAncestralDiscreteScheduler": (("epsilon", "v_prediction"), "step"),
    "HeunDiscreteScheduler": (ALL, "step"),
    "KDPM2DiscreteScheduler": (("epsilon", "v_prediction"), "step"),
    "KDPM2AncestralDiscreteScheduler": (("epsilon", "v_prediction"), "step"),
    "LMSDiscreteScheduler": (ALL, "step"),
    "DPMSolverMultistepScheduler": (ALL, "convert"),
    "DPMSolverSinglestepScheduler": (ALL, "convert"),
    "UniPCMultistepScheduler": (ALL, "convert"),
    "SASolverScheduler": (ALL, "convert"),
    "DEISMultistepScheduler": (ALL, "convert"),
    "EDMEulerScheduler": (("epsilon", "v_prediction"), "step"),
    "EDMDPMSolverMultistepScheduler": (("epsilon", "v_prediction"), "convert"),
}


def estimate(scheduler, how, answer, time, sample):
    """The scheduler's own estimate of x, and what it would give the network."""
    asked = scheduler.scale_model_input(sample, time)
    if how == "step":
        return asked, scheduler.step(answer, time, sample).pred_original_sample
    if scheduler.step_index is None:
        scheduler._init_step_index(time)
    found = scheduler.convert_model_output(answer, sample=sample)
    if isinstance(scheduler, diffusers.DEISMultistepScheduler):  # turns its estimate of x into one of ε
        alpha, sigma = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[scheduler.step_index])
        found = (sample - sigma * found) / alpha
    return asked, found


@pytest.mark.parametrize(("name", "predicted"), [(name, one) for name, (told, _) in SCHEDULERS.items() for one in told])
@pytest.mark.filterwarnings("ignore")
def test_the_posterior_mean_is_the_schedulers_estimate_of_x_and_the_network_is_asked_the_same(name, predicted):
    told = {"prediction_type": predicted} | ({} if name.startswith("EDM") else {"num_train_timesteps": STEPS})
    sample, answer = noise(1), noise(2)
    for which in (2, 5):
        scheduler = getattr(diffusers, name)(**told)
        for option in {"clip_sample", "thresholding"} & scheduler.config.keys():
            scheduler.register_to_config(**{option: False})
        scheduler.set_timesteps(10)
        steps = [k for k, time in enumerate(scheduler.timesteps) if name.startswith("EDM") or time == time.round()]  # some halve them
        time = scheduler.timesteps[index := steps[which]]
        asked, expected = estimate(scheduler, SCHEDULERS[name][1], answer, time, sample)
        net = Fixed(answer)
        model = of_parts(net, getattr(diffusers, name)(**told))
        if name.startswith("EDM"):
            sigma = scheduler.sigmas[index].double()
            z, t = sample, model.schedule.time(1 / sigma)
        else:
            z, t = asked, (time.double() + 1) / STEPS
        close(model(z, t), expected)
        close(net.asked[0], asked)
        close(net.asked[1].double(), time.double().expand(2))


@pytest.mark.filterwarnings("ignore")
def test_absent_keys_have_the_defaults_of_each_class_and_betas_are_those_of_diffusers():
    compared = 0
    for name in diffusers_schedule.BETAS:
        try:
            own = getattr(diffusers, name)()
        except (ImportError, AttributeError):  # one needs a package more
            continue
        np.testing.assert_allclose(process_of({"_class_name": name}).schedule.alpha_bar, own.alphas_cumprod.numpy(), rtol=2e-5)
        compared += 1
    assert compared >= len(diffusers_schedule.BETAS) - 1


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("told", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace", "trained"])
def test_every_family_of_betas_and_its_rescaling_to_zero_terminal_snr(told, zero):
    words = {"trained_betas": np.geomspace(1e-3, 0.2, STEPS).tolist()} if told == "trained" else {"beta_schedule": told}
    words |= {"num_train_timesteps": STEPS, "rescale_betas_zero_snr": zero}
    expected = diffusers.DDPMScheduler(**words).alphas_cumprod.double().numpy()
    found = alpha_bar(words)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert (found[-1] == 0) == zero
    assert len(ss.DiscreteSchedule(found).alpha_bar) == STEPS


@pytest.mark.filterwarnings("ignore")
def test_exponential_betas_are_those_of_heun():
    words = {"beta_schedule": "exp", "num_train_timesteps": STEPS}
    np.testing.assert_allclose(alpha_bar(words), diffusers.HeunDiscreteScheduler(**words).alphas_cumprod.numpy(), rtol=1e-5)


def test_flow_matching_is_the_linear_path_whatever_the_shift():
    x, eps = noise(1), noise(2)
    for name, shift in (("FlowMatchEulerDiscreteScheduler", 3.0), ("FlowMatchHeunDiscreteScheduler", 1.0)):
        scheduler = getattr(diffusers, name)(num_train_timesteps=STEPS, shift=shift)
        scheduler.set_timesteps(10)
        sigma, time = scheduler.sigmas[4], scheduler.timesteps[4]
        net = Fixed(eps - x)  # what it is trained to say
        model = of_parts(net, scheduler)
        z = (1 - sigma) * x + sigma * eps
        close(model(z, sigma.double()), x)
        close(net.asked[1], time.expand(2))
        close(scheduler.step(net.answer, time, z).prev_sample, z + (scheduler.sigmas[5] - sigma) * net.answer)


def test_inverted_sigmas_turn_time_and_sign():
    x, eps = noise(1), noise(2)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=STEPS, invert_sigmas=True)
    scheduler.set_timesteps(10)
    data, time = scheduler.sigmas[4], scheduler.timesteps[4]  # 0 is noise, and steps go up to 1
    net = Fixed(x - eps)
    z = data * x + (1 - data) * eps
    close(of_parts(net, scheduler)(z, 1 - data.double()), x)
    close(net.asked[1], time.expand(2))
    later = scheduler.step(net.answer, time, z).prev_sample
    close(later, scheduler.sigmas[5] * x + (1 - scheduler.sigmas[5]) * eps)


def test_solvers_with_flow_sigmas_are_asked_on_the_linear_path():
    sample, answer = noise(1), noise(2)
    told = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 2.0}
    scheduler = diffusers.UniPCMultistepScheduler(**told)
    scheduler.set_timesteps(10)
    _, expected = estimate(scheduler, "convert", answer, scheduler.timesteps[4], sample)
    net = Fixed(answer)
    close(of_parts(net, scheduler)(sample, scheduler.sigmas[4].double()), expected)
    assert abs(float(net.asked[1][0]) - float(scheduler.timesteps[4])) <= 1  # which the solver rounds down


def test_a_variance_exploding_model_gives_the_score_of_data_in_0_to_1():
    torch.manual_seed(0)
    net = diffusers.UNet2DModel(in_channels=1, out_channels=1, time_embedding_type="fourier", **SMALL, **BLOCKS)
    model = of_pipeline(diffusers.ScoreSdeVePipeline(net, diffusers.ScoreSdeVeScheduler(sigma_max=50.0)))
    z, sigma = 3 * noise(1, 2, 1, 8, 8), torch.tensor([0.5, 2.0])
    with torch.no_grad():
        score = net(z, sigma).sample
        close(model.score(z, model.schedule.time(1 / sigma.double())), score, 1e-4)
    assert (model.about["range"], model.schedule) == ([0.0, 1.0], ss.VESchedule(0.01, 50.0))


def test_consistency_models_are_samples_only_and_answer_the_state_at_the_least_noise():
    scheduler = diffusers.CMStochasticIterativeScheduler(num_train_timesteps=40)
    scheduler.set_timesteps(5)
    sample, answer, net = noise(1), noise(2), Fixed(noise(2))
    model = of_parts(net, scheduler)
    for index in (1, 3):
        sigma = scheduler.sigmas[index]
        skip, out = scheduler.get_scalings_for_boundary_condition(sigma)
        close(model(sample, model.schedule.time(1 / sigma.double())), out * answer + skip * sample)
        close(net.asked[1], scheduler.timesteps[index].float().expand(2))
    close(model(sample, 0.0), sample)
    for one in (scheduler, diffusers.LCMScheduler(), diffusers.TCDScheduler()):
        assert "jump" in of_parts(net, one).about["samples_only"]
    assert "samples_only" not in of_parts(net, diffusers.DDIMScheduler()).about


# ---- pipelines --------------------------------------------------------------------------------------------------------------------------


def unet(**told):
    torch.manual_seed(0)
    return diffusers.UNet2DModel(**{"in_channels": 1, "out_channels": 1, **SMALL, **BLOCKS, **told})


def dit(**told):
    torch.manual_seed(0)
    told = {"num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "num_layers": 1, "sample_size": 8, **told}
    net = diffusers.DiTTransformer2DModel(out_channels=8, num_embeds_ada_norm=5, norm_num_groups=4, **told)
    torch.nn.init.normal_(net.proj_out_2.weight, std=0.1)
    return net


def autoencoder(kind, **told):
    return getattr(diffusers, kind)(block_out_channels=(8,), norm_num_groups=4, **told)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A pixel pipeline as diffusers writes it."""
    folder = tmp_path_factory.mktemp("pipelines") / "mine"
    diffusers.DDPMPipeline(unet(), diffusers.DDPMScheduler()).save_pretrained(folder)
    return folder


@pytest.fixture
def mine(saved, tmp_path):
    """A copy of it, to be spoiled."""
    return Path(shutil.copytree(saved, tmp_path / "mine"))


def answers(model, shape=(1, 8, 8), label=None):
    with torch.no_grad():
        return model(noise(3, 2, *shape), 0.5, label)


def test_a_pipeline_is_the_same_from_its_folder_its_parts_and_its_objects(saved):
    pipeline = diffusers.DDPMPipeline.from_pretrained(saved)
    model, z = ss.load(saved), noise(1, 2, 1, 8, 8)
    time = torch.tensor(609)
    with torch.no_grad():
        expected = pipeline.scheduler.step(pipeline.unet(z, time).sample, time, z).pred_original_sample
        assert float(expected.abs().max()) == 1  # the scheduler clips, which is a sampler's matter
        close(model(z, 0.61).clamp(-1, 1), expected)
        close(ss.load(saved, clip="true")(z, 0.61), expected)
    assert (model.name, model.shape, model.classes, model.net.training) == ("mine", (1, 8, 8), 0, False)
    assert (model.about["pipeline"], model.about["weights"], len(model.about["sha256"])) == ("DDPMPipeline", "unet", 64)
    assert model.parameters_count == sum(p.numel() for p in pipeline.unet.parameters())
    for other in (ss.load(saved / "unet"), of_pipeline(pipeline), of_parts(pipeline.unet, pipeline.scheduler)):
        assert torch.equal(answers(model), answers(other))
    assert ss.load(saved / "unet").identity() == model.identity()


@pytest.mark.parametrize("kind", ["root", "links", "bin", "sharded", "half", "relative"])
def test_layouts_and_kinds_of_weights(mine, saved, tmp_path, monkeypatch, kind):
    place, unets = mine, mine / "unet"
    if kind == "root":  # as courses write it
        for file in (*unets.iterdir(), *(mine / "scheduler").iterdir()):
            file.rename(mine / file.name)
        (mine / "model_index.json").unlink()
    elif kind == "links":  # as the hub's cache holds it
        place = tmp_path / "snapshot"
        for file in (path for path in mine.rglob("*") if path.is_file()):
            link = place / file.relative_to(mine)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    elif kind == "relative":
        monkeypatch.chdir(mine)
        place = Path()
    else:
        shutil.rmtree(unets)
        told = {"bin": {"safe_serialization": False}, "sharded": {"max_shard_size": "10KB"}, "half": {"variant": "fp16"}}[kind]
        (unet().half() if kind == "half" else unet()).save_pretrained(unets, **told)
        assert not (unets / "diffusion_pytorch_model.safetensors").exists()
    found = answers(ss.load(place))
    assert found.dtype == torch.float32
    close(found, answers(ss.load(saved)), 1e-2 if kind == "half" else 1e-6)
    assert ss.load(place).name == {"links": "snapshot"}.get(kind, "mine")


def test_a_training_checkpoint_takes_its_ema_and_the_scheduler_of_its_run(mine, tmp_path):
    run = tmp_path / "run"
    step = run / "checkpoint-20"
    step.mkdir(parents=True)
    shutil.copytree(mine / "unet", step / "unet")
    ema = unet()
    with torch.no_grad():
        ema.conv_out.bias += 1
    ema.save_pretrained(step / "unet_ema")
    config = json.loads((step / "unet_ema" / "config.json").read_text())
    (step / "unet_ema" / "config.json").write_text(json.dumps(config | {"decay": 0.9999, "optimization_step": 20, "inv_gamma": 1.0}))
    with pytest.raises(ss.InputError, match=r"does not tell its noise schedule.*scheduler=FOLDER"):
        ss.load(step)
    told = ss.load(step, scheduler=str(mine / "scheduler"))
    shutil.copytree(mine / "scheduler", run / "scheduler")
    model = ss.load(step)
    assert (model.name, model.about["weights"]) == ("run-checkpoint-20", "unet_ema")
    assert torch.equal(answers(model), answers(told))
    assert torch.equal(answers(model), answers(of_parts(ema, diffusers.DDPMScheduler())))
    assert not torch.equal(answers(model), answers(ss.load(step / "unet")))
    with pytest.raises(ss.InputError, match=r"holds checkpoints \(checkpoint-20\) and no finished network"):
        ss.load(run)


def test_dit_has_classes_a_null_label_a_doubled_output_and_latents(tmp_path):
    net, coder = dit(), autoencoder("AutoencoderKL", scaling_factor=0.5, shift_factor=0.1)
    diffusers.DiTPipeline(net, coder, diffusers.DDIMScheduler()).save_pretrained(tmp_path / "dit")
    file = tmp_path / "dit" / "transformer" / "config.json"
    file.write_text(file.read_text().replace("DiTTransformer2DModel", "Transformer2DModel"))  # as the published ones say
    model, z = ss.load(tmp_path / "dit"), noise(3, 2, 4, 8, 8)
    assert (model.classes, model.null_label, model.shape) == (5, 5, (4, 8, 8))
    assert model.about["latents"] == {"encoder": "AutoencoderKL", "scaling_factor": 0.5, "shift_factor": 0.1}
    with torch.no_grad():
        eps = net(z, torch.tensor([499, 499]), torch.tensor([2, 5])).sample[:, :4]
        close(model.noise(z, 0.5, torch.tensor([2, 5])), eps)
        close(model(z, 0.5)[1], model(z, 0.5, torch.tensor([2, 5]))[1])
    with pytest.raises(ss.InputError, match=r"null=3 is not the null label"):
        ss.load(tmp_path / "dit", null=3)


def test_an_unconditional_latent_pipeline_says_whose_latents(tmp_path):
    pipeline = diffusers.LDMPipeline(
        autoencoder("VQModel", scaling_factor=1.0), unet(in_channels=3, out_channels=3), diffusers.DDIMScheduler()
    )
    pipeline.save_pretrained(tmp_path / "ldm")
    for model in (ss.load(tmp_path / "ldm"), of_pipeline(pipeline)):
        assert model.about["latents"] == {"encoder": "VQModel", "scaling_factor": 1.0}
    pixels = ss.Bank.from_arrays(np.zeros((4, 3, 8, 8), np.uint8) + np.arange(4, dtype=np.uint8)[:, None, None, None])
    from scorescope.plan import Plan
    from scorescope.prepare import prepare

    said = prepare(Plan(), model, pixels, "cpu").warnings
    assert any("latents of VQModel" in line for line in said), said


def test_classes_of_a_unet_and_its_null_label(tmp_path):
    net = unet(num_class_embeds=4, time_embedding_type="learned", num_train_timesteps=STEPS)
    diffusers.DDPMPipeline(net, diffusers.DDPMScheduler(num_train_timesteps=STEPS)).save_pretrained(tmp_path / "x")
    plain, told = ss.load(tmp_path / "x"), ss.load(tmp_path / "x", null=3)
    assert (plain.classes, plain.has_null, told.classes, told.null_label) == (4, False, 3, 3)
    assert torch.equal(answers(told), answers(plain, label=3))
    with torch.no_grad():  # a table of steps is asked at the nearest one
        z = noise(3, 2, 1, 8, 8)
        close(plain.noise(z, 0.504, 1), net(z, 49, torch.tensor([1, 1])).sample)
    with pytest.raises(ss.InputError, match="no null label"):
        answers(plain)
    with pytest.raises(ss.InputError, match=r"null=4 is none of the 4 labels.*null=3"):
        ss.load(tmp_path / "x", null=4)


def test_a_conditional_unet_without_text_is_read():
    blocks = {"down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D"), "mid_block_type": None}
    torch.manual_seed(0)
    net = diffusers.UNet2DConditionModel(in_channels=1, out_channels=1, num_class_embeds=3, **SMALL, **blocks)
    model, z = of_parts(net, diffusers.DDPMScheduler()), noise(3, 2, 1, 8, 8)
    with torch.no_grad():
        close(model.noise(z, 0.5, 1), net(z, 499, None, class_labels=torch.tensor([1, 1])).sample)


def test_live_networks_in_half_precision_answer_states_in_float32():
    found = of_parts(unet().to(torch.bfloat16), diffusers.DDPMScheduler())
    close(answers(found), answers(of_parts(unet(), diffusers.DDPMScheduler())), 0.05)


# ---- refusals ---------------------------------------------------------------------------------------------------------------------------


class Hostile:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def changed(folder, file, **told):
    place = folder / file
    place.write_text(json.dumps(json.loads(place.read_text()) | told))


def weights(change):
    def spoil(folder):
        file = folder / "unet" / "diffusion_pytorch_model.safetensors"
        save_file(change(load_file(file)), file)

    return spoil


def cut(folder):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def hostile(folder):
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Hostile(folder / "owned")))


def index(**told):
    return lambda folder: changed(folder, "model_index.json", **told)


def scheduler(**told):
    return lambda folder: changed(folder, "scheduler/scheduler_config.json", **told)


def network(**told):
    return lambda folder: changed(folder, "unet/config.json", **told)


BAD = {
    "no weights": (lambda folder: (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink(), r"unet has no weights"),
    "no network": (lambda folder: shutil.rmtree(folder / "unet"), r"has no network: there is no config\.json"),
    "two networks": (lambda folder: shutil.copytree(folder / "unet", folder / "transformer"), r"several networks.*one of them, as .*unet"),
    "no scheduler": (lambda folder: shutil.rmtree(folder / "scheduler"), r"does not tell its noise schedule"),
    "a cut file": (cut, r"makes no network"),
    "a pickle with code": (hostile, r"makes no network"),
    "a layer missing": (weights(lambda w: {k: v for k, v in w.items() if k != "conv_out.bias"}), r"missing keys: conv_out\.bias"),
    "another size": (weights(lambda w: w | {"conv_in.weight": torch.zeros(8, 2, 3, 3)}), r"makes no network"),
    "one more layer": (weights(lambda w: w | {"more.weight": torch.zeros(2)}), r"do not fit.*unexpected keys: more\.weight"),
    "NaN": (weights(lambda w: {k: v * torch.nan if k == "conv_in.bias" else v for k, v in w.items()}), r"NaN or Inf \(1 tensors"),
    "an unknown scheduler": (scheduler(_class_name="OddScheduler"), r"the scheduler OddScheduler is not among"),
    "an unknown prediction": (scheduler(prediction_type="epsilno"), r"unknown prediction_type 'epsilno'.*"),
    "unknown betas": (scheduler(beta_schedule="bent"), r"unknown beta_schedule 'bent'"),
    "betas that are words": (scheduler(beta_start="low"), r"makes no schedule \(ValueError"),
    "too many steps": (scheduler(num_train_timesteps=10**12), r"num_train_timesteps is 1000000000000"),
    "continuous steps": (scheduler(_class_name="EulerDiscreteScheduler", timestep_type="continuous"), r"timestep_type is 'continuous'"),
    "an unknown network": (network(_class_name="FluxTransformer2DModel"), r"holds a FluxTransformer2DModel, and only UNet2DModel"),
    "no network but an encoder": (network(_class_name="AutoencoderKL"), r"holds a AutoencoderKL"),
    "text in the network": (
        network(_class_name="UNet2DConditionModel", down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"]),
        r"is a model of text prompts \(a UNet2DConditionModel with CrossAttnDownBlock2D",
    ),
    "text in the pipeline": (index(text_encoder=["transformers", "CLIPTextModel"]), r"text prompts \(DDPMPipeline has text_encoder"),
    "an image beside the state": (network(in_channels=4), r"takes 4 channels and answers with 1"),
    "classes that are vectors": (network(class_embed_type="identity"), r"embedded as 'identity'"),
    "quantized": (network(quantization_config={"quant_method": "x"}), r"quantized"),
    "widths that are words": (network(block_out_channels="wide"), r"makes no network"),
    "JSON that is cut": (lambda folder: (folder / "model_index.json").write_text("{"), r"model_index\.json can't be read as JSON"),
    "JSON that is a list": (lambda folder: (folder / "scheduler" / "scheduler_config.json").write_text("[]"), r"holds no record"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_folder_is_one_line(mine, name):
    spoil, said = BAD[name]
    spoil(mine)
    with pytest.raises(ss.InputError, match=said) as caught:
        ss.load(mine)
    assert "\n" not in str(caught.value)
    assert str(mine) in str(caught.value)
    assert not (mine / "owned").exists()


def test_options_and_what_is_no_folder(mine, monkeypatch):
    file = mine / "unet" / "diffusion_pytorch_model.safetensors"
    for path, options, said in (
        (mine, {"nul": 3}, "unknown option of family diffusers 'nul'.*'null'"),
        (mine, {"null": 3}, "null=3 is the label of no class, and the network has no classes"),
        (mine, {"clip": "maybe"}, "clip=maybe is neither true nor false"),
        (mine, {"variant": "fp16"}, "no weights of variant fp16"),
        (mine, {"scheduler": str(mine / "elsewhere")}, "there is no .*elsewhere"),
        (file, {}, "is the weights of a diffusers network.*unet"),
    ):
        with pytest.raises(ss.InputError, match=said):
            ss.load(path, **options)
    for variant in ("fp16", "non_ema"):
        shutil.copy(file, file.with_name(f"diffusion_pytorch_model.{variant}.safetensors"))
    assert ss.load(mine).about["weights"] == "unet"
    file.unlink()
    with pytest.raises(ss.InputError, match=r"several variants.*variant=fp16 or variant=non_ema"):
        ss.load(mine)
    assert ss.load(mine, variant="fp16").about["options"] == {"variant": "fp16"}
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ss.InputError, match=r"package diffusers.*pip install 'scorescope\[diffusers\]'"):
        ss.load(mine, variant="fp16")


@pytest.fixture
def hub(monkeypatch, saved, tmp_path):
    """A hub that has the pipeline as tiny/mine, with weights of several kinds; what was fetched lies in `hub.cache`."""
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    online, cache = tmp_path / "online", tmp_path / "cache" / "models--tiny--mine" / "snapshots" / "abc123"
    shutil.copytree(saved, online)
    weights = online / "unet" / "diffusion_pytorch_model.safetensors"
    for name in ("diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.bin"):
        shutil.copy(weights, weights.with_name(name))
    save_file({"a": torch.zeros(1)}, online / "other.safetensors")

    def snapshot_download(repository, allow_patterns=None, ignore_patterns=None):
        if repository != "tiny/mine":
            raise huggingface_hub.errors.LocalEntryNotFoundError("Cannot find it.\nSeveral lines")
        names = [str(path.relative_to(online)) for path in online.rglob("*") if path.is_file()]
        for name in filter_repo_objects(names, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns):
            (cache / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(online / name, cache / name)
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return SimpleNamespace(online=online, cache=cache)


def test_the_hub_gives_what_is_needed_and_only_when_it_is_named(hub, saved, monkeypatch):
    with pytest.raises(ss.InputError, match="there is no model at tiny/mine"):
        ss.load("tiny/mine")
    model = ss.load("hf:tiny/mine")
    assert (model.name, model.about["file"], model.about["revision"]) == ("mine", "hf:tiny/mine", "abc123")
    assert torch.equal(answers(model), answers(ss.load(saved)))
    names = {"model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"}
    assert {str(path.relative_to(hub.cache)) for path in hub.cache.rglob("*") if path.is_file()} == names
    assert ss.load("hf:tiny/mine/unet").name == "mine-unet"
    shutil.rmtree(hub.cache)
    (hub.online / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (hub.online / "unet" / "diffusion_pytorch_model.bin").unlink()
    assert torch.equal(answers(ss.load("hf:tiny/mine")), answers(model))  # fp16 where there is nothing else
    for path, said in (
        ("hf:tiny/mine/other.safetensors", "of no known family"),
        ("hf:tiny/mine/vae", "holds no network of diffusers"),
        ("hf:tiny/mine/lost.safetensors", "has no lost.safetensors"),
        ("hf:mine", "is no repository of the hub"),
        ("hf:tiny/mine/../x", "is no repository of the hub"),
        ("hf:tiny/other", r"tiny/other can't be downloaded \(Cannot find it\)\. Try: cloning .*path of that folder"),
    ):
        with pytest.raises(ss.InputError, match=said):
            ss.load(path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ss.InputError, match=r"needs the package huggingface_hub.*scorescope\[diffusers\]"):
        ss.load("hf:tiny/mine")


def test_the_command_line_takes_a_folder_for_a_model(saved, tmp_path, capsys):
    from scorescope.cli import main
    from scorescope.evaluate.samples import holds_samples

    assert not holds_samples(saved)
    assert not holds_samples(saved / "unet")
    drawn = ["--n", "2", "--solver", "euler", "--steps", "2", "--out", str(tmp_path / "drawn"), "--load", "clip=true"]
    assert main(["sample", str(saved), *drawn]) == 0
    capsys.readouterr()
    assert np.load(tmp_path / "drawn" / "samples.npz")["samples"].shape == (2, 1, 8, 8)


def test_objects_that_are_not_read():
    texts = SimpleNamespace(components={"unet": unet(), "scheduler": diffusers.DDPMScheduler(), "tokenizer": object()})
    for pipeline, said in (
        (texts, "text prompts"),
        (SimpleNamespace(components={"scheduler": diffusers.DDPMScheduler()}), "not one network and a scheduler"),
    ):
        with pytest.raises(ss.InputError, match=said):
            of_pipeline(pipeline)
    with pytest.raises(ss.InputError, match="the scheduler object is not among"):
        of_parts(unet(), object())
    assert diffusers_folder.OPTIONS.keys() == {"scheduler", "null", "clip", "variant"}
