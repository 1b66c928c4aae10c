"""Temporary."""

from __future__ import annotations

from scorescope.errors import InputError


def check_device(device: str) -> None:
    """Refuse a device that is not there."""
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as problem:
        raise InputError(f"device {device!r} can't be used ({str(problem).splitlines()[0]})", "--device cpu") from problem


def default_out(*parts: str) -> str:
    """A folder."""
    return "runs/" + "-".join(parts)[:60].replace("/", "_")
