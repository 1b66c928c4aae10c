"""The training set as rows: `Bank`, and how banks are built, stored and checked."""

from scorescope.bank.bank import Bank, Block

__all__ = ["Bank", "Block"]
