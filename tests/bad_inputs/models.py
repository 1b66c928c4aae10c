"""Models that can't be."""

from __future__ import annotations

import torch

import scorescope as ss
from tests.bad_inputs import Case


def net(z, t, label):
    return z


class Classes(ss.Denoiser):
    classes, name = 3, "three classes"

    def forward(self, z, t, label=None):
        return z


def stiff(z, t):
    return 1e3 * torch.sin(1e9 * t)[:, None] + 0 * z


CASES = [
    Case(
        "vectors of classes that are numbers",
        lambda folder: ss.Conditioned(net, torch.arange(3)),
        r"int64 of shape \(3,\).*\(classes, width\)",
    ),
    Case("vectors of classes in a list", lambda folder: ss.Conditioned(net, [[1.0]]), r"vectors of the classes are list"),
    Case(
        "a null vector of another width", lambda folder: ss.Conditioned(net, torch.eye(3), torch.zeros(2)), r"null vector has shape \(2,\)"
    ),
    Case("a network without a place for a vector", lambda folder: ss.Conditioned(stiff, torch.eye(3)), r"no place for a vector"),
    Case("a network without a place for its classes", lambda folder: ss.NetworkDenoiser(lambda z, t: z, classes=3), r"takes no label"),
    Case("a range to clip to that is none", lambda folder: ss.NetworkDenoiser(net).clipped((1, -1)), r"clip = \(1, -1\) is no range"),
    Case("a range to clip to that is a word", lambda folder: ss.NetworkDenoiser(net).clipped("data"), r"clip = 'data' is no range"),
    Case(
        "a model that can't begin from noise",
        lambda folder: ss.sample(ss.NetworkDenoiser(net, ss.VESchedule(0.01, 0.4), shape=(2,)), 1),
        r"noise of network ends at t = 0\.29",
    ),
    Case("a model that stalls", lambda folder: ss.sample(ss.NetworkDenoiser(stiff, shape=(2,)), 2), r"stalls .* evaluations .*time=…"),
    Case("a schedule that is a word", lambda folder: ss.NetworkDenoiser(net, "linear"), r"schedule 'linear' is not a Schedule"),
    Case("a negative number of classes", lambda folder: ss.NetworkDenoiser(net, classes=-1), r"classes = -1 is not a number of classes"),
    Case("guidance that is no number", lambda folder: ss.Guided(Classes(), float("nan")), r"guidance of nan is not a weight"),
    Case("states that are no tensor", lambda folder: Classes()([[1.0]], 0.5), r"states .*list.* tensor"),
    Case("a label beyond int64", lambda folder: Classes()(torch.zeros(1, 2), 0.5, 10**30), r"label"),
    Case("a time beyond float64", lambda folder: Classes()(torch.zeros(1, 2), 10**400), r"t must"),
]
