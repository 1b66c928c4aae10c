"""Laws of the engine: how partials merge, which rows may be dropped, and what must make no difference to the answer."""

from __future__ import annotations

import math
from dataclasses import fields
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import embedding_bag

import scorescope as ss
from scorescope.empirical import engine, moments, products, screen, settle, shelf
from scorescope.empirical.engine import FEW
from scorescope.empirical.family import alone
from scorescope.empirical.partial import Partial
from scorescope.empirical.products import FloatProducts, Logits
from scorescope.empirical.screen import Lists, Screen
from scorescope.empirical.states import States
from scorescope.empirical.walk import Walk, level
from tests.definition import agrees, bank_of, definition, partial_of, states_of

KINDS = ["shell", "tie", "near tie", "off", "mean", "outside"]
TIMES = [0.001, 0.02, 0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 1.0]


# ---- partials -----------------------------------------------------------------------------------------------------------------


def part_of(seed, n, shift, spread=30.0, index=0):
    """A partial of n rows, with doubts, for three states; of none for n = 0."""
    if not n:
        return Partial.nothing(3, 2, "cpu")
    rng = torch.Generator().manual_seed(seed)
    logit = spread * torch.randn(3, n, generator=rng, dtype=torch.float64) + shift
    x = torch.randn(n, 2, generator=rng, dtype=torch.float64)
    part = partial_of(logit, x, torch.arange(index, index + n))
    part.ratio = torch.rand(3, generator=rng, dtype=torch.float64) + 0.5
    return part


def same(a, b, names):
    for name in names:
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-11, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")


EVERY = [field.name for field in fields(Partial)]

parts = st.tuples(st.integers(0, 10_000), st.sampled_from([0, 0, 1, 5]), st.sampled_from([-1e9, -800.0, -3.0, 0.0, 2.0, 900.0]))


@settings(max_examples=150, deadline=None)
@given(parts, parts, parts)
def test_merging_is_commutative_and_associative_and_has_a_neutral_element(one, two, three):
    a, b, c = (part_of(*given_, index=100 * k) for k, given_ in enumerate((one, two, three)))
    same(a.merge(b), b.merge(a), EVERY)
    same(a.merge(b).merge(c), a.merge(b.merge(c)), EVERY)
    same(a.merge(Partial.nothing(3, 2, "cpu")), a, EVERY)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 9), st.floats(0.01, 40))
def test_the_error_of_merged_partials_is_still_a_bound(seed, n, spread):
    """Weights that are off by known amounts: the mean of the wrong ones is off by no more than the merged error says."""
    rng = torch.Generator().manual_seed(seed)
    logit = spread * torch.randn(1, n, generator=rng, dtype=torch.float64)
    x = torch.randn(n, 2, generator=rng, dtype=torch.float64)
    wrong = 1e-4 * torch.randn(1, n, generator=rng, dtype=torch.float64)
    cut = n // 2
    whole = Partial.nothing(1, 2, "cpu")
    for rows in (slice(0, cut), slice(cut, n)):
        part = partial_of((logit + wrong)[:, rows], x[rows], torch.arange(n)[rows])
        weight = ((logit + wrong)[:, rows] - part.peak[:, None]).exp()
        off = weight * torch.expm1(wrong[:, rows].abs())
        mean = part.moment / part.mass[:, None]
        part.doubt, part.error = off.sum(1), (off * (x[rows] - mean).norm(dim=1)).sum(1)
        whole = whole.merge(part)
    exact = torch.softmax(logit, 1) @ x
    assert float((whole.moment / whole.mass[:, None] - exact).norm()) <= float(whole.error / whole.mass) * 1.001 + 1e-14


# ---- which rows may be dropped ------------------------------------------------------------------------------------------------

numbers = st.floats(-50, 50, allow_subnormal=False)


@settings(max_examples=300, deadline=None)
@given(st.floats(0, 1e4), numbers, st.floats(1e-3, 1e3), st.floats(1, 1e3), st.floats(0, 100))
def test_a_gap_once_reached_is_kept(far, lean, u, factor, least):
    """gap(u₀) ≥ L ≥ 0 implies gap(u) ≥ L for every u ≥ u₀."""
    gap, later = (v * (v * far / 2 + lean) for v in (u, u * factor))
    assert gap < least or later >= least * (1 - 1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.floats(0.2, 3.0), st.floats(0.02, 2.0))
def test_a_walk_drops_no_row_that_matters_later(seed, d, size, spread):
    """From the first timestep of the walk on, every row within the margin and the one nearest to the shell are among those kept."""
    rng = np.random.default_rng(seed)
    rows = (spread * rng.standard_normal((40, d))).astype(np.float32)
    bank = ss.Bank.from_arrays(rows)
    truth = ss.EmpiricalScore(bank)
    margin, _ = truth.engine.margin(None)
    x = bank[np.arange(3)].double()
    eps = size * torch.from_numpy(rng.standard_normal((3, d)))
    ratios = torch.linspace(0.5, 12, 9, dtype=torch.float64) ** 2
    sigma = 1 / (1 + ratios)
    far = (x[:, None] - torch.from_numpy(rows).double()).square().sum(2)
    lean = (eps[:, None] * (x[:, None] - torch.from_numpy(rows).double())).sum(2)
    levels = level(eps, margin)
    walk = Walk(x, eps, levels, truth.shelf)
    first = float(ratios[0]) * (float(ratios[0]) * far / 2 + lean)
    pair, row = (first <= levels[:, None]).nonzero(as_tuple=True)
    walk.enter(torch.arange(3), pair, row, far[pair, row], lean[pair, row])
    for start in range(0, len(ratios), 3):
        part = slice(start, start + 3)
        found = walk.posterior(1 - sigma[part], sigma[part])
        kept = {(int(p), int(r)) for p, r in zip(walk.pair, walk.row, strict=True)}
        for u in ratios[part].tolist():
            gap = u * (u * far / 2 + lean)
            away = (((eps.square().sum(1)[:, None] + 2 * gap).clamp(min=0) / d).sqrt() - 1).abs()
            for p in range(3):
                wanted = (gap[p] <= margin).nonzero().flatten().tolist()
                assert {(p, r) for r in wanted} <= kept
                assert min(float(away[p, r]) for q, r in kept if q == p) <= float(away[p].min()) + 1e-9
        u = ratios[part, None, None]
        exact = torch.softmax(-u * (u * far / 2 + lean), 2).movedim(0, 1) @ torch.from_numpy(rows).double()
        mean = found.moment.view(3, 3, d) / found.mass.view(3, 3, 1) + truth.shelf.centre
        assert float((mean - exact).norm(dim=2).max()) <= 80 * math.exp(-margin) * truth.shelf.reach + 1e-12


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from(["bytes", "bytes noise", "bytes constant", "bytes nearly white", "gauss", "heavy", "far", "tiny", "spectrum"]),
    st.sampled_from(KINDS),
    st.sampled_from([0.0, *TIMES]),
    st.booleans(),
    st.floats(1.0, 40.0),
)
def test_nomination_misses_no_row_that_matters(seed, kind, state, t, flips, apart):
    """Every row within the margin of the best, and the one nearest to the shell, is listed; or the state is named as one of many."""
    if t == 0 and "tie" in state:
        return
    for few in (FEW, 6):
        with patch.object(screen, "ROOM", 2 if few < FEW else screen.ROOM):
            for arithmetic, look in (("floats", "coarse"), ("integers", "coarse")):
                bank = bank_of(kind, 120, (1, 3, 4), seed=seed, flips=flips)
                misses_nothing(ss.EmpiricalScore(bank, arithmetic=arithmetic), look, [state], [t] * 3, seed, apart, few)


def misses_nothing(truth, look, kinds, times, seed, apart, few):
    """What products of a kind list of states at `times` holds to the law."""
    bank = truth.bank
    z, times, names = states_of(bank, truth.schedule, times, kinds, seed)
    states = States.of(z.flatten(1), times, truth.schedule, truth.shelf.centre, truth.shelf.reach)
    margin = torch.where(states.at_data, 0.0, torch.tensor(apart, dtype=torch.float64))
    found = Screen(truth.engine.logits(alone(states), None, look), margin, few, truth.engine.ranks).run()
    rows = bank[np.arange(len(bank))].flatten(1).double()
    square = (z.flatten(1)[:, None] - states.alpha[:, None, None] * rows).square().sum(2)
    logit = -0.5 * states.precision[:, None] * square
    for q, name in enumerate(names):
        at_data = bool(states.at_data[q])
        floor = 1e-13 * float(states.precision[q] * square[q].max())
        if not found.many[q]:
            listed = set(found.row[found.state == q].tolist())
            wanted = (logit[q] >= logit[q].max() - float(margin[q]) + floor).nonzero().flatten().tolist()
            wanted += [int(logit[q].argmax())]
            assert set(wanted) <= listed, name
        if not found.many_near[q] and not at_data:
            away = (square[q].sqrt() / (float(states.sigma[q]) * math.sqrt(bank.d)) - 1).abs()
            listed = found.near_row[found.near_state == q]
            assert len(listed), name
            assert float(away[listed].min()) <= float(away.min()) * (1 + 1e-9) + 1e-12, name


def test_rows_that_come_before_the_best_do_not_fill_its_list(monkeypatch):
    """Lists say little until the best row is seen; were a full list given up, all such states would ask all rows."""
    rng, n, few = np.random.default_rng(0), 9000, 24
    x = rng.standard_normal((n, 1, 8, 8)).astype(np.float32)
    x *= 32 / np.linalg.norm(x.reshape(n, -1), axis=1)[:, None, None, None]
    x[n - 20 :] /= 8  # the last rows are the states' own
    bank = ss.Bank.from_arrays(x)
    monkeypatch.setattr(screen, "ROOM", 2)
    monkeypatch.setattr(shelf, "BLOCK", 1000 * bank.d)
    truth = ss.EmpiricalScore(bank)
    t = torch.full((20,), 0.2, dtype=torch.float64)
    z = 0.8 * bank[np.arange(n - 20, n)].double() + 0.2 * torch.from_numpy(rng.standard_normal((20, *bank.shape)))
    states = States.of(z.flatten(1), t, truth.schedule, truth.shelf.centre, truth.shelf.reach)
    family = alone(states)
    once = FloatProducts(family.vectors, False, truth.shelf, None, memory=0)  # rows are looked at once
    look = Screen(Logits(family, once), torch.full_like(t, 3000.0), few, truth.engine.ranks)
    found = look.run()
    assert not bool(found.many.any())
    assert bool((torch.bincount(found.state, minlength=20) >= 1).all())
    assert set(range(n - 20, n)) <= set(found.row.tolist())
    assert bool((look.lists.dropped > -torch.inf).any())  # or the lists were never full


# ---- what must make no difference ---------------------------------------------------------------------------------------------


def asked(truth, seed=0):
    """Answers to all kinds of questions, and what each is called."""
    z, t, names = states_of(truth.bank, truth.schedule, TIMES, KINDS, seed)
    return truth.posterior(z, t), names


def alike(one, other, names, scale, tolerance=1e-9):
    """Within the bounds; and to 1e-9 where float64 decides."""
    apart = (one.mean - other.mean).flatten(1).norm(dim=1)
    for k, name in enumerate(names):
        assert apart[k] <= one.error_bound[k] + other.error_bound[k], name
        if tolerance is not None:
            assert apart[k] <= tolerance * scale, name
    torch.testing.assert_close(one.r_star, other.r_star, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(one.log_density, other.log_density, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize(("kind", "tolerance"), [("bytes noise", 1e-4), ("bytes noise", 1e-8), ("gauss", 1e-4)])
def test_block_sizes_do_not_matter(kind, tolerance, flips, monkeypatch):
    bank = bank_of(kind, 500, flips=flips, duplicates=6)
    one, names = asked(ss.EmpiricalScore(bank, tolerance=tolerance))
    for module in (products, settle):
        monkeypatch.setattr(module, "VALUES", 1 << 13)
    monkeypatch.setattr(moments, "RUN", 29)
    monkeypatch.setattr(shelf, "BLOCK", 67 * bank.d)
    monkeypatch.setattr(shelf, "LEAST", 67)
    other, _ = asked(ss.EmpiricalScore(bank, tolerance=tolerance))
    alike(one, other, names, bank.radius, None if tolerance > 1e-6 else 1e-9)


def test_devices_that_wait_between_steps_take_what_their_memory_holds():
    shelf = ss.EmpiricalScore(bank_of("gauss", 20, (1, 4, 4)), memory=2**34).shelf
    assert shelf.at_once(1000) == 1000
    shelf.device = torch.device("cuda")
    assert shelf.at_once(1000) == 2**26
    assert shelf.at_once(2**30) == 2**30


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("kind", ["bytes noise", "gauss"])
def test_the_memory_budget_does_not_matter(kind, flips, monkeypatch):
    bank = bank_of(kind, 900, (1, 4, 4), flips=flips, labels=np.arange(900) % 3)
    roomy = ss.EmpiricalScore(bank)
    one, names = asked(roomy)
    monkeypatch.setattr(shelf, "LEAST", 4)
    tight = ss.EmpiricalScore(bank, memory=2 * 16 * 900 + 4 * 16 * 64)
    assert roomy.shelf.resident
    assert not tight.shelf.resident
    other, _ = asked(tight)
    alike(one, other, names, bank.radius, None)


def test_too_little_memory_says_the_least_that_works():
    bank = bank_of("bytes", 100)
    with pytest.raises(ss.InputError, match=r"memory of 10 bytes is too little .* at least \d+ MiB"):
        ss.EmpiricalScore(bank, memory=10)


@pytest.mark.parametrize("kind", ["bytes noise", "gauss"])
def test_the_company_in_a_batch_does_not_matter(kind):
    bank = bank_of(kind, 400)
    truth = ss.EmpiricalScore(bank)
    z, t, names = states_of(bank, truth.schedule, TIMES, KINDS)
    together = truth.posterior(z, t)
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(0))
    shuffled = truth.posterior(z[order], t[order])
    alike(together[order], shuffled, [names[k] for k in order], bank.radius, None)
    lone = ss.empirical.Posterior.cat([truth.posterior(z[k : k + 1], t[k : k + 1]) for k in range(len(z))])
    alike(together, lone, names, bank.radius, None)


@pytest.mark.parametrize("kind", ["bytes noise", "gauss"])
def test_rows_may_come_in_any_order(kind):
    bank = bank_of(kind, 400)
    order = np.random.default_rng(0).permutation(400)
    shuffled = ss.Bank.from_arrays(bank.rows[order])
    truth = ss.EmpiricalScore(bank)
    z, t, names = states_of(bank, truth.schedule, TIMES, KINDS)
    one, other = truth.posterior(z, t), ss.EmpiricalScore(shuffled).posterior(z, t)
    alike(one, other, names, bank.radius, None)
    clear = one.top_weight > 0.6
    assert torch.equal(one.top_index[clear], torch.from_numpy(order)[other.top_index[clear]])


@pytest.mark.parametrize("n", [12, 300])
@pytest.mark.parametrize("kind", ["bytes noise", "gauss"])
def test_how_classes_are_strewn_among_the_rows_does_not_matter(kind, n):
    """The engine sorts rows by class; every row must still be found under its own index."""
    rng = np.random.default_rng(0)
    for labels in (np.arange(n) % 2, np.arange(n) % 3, rng.integers(0, 4, n), np.sort(rng.integers(0, 3, n)), np.arange(n)[::-1] % 2):
        bank = bank_of(kind, n, labels=labels)
        post = ss.EmpiricalScore(bank).posterior(0.9 * bank[np.arange(n)], 0.1)
        assert post.top_index.tolist() == list(range(n))
        agrees(post, definition(bank, ss.LinearSchedule(), 0.9 * bank[np.arange(n)], 0.1), bank, 1e-4)


def test_flips_are_a_bank_of_rows_and_mirror_images():
    bank = bank_of("bytes noise", 200, flips=True)
    both = ss.Bank.from_arrays(np.concatenate([bank.rows, bank.rows[..., ::-1]]))
    truth = ss.EmpiricalScore(bank)
    z, t, names = states_of(bank, truth.schedule, TIMES, KINDS)
    one, other = truth.posterior(z, t), ss.EmpiricalScore(both).posterior(z, t)
    alike(one, other, names, bank.radius, None)
    clear = one.top_weight > 0.6
    assert torch.equal(one.top_index[clear], other.top_index[clear])


# ---- the caller's own settings ------------------------------------------------------------------------------------------------


def legacy():
    torch.set_float32_matmul_precision("medium")
    return lambda: torch.set_float32_matmul_precision("highest"), torch.get_float32_matmul_precision


def setting(owner, value):
    """A setting of one of torch's newer precision switches."""

    def change():
        before = owner.fp32_precision
        owner.fp32_precision = value

        def undo():
            owner.fp32_precision = before
            torch.set_float32_matmul_precision("highest")  # else torch finds that old and new switches are mixed

        return undo, lambda: owner.fp32_precision

    return change


def default_dtype(dtype):
    def change():
        torch.set_default_dtype(dtype)
        return lambda: torch.set_default_dtype(torch.float32), torch.get_default_dtype

    return change


def deterministic():
    torch.use_deterministic_algorithms(True)
    return lambda: torch.use_deterministic_algorithms(False), torch.are_deterministic_algorithms_enabled


def autocast():
    context = torch.autocast("cpu", torch.bfloat16)
    context.__enter__()
    return lambda: context.__exit__(None, None, None), lambda: torch.is_autocast_enabled("cpu")


SETTINGS = {"medium": legacy, "autocast": autocast, "deterministic": deterministic}
SETTINGS |= {f"default {dtype}": default_dtype(dtype) for dtype in (torch.float64, torch.bfloat16)}
if hasattr(torch.backends.mkldnn, "matmul") and hasattr(torch.backends.mkldnn.matmul, "fp32_precision"):
    SETTINGS |= {
        "mkldnn.matmul bf16": setting(torch.backends.mkldnn.matmul, "bf16"),
        "mkldnn.matmul tf32": setting(torch.backends.mkldnn.matmul, "tf32"),
        "cuda.matmul tf32": setting(torch.backends.cuda.matmul, "tf32"),
        "all backends tf32": setting(torch.backends, "tf32"),
    }


@pytest.mark.parametrize("kind", ["bytes noise", "gauss"])
@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_the_callers_program_change_nothing_and_are_kept(name, kind):
    bank = bank_of(kind, 300)
    z, t, _ = states_of(bank, ss.LinearSchedule(), TIMES, KINDS)
    x, eps, times = bank[np.arange(3)], z[:3], torch.linspace(0, 1, 12, dtype=torch.float64)
    truth = ss.EmpiricalScore(bank)
    expected, swept = truth.posterior(z, t), dict(truth.supervision_sweep(x, eps, times))
    undo, read = SETTINGS[name]()
    try:
        before = read()
        truth = ss.EmpiricalScore(bank)
        found = truth.posterior(z, t)
        assert read() == before
        again = {}
        for k, post in truth.supervision_sweep(x, eps, times):
            assert read() == before, "the caller's own work between two timesteps keeps the caller's settings"
            again[k] = post
    finally:
        undo()
    for field in fields(found):
        assert torch.equal(getattr(found, field.name), getattr(expected, field.name)), field.name
        for k in range(len(times)):
            assert torch.equal(getattr(again[k], field.name), getattr(swept[k], field.name)), f"{field.name} of the sweep"


def test_inference_mode_leaves_nothing_that_later_calls_trip_over():
    bank = bank_of("bytes noise", 200)
    truth = ss.EmpiricalScore(bank)
    z, t, _ = states_of(bank, truth.schedule, TIMES, KINDS)
    with torch.inference_mode():
        inside = truth.posterior(z, t).mean.clone()
    assert torch.equal(truth.posterior(z, t).mean, inside)


def test_answers_do_not_change_what_was_asked():
    bank = bank_of("bytes noise", 200)
    truth = ss.EmpiricalScore(bank)
    z, t, _ = states_of(bank, truth.schedule, TIMES, KINDS)
    kept = z.clone(), t.clone(), bank.rows.copy()
    truth.posterior(z, t)
    list(truth.supervision_sweep(z[:2], z[2:4], t[:8]))
    list(truth.trajectory_sweep(z[:16].reshape(2, 8, *bank.shape), t[:8]))
    assert torch.equal(z, kept[0])
    assert torch.equal(t, kept[1])
    assert np.array_equal(bank.rows, kept[2])


def test_the_definition_is_the_definition():
    """Against two rows worked out by hand, so that the other tests do not rest on a mistake in what they compare with."""
    bank = ss.Bank.from_arrays(np.array([[0.0], [1.0]], np.float32))
    exact = definition(bank, ss.LinearSchedule(), torch.tensor([[0.3]], dtype=torch.float64), 0.5)
    weight = 1 / (1 + math.exp(-(0.3**2 - 0.2**2) / (2 * 0.25)))
    assert float(exact.mean) == pytest.approx(weight)
    assert float(exact.ess) == pytest.approx(1 / (weight**2 + (1 - weight) ** 2))
    assert float(exact.r_star) == pytest.approx(0.6)


def test_of_tiles_where_few_rows_hold_the_weight_these_alone_are_gathered(monkeypatch, each_arithmetic):
    """More rows matter than are settled one by one, and fewer than are worth a product: sums gather them, and their bound holds."""
    gathered = []

    def counted(index, rows, *args, **kwargs):
        gathered.append(len(index))
        return embedding_bag(index, rows, *args, **kwargs)

    monkeypatch.setattr(moments, "embedding_bag", counted)
    monkeypatch.setattr(engine, "AT_ONCE", 0)
    for kind in ("bytes", "spectrum"):
        bank = bank_of(kind, 4000, flips=kind == "bytes")
        t = torch.linspace(0.1, 0.9, 33, dtype=torch.float64).repeat_interleave(3)
        z = torch.lerp(bank[torch.arange(99)].double(), torch.randn(99, *bank.shape, dtype=torch.float64), t[:, None, None, None])
        gathered.clear()
        truth = ss.EmpiricalScore(bank)
        agrees(truth.posterior(z, t), definition(bank, ss.LinearSchedule(), z, t), bank, 1e-4)
        assert sum(gathered) > 100, truth.path


def test_lists_that_stay_long_are_not_sorted_at_every_block(monkeypatch):
    lists, sorted_ = Lists(4, 8, False, False, torch.device("cpu")), []
    gather = Lists.gather
    monkeypatch.setattr(Lists, "gather", lambda self, *least: (sorted_.append(1), gather(self, *least)))
    least, states = torch.full((4,), -torch.inf), torch.arange(4)
    for block in range(9):
        rows = torch.arange(8) if not block else torch.tensor([7 + block])
        lists.add(torch.full((4, len(rows)), float(block)), least, states, rows)
    assert len(sorted_) == 1
    lists.gather(torch.full((4,), 8.0))
    assert lists.row.tolist() == [15] * 4
