"""What every outside family of weights owes: asked of each case in tests/family_cases.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import scorescope as ss
from scorescope.adapters import families
from scorescope.adapters.families import Checkpoint, adm, family_of, lucidrains
from scorescope.adapters.parts import Velocity, trained_schedule
from scorescope.registry import names
from tests.family_cases import CASES as CLASSIC
from tests.family_cases import official
from tests.family_cases_modern import CASES as MODERN
from tests.official import SPREAD, drawn

CASES = [*CLASSIC, *MODERN]
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name or case.family)
once = pytest.mark.parametrize("case", [case for case in CASES if not case.alike], ids=lambda case: case.name or case.family)


def loaded(folder, weights, options):
    """The model of weights in a file."""
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "x.safetensors")
    return ss.load(folder / "x.safetensors", **options)


def refused(folder, weights, options, said="."):
    """The one line that is said."""
    with pytest.raises(ss.InputError, match=said) as caught:
        loaded(folder, weights, options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def spread(weights, case, n):
    """Names of n weights that the network of the case must have, spread over all."""
    known = sorted(name for name in weights if not name.removeprefix("model.").startswith(case.spare or ("?",)))
    return [known[int(k)] for k in np.linspace(0, len(known) - 1, n)]


def test_every_family_has_a_case():
    assert set(names(families.__name__)) == {case.family for case in CASES}


@each
def test_one_line_gives_the_posterior_mean_of_the_official_code(tmp_path, case):
    found = case.answers()
    model = loaded(tmp_path, found.weights, case.options)
    t = case.time(model.schedule, found.t)
    with torch.no_grad():
        mean = model(found.z, t, found.label)
    torch.testing.assert_close(mean, found.mean, rtol=1e-5, atol=1e-5 * max(1.0, float(found.mean.abs().max())))
    assert (model.classes, model.null_label, model.about["family"]) == (case.classes, case.null, case.family)
    assert model.shape in (None, tuple(found.z.shape[1:]))
    if case.null is not None:
        none = found.label == case.null
        with torch.no_grad():
            assert none.any()
            torch.testing.assert_close(model(found.z, t)[none], mean[none], rtol=1e-5, atol=1e-5 * float(mean.abs().max()))
    elif case.classes:
        with pytest.raises(ss.InputError, match="no null label"):
            model(found.z, t)
    with pytest.raises(ss.InputError, match=f"label {case.classes + 1} is outside"):
        model(found.z, t, case.classes + 1)
    assert loaded(tmp_path, found.weights, case.options).identity() == model.identity()


@once
def test_it_is_refused_without_what_its_names_do_not_tell(tmp_path, case):
    weights = case.answers().weights
    for name, said in case.needed.items():
        refused(tmp_path, weights, {key: value for key, value in case.options.items() if key != name}, said)
    if case.options.get("family") is None:
        assert family_of(Checkpoint(weights), None).__name__.endswith(f".{case.family}")


@once
def test_an_unknown_option_is_named(tmp_path, case):
    refused(tmp_path, case.answers().weights, {**case.options, "colour": 1}, f"unknown option of family {case.family} 'colour'")


@once
def test_a_layer_that_is_missing_or_has_another_shape_is_one_line(tmp_path, case):
    weights = case.answers().weights
    for name in spread(weights, case, 4):
        refused(tmp_path, {key: value for key, value in weights.items() if key != name}, {"family": case.family, **case.options})
    for name in spread(weights, case, 4):
        refused(tmp_path, weights | {name: torch.cat([torch.atleast_1d(weights[name])] * 2)}, {"family": case.family, **case.options})


@once
def test_half_of_its_weights_are_one_line(tmp_path, case):
    weights = case.answers().weights
    kept = dict(list(weights.items())[: len(weights) // 2])
    refused(tmp_path, kept, {"family": case.family, **case.options})


# ---- what single families promise ---------------------------------------------------------------------------------------------


def test_paths_and_predictions_of_sit_are_different_models(tmp_path):
    cases = [case for case in CASES if case.family == "sit"]
    weights = cases[0].answers().weights
    identities = [str(loaded(tmp_path, weights, case.options).identity()) for case in cases]
    assert len(set(identities)) == len(cases) == 9


@pytest.mark.parametrize(("kind", "schedule"), [("cfm", ss.LinearSchedule()), ("si", ss.CosineSchedule(0.0))])
def test_a_velocity_of_torchcfm_s_own_matcher_gives_back_the_clean_rows(kind, schedule):
    flow = official(f"adm_{kind}").more
    x = drawn("x", tuple(flow["flow_z"].shape)) / SPREAD

    class Answers(torch.nn.Module):
        def forward(self, z, t, label=None):
            torch.testing.assert_close(t, flow["flow_t"])
            return flow["flow_v"]

    model = ss.NetworkDenoiser(Velocity(Answers(), schedule, backwards=True), schedule, "v")
    torch.testing.assert_close(model(flow["flow_z"], 1 - flow["flow_t"].double()), x, rtol=1e-5, atol=1e-5)


def test_velocities_have_a_value_at_both_ends_of_time():
    class Ones(torch.nn.Module):
        def forward(self, z, t, label=None):
            return torch.ones_like(z)

    for schedule in (ss.LinearSchedule(), ss.CosineSchedule(0.0), ss.VPSchedule()):
        model = ss.NetworkDenoiser(Velocity(Ones(), schedule, backwards=True), schedule, "v")
        z = torch.full((2, 3), 2.0)
        means = model(z, torch.tensor([0.0, 1.0], dtype=torch.float64))
        assert means.isfinite().all()
        torch.testing.assert_close(means[0], z[0], rtol=0, atol=1e-6)


def test_optimal_transport_is_said_to_have_samples_only():
    weights = official("adm_cfm").weights
    options = {"order": "legacy", "head_width": 16}
    model = adm.build(Checkpoint(weights), options | {"process": "otcfm"})
    assert "not E[x | z]" in model.about["samples_only"]
    assert "samples_only" not in adm.build(Checkpoint(weights), options | {"process": "cfm"}).about


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schedule": "linear"}, "schedule belongs to process ddpm, not to cfm"),
        ({"process": "flow"}, "unknown process of family adm 'flow'"),
        ({"heads": 4}, "head_width and heads are two ways to say one thing"),
        ({"head_width": 48}, "head_width=48 does not divide the 64 channels"),
        ({"head_width": "wide"}, "head_width=wide is not a positive whole number"),
        ({"process": "ddpm"}, 'does not tell schedule. Try: schedule="linear"'),
        ({"process": "ddpm", "schedule": "linear", "steps": 4000}, "does not tell rescale"),
        ({"process": "ddpm", "schedule": "linear", "predict": "v"}, "unknown predict of family adm 'v'"),
    ],
)
def test_options_of_adm_that_contradict_are_one_line(tmp_path, change, said):
    refused(tmp_path, official("adm_cfm").weights, {"order": "legacy", "head_width": 16, "process": "cfm", **change}, said)


def test_latent_diffusion_takes_the_moving_average_where_the_file_has_it(tmp_path):
    found = next(case for case in CASES if case.family == "ldm").answers()
    name, average = "model.diffusion_model.", "model_ema.diffusion_model"
    plain = {key: value for key, value in found.weights.items() if not key.startswith(("betas", "sqrt"))}
    shadow = {average + key.removeprefix(name).replace(".", ""): value for key, value in plain.items()}
    buffers = {key: value for key, value in found.weights.items() if key.startswith(("betas", "sqrt"))}
    model = loaded(tmp_path, {key: value + 1 for key, value in plain.items()} | shadow | buffers, {"order": "legacy", "head_width": 16})
    with torch.no_grad():
        torch.testing.assert_close(model(found.z, (found.t + 1) / 20), found.mean, rtol=1e-5, atol=1e-4)
    bare = Checkpoint({key.removeprefix(name): value for key, value in plain.items()}, "model_ema", buffers)  # as it may have been read
    assert family_of(bare, None).build(bare, {"order": "legacy", "head_width": 16}).schedule == model.schedule
    crossed = plain | {f"{name}middle_block.1.transformer_blocks.0.norm1.weight": torch.zeros(2)} | buffers
    refused(tmp_path, crossed, {"order": "legacy", "head_width": 16}, "cross-attention")


def test_the_objective_of_lucidrains_is_told_by_its_weights_of_the_loss_or_asked_for(tmp_path):
    weights = official("lucidrains_v").weights
    schedule = trained_schedule(weights)
    for subject, objective in {"v": "pred_v", "x": "pred_x0", "eps": "pred_noise", "classes": "pred_noise"}.items():
        own = official(f"lucidrains_{subject}").weights
        assert lucidrains.objective_of(own, trained_schedule(own)) == objective
    refused(tmp_path, {key: value for key, value in weights.items() if key != "loss_weight"}, {}, 'objective="pred_v"')
    refused(tmp_path, weights | {"loss_weight": torch.ones(50) * 2}, {}, "does not tell what it predicts")
    assert loaded(tmp_path, weights | {"loss_weight": torch.ones(50) * 2}, {"objective": "pred_v"}).prediction == "v"
    refused(tmp_path, {key: value for key, value in weights.items() if key != "betas"}, {}, "without the betas of its diffusion")
    older = weights | {"model.downs.0.0.block1.norm.weight": torch.ones(8)}
    refused(tmp_path, older, {}, "an older version of the code")
    without = {key: value for key, value in weights.items() if not key.startswith("sqrt_recipm1")}
    np.testing.assert_allclose(trained_schedule(without).alpha_bar, schedule.alpha_bar, rtol=1e-4)


def test_score_sde_is_refused_for_another_kind_of_time(tmp_path):
    refused(tmp_path, official("score_sde_ve").weights, {"sde": "vpsde"}, "Fourier features of log σ, as vesde has them.*not vpsde")
    refused(tmp_path, official("score_sde_vp").weights, {"sde": "vesde"}, "sinusoids of a step.*not vesde")
    schedule = loaded(tmp_path, official("score_sde_ve").weights, {"sde": "vesde"}).schedule
    assert (schedule.sigma_min, schedule.sigma_max) == pytest.approx((0.02, 100.0))  # of images in [−1, 1]
