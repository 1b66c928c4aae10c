"""Training recipes set side by side (Section 5.1): how a supervision loss turns into samples, and compute into supervision loss.

Everything here reads one small `xarray.Dataset`, and nothing else: no model, no bank, no file. A table has one dimension, `run`, and

    recipe, name     (run,) text
    loss             (run,) supervision loss of the run, above 0
    score            (run,) Fréchet distance of its samples, or any other score of which less is better
    compute          (run,) operations of its training; NaN where that is not known
    loss_draw        (run, draw) the loss, and
    score_draw       (run, draw) the score, drawn again: draw k is the same states and samples in every run, so that what runs share
                     cancels between recipes. Left out where only the numbers are known
    floor            () what real rows score against real rows; may be left out
    attrs["score"]   what the score is called
    attrs["loss"]    what the loss is called

    table(points)                     such a table of plain numbers
    line(table, recipe, log)          score, or ln score, as a line of the loss
    efficiency(table, recipe)         ln loss as a line of ln compute
    shift(first, second)              the second line over the first, where both have runs
    CLAIMS, findings(table)           in words, with verdicts
"""

from __future__ import annotations

from scorescope.recipes.lines import Line, Shift, shift
from scorescope.recipes.table import Point, checked, efficiency, line, logarithmic, names, straightness, table, usable
from scorescope.recipes.verdicts import CLAIMS, described, findings, record, sentences

__all__ = [
    "CLAIMS",
    "Line",
    "Point",
    "Shift",
    "checked",
    "described",
    "efficiency",
    "findings",
    "line",
    "logarithmic",
    "names",
    "record",
    "sentences",
    "shift",
    "straightness",
    "table",
    "usable",
]
