"""Training objectives, one a file, found by the file's name.

An objective is a frozen dataclass of plain values (its fields are flags of `scorescope train`), named `OBJECTIVE` in its module:

    validate()               raises InputError for values that no run could be made with
    rows(bank, seed)         the Bank whose rows are shown in training; the bank itself where the objective restricts nothing
    learned(bank, seed)      the Bank whose empirical score is the target; the bank itself but in region-controlled training
    loss(setting)            an nn.Module, called as loss(net, batch) -> {"loss": scalar to descend, other names: scalars to log};
                             its parameters are trained with the network, its buffers are not
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from scorescope import registry
from scorescope.rows import Bank
from scorescope.training.interpolant import Interpolant

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Setting:
    """What a loss is made for. `rows` is what `objective.rows(bank, seed)` gave; `net` is the network as built, before any wrapping."""

    bank: Bank
    rows: Bank
    interpolant: Interpolant
    net: nn.Module
    seed: int
    device: str


class Objective(Protocol):
    """See the package."""

    def validate(self) -> None:
        """Raise `InputError` for values that no run could be made with."""

    def rows(self, bank: Bank, seed: int) -> Bank:
        """The rows that training shows."""

    def learned(self, bank: Bank, seed: int) -> Bank:
        """The rows whose empirical score is learned."""

    def loss(self, setting: Setting) -> nn.Module:
        """The loss, as a module."""


def names() -> list[str]:
    """Names of all objectives."""
    return registry.names(__name__)


def named(name: str) -> Any:
    """The class of the objective of that name.

    Raises:
        InputError: No such objective; the nearest name is suggested.
    """
    return registry.module(__name__, name, "objective").OBJECTIVE


def name_of(objective: Objective) -> str:
    """The name under which an objective is found."""
    return type(objective).__module__.rpartition(".")[2]
