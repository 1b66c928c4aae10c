"""NearestRowsScore: an approximation of the empirical score by the k nearest rows, with what it misses.

The posterior mean of Eq. 2 is cut to the k rows that a faiss index finds nearest to z/α. With l_j = −(α/σ)²‖z/α − x_j‖²/2, relative to
the nearest row found, and W the sum of e^l over the rows found, the rows left out have the share M/(W + M) of the posterior, where

    a flat index    M ≤ (N − k) e^(l_k): no row left out is nearer than the k-th, up to the rounding of the search. This is a bound.
    any other       M is estimated by stratified sampling: of the rows left out, those nearest on the 45 principal axes are all
                    taken, and as many of the rest are drawn at random, each standing for its share of the rest. The estimate of M
                    is unbiased, that of the share nearly; its standard error is that of the random part. A row that the index, the
                    axes and the draw all passed over can still hold more: this is an estimate.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorescope import seeds
from scorescope.denoiser import Denoiser, Label, as_label
from scorescope.errors import InputError
from scorescope.rows import Bank
from scorescope.schedule import LinearSchedule, Schedule, Time, as_time
from scorescope.search.products import U32, U64
from scorescope.search.sketch import Sketches

BLOCK = 1 << 24  # values of rows that are read at a time
TRAINING = 50_000  # rows that train an index, if it needs training


@dataclass(frozen=True)
class NearestRows:
    """Posteriors of B states cut to the rows that were found; float64 on the CPU.

    Attributes:
        mean: (B, *shape) posterior mean among those rows.
        index: (B, k) the rows, nearest first; −1 where fewer were found.
        weight: (B, k) their weights, which sum to 1.
        missed: (B,) share of the posterior that the rows left out have: at most this where `is_bound`, else about this.
        standard_error: (B,) of `missed`; 0 where it is a bound.
        is_bound: Whether `missed` and `error_bound` are bounds.
        error_bound: (B,) upper bound on ‖mean − exact mean‖, in the data's units; NaN where there is none.
    """

    mean: Tensor
    index: Tensor
    weight: Tensor
    missed: Tensor
    standard_error: Tensor
    is_bound: bool
    error_bound: Tensor


class NearestRowsScore(Denoiser):
    """An approximate posterior mean, from the k nearest rows alone. The exact one is `EmpiricalScore`.

    Args:
        bank: The training set; its flips count as rows.
        schedule: α and σ of the states.
        k: Rows of each posterior.
        index: "Flat" (exact nearest rows, hence a bound), any other faiss factory string, or a faiss index that holds the stored rows
            in model space, flat and in their order, in the Euclidean metric.
        sample: Rows behind each estimate of the missed share, half of them chosen, half drawn.
        seed: Of the draws; a state's draw depends on the seed, the state and its time alone.

    Raises:
        InputError: faiss is missing, k below 1, an index of other rows.
    """

    def __init__(
        self, bank: Bank, schedule: Schedule | None = None, k: int = 64, *, index: Any = "Flat", sample: int = 256, seed: int = 0
    ) -> None:
        if k < 1 or sample < 4:
            raise InputError(f"k = {k} and sample = {sample} are too few rows", "k of at least 1, a sample of at least 4")
        self.bank, self.schedule, self.k, self.sample, self.seed = bank, schedule or LinearSchedule(), k, sample, seed
        self.faiss = _faiss()
        self.centre = torch.zeros(bank.d, dtype=torch.float64)
        self.index = self._built(index) if isinstance(index, str) else self._given(index)
        self.is_bound = isinstance(self.index, self.faiss.IndexFlat)
        # Only a flat index can be asked for the rows of one class.
        self.classes, self.shape = bank.classes if self.is_bound else 0, bank.shape
        self.name = f"nearest {k} rows"
        self.reach = 0.0
        self.sketches = None if self.is_bound else Sketches(bank, torch.device("cpu"))
        for start, stored in self._blocks():
            x = torch.from_numpy(bank.decode(stored)).flatten(1).double() - self.centre
            self.reach = max(self.reach, float(x.norm(dim=1).max()))
            if self.sketches is not None:
                self.sketches.take(start, stored)

    def _blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        step, n = max(16, BLOCK // self.bank.d), len(self.bank.rows)
        for start in range(0, n, step):
            yield start, self.bank.stored(start, min(start + step, n))

    def _built(self, recipe: str) -> Any:
        """A faiss index of the centred rows: norms fall, and with them rounding."""
        self.centre = self.bank.mean.flatten()
        try:
            index = self.faiss.index_factory(self.bank.d, recipe, self.faiss.METRIC_L2)
            if not index.is_trained:
                drawn = np.unique(np.linspace(0, len(self.bank.rows) - 1, TRAINING).astype(np.int64))
                index.train((self.bank[drawn].flatten(1).double() - self.centre).float().numpy())
            for _, stored in self._blocks():
                index.add((torch.from_numpy(self.bank.decode(stored)).flatten(1).double() - self.centre).float().numpy())
        except RuntimeError as problem:
            reason = str(problem).strip().splitlines()[-1]
            raise InputError(f"faiss can't build the index {recipe!r} of {self.bank!r}: {reason}", "'Flat', or 'IVF256,Flat'") from problem
        return index

    def _given(self, index: Any) -> Any:
        index = self.faiss.downcast_index(index)
        if index.d != self.bank.d or index.ntotal != len(self.bank.rows) or index.metric_type != self.faiss.METRIC_L2:
            raise InputError(
                f"the index holds {index.ntotal:,} vectors of {index.d} values, the bank {len(self.bank.rows):,} rows of {self.bank.d}",
                "an index of the bank's stored rows in the Euclidean metric",
            )
        if isinstance(index, self.faiss.IndexFlat):
            for row in np.unique(np.linspace(0, index.ntotal - 1, 16).astype(np.int64)).tolist():
                if not np.array_equal(index.reconstruct(row), self.bank[row].flatten().numpy()):
                    raise InputError(f"vector {row} of the index is not row {row} of the bank", "an index of the rows in model space")
        return index

    def forward(self, z: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Posterior mean among the nearest rows, in the dtype and on the device of z."""
        return self.posterior(z, t, label).mean.to(z)

    def posterior(self, z: Tensor, t: Time, label: Label = None) -> NearestRows:
        """The posterior of states z (B, *shape) at t (a number or (B,)) cut to their nearest rows, and the share that this misses.

        Raises:
            InputError: Shapes that do not match, t outside [0, 1], states that are not finite (named), a label without rows or with an
                index that is not flat.
        """
        if tuple(z.shape[1:]) != self.bank.shape:
            raise InputError(f"states of shape {tuple(z.shape[1:])} do not match the bank's rows {self.bank.shape}")
        flat, times = z.detach().cpu().double().reshape(len(z), self.bank.d), as_time(t).cpu()
        broken = (~flat.isfinite().all(1)).nonzero().flatten().tolist()
        if broken:
            raise InputError(f"states {', '.join(map(str, broken[:5]))} contain NaN or Inf ({len(broken)} of {len(z)})")
        times = times.expand(len(z)) if times.ndim == 0 else times
        if times.shape != (len(z),):
            raise InputError(f"t of shape {tuple(times.shape)} does not match {len(z)} states", "one number, or one for each state")
        tags = as_label(label, len(z), "cpu")
        if tags is not None and not self.is_bound:
            raise InputError("this index can't be asked for the rows of one class", "index='Flat', or a bank of that class")
        width = min(self.k, len(self.bank))
        result = NearestRows(
            mean=torch.zeros(len(z), self.bank.d, dtype=torch.float64),
            index=torch.full((len(z), width), -1, dtype=torch.int64),
            weight=torch.zeros(len(z), width, dtype=torch.float64),
            missed=torch.zeros(len(z), dtype=torch.float64),
            standard_error=torch.zeros(len(z), dtype=torch.float64),
            is_bound=self.is_bound,
            error_bound=torch.full((len(z),), torch.nan, dtype=torch.float64),
        )
        groups: list[tuple[int | None, Tensor]] = [(None, torch.arange(len(z)))]
        if tags is not None:
            groups = [(tag, torch.eq(tags, tag).nonzero()[:, 0]) for tag in tags.unique().tolist()]
        for tag, states in groups:
            wanted = self.bank.indices(tag)
            alpha, sigma, *_ = self.schedule(times[states])
            points = torch.where(alpha[:, None] > 0, flat[states] / alpha[:, None], self.centre)
            found, reported = self._search(points, None if tag is None else wanted)
            for state, point, ratio, rows, last in zip(states.tolist(), points, alpha / sigma, found, reported, strict=True):
                among = len(wanted) * (1 + self.bank.flips)
                self._answer(result, state, point, float(ratio), rows[rows >= 0], float(last), among)
        shaped = result.mean.reshape(z.shape)
        return NearestRows(shaped, result.index, result.weight, result.missed, result.standard_error, result.is_bound, result.error_bound)

    def _search(self, points: Tensor, wanted: np.ndarray | None) -> tuple[Tensor, Tensor]:
        """Rows (B, w) that faiss finds nearest among those wanted, −1 for none; the squared distance (B,) that it reports of the last."""
        n, options = len(self.bank.rows), {}
        if wanted is not None:
            n, options = len(wanted), {"params": self.faiss.SearchParameters(sel=self.faiss.IDSelectorBatch(wanted))}
        square, index = [], []
        for mirrored in (False, True) if self.bank.flips else (False,):
            side = points.reshape(-1, *self.bank.shape).flip(-1).flatten(1) if mirrored else points
            near, rows = self.index.search((side - self.centre).float().numpy(), min(self.k, n), **options)
            square.append(torch.from_numpy(np.where(rows < 0, np.inf, near)))
            index.append(torch.from_numpy(np.where(rows < 0, -1, rows + len(self.bank.rows) * mirrored)))
        best, place = torch.cat(square, 1).double().topk(min(self.k, n * len(square)), dim=1, largest=False)
        return torch.cat(index, 1).gather(1, place), best[:, -1]

    def _answer(self, result: NearestRows, state: int, point: Tensor, ratio: float, rows: Tensor, last: float, among: int) -> None:
        """Write the posterior of one state, with distances from direct differences in float64."""
        if not len(rows):  # An index may find nothing where it looks.
            result.mean[state], result.missed[state] = self.bank.mean.flatten(), 1.0
            return
        x = self.bank[rows].flatten(1).double()
        square, order = (point - x).square().sum(1).sort(stable=True)
        rows, x = rows[order], x[order]
        weight = _relative(square - square[0], ratio)
        result.mean[state] = (weight / weight.sum()) @ x
        result.index[state, : len(rows)], result.weight[state, : len(rows)] = rows, weight / weight.sum()
        if self.is_bound:
            # faiss sums float32 products: this is what its squared distances can be off.
            terms = (self.bank.d + 32) * U32
            off = 2 * terms / (1 - terms) * (float((point - self.centre).norm()) + self.reach) ** 2
            result.missed[state] = _largest_share(last - off - float(square[0]), ratio, among - len(rows), float(weight.sum()))
            spread = float((result.mean[state] - self.centre).norm()) + self.reach
            # Direct differences are rounded too: no weight is off by more than this factor.
            doubt = (
                (ratio**2 * (self.bank.d + 8) * U64 * (square + square[0])).clamp(max=50).expm1() if math.isfinite(ratio) else 0 * square
            )
            rounding = (result.weight[state, : len(rows)] * doubt * (x - result.mean[state]).norm(dim=1)).sum()
            result.error_bound[state] = result.missed[state] * spread + rounding + 16 * U64 * spread
        elif len(rows) < among:
            result.missed[state], result.standard_error[state] = self._estimate(point, ratio, rows, square)

    def _estimate(self, point: Tensor, ratio: float, rows: Tensor, square: Tensor) -> tuple[Tensor, Tensor]:
        """The share of all rows but `rows`, which are at squared distances `square`, and its standard error."""
        likely = self._likely(point, rows, min(len(self.bank) - len(rows), self.sample // 2))
        taken = np.concatenate([rows.numpy(), likely.numpy()])
        rest = len(self.bank) - len(taken)
        owner = hashlib.blake2b(point.numpy().tobytes() + np.float64(ratio).tobytes(), digest_size=7).digest()
        rng = seeds.generator(self.seed, "nearest-rows", int.from_bytes(owner, "little"))
        count = min(rest, self.sample - len(likely))
        drawn = rng.choice(len(self.bank), size=count + len(taken), replace=False)
        drawn = drawn[~np.isin(drawn, taken)][:count]
        chosen = self._squares(point, likely)
        random = self._squares(point, torch.from_numpy(drawn))
        # The index may have passed over rows nearer than all it found.
        nearest = torch.cat([square, chosen, random]).min()
        total, sure, value = (_relative(part - nearest, ratio) for part in (square, chosen, random))
        missed, error = sure.sum(), torch.zeros((), dtype=torch.float64)
        if count:
            missed = missed + rest * value.mean()
        if count > 1:
            error = rest * value.std() * math.sqrt((1 - count / rest) / count)
        whole = total.sum() + missed
        return missed / whole, error * total.sum() / whole**2

    def _likely(self, point: Tensor, rows: Tensor, count: int) -> Tensor:
        """The rows nearest to a point on the principal axes, but for `rows`; outside them a state is mostly noise."""
        assert self.sketches is not None
        own = self.sketches.axes.sketch(point[None])[0, :-1].float()
        apart = torch.cat([(side[:, :-1] - own).square().sum(1) for side in self.sketches.sides])
        apart[rows] = torch.inf
        return apart.topk(count, largest=False).indices

    def _squares(self, point: Tensor, rows: Tensor) -> Tensor:
        return (point - self.bank[rows].flatten(1).double()).square().sum(1)


def _relative(gap: Tensor, ratio: float) -> Tensor:
    """e^(−(α/σ)² gap/2) of squared distances less the nearest; at σ = 0 the nearest rows take all."""
    return (gap <= 0).double() if math.isinf(ratio) else torch.exp(-0.5 * ratio**2 * gap)


def _largest_share(gap: float, ratio: float, left: int, total: float) -> float:
    """Share of `left` rows, each at least `gap` further (squared) than the nearest of rows whose weights sum to `total`."""
    if not left:
        return 0.0
    if math.isinf(ratio):
        return 0.0 if gap > 0 else 1.0
    return float(torch.sigmoid(torch.tensor(math.log(left / total) - 0.5 * ratio**2 * gap, dtype=torch.float64)))


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as problem:
        raise InputError("NearestRowsScore needs faiss, which is not installed", "pip install 'scorescope[approximate]'") from problem
    return faiss
