"""8-bit digits: products are the very integers, on every kind of arithmetic; planes and families account for all they leave."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import scorescope as ss
from scorescope.empirical.digits import arithmetic as digits
from scorescope.empirical.digits import compiled
from scorescope.empirical.digits.arithmetic import product
from scorescope.empirical.digits.family import States, alone, pairs, trajectories
from scorescope.search import products
from scorescope.search.quantize import BASE, planes
from tests.definition import agrees, bank_of, definition

ARITHMETICS = ["int8", "float32"]
EXTREMES = [(-128, -128), (-128, 127), (127, 127), (127, -128)]


needs_numba = pytest.mark.skipif(not compiled.HERE, reason="numba does not run on this Python")


@pytest.fixture(params=ARITHMETICS)
def arithmetic(request, monkeypatch):
    """Each arithmetic, whatever this machine would choose."""
    if request.param == "int8" and digits.arithmetic(torch.device("cpu")) != "int8":
        pytest.skip("this processor multiplies 8-bit integers inexactly")
    monkeypatch.setattr(products, "has_int8", lambda device: request.param == "int8")
    return request.param


def exact(a, b):
    return (a.double() @ b.double()).long()


@pytest.mark.parametrize("k", [1, 2, 3, 31, 64, 1025, 3072, 131_000])
@pytest.mark.parametrize("m", [1, 17])
@pytest.mark.parametrize("n", [1, 7, 32])
def test_products_of_extreme_and_random_digits_are_exact(arithmetic, m, n, k):
    rng = torch.Generator().manual_seed(k)
    operands = [(torch.full((m, k), a, dtype=torch.int8), torch.full((n, k), b, dtype=torch.int8)) for a, b in EXTREMES]
    operands.append(tuple(torch.randint(-128, 128, (rows, k), generator=rng, dtype=torch.int8) for rows in (m, n)))
    for a, b in operands:
        assert torch.equal(product(a, b.T).long(), exact(a, b.T)), "rows as they are stored, transposed"
        assert torch.equal(product(a, b.T.contiguous()).long(), exact(a, b.T)), "rows as they are summed"


def test_a_processor_that_saturates_sums_is_not_trusted():
    """Without 8-bit dot products, oneDNN adds pairs of products in 16 bits, which overflow."""
    code = """
import torch
from scorescope.empirical.digits.arithmetic import product
for a, b in ((-128, -128), (-128, 127), (127, 127), (127, -128)):
    found = product(torch.full((9, 100), a, dtype=torch.int8), torch.full((6, 100), b, dtype=torch.int8).T)
    assert bool((found == 100 * a * b).all()), (a, b, found[0, 0])
"""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-500:]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.floats(1e-200, 1e200), st.booleans())
def test_planes_and_what_they_leave_are_the_vector(seed, count, step, edge):
    rng = np.random.default_rng(seed)
    share = rng.uniform(-127.5, 127.5, (3, 20))
    if edge:
        share[:, :4] = [-127.5, 127.5, 0.5, -0.5]
    x = torch.from_numpy(share) * step
    found, rest = planes(x, step, count)
    units = step * float(BASE) ** -torch.arange(count, dtype=torch.float64)
    total = (found.double() * units[:, None, None]).sum(0) + rest
    assert found.dtype == torch.int8
    torch.testing.assert_close(total / step, x / step, rtol=0, atol=2e-13)
    assert float((rest / units[-1]).abs().max()) <= 0.5 * (1 + 1e-9) or count > 5, "no more than half a digit is left"


@needs_numba
@pytest.mark.parametrize("kind", ["bytes", "bytes black and white", "bytes constant"])
@pytest.mark.parametrize("wanted", [1e-2, 1e-5, 1e-9])
def test_a_family_knows_its_states_but_for_the_rest_it_states(kind, wanted):
    bank = bank_of(kind)
    shelf = ss.EmpiricalScore(bank, arithmetic="digits").shelf
    rng = torch.Generator().manual_seed(0)
    times = torch.tensor([1.0, 0.9, 0.5, 0.1, 0.01, 0.0], dtype=torch.float64)
    x, eps = bank[np.arange(4)].flatten(1).double(), torch.randn(4, bank.d, generator=rng, dtype=torch.float64)
    z = (1 - times)[:, None] * x[:, None] + times[:, None] * eps[:, None]
    states = States.of(z, times.expand(4, -1), ss.LinearSchedule(), shelf.centre)
    limit = torch.full_like(states.sigma, wanted * bank.radius)
    lone = alone(states.flat)
    for family, vectors in (pairs(x, eps, states, limit, shelf.step), trajectories(states, limit), lone):
        held = family.coefficients @ vectors.double()
        left = (family.states.centred - held).norm(dim=2)
        floor = 1e-15 * (family.states.norm + 1)
        assert bool((left <= family.rest + floor).all()), "the rest is a bound"
        torch.testing.assert_close(family.norms, vectors.double().norm(dim=2), rtol=1e-6, atol=0)
        if family is not lone[0]:
            # The directions of trajectories come from a float64 Gram matrix, which resolves half of its digits.
            enough = 1.01 * limit + 1e-7 * states.norm.amax(1, keepdim=True)
            assert bool((family.rest <= enough).all()), "the rest is as small as was wanted"


@needs_numba
def test_both_arithmetics_give_the_same_posterior_bit_by_bit(monkeypatch):
    if digits.arithmetic(torch.device("cpu")) != "int8":
        pytest.skip("this processor has one arithmetic alone")
    bank = bank_of("bytes noise", 300)
    z = 0.5 * torch.randn(8, *bank.shape, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.02, 0.3, 0.6, 0.7, 0.8, 0.9, 0.99, 1.0])
    found = {}
    for name in ARITHMETICS:
        with monkeypatch.context() as patch:
            patch.setattr(products, "has_int8", lambda device, name=name: name == "int8")
            found[name] = ss.EmpiricalScore(bank, arithmetic="digits").posterior(z, t)
    for field in ("mean", "log_density", "entropy", "r_star", "error_bound"):
        assert torch.equal(getattr(found["int8"], field), getattr(found["float32"], field)), field


@needs_numba
def test_images_of_more_values_than_one_sum_of_products_holds():
    """3 × 256 × 256 values of black or white: 196,608 products of 127 or 128 with each other exceed 32 bits."""
    x = np.zeros((4, 3, 256, 256), np.uint8)
    x[2:] = 255
    x[1, :, :64] = 10
    bank = ss.Bank.from_arrays(x)
    truth = ss.EmpiricalScore(bank, memory=2**33, arithmetic="digits")
    t = torch.tensor([0.3, 0.99])
    z = torch.stack([torch.full(bank.shape, -1.0), torch.full(bank.shape, 1.0)])
    agrees(truth.posterior(z, t), definition(bank, truth.schedule, z, t), bank, truth.tolerance)
