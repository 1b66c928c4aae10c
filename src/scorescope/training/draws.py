"""Whose clean point a state is given as its target, when that is not the one that made it: y ~ r_z of Eq. 7, or E[y | z]."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from scorescope import seeds
from scorescope.empirical import EmpiricalScore
from scorescope.rows import Bank
from scorescope.schedule import Schedule
from scorescope.training.examples import Batch
from scorescope.training.interpolant import Interpolant

LEAST = 1e-9  # t is drawn from [0, 1); at 0 itself v and ε have no value


class Targets:
    """Clean points for states, from the rows of one bank.

    Args:
        bank: D_score.
        schedule: Of the states.
        seed: Of all draws; the item of an example owns its own.
        closed_form: The posterior mean E[y | z] (Eq. 6) instead of a draw y ~ r_z (Eq. 7); both have the same gradient in expectation.
        device: Of the states.
    """

    def __init__(self, bank: Bank, schedule: Schedule, seed: int, closed_form: bool, device: str) -> None:
        self.truth = EmpiricalScore(bank, schedule, device=device)
        self.classes, self.seed, self.closed_form = bank.classes, seed, closed_form

    def __call__(self, z: Tensor, t: Tensor, label: Tensor | None, item: Tensor) -> Tensor:
        """Y (B, *shape) for states z at times t (B,), among the rows of their class; among all for the null label."""
        dropped = torch.ones_like(item, dtype=torch.bool) if label is None else label >= self.classes
        if not self.closed_form:
            tags = None if label is None else label.masked_fill(dropped, -1)
            return self.truth.sample(z, t, tags, seed=self.seed, items=item.tolist())[0].to(z)
        found = torch.empty_like(z)
        for free in (False, True):
            which = (dropped == free).nonzero().flatten()
            if len(which):
                tags = None if free or label is None else label[which]
                found[which] = self.truth.posterior(z[which], t[which], tags).mean.to(z.dtype)
        return found


class DrawnLoss(nn.Module):
    """`loss(net, batch)`: mean over batch and dimensions of (f_θ(z, t) − target(y))², z = α x + k σ ε, with y from `targets`.

    Args:
        interpolant: Schedule and prediction.
        targets: Gives y.
        factors: K (B,) of items (B,); all 1 unless given.
    """

    def __init__(self, interpolant: Interpolant, targets: Targets, factors: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.interpolant, self.targets, self.factors = interpolant, targets, factors

    def forward(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """{"loss": scalar}."""
        t = batch.t.clamp(min=LEAST)
        noise = batch.eps if self.factors is None else batch.eps * self.factors(batch.item).view(-1, *[1] * (batch.eps.ndim - 1))
        z = self.interpolant.state(batch.x, noise, t)
        with torch.no_grad():
            target = self.interpolant.target_from(z, self.targets(z, t, batch.label, batch.item), t)
        return {"loss": (self.interpolant.ask(net, z, t, batch.label) - target).square().mean()}


def nested_order(bank: Bank, seed: int) -> np.ndarray:
    """The stored rows in an order whose every prefix is a random subset, as even over the classes as can be; prefixes are nested."""
    if bank.labels is None:
        return seeds.generator(seed, "subset", 0).permutation(len(bank.rows))
    rank = np.empty(len(bank.rows), np.int64)
    for label in range(bank.classes):
        rows = bank.indices(label)
        rank[rows] = seeds.generator(seed, "subset", label).permutation(len(rows))
    return np.lexsort((bank.labels, rank))


def subset(bank: Bank, rows: np.ndarray, name: str) -> Bank:
    """A bank of some stored rows (and of their mirror images where the bank has them), in the bank's own order."""
    kept = np.sort(rows)
    labels = None if bank.labels is None else bank.labels[kept]
    names, groups = (None if known is None else [known[row] for row in kept] for known in (bank.names, bank.groups))
    return Bank(
        bank.stored_at(kept), labels, bank.meaning._replace(name=name), class_names=bank.class_names, names=names, groups=groups
    )  # fmt: skip
