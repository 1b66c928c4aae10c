"""Planes of 8-bit integers: products are exact on every machine, and what planes leave out is no more than they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import scorescope as ss
from scorescope.empirical import integers, score
from scorescope.empirical.family import alone, pairs, trajectories
from scorescope.empirical.planes import BASE, MOST, IntegerProducts, enough, split
from scorescope.empirical.reference import reference_posterior
from scorescope.empirical.states import States
from scorescope.errors import InputError
from scorescope.search.products import U32, U64
from tests.definition import agrees, bank_of, definition, states_of

CPU = torch.device("cpu")


@pytest.fixture(params=["CPU", "CUDA"])
def hardware(request, monkeypatch):
    """This processor, and what CUDA asks of products."""
    if request.param == "CUDA":
        monkeypatch.setattr(integers, "_product", integers._padded)
        monkeypatch.setattr(torch, "_int_mm", as_cuda_does)


def as_cuda_does(a, b):
    """`torch._int_mm` on a GPU: what it refuses, and what it gives."""
    (m, d), n = a.shape, b.shape[1]
    assert a.dtype == b.dtype == torch.int8
    assert m > 16
    assert d % 8 == 0
    assert n % 8 == 0
    assert a.is_contiguous()
    assert b.is_contiguous() or b.T.is_contiguous()
    assert a.data_ptr() % 4 == b.data_ptr() % 4 == 0
    total = a.long() @ b.long()
    assert int(total.abs().max()) < 2**31
    return total.int()


@pytest.mark.parametrize("d", [0, 1, 7, 1024, 2500, 40_000])
def test_integer_products_are_exact(d, hardware):
    rng = np.random.default_rng(d)
    a, b = rng.integers(-128, 128, (5, d)), rng.integers(-128, 128, (3, d))
    a[0] = b[0] = -128
    given = [torch.from_numpy(x.astype(np.int8)) for x in (a, b)]
    np.testing.assert_array_equal(integers.integer_products(*given), a @ b.T)
    transposed = integers.integer_products(given[0], given[1].T.contiguous().T)
    np.testing.assert_array_equal(transposed, a @ b.T)


@pytest.mark.parametrize("wrong", [None, "saturates", "is missing"])
def test_costs_are_measured_and_only_exact_products_have_one(wrong, monkeypatch):
    def product(a, b):
        if wrong == "is missing":
            raise RuntimeError("not implemented")
        return (a.int() @ b.int()).clamp(-(2**15), 2**15 - 1)

    if wrong:
        monkeypatch.setattr(torch, "_int_mm", product)
    integers.exact.cache_clear()
    found = integers.costs_of.__wrapped__(CPU, 1)
    integers.exact.cache_clear()
    assert all(0 < value < 10 for value in (found.single, found.double))
    assert (found.integer == torch.inf) == bool(wrong)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e6])
def test_planes_and_the_rest_are_the_vectors(scale):
    x = scale * torch.randn(6, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[3] = 0.0
    unit = x.abs().amax(1, keepdim=True) / 127
    unit[3] = 1.0
    planes, left = split(x, unit, MOST)
    assert len(left) == MOST + 1
    rest = x.clone()
    for k, plane in enumerate(planes):
        torch.testing.assert_close(rest.norm(dim=1), left[k], rtol=1e-9, atol=1e-14 * scale)
        assert bool((rest.norm(dim=1) <= left[k]).all())
        rest -= plane.double() * unit * BASE**-k
    assert bool((rest.norm(dim=1) <= left[MOST]).all())
    assert bool((rest.abs() <= 0.51 * unit * BASE ** (1 - MOST)).all())


def pixels(kind, n=60, shape=(3, 4, 4), **options):
    """Pictures of 256 values, stored as floats in some way."""
    x = np.random.default_rng(0).integers(0, 256, (n, *shape))
    x.flat[:2] = 0, 255
    return ss.Bank.from_arrays(
        {
            "0 … 255": lambda: x.astype(np.float32),
            "−1 … 1": lambda: (x / 127.5 - 1).astype(np.float32),
            "0 … 1": lambda: (x / 255).astype(np.float32),
            "half": lambda: (x - 128).astype(np.float16),
            "even": lambda: (2 * (x // 2)).astype(np.float32),
            "two": lambda: np.where(x > 100, 7.0, -2.0).astype(np.float32),
        }[kind](),
        **options,
    )


@pytest.mark.parametrize("kind", ["0 … 255", "−1 … 1", "0 … 1", "half", "even", "two"])
@pytest.mark.parametrize("flips", [False, True])
def test_pictures_are_on_their_grid_however_they_are_stored(kind, flips):
    bank = pixels(kind, flips=flips)
    rows = ss.EmpiricalScore(bank, arithmetic="integers").engine.planes
    assert len(rows.planes) == 1
    assert rows.left[1] <= 1e-5 * bank.radius


def test_grids_of_any_step_are_found():
    rng = np.random.default_rng(0)
    for _ in range(40):
        low, step = rng.normal(0, 10), 10 ** rng.uniform(-2, 1)
        x = (low + step * np.append(rng.integers(0, 256, 62), [0, 255]).reshape(4, 16)).astype(np.float32)
        rows = ss.EmpiricalScore(ss.Bank.from_arrays(x), arithmetic="integers").engine.planes
        assert len(rows.planes) == 1, (low, step)


def test_8_bit_rows_are_on_their_grid_and_noise_is_not():
    for kind in ("bytes", "bytes black and white", "bytes constant", "bytes nearly white"):
        assert len(ss.EmpiricalScore(bank_of(kind, low=-3.0, high=4.0), arithmetic="integers").engine.planes.planes) == 1
    for kind in ("gauss", "half", "heavy", "far", "tiny"):
        assert len(ss.EmpiricalScore(bank_of(kind), arithmetic="integers").engine.planes.planes) == MOST
    beside = pixels("0 … 255", n=40_000)
    x = np.array(beside.rows)
    x[17, 0, 0, 0] = 0.4  # in a row that no sample needs to have
    x[23, 0, 0, 0] = 600.0
    rows = ss.EmpiricalScore(ss.Bank.from_arrays(x), arithmetic="integers").engine.planes
    assert len(rows.planes) == MOST


KINDS = ["bytes", "bytes black and white", "gauss", "half", "heavy", "far", "tiny", "spectrum"]


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("look", ["coarse", "fine"])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_as_near_as_they_say(kind, look, flips):
    """Those of single states, pairs and trajectories, but for what all rows of a state have in common."""
    bank = bank_of(kind, 80, flips=flips)
    truth, rng = ss.EmpiricalScore(bank, arithmetic="integers"), torch.Generator().manual_seed(0)
    shelf, t = truth.shelf, torch.tensor([0.05, 0.4, 0.8, 0.99], dtype=torch.float64)
    x = bank[np.arange(5)].flatten(1).double()
    eps = torch.randn(5, bank.d, dtype=torch.float64, generator=rng)
    z = (1 - t)[:, None] * x[:, None] + t[:, None] * eps[:, None]
    states = States.of(z.flatten(0, 1), t.repeat(5), truth.schedule, shelf.centre, shelf.reach)
    rows = bank[np.arange(len(bank))].flatten(1).double() - shelf.centre
    exact = states.slope[:, None] * (states.centred @ rows.T) - 0.5 * states.curve[:, None] * rows.square().sum(1)
    everyone = torch.arange(5)
    for family in (alone(states), pairs(x, eps, states, everyone), trajectories(states, 5, 1e-3 * states.norm)):
        logits = truth.engine.logits(family, None, look)
        for unit, dtype in ((U32, torch.float32), (U64, torch.float64)):
            found = torch.empty_like(exact)
            for tile in logits.products:
                for groups, part in logits.parts(len(tile.index)):
                    found[part, tile.index] = logits.of(tile, groups, dtype).double()
            off = found + states.shell[:, None] - exact
            common = 0.5 * (off.amax(1) + off.amin(1))
            error = logits.error(unit) + 1e-14 * exact.abs().amax(1)
            assert bool((off.sub(common[:, None]).abs().amax(1) <= error).all()), family.vectors.shape
    family = pairs(x, eps, states, everyone)  # of single states no more planes are made than these need
    finer = [float(truth.engine.logits(family, None, one).error(U64).max()) for one in ("coarse", "fine")]
    if "white" not in kind:  # whose states are as noisy, but rows have few values
        assert finer[0] > 20 * finer[1]


def test_the_nearest_row_is_told_where_all_weights_are_alike():
    rng = np.random.default_rng(0)
    for rows in (rng.integers(128, 256, (2000, 8, 8)).astype(np.uint8), rng.standard_normal((2000, 64)).astype(np.float32) + 3):
        bank, z = (
            ss.Bank.from_arrays(rows),
            torch.randn(100, *rows.shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
        )
        for t in (1 - 1e-5, 1 - 1e-7):
            found = ss.EmpiricalScore(bank, arithmetic="integers").posterior(z, t).top_index
            assert torch.equal(found, reference_posterior(bank, ss.LinearSchedule(), z, t).top_index)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("arithmetic", ["floats", "integers"])
def test_rows_that_are_all_one_picture_are_answered(count, arithmetic):
    """Their distance from their mean is 0, though not from the middle of their grid."""
    bank = ss.Bank.from_arrays(np.full((count, 1, 3, 5), 231, np.uint8))
    truth, x = ss.EmpiricalScore(bank, arithmetic=arithmetic), bank[np.arange(1)].double()
    for t in (0.0, 1e-9, 0.5, 1.0):
        for z in (x, x + 0.3, -x):
            post = truth.posterior(z, t)
            assert torch.equal(post.mean, x)
            assert float(post.error_bound[0]) < 1e-9


@pytest.mark.parametrize("kind", ["gauss", "bytes", "tiny"])
def test_as_many_planes_are_made_as_logits_need(kind):
    bank = bank_of(kind, 80)
    truth = ss.EmpiricalScore(bank, arithmetic="integers")
    t = torch.tensor([0.02, 0.4, 0.9, 0.999, 1 - 1e-7], dtype=torch.float64)
    z = (1 - t)[:, None] * bank[np.arange(5)].flatten(1) + t[:, None] * torch.randn(5, bank.d, generator=torch.Generator().manual_seed(0))
    family = alone(truth._states(z, t))
    rows, allowed = truth.engine.planes, 1e-4 / family.states.slope[:, None]
    levels = enough(family.vectors, allowed, rows)[:, 0].tolist()
    assert levels == sorted(levels, reverse=True)
    assert levels[-1] == 1
    assert levels[0] == MOST or kind == "tiny"
    for some, count in enumerate(levels):
        one = alone(family.states[slice(some, some + 1)])
        known = [IntegerProducts(one.vectors, torch.tensor([[n]]), True, rows, truth.shelf, None, 0).known for n in range(1, MOST + 1)]
        missed = [float((k.off + k.rest * truth.shelf.reach) / allowed[some]) for k in known]
        assert missed[count - 1] < 3 or count == MOST
        assert count == 1 or missed[count - 2] > 0.3


@pytest.mark.parametrize(("kind", "d"), [("gauss", 1), ("bytes black and white", 2)])
def test_bounds_of_few_values_are_nearly_reached_and_hold(kind, d):
    bank, rng = bank_of(kind, 200, (d,)), torch.Generator().manual_seed(0)
    truth = ss.EmpiricalScore(bank, arithmetic="integers")
    z, t = (torch.rand(2000, n, dtype=torch.float64, generator=rng) for n in (d, 1))
    states = truth._states(z, 0.4 + 0.6 * t[:, 0])
    logits, rows = truth.engine.logits(alone(states), None, "fine"), bank[np.arange(200)].double()
    (tile,) = logits.products
    found = torch.cat([logits.of(tile, groups, torch.float64).clone() for groups, _ in logits.parts(200)])
    exact = states.slope[:, None] * (states.centred @ rows.T) - 0.5 * states.curve[:, None] * rows.square().sum(1)
    off = found + states.shell[:, None] - exact
    share = 0.5 * (off.amax(1) - off.amin(1)) / logits.error(U64)
    assert 0.6 < float(share.max()) <= 1


@pytest.mark.parametrize("kind", ["bytes noise", "gauss"])
def test_kinds_of_products_may_be_mixed(kind, monkeypatch):
    """Where integers are somewhat faster than floats, some products are made of these and some of those."""
    monkeypatch.setattr(score, "costs_of", lambda *given: integers.Costs(1e-12, 2e-12, 3e-13))
    bank = bank_of(kind, 300, duplicates=3)
    truth, times = ss.EmpiricalScore(bank), torch.tensor([0.02, 0.3, 0.6, 0.8, 0.9, 0.97], dtype=torch.float64)
    z, t, names = states_of(bank, truth.schedule, times.tolist(), ["shell", "tie", "off", "mean"])
    agrees(truth.posterior(z, t), definition(bank, truth.schedule, z, t), bank, 1e-4, names)
    x, eps = bank[np.arange(3)], torch.randn(3, *bank.shape, generator=torch.Generator().manual_seed(0))
    path = (1 - times).view(-1, 1, 1, 1) * x[:, None] + times.view(-1, 1, 1, 1) * eps[:, None]
    for sweep in (truth.supervision_sweep(x, eps, times), truth.trajectory_sweep(path, times)):
        for k, post in sweep:
            agrees(post, definition(bank, truth.schedule, path[:, k].double(), times[k]), bank, 1e-4)
    made = {type(truth.engine.products(alone(truth._states(z.flatten(1), t)), None, look)) for look in ("coarse", "fine")}
    assert len(made) == 1 + (kind == "gauss")


def test_what_cannot_be(monkeypatch):
    monkeypatch.setattr(score, "exact", lambda device: False)
    with pytest.raises(InputError, match="no exact products of 8-bit integers here"):
        ss.EmpiricalScore(bank_of("bytes"), arithmetic="integers")
    with pytest.raises(InputError, match=r"no arithmetic 'digits'.*floats or integers"):
        ss.EmpiricalScore(bank_of("bytes"), arithmetic="digits")
