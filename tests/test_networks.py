"""Any network as it comes: what it is given, what is counted and moved, whole steps, clipping, and errors in the user's own file."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

import scorescope as ss
from scorescope.networks import held, label_argument

BETAS = torch.linspace(1e-4, 0.2, 20, dtype=torch.float64)
STEPS = ss.DiscreteSchedule((1 - BETAS).cumprod(0).tolist())


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 2)

    def forward(self, x, t):
        return self.inner(x)


class Optional(Two):
    def forward(self, x, t, mask=None, y=None):
        assert mask is None
        return self.inner(x) if y is None else self.inner(x) + y[:, None]


class KeywordOnly(Two):
    def forward(self, x, t, *, class_labels):
        return self.inner(x) if class_labels is None else self.inner(x) + class_labels[:, None]


class Anything(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *inputs, **named):
        return self.module(*inputs, **named)


class Table(nn.Module):
    """A network that looks its step up in a table."""

    def __init__(self):
        super().__init__()
        self.table, self.seen = nn.Embedding(20, 2), []

    def forward(self, x, t):
        self.seen.append(t)
        return x + self.table(t)


def three(z, t, label):
    return z if label is None else z + label[:, None]


@pytest.mark.parametrize(
    ("net", "without", "with_classes"),
    [
        (Two(), None, None),
        (lambda z, t: z, None, None),
        (three, 2, 2),
        (Optional(), None, "y"),
        (KeywordOnly(), "class_labels", "class_labels"),
        (lambda z, t, c=None: z, None, 2),
        (Anything(Two()), None, None),
        (Anything(Optional()), None, "y"),
        (lambda *given: given[0], 2, 2),
        (functools.partial(three, label=None), None, "label"),
    ],
)
def test_a_label_is_given_where_the_signature_has_a_place_for_it(net, without, with_classes):
    assert (label_argument(net, 0), label_argument(net, 3)) == (without, with_classes)
    z = torch.ones(2, 2)
    assert ss.NetworkDenoiser(net, prediction="x")(z, 0.5).shape == z.shape
    if with_classes is None:
        with pytest.raises(ss.InputError, match="network has 3 classes, but its network takes no label"):
            ss.NetworkDenoiser(net, classes=3)
    else:
        model = ss.NetworkDenoiser(net, prediction="x", classes=3, null_label=3)
        assert model(z, 0.5, 1).shape == z.shape


def test_a_class_reaches_the_network_by_position_and_by_name():
    for net in (three, Optional(), KeywordOnly(), Anything(Optional())):
        model = ss.NetworkDenoiser(net, prediction="x", classes=3, null_label=0)
        z = torch.ones(2, 2)
        torch.testing.assert_close(model(z, 0.5, 2) - model(z, 0.5, 1), torch.ones(2, 2))


class Context(Two):
    """Attends to a context (B, tokens, 2), and could take a class, too."""

    def forward(self, x, t, mask=None, class_labels=None, context=None):
        assert mask is None
        assert class_labels is None
        return x + context.sum(1)


def embedded(z, t, vector):
    return z + vector


@pytest.mark.parametrize(("net", "form"), [(embedded, (1,)), (Context(), (3, 2))])
def test_a_class_reaches_a_network_as_a_vector(net, form):
    table = torch.arange(1.0, 5.0).reshape(4, *[1] * len(form)).expand(4, *form)
    told = ss.Conditioned(net, table, null=torch.zeros(form))
    assert (told.classes, told.null_label) == (4, 4)
    model = ss.NetworkDenoiser(told, prediction="x", classes=told.classes, null_label=told.null_label)
    z, label = torch.ones(3, 2), torch.tensor([0, 3, 4])
    more = model(z, 0.5, label) - model(z, 0.5)
    torch.testing.assert_close(more, torch.tensor([1.0, 4.0, 0.0])[:, None].expand(3, 2) * (form[0] if len(form) == 2 else 1))
    other = ss.NetworkDenoiser(ss.Conditioned(net, 2 * table, null=torch.zeros(form)), prediction="x", classes=4, null_label=4)
    assert model.identity() != other.identity()
    assert model.parameters_count == (6 if isinstance(net, nn.Module) else 0)


def test_a_network_that_always_has_the_same_vector():
    model = ss.NetworkDenoiser(ss.Conditioned(embedded, torch.zeros(0, 2), null=torch.tensor([1.0, 2.0])), prediction="x")
    assert model(torch.zeros(1, 2), 0.5).tolist() == [[1.0, 2.0]]
    lacking = ss.NetworkDenoiser(ss.Conditioned(embedded, torch.zeros(3, 2)), prediction="x", classes=3)
    assert not lacking.has_null
    with pytest.raises(ss.InputError, match="no unconditional prediction"):
        lacking(torch.zeros(1, 2), 0.5)


class Object:
    def __init__(self, net):
        self.nets = {"ema": [net]}

    def __call__(self, z, t):
        return self.nets["ema"][0](z, t)

    def method(self, z, t):
        return self(z, t)


GLOBAL = Two()


def by_global(z, t):
    return GLOBAL(z, t)


def test_parameters_of_networks_inside_other_callables_are_counted_and_moved():
    for wrap in (
        lambda net: net,
        Object,
        lambda net: Object(net).method,
        lambda net: lambda z, t: net(z, t),
        lambda net: functools.partial(lambda net, z, t: net(z, t), net),
        lambda net: Anything(net),
    ):
        net = Two()
        model = ss.NetworkDenoiser(wrap(net), prediction="x", shape=(2,))
        assert model.parameters_count == 6
        net.train()
        model.to("meta")
        assert net.inner.weight.device.type == "meta"
        assert not net.training
    assert ss.NetworkDenoiser(by_global).parameters_count == 6
    tied = Two()
    assert ss.NetworkDenoiser(lambda z, t: tied(z, t) + tied.inner(z)).parameters_count == 6
    assert list(held([GLOBAL.inner, GLOBAL, GLOBAL])) == [GLOBAL.inner, GLOBAL]
    assert ss.NetworkDenoiser(Two()).parameters_count == ss.NetworkDenoiser(Object(Two())).parameters_count == 6


def test_a_network_with_a_table_of_steps_gets_whole_ones_and_others_fractions():
    table = Table()
    model = ss.NetworkDenoiser(table, STEPS, "eps", time="steps")
    z = torch.ones(3, 2)
    model(z, torch.tensor([0.05, 0.51, 1.0]))
    model(z, torch.tensor([0.05, 0.51, 1.0]))
    assert [t.dtype for t in table.seen] == [torch.float32, torch.int64, torch.int64]
    assert table.seen[-1].tolist() == [0, 9, 19]
    seen = []
    smooth = ss.NetworkDenoiser(lambda z, t: seen.append(t) or z, STEPS, "eps", time="steps")
    smooth(z, 0.51)
    assert seen[0].tolist() == pytest.approx([9.2] * 3)
    assert model.identity() == ss.NetworkDenoiser(table, STEPS, "eps", time="steps").identity()


def test_a_network_that_refuses_both_says_why_it_refused_the_first():
    def broken(z, t):
        return z @ torch.ones(3, 3) if t.is_floating_point() else z @ torch.ones(4, 4)

    with pytest.raises(RuntimeError, match="2x2 and 3x3"):
        ss.NetworkDenoiser(broken, STEPS, time="steps")(torch.ones(2, 2), 0.5)


def test_whole_numbers_of_a_time_function_stay_whole():
    seen = []
    ss.NetworkDenoiser(lambda z, t: seen.append(t) or z, time=lambda t: (10 * t).long())(torch.ones(2, 2), 0.55)
    assert seen[0].dtype == torch.int64


def test_a_model_that_clips_is_clipped_in_every_currency():
    def net(z, t):
        return 3 * z

    z, t = torch.tensor([[0.2, 2.0]]), 0.5
    for prediction in ("x", "eps", "v"):
        plain = ss.NetworkDenoiser(net, prediction=prediction)
        clipped = plain.clipped()
        torch.testing.assert_close(clipped(z, t), plain(z, t).clamp(-1, 1))
        torch.testing.assert_close(clipped.velocity(z, t), (z - clipped(z, t)) / t)
        torch.testing.assert_close(clipped.noise(z, t), (z - 0.5 * clipped(z, t)) / 0.5)
    plain = ss.NetworkDenoiser(net, prediction="x")
    other = plain.clipped((0, 0.5))
    assert other(z, t).tolist() == [[0.5, 0.5]]
    assert len({str(model.identity()) for model in (plain, plain.clipped(), other)}) == 3
    assert other.clipped(False).identity() == plain.identity()


SOURCE = """
import torch
import scorescope as ss

class Net(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first = torch.nn.Linear(width, width)

    def forward(self, z, t):
        if t.max() > 0.9:
            return z
        return self.first(z)

def narrow():
    return ss.NetworkDenoiser(Net(3), shape=(2,), name="narrow")

def double():
    return ss.NetworkDenoiser(Net(2).double(), shape=(2,), name="double")

def foreign():
    return ss.NetworkDenoiser(torch.nn.Bilinear(2, 3, 2), shape=(2,), name="foreign")
"""


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("narrow", r"my_net\.py, line 13: RuntimeError: mat1 and mat2 .*2x2 and 3x3\) \(asked about float32 states of shape \(2, 2\)\)"),
        ("double", r"my_net\.py, line 13: RuntimeError: .*(dtype|type).* \(asked about float32"),
        ("foreign", r"the model of .*my_net\.py: \w+: .*\(asked about float32 states"),
    ],
)
def test_an_error_while_the_model_is_asked_is_one_line_with_the_file_s_line(function, says, tmp_path):
    (tmp_path / "my_net.py").write_text(SOURCE)
    model, z = ss.load(f"{tmp_path / 'my_net.py'}:{function}"), torch.ones(2, 2)
    for asked in (model, ss.trajectory):
        with pytest.raises(ss.InputError, match=says) as caught:
            model(z, 0.5) if asked is model else ss.trajectory(model, z, [0.0], start=0.5, solver=ss.Solver(batch=2))
        assert "\n" not in str(caught.value)
        says = says.replace(r"\(2, 2\)", r"\(8, 2\)").replace("2x2 and", "8x2 and")  # the sampler asks about a multiple of 8
