"""EmpiricalScore: the exact score of a whole training set as a Denoiser (Eq. 2), to a stated tolerance.

logit_j(z, t) = (α⟨z, x_j⟩ − α²‖x_j‖²/2)/σ², x̂* = Σ_j softmax_j(logit) x_j: attention with the training set as keys and values.

Fast arithmetic only lists rows: a first look knows every logit up to a proven error e, and rows whose logit is below the best by more than
2e + log(N/share dropped) can't matter and are dropped (`screen`). Where few rows are left, their logits are computed again from direct
differences in float64 (`settle`): near-ties decide the answer off the shells. Where many are left, all rows are summed, with rounding that
is bounded, and all in float64 where the bound is too wide (`sums`). Sweeps share the products over timesteps (`sweep`), and along a
training pair a row once dropped stays dropped (`walk`). `error_bound` is certain, and no setting of the caller's program (TF32, autocast)
can change it. Where the machine multiplies 8-bit integers faster than floats, planes of these take the place of float32 (`planes`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psutil
import torch
from torch import Tensor

from scorescope.convert import as_states
from scorescope.denoiser import Denoiser, Label, as_label
from scorescope.empirical.draw import draw
from scorescope.empirical.engine import Engine
from scorescope.empirical.integers import Costs, costs_of, exact
from scorescope.empirical.posterior import Posterior
from scorescope.empirical.ranks import Alone, Ranks
from scorescope.empirical.shelf import Shelf
from scorescope.empirical.states import States
from scorescope.empirical.sweep import PairSweep, Sweep, TrajectorySweep, sweep
from scorescope.errors import InputError
from scorescope.rows import Bank
from scorescope.schedule import Schedule, Time, as_schedule, as_time
from scorescope.search.products import full_precision
from scorescope.seeds import generator

COSTS = {"floats": Costs(1e-12, 2e-12, torch.inf), "integers": Costs(1e-12, 2e-12, 0.0)}
FREE = -1  # the class of what has none
QUERIES = 256  # states that share one pass over the rows
LEAST = 1e-100  # σ below which σ² leaves float64
MOST = 1e50  # values of states beyond which squares do
WIDEST = 1e18  # distances of rows from their mean beyond which squares leave float32
Make = Callable[[Tensor, int | None], Sweep]  # of some of the pairs or trajectories and their class


def free_memory(device: torch.device) -> int:
    """Bytes free on a device."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else int(psutil.virtual_memory().available)


class EmpiricalScore(Denoiser):
    """The posterior mean, and with it the score, of the empirical distribution of a bank.

    Args:
        bank: The training set; its flips count as rows.
        schedule: α and σ of the states.
        tolerance: Largest error of a posterior mean relative to its norm, or to the bank's root-mean-square radius where that is smaller
            (and never less than a thousandth of the radius). Float64 rounding on constructed ties may exceed it; `error_bound` tells.
        device: Where to compute.
        memory: Bytes that may hold rows; a quarter of what is free unless given. A bank that does not fit is read from disk in order.
        ranks: Processes among which the rows are shared: see `scorescope.distributed`.
        arithmetic: "floats", or "integers" for products of 8-bit integers where rows stay in memory; the faster one, by measurement,
            unless given. Both are as exact.
    """

    def __init__(
        self,
        bank: Bank,
        schedule: Schedule | None = None,
        tolerance: float = 1e-4,
        *,
        device: torch.device | str = "cpu",
        memory: int | None = None,
        ranks: Ranks | None = None,
        arithmetic: str | None = None,
    ) -> None:
        if not isinstance(bank, Bank):
            raise InputError(f"a {type(bank).__name__} is not a bank", "ss.Bank.open(folder), or ss.Bank.from_arrays(rows)")
        if not isinstance(tolerance, (int, float)) or not 0 < tolerance < 1:
            raise InputError(f"tolerance {tolerance!r} must lie between 0 and 1", "1e-5")
        if memory is not None and not isinstance(memory, int):
            raise InputError(f"a memory of {memory!r} is not a number of bytes", "2**30")
        if arithmetic not in (None, *COSTS):
            raise InputError(f"there is no arithmetic {arithmetic!r}", " or ".join(COSTS))
        if arithmetic == "integers" and not exact(torch.device(device)):
            raise InputError("PyTorch has no exact products of 8-bit integers here", "arithmetic='floats'")
        if not bank.radius * len(bank) ** 0.5 < WIDEST:
            raise InputError(f"rows {bank.radius:.2g} from their mean have squares beyond float32", "rows divided by their largest value")
        self.bank, self.schedule, self.tolerance = bank, as_schedule(schedule), tolerance
        self.classes, self.shape, self.name = bank.classes, bank.shape, "empirical score"
        self.device, self.memory = torch.device(device), memory
        self.ranks = ranks or Alone()
        room = free_memory(self.device) // 4 if memory is None else memory
        self.arithmetic, self.shelf = arithmetic, Shelf(bank, self.device, room, self.ranks)
        costs = COSTS[arithmetic] if arithmetic else costs_of(self.device, torch.get_num_threads())
        self.engine = Engine(self.shelf, tolerance, self.ranks, costs)

    NOT_IDENTITY = (*Denoiser.NOT_IDENTITY, "device", "memory", "ranks", "arithmetic", "shelf", "engine")

    def _states(self, flat: Tensor, times: Tensor) -> States:
        """States (B, d) at times (B,) as the engine takes them."""
        return States.of(flat.double(), times, self.schedule, self.shelf.centre, self.shelf.reach)

    def to(self, device: torch.device | str) -> EmpiricalScore:
        """The same score computed on another device, with the same memory if one was given."""
        options: dict[str, Any] = {"memory": self.memory, "ranks": self.ranks, "arithmetic": self.arithmetic}
        return EmpiricalScore(self.bank, self.schedule, self.tolerance, device=device, **options)

    @property
    def path(self) -> str:
        """Which ways have answered how many states since this score was made: "few rows, float64 differences: 163; …"."""
        return "; ".join(f"{way}: {count:,}" for way, count in self.engine.work.items() if count)

    def forward(self, z: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Posterior mean, in the dtype of z."""
        return self.posterior(z, t, label).mean.to(z)

    def posterior(self, z: Tensor, t: Time, label: Label = None) -> Posterior:
        """Everything about the posterior of states z (B, *shape) at t (a number or (B,)), among all rows or those of `label`.

        Raises:
            InputError: Shapes that do not match, t outside [0, 1], states that are not finite (named), a label without rows.
        """
        flat, times, tags = self._asked(z, t, label)
        result = Posterior.empty(len(z), self.bank.shape, self.device)
        with full_precision(self.device):
            for tag, wanted in _groups(tags, len(z), self.device):
                # States of like noise together: they go the same way.
                for part in wanted[torch.argsort(times[wanted], stable=True)].split(QUERIES):
                    self.engine.alone(self._states(flat[part], times[part]), tag).scatter_to(result, part)
        return result

    def sample(
        self, z: Tensor, t: Time, label: Label = None, *, seed: int = 0, items: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Rows drawn from the posterior: y ~ r_z of Eq. 7, r_z(y) ∝ exp(−‖z − αy‖²/(2σ²)), one for each state.

        Args:
            z: (B, *shape) states.
            t: Timestep, one number or (B,).
            label: None, a class, or (B,) classes, to whose rows the draw is confined; −1 for none.
            seed: Of all draws.
            items: (B,) numbers that own the randomness; 0 … B − 1 unless given. The same item draws the same row in any batch.

        Returns:
            The rows (B, *shape) float32 and their indices (B,); `N + i` is row i mirrored.

        Raises:
            InputError: As `posterior`.
        """
        flat, times, tags = self._asked(z, t, label, free=True)
        owners = range(len(z)) if items is None else items
        if len(owners) != len(z):
            raise InputError(f"{len(owners)} items do not match {len(z)} states", "one item for each state")
        try:
            drawn = [int(generator(seed, "draw", int(item)).integers(2**62)) for item in owners]
        except (TypeError, ValueError, OverflowError) as problem:
            raise InputError(f"seed {seed!r} or items are no whole numbers from 0 on ({problem})", "seed=0") from problem
        keys = torch.tensor(drawn, dtype=torch.int64, device=self.device)
        self.ranks.refuse_different("seeds or items", keys)
        index = torch.zeros_like(keys)
        with full_precision(self.device):
            order = torch.arange(len(z), device=self.device) if tags is None else torch.argsort(tags, stable=True)
            for part in order.split(QUERIES):
                # Sorted by class, those of one class follow each other.
                groups = _groups(None if tags is None else tags[part], len(part), self.device)
                parts = [(None if tag == FREE else tag, slice(int(which[0]), int(which[-1]) + 1)) for tag, which in groups]
                index[part] = draw(self.engine, self._states(flat[part], times[part]), keys[part], parts)
        return self.bank[index].to(self.device), index

    def rows(self, index: Tensor) -> Tensor:
        """Rows of the bank by index (B,), as they are: (B, *shape) float64."""
        return self.shelf.fetch(index).reshape(-1, *self.bank.shape)

    def supervision_sweep(self, x: Tensor, eps: Tensor, times: Tensor, label: Label = None) -> Iterator[tuple[int, Posterior]]:
        """Posteriors of training pairs at many timesteps: z = α x + σ ε.

        Args:
            x: (P, *shape) rows of the bank, or any points.
            eps: (P, *shape) noise.
            times: (T,) timesteps.
            label: None, a class, or (P,) classes.

        Yields:
            (k, posterior of the P pairs at times[k]), once for each k, in the order that suits the engine.

        Raises:
            InputError: As `posterior`.
        """
        flat, noise = (self._flat(v, name).double() for v, name in ((x, "x"), (eps, "eps")))
        if len(flat) != len(noise):
            raise InputError(f"{len(flat)} points x do not match {len(noise)} noises eps", "one noise for each point")
        order, ordered = self._order(times)
        self.ranks.refuse_different("points, noises or times", flat, noise, ordered)
        return self._sweep(
            len(flat), label, order, lambda which, tag: PairSweep(self.engine, self.schedule, flat[which], noise[which], ordered, tag)
        )

    def trajectory_sweep(self, z: Tensor, times: Tensor, label: Label = None) -> Iterator[tuple[int, Posterior]]:
        """Posteriors of the states of trajectories.

        Args:
            z: (P, T, *shape) states.
            times: (T,) their timesteps.
            label: None, a class, or (P,) classes.

        Yields:
            (k, posterior of the P states z[:, k]), once for each k, in the order that suits the engine.

        Raises:
            InputError: As `posterior`.
        """
        order, ordered = self._order(times)
        if as_states(z).ndim < 2 or z.shape[1] != len(order):
            raise InputError(f"states of shape {tuple(z.shape)} do not match {len(order)} times", "z of shape (P, T, *shape)")
        flat = self._flat(z.flatten(0, 1), "states", every=z.shape[1]).view(len(z), len(order), self.bank.d)[:, order]
        self.ranks.refuse_different("states or times", flat, ordered)
        return self._sweep(len(z), label, order, lambda which, tag: TrajectorySweep(self.engine, self.schedule, flat[which], ordered, tag))

    def _sweep(self, count: int, label: Label, order: Tensor, make: Make) -> Iterator[tuple[int, Posterior]]:
        """The sweeps of all classes side by side; what is wrong is said here, before the first step is asked for."""
        if not count or not len(order):
            return iter(())
        tags = as_label(label, count, self.device)
        self.ranks.refuse_different("labels", order, tags)
        for tag, _ in _groups(tags, count, self.device):
            self.bank.indices(tag)
        return self._steps(count, tags, order, make)

    def _steps(self, count: int, tags: Tensor | None, order: Tensor, make: Make) -> Iterator[tuple[int, Posterior]]:
        """The steps of a sweep whose input is sound."""
        with full_precision(self.device):
            steps = sweep(self.engine, [(which, make(which, tag)) for tag, which in _groups(tags, count, self.device)], count, order)
        while True:
            # The caller's own work between two timesteps keeps the caller's precision.
            with full_precision(self.device):
                step = next(steps, None)
            if step is None:
                return
            yield step

    def _asked(self, z: Tensor, t: Time, label: Label, free: bool = False) -> tuple[Tensor, Tensor, Tensor | None]:
        """States (B, d), their times (B,) and classes, or None; sound, and the same on every rank; −1 is no class if `free`."""
        flat = self._flat(z, "states")
        times = as_time(t).to(self.device)
        times = times.expand(len(z)) if times.ndim == 0 else times
        if times.shape != (len(z),):
            raise InputError(f"t of shape {tuple(times.shape)} does not match {len(z)} states", "one number, or one for each state")
        self._scales(times)
        tags = as_label(label, len(z), self.device)
        for tag, _ in _groups(tags, len(z), self.device):
            self.bank.indices(None if free and tag == FREE else tag)  # refuses a label without rows
        self.ranks.refuse_different("states, times or labels", flat, times, tags)
        return flat, times, tags

    def _order(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """The timesteps by falling σ/α, and their times in that order."""
        at = as_time(times).to(self.device).flatten()
        alpha, sigma = self._scales(at)
        order = torch.argsort(torch.where(alpha > 0, sigma / alpha.clamp(min=1e-300), torch.inf), descending=True, stable=True)
        return order, at[order]

    def _scales(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """α and σ at times (B,)."""
        alpha, sigma, *_ = self.schedule(times)
        tiny = times[(sigma > 0) & (sigma < LEAST)]
        if len(tiny):
            raise InputError(f"t = {float(tiny[0]):.3g} is too near 0: σ² is beyond float64", "t = 0, or a larger one")
        return alpha, sigma

    def _flat(self, z: Tensor, name: str, every: int = 1) -> Tensor:
        """States (B, d), finite and of the bank's shape; bad ones are named by their item, of `every` states each."""
        if tuple(as_states(z, f"the {name}").shape[1:]) != self.bank.shape:
            raise InputError(f"{name} of shape {tuple(z.shape[1:])} do not match the bank's rows {self.bank.shape}")
        flat = z.detach().to(self.device).reshape(len(z), self.bank.d)
        # A sum is finite only if all its terms are, and sooner made than they are looked at.
        broken = (~flat.sum(1).isfinite()).nonzero().flatten()
        broken = broken[~flat[broken].isfinite().all(1)]
        if len(broken):
            named = torch.div(broken, every, rounding_mode="floor").unique().tolist()
            raise InputError(f"{name} {', '.join(map(str, named[:5]))} contain NaN or Inf ({len(broken)} of {len(z)})")
        if flat.dtype == torch.float64 and len(flat) and float(flat.abs().amax()) > MOST:
            raise InputError(f"{name} reach {float(flat.abs().amax()):.2g}, whose square is beyond float64", "states of the rows' scale")
        return flat


def _groups(tags: Tensor | None, batch: int, device: torch.device) -> list[tuple[int | None, Tensor]]:
    """States by label: (label, their indices)."""
    if tags is None:
        return [(None, torch.arange(batch, device=device))]
    return [(int(tag), (tags == int(tag)).nonzero().flatten()) for tag in tags.unique().tolist()]
