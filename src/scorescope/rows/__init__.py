"""The training set as rows: `Bank`, and how banks are built, stored and checked.

    tensors → content, names → summary → storage → raw, tags → images → arrays → sound → members → readers → sources → bank → verify

`Bank` is imported on first use, so that the command line can read the options of a build without importing torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scorescope.rows.bank import Bank, Block

__all__ = ["Bank", "Block"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'scorescope.rows' has no attribute {name!r}")
    from scorescope.rows import bank

    return getattr(bank, name)
