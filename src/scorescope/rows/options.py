"""The options of a bank build, each with its default and its help, spelled once for Python and for the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from scorescope.errors import InputError, unknown

LAYOUTS = ("auto", "chw", "hwc")
WIDEST = 4096  # pixels; sums over rows of 4096² colour pixels take gigabytes


@dataclass(frozen=True)
class Options:
    """How the source is turned into rows. Labels are found by themselves in class subfolders, arrays y or labels, class columns."""

    array: Annotated[str | None, arg(metavar="NAME")] = None
    """Array of an .npz, or column of a dataset, with the rows, where several could be."""

    labels: Annotated[str | None, arg(metavar="NAME")] = None
    """An .npy file, array or column with a class a row; "none" leaves labels out."""

    names: Annotated[str | None, arg(metavar="NAME")] = None
    """An .npy file, array or column with a name a row; of a folder of images the files' paths, unless "none"."""

    size: Annotated[int | None, arg(metavar="N")] = None
    """Resize the shorter side to N (bicubic, antialiased), cut out the centre."""

    gray: bool = False
    """Turn colour images to grey."""

    layout: Annotated[str, arg(metavar="auto|chw|hwc")] = "auto"
    """Axes of image arrays; hwc is turned to channels first."""

    range: Annotated[tuple[float, float] | None, arg(metavar="LOW HIGH")] = None
    """Model-space values of 8-bit 0 and 255; -1 1 if not given."""

    scale: Annotated[float | None, arg(metavar="S")] = None
    """Multiply rows that are not 8-bit, e.g. 0.18215."""

    flips: bool = False
    """Let every row also stand for its mirror image."""

    limit: Annotated[int | None, arg(metavar="N")] = None
    """Keep the first N rows; of class subfolders, equally many."""

    name: Annotated[str | None, arg(metavar="NAME")] = None
    """What reports call the bank."""

    @property
    def low_high(self) -> tuple[float, float]:
        """Model-space values of 8-bit 0 and 255."""
        return self.range or (-1.0, 1.0)

    def validate(self) -> None:
        """Raise `InputError` for a value that no source could be built with."""
        for option, value in (("--size", self.size), ("--limit", self.limit)):
            if value is not None and not (isinstance(value, int) and value >= 1):
                raise InputError(f"{option} {value} is not a positive number", f"{option} 1 or more")
        if self.size is not None and self.size > WIDEST:
            raise InputError(f"--size {self.size} is more than {WIDEST:,} pixels a side", "the size that the model was trained on")
        low, high = self.low_high
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise InputError(f"--range {low:g} {high:g} is not a range", "two numbers, the lower one first, e.g. --range -1 1")
        if self.scale is not None and (not isinstance(self.scale, (int, float)) or not math.isfinite(self.scale) or self.scale == 0):
            raise InputError(f"--scale {self.scale} would destroy the rows", "a finite number other than 0")
        if self.layout not in LAYOUTS:
            raise unknown("layout", self.layout, LAYOUTS)
