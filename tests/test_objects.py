"""Objects of other libraries: each answers as it does itself, by its interface alone; what none of them says is asked for."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import scorescope as ss
from scorescope import results
from scorescope.adapters import objects
from scorescope.denoiser import on_linear_axis

CLASSES, STEP = 3, 0.1
BANK = ss.Bank.from_arrays(
    np.random.default_rng(0).normal(0, 0.5, (60, 1, 2, 2)).astype(np.float32), np.arange(60) % CLASSES, name="normal"
)
TRUTH = ss.GaussianScore(BANK)


def mean(x, level, label=None):
    """E[x | x + s ε] of the bank's Gaussian, and a step more for each class (B,), whatever its type."""
    level = level.double().expand(len(x))
    total = 1 + level.reshape(-1, *[1] * (x.ndim - 1))
    found = TRUTH((x.double() / total).float(), level / (1 + level))
    return (found if label is None else found + STEP * label.to(found).reshape(-1, *[1] * (x.ndim - 1))).to(x.dtype)


def over(level, x):
    return level.reshape(-1, *[1] * (x.ndim - 1))


class Schedule:
    """Variance preserving on [0, 1], not of any of ours."""

    def __call__(self, t):
        angle = 1.56 * t**1.5 + 1e-3
        return angle.cos(), angle.sin()


class Azula(nn.Module):
    def __init__(self, classes=0):
        super().__init__()
        self.schedule, self.backbone = Schedule(), nn.Linear(2, 2)
        if classes:
            self.num_classes = classes

    def forward(self, x_t, t, label=None, **kwargs):
        alpha, sigma = self.schedule(t.double())
        if label is None and hasattr(self, "num_classes"):
            label = torch.full((len(x_t),), self.num_classes)
        return SimpleNamespace(mean=mean((x_t / over(alpha, x_t)).to(x_t.dtype), sigma / alpha, label))


class Alone(Azula):
    """A closed form, which takes one time for all states."""

    def __init__(self):
        super().__init__()
        del self.backbone

    def forward(self, x_t, t):
        assert t.ndim == 0
        return super().forward(x_t, t)


class Edm(nn.Module):
    def __init__(self, label_dim=0, dropped=0.0):
        super().__init__()
        self.label_dim, self.img_resolution, self.img_channels, self.sigma_min, self.sigma_max = label_dim, 2, 1, 0, float("inf")
        self.model = nn.Linear(2, 2)
        self.model.label_dropout = dropped

    def forward(self, x, sigma, class_labels=None, force_fp32=False):
        if class_labels is None:
            return mean(x, sigma)
        assert class_labels.shape == (len(x), self.label_dim)
        return mean(x, sigma, class_labels @ torch.arange(self.label_dim).to(class_labels))

    def round_sigma(self, sigma):
        return torch.as_tensor(sigma)


class Inner(nn.Module):
    def __init__(self, rows):
        super().__init__()
        self.class_emb = nn.Embedding(rows, 2) if rows else None

    def forward(self, x, sigma, aug_cond=None, class_cond=None):
        return mean(x, sigma, class_cond)


class KDiffusion(nn.Module):
    def __init__(self, rows=0):
        super().__init__()
        self.inner_model = Inner(rows)

    def get_scalings(self, sigma):
        return 1

    def forward(self, input, sigma, **kwargs):
        return self.inner_model(input, sigma, **kwargs)


class Discrete(KDiffusion):
    sigma_min, sigma_max = torch.tensor(0.01), torch.tensor(150.0)


class Small(nn.Module):
    def __init__(self, classes=0):
        super().__init__()
        self.input_dims = BANK.shape
        if classes:
            self.cond_embed = SimpleNamespace(null_cond=classes)

    def rand_input(self, batch):
        return torch.randn(batch, *self.input_dims)

    def predict_eps(self, x, sigma, cond=None):
        assert sigma.shape == (len(x), 1, 1, 1)
        return (x - mean(x, sigma.flatten(), cond)) / sigma


class FlowPredFlow(Small):
    def forward(self, z, t, cond=None):
        assert t.shape == (len(z), 1, 1, 1)
        return TRUTH.velocity(z, t.flatten())


SIGMAS = SimpleNamespace(sigmas=torch.logspace(-2, 2, 50))
KNOWN = [
    ("azula", Azula(), 0, None),
    ("azula with classes", Azula(CLASSES), CLASSES, CLASSES),
    ("azula in closed form", Alone(), 0, None),
    ("edm", Edm(), 0, None),
    ("edm with classes", Edm(CLASSES), CLASSES, None),
    ("edm with dropped classes", Edm(CLASSES, 0.1), CLASSES, 0),  # zeros
    ("k-diffusion", KDiffusion(), 0, None),
    ("k-diffusion with classes", KDiffusion(CLASSES + 1), CLASSES, CLASSES),
    ("k-diffusion, discrete", Discrete(), 0, None),
    ("smalldiffusion", (Small(), SIGMAS), 0, None),
    ("smalldiffusion with classes", (Small(CLASSES), SIGMAS), CLASSES, CLASSES),
    ("smalldiffusion, flow", FlowPredFlow(), 0, None),
]


@pytest.mark.parametrize(("thing", "classes", "null"), [case[1:] for case in KNOWN], ids=[case[0] for case in KNOWN])
def test_an_object_answers_as_it_does_itself_at_every_time_and_class(thing, classes, null):
    model = ss.load(thing)
    linear = on_linear_axis(model)
    assert (model.classes, model.has_null) == (classes, null is not None or not classes)
    assert linear.linear_range[0] < 0.02
    assert linear.linear_range[1] > 0.98
    t = torch.tensor([0.02, 0.1, 0.5, 0.5, 0.9, 0.98], dtype=torch.float64)
    z = torch.randn(6, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    label = torch.tensor([0, 1, 2, 1, 2, 0]) if classes else None
    shift = 0 if label is None else STEP * over(label, z)
    torch.testing.assert_close(linear(z, t, label), TRUTH(z, t) + shift, rtol=1e-5, atol=1e-5)
    if classes and null is not None:
        torch.testing.assert_close(linear(z, t), TRUTH(z, t) + STEP * null, rtol=1e-5, atol=1e-5)
    if classes and null is None:
        with pytest.raises(ss.InputError, match="no null label"):
            linear(z, t)
    assert model.identity() == ss.load(thing).identity()


@pytest.mark.parametrize("name", ["edm", "azula", "k-diffusion", "smalldiffusion", "smalldiffusion, flow"])
def test_an_object_is_read_right(name):
    thing = next(thing for known, thing, *_ in KNOWN if known == name)
    assert ss.check(ss.load(thing), BANK).verdict == "right"


def test_levels_and_facts_can_be_told():
    model = ss.load(KDiffusion(), sigma_min=0.1, sigma_max=50, name="mine", shape=BANK.shape)
    assert (model.schedule, model.name, model.shape) == (ss.VESchedule(0.1, 50.0), "mine", (1, 2, 2))
    assert ss.load(Edm(), sigma_max=20).schedule == ss.VESchedule(0.002, 20.0)
    assert ss.load(Small(), sigma_min=0.02, sigma_max=10).schedule == ss.VESchedule(0.02, 10.0)
    assert ss.load((Small(), SIGMAS), sigma_max=10).schedule.sigma_max == 10


def test_a_network_with_its_schedule_and_prediction():
    net = nn.Flatten()
    net.forward = lambda z, t: mean(z / (1 - over(t, z)), t / (1 - t))
    model = ss.load(net, schedule=ss.LinearSchedule(), prediction="x")
    z, t = torch.randn(2, 1, 2, 2), torch.tensor([0.3, 0.6])
    torch.testing.assert_close(model(z, t), TRUTH(z, t), rtol=1e-5, atol=1e-5)
    assert model.name == "Flatten"
    assert ss.load(model) is model
    both = ss.load(KDiffusion(), schedule=ss.VESchedule(0.01, 100), prediction="x", time="sigma", name="told")  # what is said holds
    assert both.name == "told"


REFUSED = [
    ((nn.Linear(2, 2),), {}, r"Linear is not a Denoiser: a network alone does not say its schedule and what it predicts.*prediction=\"v\""),
    ((nn.Linear(2, 2),), {"schedule": ss.LinearSchedule()}, r"does not say what it predicts.*ss.load\(net, schedule=…, prediction=\"v\"\)"),
    ((lambda z, t: z,), {"prediction": "x"}, r"a network alone does not say its schedule\. Try"),
    ((nn.Linear(2, 2),), {"predicton": "v"}, "unknown option of a network 'predicton'.*'prediction'"),
    ((nn.Linear(2, 2),), {"schedule": "linear", "prediction": "v"}, "schedule 'linear' is not a Schedule"),
    ((Edm(),), {"sigma": 3}, "unknown option of an EDM network 'sigma'"),
    ((Edm(),), {"sigma_max": "far"}, "sigma_max='far' is no noise level"),
    ((Edm(),), {"sigma_max": 0.001}, r"sigma_min 0\.002 and sigma_max 0\.001"),
    ((Small(),), {}, r"Small does not say at which noise levels it was trained \(sigma_min, sigma_max\).*\(model, schedule\)"),
    ((Small(),), {"sigma_min": 0.1}, r"noise levels it was trained \(sigma_max\)"),
    ((FlowPredFlow(),), {"sigma_max": 3}, "sigma_max means nothing for a flow"),
    ((3,), {}, "int is not a Denoiser"),
    ((TRUTH,), {"prediction": "x"}, "says itself what it is and takes no options"),
    ((Edm(),), {"samples_only": " "}, "samples_only=' ' does not say why"),
]


@pytest.mark.parametrize(("thing", "options", "said"), REFUSED)
def test_what_an_object_does_not_tell_is_asked_for_in_one_line(thing, options, said):
    with pytest.raises(ss.InputError, match=said) as caught:
        ss.load(*thing, **options)
    assert "\n" not in str(caught.value)


def test_a_denoiser_without_a_mean():
    thing = Azula()
    thing.forward = lambda x_t, t: x_t.mean
    with pytest.raises(ss.InputError, match="Azula answers without a mean"):
        ss.load(thing)(torch.zeros(1, 2), 0.5)


def test_diffusers_objects_are_read_where_its_files_are(monkeypatch):
    reader = ModuleType("scorescope.adapters.diffusers_folder")
    reader.of_pipeline, reader.of_parts = lambda pipeline: pipeline.answer, lambda net, scheduler, null=None: scheduler.answer
    monkeypatch.setitem(sys.modules, reader.__name__, reader)
    one, two = (ss.NetworkDenoiser(mean, prediction="x", name=name) for name in ("pipeline", "pair"))
    pipeline = SimpleNamespace(components={}, scheduler=object(), answer=one)
    pair = (nn.Linear(2, 2), SimpleNamespace(config={}, step=lambda: None, answer=two))
    assert (ss.load(pipeline), ss.load(pair, null=3)) == (one, two)
    assert objects.denoisers_of([pair, pipeline]) == [two, one]
    assert objects.denoisers_of(pair) is two
    assert one.about["object"] == "a diffusers model"


def test_objects_are_examined_as_they_are_and_from_a_user_s_file(tmp_path, monkeypatch):
    options = {"paths": 2, "times": 2, "nulls": 4, "solver": "euler", "steps": 3, "quiet": True}
    run = ss.examine([Azula(), (Small(), SIGMAS)], BANK, ["score-error"], **options)
    assert results.models(run.results) == ["Azula", "Small"]
    errors = run.results["score_error"].sel(region="supervision").values
    np.testing.assert_allclose(errors[0], errors[1], rtol=1e-3, atol=1e-6)  # the same model in two coordinates
    monkeypatch.syspath_prepend(str(tmp_path))
    made = {"build": "Edm()", "small": "Small()", "net": "nn.Linear(2, 2)"}
    lines = ["from tests.test_objects import Edm, Small, nn", *(f"def {name}(): return {what}" for name, what in made.items())]
    (tmp_path / "mine.py").write_text("\n".join(lines))
    model = ss.load(f"{tmp_path / 'mine.py'}:build")
    assert (model.about["object"], model.shape) == ("an EDM network", BANK.shape)
    for function, said in (("small", "small in .*mine.py returned Small: .*noise levels"), ("net", "returned Linear, not a Denoiser")):
        with pytest.raises(ss.InputError, match=said):
            ss.load(f"{tmp_path / 'mine.py'}:{function}")
    with pytest.raises(ss.InputError, match="Linear is not a Denoiser"):
        ss.examine(nn.Linear(2, 2), BANK)
