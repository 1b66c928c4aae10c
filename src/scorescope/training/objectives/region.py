"""Region-controlled denoising score matching (section 4.2, Eq. 6 and 7, appendix C.7): the score of few rows, on the shells of many.

States are made of rows x of D_region, z = α x + σ ε; the target is that of D_score ⊆ D_region: a draw y ~ r_z (Eq. 7), or the
posterior mean E[y | z] (Eq. 6), which has the same gradient in expectation. The wider the region, the less freedom to extrapolate.
Where the two subsets are one this is plain denoising score matching in expectation.

Choose `--prediction x`, as the paper does: v and ε are (z − α y)/σ away from the data, which is large where t is small and y is not x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from scorescope.errors import InputError
from scorescope.rows import Bank
from scorescope.training.draws import LEAST, Targets, nested_order, subset
from scorescope.training.examples import Batch
from scorescope.training.interpolant import Interpolant
from scorescope.training.objectives import Setting, Terms


@dataclass(frozen=True)
class Region:
    """Region-controlled training.

    Attributes:
        score_rows: |D_score|, rows whose empirical score is learned, even over the classes.
        region_rows: |D_region|, rows on whose shells it is learned; they include D_score. 0 takes all.
        closed_form: Learn from the posterior mean (Eq. 6) instead of draws (Eq. 7).
    """

    score_rows: int = 10_000
    region_rows: int = 0
    closed_form: bool = False

    def validate(self) -> None:
        """Refuse sizes that are not nested."""
        if self.score_rows < 1:
            raise InputError(f"--score-rows {self.score_rows} is not a positive number", "--score-rows 1000")
        if self.region_rows and self.region_rows < self.score_rows:
            said = f"--region-rows {self.region_rows} is smaller than --score-rows {self.score_rows}, but the region holds them all"
            raise InputError(said, "--region-rows as large, or 0 for the whole bank")

    def rows(self, bank: Bank, seed: int) -> Bank:
        """D_region."""
        return bank if not self.region_rows else self._first(bank, seed, self.region_rows, "region")

    def learned(self, bank: Bank, seed: int) -> Bank:
        """D_score.

        Raises:
            InputError: More rows than the bank has, or so few that a class would have no score to learn.
        """
        classes = 0 if bank.labels is None else len(np.unique(bank.labels))
        if self.score_rows < classes:  # the order takes a row of each class before a second of any
            said = f"--score-rows {self.score_rows} leaves {classes - self.score_rows} of {classes} classes without a row"
            raise InputError(said, f"--score-rows {classes} or more, or --condition none")
        return self._first(bank, seed, self.score_rows, "score")

    def loss(self, setting: Setting) -> nn.Module:
        """The loss, as a module."""
        own = self.learned(setting.bank, setting.seed)
        targets = Targets(own, setting.interpolant.path, setting.seed, self.closed_form, setting.device)
        return RegionLoss(setting.interpolant, targets)

    def _first(self, bank: Bank, seed: int, count: int, name: str) -> Bank:
        if count > len(bank.rows):
            raise InputError(f"--{name}-rows {count} is more than the bank has ({len(bank.rows)})", f"at most {len(bank.rows)}")
        return subset(bank, nested_order(bank, seed)[:count], f"{bank.name}-{name}")


class RegionLoss(nn.Module):
    """`loss(net, batch)`: mean over batch and dimensions of (f_θ(z_t, t) − target(y))²."""

    def __init__(self, interpolant: Interpolant, targets: Targets) -> None:
        super().__init__()
        self.interpolant, self.targets = interpolant, targets

    def forward(self, net: nn.Module, batch: Batch) -> Terms:
        """{"loss": scalar}."""
        t = batch.t.clamp(min=LEAST)
        z = self.interpolant.state(batch.x, batch.eps, t)
        with torch.no_grad():
            target = self.interpolant.target_from(z, self.targets(z, t, batch.label, batch.item), t)
        return {"loss": (self.interpolant.ask(net, z, t, batch.label) - target).square().mean()}


OBJECTIVE = Region
