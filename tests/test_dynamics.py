"""The learned region: known radii, and models whose region is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from scorescope.demo import digits
from scorescope.denoiser import Denoiser
from scorescope.empirical import EmpiricalScore
from scorescope.experiments import dynamics
from scorescope.experiments.reach import Reaches, medians, reach
from scorescope.theories.gaussian import GaussianScore
from scorescope.training.examples import unlabelled
from scorescope.training.objectives.region import Region


def test_the_reach_of_a_power_of_k_is_a_root_of_the_multiple():
    """e = k³ exceeds m times e(1) at k = m^(1/3), wherever the grid lies; so it does downward for k⁻³."""
    k = np.geomspace(1, 4, 6)
    for places, curve in ((np.log(k), k**3), (-np.log(k), k**3)):
        found = reach(curve, places, np.array(2.0))
        assert abs(float(found)) == pytest.approx(np.log(2) / 3, rel=1e-12)


def test_the_reach_of_what_never_exceeds_is_the_last_place_and_of_what_always_does_the_first():
    places = np.array([0.0, 0.5, 1.0])
    curves = np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 2.0], [3.0, 1.0, 9.0]])
    assert reach(curves, places, np.array([0.0, 2.0, 2.0])).tolist() == [1.0, 1.0, 0.0]


def test_medians_are_drawn_alike_for_every_model():
    errors = np.random.default_rng(1).random((2, 3, 20))
    assert np.allclose(medians(5 * errors), 5 * medians(errors))
    assert np.allclose(medians(errors)[..., 0], np.median(errors, -1))


class Ball(Denoiser):
    """The exact score where some row's noise is at most `most` times that of its shell, and the Gaussian's answer farther off."""

    def __init__(self, bank, most):
        self.exact, self.gaussian, self.most, self.bank = EmpiricalScore(bank), GaussianScore(bank), most, bank

    def forward(self, z, t, label=None):
        rows = self.bank[np.arange(len(self.bank))].flatten(1).double()
        away = torch.cdist(z.flatten(1).double(), (1 - float(t[0])) * rows).amin(1)
        inside = away / (float(t[0]) * self.bank.d**0.5) < self.most
        near = self.exact(z, t) + 0.01  # a little off, so that there is an error to be a multiple of
        return torch.where(inside[:, None, None, None], near, self.gaussian(z, t))


@pytest.fixture(scope="module")
def states():
    """Those of 40 digits, on the way to where the Gaussian samples, at t = 0.3 and 0.7 and nine noise factors."""
    bank = Region(40).learned(unlabelled(digits()), 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(dynamics.SIZES, "smoke", replace(dynamics.SIZES["smoke"], factors=9))
        return dynamics.States(bank, GaussianScore(bank), "smoke", "cpu"), bank


def found(states, model, *, size):
    """Its dataset, as a cell makes it, beside the Gaussian's."""
    one, bank = states
    names = {size: model, "gaussian": GaussianScore(bank)}
    errors = {
        kind: (("network", "time", place, "state"), np.stack([one.errors(model, kind) for model in names.values()]))
        for kind, place in (("thick", "factor"), ("way", "share"))
    }
    places = {"network": list(names), "time": list(one.times), "factor": np.geomspace(1 / 4, 4, 9), "share": dynamics.shares("smoke")}
    return Reaches(xr.Dataset(errors, coords=places).assign(parameters=("network", [1, 0])))


def test_the_exact_score_is_learned_to_the_end_of_every_way(states):
    one = found(states, EmpiricalScore(states[1]), size="exact@1")
    assert np.exp(one.noise("exact@1")).min() == pytest.approx(4)
    assert np.exp(one.noise("exact@1", inward=True)).max() == pytest.approx(1 / 4)
    assert one.way("exact@1").min() == 1.0


@pytest.mark.parametrize("most", [1.2, 1.7, 2.4])
def test_a_ball_of_known_thickness_is_found_between_its_neighbours_on_the_grid(states, most):
    one = found(states, Ball(states[1], most), size="ball@1")
    k = np.geomspace(1 / 4, 4, 9)
    reached = np.exp(one.noise("ball@1")[0])  # t = 0.3, where the nearest shell is the state's own
    assert (reached >= k[k < most][-1] * 0.999).all()
    assert (reached <= k[k > most][0]).all()


def test_the_way_begins_on_a_shell_and_ends_on_the_path(states):
    one, bank = states
    truth = EmpiricalScore(bank)
    for k, t in enumerate(one.times):
        way = one.asked["way"][k]
        assert abs(truth.posterior(way[0], t).r_star - 1).max() < 0.1
        assert torch.allclose(way[1], (way[0] + way[2]) / 2, atol=1e-6)  # three shares in this scale
