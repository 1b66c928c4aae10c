"""The empirical score of a bank whose rows are shared among the processes of one `torchrun`.

    torchrun --nproc-per-node 4 script.py

    truth = ss.sharded_score(ss.Bank.open("photos.bank"))
    post = truth.posterior(z, t)

Each process opens the same bank and reads its own range of rows alone. Every process asks for the same states and gets the same answer,
in which indices are those of the whole bank. What the processes tell each other is a few numbers and one moment for each state; it passes
through the CPU's memory by gloo whatever the device, because gloo raises an error where a process is lost and NCCL aborts.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from contextlib import suppress
from datetime import timedelta
from itertools import count

import torch
import torch.distributed as dist
from torch import Tensor

from scorescope.empirical import EmpiricalScore
from scorescope.empirical.ranks import Alone, Ranks
from scorescope.empirical.score import free_memory
from scorescope.errors import InputError
from scorescope.rows import Bank
from scorescope.schedule import LinearSchedule, Schedule

TIMEOUT = 600.0  # seconds
VALUES = 1 << 20  # of what was given, that are compared at a time
WAIT = 5.0  # seconds for the other processes at the end of a program
MOMENT = 0.2  # seconds for gloo's threads to let go of what was asked last
PARTINGS = count()  # process groups that ended in this process


def sharded_score(
    bank: Bank,
    schedule: Schedule | None = None,
    tolerance: float = 1e-4,
    *,
    device: torch.device | str = "cpu",
    memory: int | None = None,
    timeout: float = TIMEOUT,
    arithmetic: str | None = None,
) -> EmpiricalScore:
    """The empirical score of `bank`, whose rows the processes share; that of one process alone where none were launched.

    To be called by every process, with the same bank, schedule and tolerance; so must be all methods of what it returns.

    Args:
        bank: The whole training set.
        schedule: As in `EmpiricalScore`.
        tolerance: As in `EmpiricalScore`.
        device: Where this process computes.
        memory: Bytes that may hold rows in this process; its part of a quarter of what is free unless given.
        timeout: Seconds after which a process that does not answer is given up.
        arithmetic: As in `EmpiricalScore`.

    Raises:
        InputError: As `EmpiricalScore`; processes with different banks, schedules or tolerances; a process that ended or hangs, at
            any later call too.
    """
    ranks, schedule = join(timeout), schedule or LinearSchedule()
    if memory is None and torch.device(device).type == "cpu":
        memory = free_memory(torch.device(device)) // 4 // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if not isinstance(ranks, Alone):
        content = torch.tensor(list(bank.fingerprint.encode()))
        times = schedule(torch.linspace(0.05, 0.95, 7, dtype=torch.float64))[:2]
        ranks.refuse_different("banks, schedules or tolerances", content, *times, torch.tensor(tolerance, dtype=torch.float64))
    return EmpiricalScore(bank, schedule, tolerance, device=device, memory=memory, ranks=ranks, arithmetic=arithmetic)


def join(timeout: float = TIMEOUT) -> Ranks:
    """The processes that `torchrun` launched, or those of the caller's own process group; this one alone where there are none.

    Raises:
        InputError: Processes that were launched and do not come within `timeout` seconds.
    """
    if not timeout > 0:
        raise InputError(f"timeout {timeout} must be more than 0 seconds", f"{TIMEOUT:g}")
    if not dist.is_available():
        return Alone()
    try:
        if not dist.is_initialized():
            if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
                return Alone()
            dist.init_process_group("gloo", timeout=timedelta(seconds=timeout))
            atexit.register(_end)
        return Processes(timeout) if dist.get_world_size() > 1 else Alone()
    except RuntimeError as problem:
        raise InputError(
            f"the ranks did not find each other within {timeout:g} seconds", "starting all of them by one torchrun"
        ) from problem


def leave() -> None:
    """End the process group together, if there is one: a rank that is gone while another still talks to it takes that one down."""
    if dist.is_available() and dist.is_initialized():
        _part(TIMEOUT)


def _end() -> None:
    """As `leave`, where the program ends without it: gloo aborts what ends in the middle. The others are not waited for long."""
    if dist.is_initialized():
        _part(0.0 if hasattr(sys, "last_type") else WAIT)  # an error of one's own is told at once


def _part(timeout: float) -> None:
    """Destroy the group once all have come here, or after so many seconds.

    They meet in the store and not at a barrier: to gloo a barrier is one more question, which lets go of those before it only when it is
    over itself, in gloo's own thread. What backward asked holds Python objects, which need the interpreter to go; one that is ending
    aborts the process instead (torch 2.13). So gloo's threads are left a moment to let go of the last question, too.
    """
    from torch.distributed.distributed_c10d import _get_default_store

    with suppress(RuntimeError):
        meeting, store = next(PARTINGS), _get_default_store()
        names = [f"scorescope end {meeting} {rank}" for rank in range(dist.get_world_size())]
        store.set(names[dist.get_rank()], "")
        if timeout:
            store.wait(names, timedelta(seconds=timeout))
            time.sleep(MOMENT)
    dist.destroy_process_group()


def digest(values: tuple[Tensor | None, ...]) -> Tensor:
    """One int64 that differs, as good as surely, between different values."""
    total = torch.zeros((), dtype=torch.int64, device=next(value.device for value in values if value is not None))
    for value in values:
        total = total * 1_000_003 + (-1 if value is None else value.numel())
        if value is None:
            continue
        for part in value.flatten().split(VALUES):
            bits = part.double().view(torch.int64)
            total = total * 1_000_003 + (bits * torch.arange(1, 2 * len(bits), 2, device=bits.device)).sum()
    return total


class Processes(Ranks):
    """The processes of the default group of `torch.distributed`; each holds a range of rows."""

    def __init__(self, timeout: float) -> None:
        from torch.distributed.distributed_c10d import _get_default_store

        self.rank, self.size, self.timeout = dist.get_rank(), dist.get_world_size(), timeout
        self.group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))
        # Where each process notes how many questions it has asked, so that those that lag behind can be named.
        self.store, self.asked = dist.PrefixStore(f"scorescope {self.group.group_name}", _get_default_store()), 0

    def share(self, rows: int) -> range:
        """Ranges that differ by one row at most."""
        return range(rows * self.rank // self.size, rows * (self.rank + 1) // self.size)

    def largest(self, x: Tensor) -> Tensor:
        """The largest over the processes, element by element; the same in all."""
        return self._reduced(x, dist.ReduceOp.MAX)

    def total(self, x: Tensor) -> Tensor:
        """The sum over the processes; the same in all."""
        return self._reduced(x, dist.ReduceOp.SUM)

    def refuse_different(self, what: str, *values: Tensor | None) -> None:
        """Raise `InputError` in all processes if one was given other values than the rest."""
        own = digest(values)
        most, least = self.largest(torch.stack([own, ~own]))
        if int(most) != ~int(least):
            raise InputError(f"the ranks were given different {what}", "the same on every rank, drawn with the same seed")

    def _reduced(self, x: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
        if not x.numel():
            return x
        answer = x.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        began = time.monotonic()
        self.asked += 1
        try:
            self.store.set(str(self.rank), str(self.asked))
            dist.all_reduce(answer, how, group=self.group)
        except RuntimeError as problem:
            raise self._lost(time.monotonic() - began) from problem
        return answer.to(x.device)

    def _lost(self, waited: float) -> InputError:
        """The error for a question that was not answered after `waited` seconds."""
        behind = ", ".join(map(str, self._behind()))
        who = f"one of the ranks {behind}" if "," in behind else f"rank {behind or 'that was asked'}"
        what = f"did not answer within {self.timeout:g} seconds" if waited >= 0.9 * self.timeout else "ended"
        return InputError(f"{who} {what} while rank {self.rank} waited for it", "the first error among those of all ranks; or more timeout")

    def _behind(self) -> list[int]:
        """The processes that have not come to the question that this one asks."""
        others = [rank for rank in range(self.size) if rank != self.rank]
        try:
            return [rank for rank in others if not self.store.check([str(rank)]) or int(self.store.get(str(rank))) < self.asked]
        except RuntimeError:  # The store went with the process that kept it.
            return []
