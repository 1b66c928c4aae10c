"""The training set as rows: `Bank`, and how banks are built, stored and checked.

Names are imported on first use, so that the command line can read the options of a build without importing torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scorescope.bank.bank import Bank, Block
    from scorescope.bank.shadow import Shadow, build_shadow

__all__ = ["Bank", "Block", "Shadow", "build_shadow"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'scorescope.bank' has no attribute {name!r}")
    from scorescope.bank import bank, shadow

    return getattr(bank if name in ("Bank", "Block") else shadow, name)
