"""The options of a bank build, each with its default and its help, spelled once for Python and for the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from scorescope.errors import InputError, unknown

LAYOUTS = ("auto", "chw", "hwc")
LONGEST = 3600  # seconds of sound in a row
WIDEST = 4096  # pixels; sums over rows of 4096² colour pixels take gigabytes


@dataclass(frozen=True)
class Options:
    """How rows are made. COLUMN is an array or column of the source, or a .npy, .txt or .csv file with a value a row."""

    array: Annotated[str | None, arg(metavar="NAME")] = None
    """Array or column with the rows, where several could be."""

    columns: Annotated[str | None, arg(metavar="A,B,C*")] = None
    """Of a table: the columns that make a row; * stands for any letters."""

    labels: Annotated[str | None, arg(metavar="COLUMN")] = None
    """The class of a row, or a regular expression whose first group in a row's name it is; "none" leaves labels out."""

    names: Annotated[str | None, arg(metavar="COLUMN")] = None
    """The name of a row; of files their paths, unless "none"."""

    groups: Annotated[str | None, arg(metavar="COLUMN")] = None
    """What rows of one patient or video share (--hold-out keeps it whole), or an expression as for --labels."""

    size: Annotated[int | None, arg(metavar="N")] = None
    """Resize an image's shorter side to N (bicubic, antialiased), cut out the centre."""

    gray: bool = False
    """Turn colour images to grey."""

    layout: Annotated[str, arg(metavar="auto|chw|hwc")] = "auto"
    """Axes of image arrays; hwc is turned to channels first."""

    range: Annotated[tuple[float, float] | None, arg(metavar="LOW HIGH")] = None
    """Model-space values of 8-bit 0 and 255; -1 1 if not given."""

    scale: Annotated[float | None, arg(metavar="S")] = None
    """Multiply rows that are not 8-bit, e.g. 0.18215."""

    flips: bool = False
    """Let every row also stand for its mirror image; 8-bit images only."""

    rate: Annotated[int | None, arg(metavar="HZ")] = None
    """Resample sound to so many samples a second."""

    seconds: Annotated[float | None, arg(metavar="S")] = None
    """Cut sound to that length, or fill it up with silence."""

    log_mel: bool = False
    """Turn sound to its log-mel spectrum, 1×32×32, of 0.404 s unless --seconds says otherwise."""

    limit: Annotated[int | None, arg(metavar="N")] = None
    """Keep the first N rows; of class subfolders, equally many."""

    name: Annotated[str | None, arg(metavar="NAME")] = None
    """What reports call the bank."""

    @property
    def low_high(self) -> tuple[float, float]:
        """Model-space values of 8-bit 0 and 255."""
        return self.range or (-1.0, 1.0)

    def refuse(self, where: str, what: str, *fields: str) -> None:
        """Raise `InputError` for the first of `fields` that was given, since it does not apply to `what` the source `where` holds."""
        given = next((name for name in fields if getattr(self, name) != getattr(type(self), name)), None)
        if given is not None:
            raise InputError(f"--{given.replace('_', '-')} does not apply to {what} ({where})", "leaving it out")

    def validate(self) -> None:
        """Raise `InputError` for a value that no source could be built with."""
        for option, value in (("--size", self.size), ("--limit", self.limit), ("--rate", self.rate)):
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
        if self.seconds is not None and (not math.isfinite(self.seconds) or not 0 < self.seconds <= LONGEST):
            raise InputError(f"--seconds {self.seconds:g} is no length of sound", f"a number above 0, at most {LONGEST:,}")
