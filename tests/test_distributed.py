"""Rows shared among processes: one answer, whatever their number; and one clear error where a process is lost."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import scorescope as ss
from scorescope.distributed import Processes
from scorescope.empirical import Posterior, reference_posterior, shelf

N, SHAPE = 241, (1, 4, 6)
TIMES = torch.tensor([0.0, 0.005, 0.05, 0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 1.0], dtype=torch.float64)
ENVIRONMENT = {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}


def bytes_bank() -> ss.Bank:
    """8-bit rows with flips; equal rows at both ends, and classes that lie with one rank alone."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (N, *SHAPE), dtype=np.uint8)
    x[-5:] = x[:5]
    return ss.Bank.from_arrays(x, np.sort(rng.integers(0, 4, N)), flips=True)


def float_bank() -> ss.Bank:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((N, *SHAPE)).astype(np.float32)
    x[-5:] = x[:5]
    return ss.Bank.from_arrays(x, rng.integers(0, 4, N))


BANKS = {
    "integers": (bytes_bank, 1e-4), "integers, of floats": (float_bank, 1e-4),
    "floats": (float_bank, 1e-8), "floats, float32 sums": (float_bank, 1e-4),
}  # fmt: skip


def states_of(bank: ss.Bank) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """(z, t, labels) on shells, far from them, and halfway between rows of different ranks; classes are those of rows far away."""
    rng = torch.Generator().manual_seed(2)
    first = torch.arange(0, 60, 5)
    second = N - 1 - first
    t = TIMES[(torch.arange(len(first)) + 8) % len(TIMES)].clamp(min=0.005)
    alpha, sigma, noise = (1 - t).view(-1, 1, 1, 1), t.view(-1, 1, 1, 1), torch.randn(len(first), *SHAPE, generator=rng)
    noise *= (noise[0].numel() / noise.square().sum((1, 2, 3), keepdim=True)).sqrt()  # exactly on the shells
    rows, others = bank[first].double(), bank[second].double()
    shell = alpha * rows + sigma * noise
    labels = torch.from_numpy(bank.labels)[second]
    return {
        "shell": (shell, t, labels),
        "far": (0.4 * noise.double(), t, labels),
        "tie": (alpha * (rows + others) / 2 + 1e-3 * sigma * noise, t, labels),
        "data": (rows + 1e-3 * noise, torch.zeros_like(t), labels),
    }


def answers(truth: ss.EmpiricalScore) -> dict[str, Posterior]:
    """All kinds of questions."""
    bank, found = truth.bank, {}
    for name, (z, t, labels) in states_of(bank).items():
        found[name] = truth.posterior(z, t)
        found[f"{name} of a class"] = truth.posterior(z, t, labels)
    rng = torch.Generator().manual_seed(3)
    x, eps = bank[torch.arange(0, 240, 40)], torch.randn(6, *SHAPE, generator=rng)
    x[5] += 0.2  # not a row
    eps[4] = 2 * (bank[10] - x[4])  # on the way to data another row, of another rank, stays nearer for long
    labels = torch.from_numpy(bank.labels)[torch.arange(0, 240, 40)]
    z = torch.stack([(1 - t) * x + t * eps for t in TIMES], 1) + 0.02 * torch.randn(6, 1, *SHAPE, generator=rng)
    for name, tags in (("", None), (" of a class", labels)):
        for k, post in truth.supervision_sweep(x, eps, TIMES, tags):
            found[f"pairs at {k}{name}"] = post
        for k, post in truth.trajectory_sweep(z[:, 1:], TIMES[1:], tags):
            found[f"trajectories at {k + 1}{name}"] = post
    return found


# ---- processes --------------------------------------------------------------------------------------------------------------


def launched(count: int, work: Callable[..., None], *args: object, within: float = 180.0) -> list[int]:
    """Exit codes of `count` ranks that each call work(rank, *args); those that take longer than `within` seconds are killed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.test_distributed"])
    began = time.monotonic()
    ranks = [context.Process(target=_as_rank, args=(rank, count, port, work, args)) for rank in range(count)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(max(0.0, began + within - time.monotonic()))
    for process in ranks:
        process.kill()
        process.join()
    return [process.exitcode or 0 for process in ranks]


def _as_rank(rank: int, count: int, port: int, work: Callable[..., None], args: tuple[object, ...]) -> None:
    os.environ.update(ENVIRONMENT, RANK=str(rank), WORLD_SIZE=str(count), MASTER_PORT=str(port))
    torch.set_num_threads(1)
    work(rank, *args)


def write_answers(rank: int, folder: Path) -> None:
    found = {}
    for name, (make, tolerance) in BANKS.items():
        truth = ss.sharded_score(make(), tolerance=tolerance, arithmetic=name.partition(",")[0])
        found[name] = {key: vars(post) for key, post in answers(truth).items()}
        z, t, _ = states_of(truth.bank)["shell"]
        found[name]["drawn"] = {"index": truth.sample(z, t, seed=4)[1]}
    torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module", params=[1, 2, 4])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of 1, 2, 4 ranks found."""
    folder = tmp_path_factory.mktemp("ranks")
    codes = launched(request.param, write_answers, folder)
    assert codes == [0] * request.param
    return [torch.load(folder / f"{rank}.pt") for rank in range(request.param)]


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Posterior]]:
    return {
        name: answers(ss.EmpiricalScore(make(), tolerance=tolerance, arithmetic=name.partition(",")[0]))
        for name, (make, tolerance) in BANKS.items()
    }


# ---- one answer -------------------------------------------------------------------------------------------------------------


def test_any_number_of_ranks_gives_the_answer_of_one_process(shared, alone):
    for name, expected in alone.items():
        bank = BANKS[name][0]()
        for key, exact in expected.items():
            found = Posterior(**shared[0][name][key])
            apart = (found.mean - exact.mean).flatten(1).norm(dim=1)
            assert bool((apart <= 1e-6 * bank.radius).all()), f"{name}, {key}: {apart}"
            for field in ("log_density", "entropy", "ess", "top_weight", "r_star"):
                torch.testing.assert_close(
                    getattr(found, field), getattr(exact, field), rtol=1e-6, atol=1e-6, msg=lambda m, n=(name, key, field): f"{n}: {m}"
                )
            # Sums tell equal rows apart by the last bit of their logits, or not at all.
            assert torch.equal(bank[found.top_index], bank[exact.top_index]), f"{name}, {key}"


def test_every_rank_gets_the_same_answer(shared):
    for other in shared[1:]:
        for name, found in shared[0].items():
            for key, values in found.items():
                assert all(torch.equal(values[field], other[name][key][field]) for field in values), f"{name}, {key}"


def test_bounds_hold_and_meet_the_tolerance(shared):
    for name, (make, tolerance) in BANKS.items():
        bank = make()
        for kind, (z, t, _) in states_of(bank).items():
            found, exact = Posterior(**shared[0][name][kind]), reference_posterior(bank, ss.LinearSchedule(), z, t)
            apart = (found.mean - exact.mean).flatten(1).norm(dim=1)
            assert bool((apart <= found.error_bound + 1e-13 * bank.radius).all()), f"{name}, {kind}"
            assert bool((found.error_bound <= (tolerance + 1e-7) * bank.radius).all()), f"{name}, {kind}"


def test_draws_do_not_depend_on_the_ranks(shared):
    for name, (make, tolerance) in BANKS.items():
        truth = ss.EmpiricalScore(make(), tolerance=tolerance, arithmetic=name.partition(",")[0])
        z, t, _ = states_of(truth.bank)["shell"]
        assert torch.equal(shared[0][name]["drawn"]["index"], truth.sample(z, t, seed=4)[1])


def test_one_of_equal_rows_on_different_ranks_is_the_first(shared):
    bank = BANKS["integers"][0]()
    found = Posterior(**shared[0]["integers"]["data"])
    assert np.array_equal(bank.rows[0], bank.rows[N - 5])
    assert found.top_index[0] == 0
    assert found.ess[0] == pytest.approx(2)


def few_rows(rank: int, folder: Path) -> None:
    bank = ss.Bank.from_arrays(np.arange(12, dtype=np.uint8).reshape(3, 4), np.array([0, 1, 1]))
    truth, z = ss.sharded_score(bank, tolerance=1e-8), torch.zeros(2, 4)
    posts = [truth.posterior(z, t, label) for t in (0.0, 0.01, 0.6, 1.0) for label in (None, 0, 1)]
    posts += [post for _, post in truth.supervision_sweep(bank[np.arange(2)], z + 0.1, TIMES)]
    torch.save([vars(post) for post in posts], folder / f"{rank}.pt")


def test_more_ranks_than_rows(tmp_path):
    codes = launched(4, few_rows, tmp_path)
    assert codes == [0] * 4
    several = torch.load(tmp_path / "3.pt")
    few_rows_alone = tmp_path / "alone"
    few_rows_alone.mkdir()
    few_rows(0, few_rows_alone)
    for found, exact in zip(several, torch.load(few_rows_alone / "0.pt"), strict=True):
        for field in ("mean", "log_density", "ess", "r_star", "top_index"):
            torch.testing.assert_close(found[field], exact[field], rtol=1e-9, atol=1e-9)


def crowd(rank: int, folder: Path) -> None:
    """More rows matter than one rank lists, and none of the other's."""
    rng = torch.Generator().manual_seed(5)
    x = 0.05 * torch.randn(2600, 2, generator=rng)
    x[1300:] += 50
    truth = ss.sharded_score(ss.Bank.from_arrays(x))
    torch.save(vars(truth.posterior(0.5 * x[:3] + 0.1, 0.5)), folder / f"crowd {rank}.pt")


def test_rows_that_crowd_on_one_rank(tmp_path):
    assert launched(2, crowd, tmp_path) == [0, 0]
    crowd(2, tmp_path)
    one, other, single = (torch.load(tmp_path / f"crowd {rank}.pt") for rank in range(3))
    assert single["ess"].min() > 1024
    for field, value in single.items():
        torch.testing.assert_close(one[field], value, rtol=1e-6, atol=1e-6)
        assert torch.equal(one[field], other[field])


def near_tie(rank: int, folder: Path) -> None:
    """Halfway between two rows with 4,096 values that lie with different ranks, at a noise of 0.001, but for a gap of 1."""
    x = torch.randn(8, 4096, generator=torch.Generator().manual_seed(6))
    truth, t = ss.sharded_score(ss.Bank.from_arrays(x), tolerance=1e-8), 1e-3
    first, last = x[0].double(), x[7].double()
    z = (1 - t) * (first + last) / 2 + t**2 / (1 - t) * (first - last) / (first - last).square().sum()
    torch.save(vars(truth.posterior(z[None], t)), folder / f"near tie {rank}.pt")


def test_near_ties_are_told_apart_across_ranks(tmp_path):
    assert launched(2, near_tie, tmp_path) == [0, 0]
    near_tie(2, tmp_path)
    found, single = (Posterior(**torch.load(tmp_path / f"near tie {rank}.pt")) for rank in (0, 2))
    assert found.top_weight[0].item() == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-9)
    assert found.top_index[0] == 0
    assert found.error_bound[0] < 2 * single.error_bound[0]


def read_own(rank: int, path: Path, folder: Path) -> None:
    read, real = [], os.preadv

    def preadv(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        got = real(descriptor, buffers, offset)
        read.append((offset, got))
        return got

    bank = ss.Bank.open(path)
    os.preadv = preadv
    try:
        truth = ss.sharded_score(bank, memory=4 << 20)
        truth.posterior(torch.zeros(3, *SHAPE), torch.tensor([0.05, 0.5, 0.9]))
    finally:
        os.preadv = real
    start, size = bank.rows.entry.offset, bank.rows.entry.nbytes // len(bank.rows)
    torch.save([((offset - start) // size, (offset + got - start) // size) for offset, got in read], folder / f"{rank}.pt")


def test_a_rank_reads_its_own_rows_alone(tmp_path):
    bank = bytes_bank().save(tmp_path / "x.bank")
    codes = launched(2, read_own, tmp_path / "x.bank", tmp_path)
    assert codes == [0, 0]
    half = len(bank.rows) // 2
    for rank, (first, last) in enumerate(((0, half), (half, N))):
        read = torch.load(tmp_path / f"{rank}.pt")
        assert (min(start for start, _ in read), max(stop for _, stop in read)) == (first, last)


# ---- faults -----------------------------------------------------------------------------------------------------------------


def differ(rank: int, what: str, folder: Path) -> None:
    bank = bytes_bank()
    try:
        truth = ss.sharded_score(bank, tolerance=1e-5 if (what, rank) == ("tolerances", 1) else 1e-4)
        z = torch.full((2, *SHAPE), 0.1)
        z[1, 0, 0, 0] += rank * (what == "states")
        truth.posterior(z, 0.5, 2 if (what, rank) == ("labels", 1) else None)
    except ss.InputError as problem:
        (folder / str(rank)).write_text(str(problem))
        raise SystemExit(2) from None


@pytest.mark.parametrize("what", ["tolerances", "states", "labels"])
def test_ranks_that_ask_differently_are_refused(tmp_path, what):
    codes = launched(2, differ, what, tmp_path)
    assert codes == [2, 2]
    for rank in range(2):
        assert "the ranks were given different" in (said := (tmp_path / str(rank)).read_text())
        assert what in said


def lose(rank: int, fault: str, folder: Path) -> None:
    truth = ss.sharded_score(bytes_bank(), timeout=2 if fault == "hang" else 60)
    z = torch.zeros(2, *SHAPE)
    truth.posterior(z, 0.5)
    if rank == 1:
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        while fault == "hang" and not (folder / "0").exists():
            time.sleep(0.1)
        return
    try:
        truth.posterior(z, 0.6)
    except ss.InputError as problem:
        (folder / str(rank)).write_text(str(problem))
        raise SystemExit(2) from None


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("kill", "rank 1 ended while rank 0 waited for it"),
        ("exit", "rank 1 ended while rank 0 waited for it"),
        ("hang", "rank 1 did not answer within 2 seconds"),
    ],
)
def test_a_lost_rank_ends_the_others_with_one_clear_error(tmp_path, fault, said):
    # Killed after 30 seconds, half the timeout where a rank has ended.
    codes = launched(2, lose, fault, tmp_path, within=30)
    assert codes[0] == 2
    assert said in (tmp_path / "0").read_text()


SCRIPT = """
import os, signal, torch, scorescope as ss
torch.manual_seed(0)
truth = ss.sharded_score(ss.Bank.from_arrays(torch.randn(50, 4)), timeout=60)
for step in range(1000):
    truth.posterior(torch.zeros(1, 4), 0.5)
    if step == 3 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_torchrun_ends_when_a_rank_is_killed(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", str(tmp_path / "script.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | ENVIRONMENT)
    assert done.returncode != 0
    assert "SIGKILL" in done.stderr


ENDS = """
import sys, torch, scorescope as ss
torch.manual_seed(0)
truth = ss.sharded_score(ss.Bank.from_arrays(torch.randn(50, 4)), timeout=60)
truth.posterior(torch.zeros(1, 4), 0.5)
if "fail" in sys.argv:
    raise ValueError("on purpose")
if "exit" in sys.argv:
    if truth.ranks.rank:
        truth.posterior(torch.zeros(1, 4), 0.5)
    sys.exit(3)
"""


@pytest.mark.parametrize("way", ["well", "fail", "exit"])
def test_a_script_ends_as_it_would_alone(tmp_path, way):
    """gloo's threads abort a process that ends without ending its group."""
    (tmp_path / "script.py").write_text(ENDS)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "3", "--standalone", str(tmp_path / "script.py"), way]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | ENVIRONMENT)
    assert (done.returncode == 0) == (way == "well"), done.stderr
    assert ("ValueError: on purpose" in done.stderr) == (way == "fail")
    assert "SIGABRT" not in done.stderr
    assert "terminate called" not in done.stderr


# ---- what the processes must decide alike, and know of each other ---------------------------------------------------------------


def ask_with_unequal_memory(rank: int, folder: Path) -> None:
    """The rows of rank 1 do not fit the memory that it may take."""
    shelf.LEAST = 4
    truth = ss.sharded_score(float_bank(), memory=2**20 if rank == 0 else 20_000, timeout=30)
    assert truth.shelf.resident == (rank == 0)
    z, t, _ = states_of(truth.bank)["shell"]
    torch.save(truth.posterior(z, t).mean, folder / f"{rank}.pt")


def test_a_rank_whose_rows_do_not_fit_is_asked_in_the_same_way(tmp_path):
    assert launched(2, ask_with_unequal_memory, tmp_path) == [0, 0]
    bank = float_bank()
    z, t, _ = states_of(bank)["shell"]
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), ss.EmpiricalScore(bank).posterior(z, t).mean, rtol=1e-6, atol=1e-6)


def hair_ties(seed: int) -> tuple[ss.Bank, Tensor, Tensor]:
    """Two rows, and states between them, nearer to one by a hair that weighs about as much as the noise."""
    rng = np.random.default_rng(seed)
    rows = (0.7 * 10.0 ** rng.integers(0, 3) + rng.standard_normal((2, 1))).astype(np.float32)
    t = torch.from_numpy(10 ** rng.uniform(-4, -1, 16))
    x, hair = torch.from_numpy(rows).double(), torch.from_numpy(rng.standard_normal((16, 1))) * t[:, None] ** 2
    hair /= (x[0] - x[1]).square().sum()
    return ss.Bank.from_arrays(rows), (1 - t)[:, None] * ((0.5 + hair) * x[0] + (0.5 - hair) * x[1]), t


def ask_hair_ties(rank: int, folder: Path) -> None:
    """With differences whose product is rounded by itself, as processors without fused operations do."""
    torch.addcmul = lambda x, a, b, *, value=1: x + value * a * b
    found = []
    for seed in range(40):
        bank, z, t = hair_ties(seed)
        post = ss.sharded_score(bank, arithmetic="floats", timeout=30).posterior(z, t)
        found.append((post.mean[:, 0], post.error_bound))
    torch.save(found, folder / f"{rank}.pt")


def test_the_bound_knows_that_each_process_rounds_its_own_peak(tmp_path):
    assert launched(2, ask_hair_ties, tmp_path) == [0, 0]
    for seed, (mean, bound) in enumerate(torch.load(tmp_path / "0.pt")):
        bank, z, t = hair_ties(seed)
        x, z, t = bank.rows.astype(np.longdouble)[:, 0], z.numpy().astype(np.longdouble), t.numpy().astype(np.longdouble)
        gap = (1 - t) * (x[1] - x[0]) * (2 * z[:, 0] - (1 - t) * (x[0] + x[1])) / (2 * t**2)  # of the second row's logit above the first's
        exact = x[0] + (x[1] - x[0]) / (1 + np.exp(-gap))
        off = 1e-15 * abs(x).max()  # of a float64 answer
        assert (abs(mean.numpy() - exact) <= bound.numpy() + off).all(), seed


GRADIENTS = """
import sys, torch, torch.distributed as dist
from scorescope.distributed import join, leave
sys.setswitchinterval(1000)  # another thread gets the interpreter where this one waits, and never else
ranks = join(60)
net = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 4))
for step in range(5):
    net(torch.randn(2, 4)).sum().backward()
dist.barrier()
leave()
"""


def test_gradients_that_gloo_still_holds_do_not_abort_the_end(tmp_path):
    """With a barrier in `leave` 7 of 16 such programs were aborted."""
    (tmp_path / "script.py").write_text(GRADIENTS)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", str(tmp_path / "script.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | ENVIRONMENT)
    assert done.returncode == 0, done.stderr


def test_without_torchrun_it_is_one_process(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    truth = ss.sharded_score(bytes_bank())
    assert not isinstance(truth.ranks, Processes)
    assert len(truth.shelf.own) == N
    with pytest.raises(ss.InputError, match="timeout 0"):
        ss.sharded_score(bytes_bank(), timeout=0)
