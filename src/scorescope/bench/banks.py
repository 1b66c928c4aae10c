"""Several banks by one call: a benchmark of each, then one table and one chart over all of them.

    OUT/run.json                        what all benchmarks here share; the banks are no part of it, so that a later call may add some
    OUT/NAME-ROWSxSHAPE-TYPE/           the benchmark of one bank, as a call on that bank alone writes it
    OUT/banks.csv, banks.svg, banks.png the banks of the latest call, in its order

The same call again measures only what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scorescope.bench import banks_chart, chart
from scorescope.bench.measure import Setting, conditions, fit, measure
from scorescope.bench.methods import chosen, ours
from scorescope.bench.record import KIND as ONE
from scorescope.bench.summary import BASELINE
from scorescope.denoiser import Denoiser
from scorescope.errors import InputError
from scorescope.files import replacing
from scorescope.progress import Board
from scorescope.rows import Bank
from scorescope.runs import RECORD, Kind, claimed

KIND = Kind("a benchmark of several banks", ("banks.csv", "banks.svg", "banks.png", *(f"*/{name}" for name in (*ONE.own, RECORD))))


@dataclass(frozen=True)
class Source:
    """A bank that is opened, or made, when its turn comes.

    Attributes:
        name: Of the bank.
        rows: How many, mirrored ones included.
        shape: Of a row.
        stored: The type that rows are stored in.
        open: Gives the bank.
    """

    name: str
    rows: int
    shape: tuple[int, ...]
    stored: str
    open: Callable[[], Bank]

    @classmethod
    def of(cls, bank: Bank) -> Source:
        """Of a bank that is open already."""
        return cls(bank.name, len(bank), bank.shape, str(bank.rows.dtype), lambda: bank)

    @property
    def looks(self) -> str:
        """Rows, shape and type, as a folder's name holds them."""
        return f"{'x'.join(map(str, (self.rows, *self.shape)))}-{self.stored}"


def check(sources: Sequence[Source], folders: Sequence[Path], setting: Setting, model: Denoiser | None) -> None:
    """Refuse before anything is measured what would be refused after hours.

    Raises:
        InputError: Two banks that a chart can't tell apart, no two methods to compare, or what `measure` refuses of any bank.
    """
    named = [method.name for method in chosen(setting.methods)]
    if BASELINE not in named or not any(method.ours for method in chosen(setting.methods)):
        hint = f"--methods {BASELINE} {ours.name_of(ours.DEFAULT)}"
        raise InputError(f"over several banks scorescope is compared with {BASELINE}, and --methods lacks one of the two", hint)
    for place, source in enumerate(sources):
        if folders[place] in folders[:place]:
            raise InputError(f"two banks are called {source.name!r}, with rows of the same kind", "each bank once, under its own name")
        try:
            fit(source.rows, source.shape, setting, model)
        except InputError as problem:
            raise InputError(f"{source.name}: {problem.problem}", problem.hint) from problem


def compare(
    sources: Sequence[Source], setting: Setting, folders: Sequence[Path], model: Denoiser | None, board: Callable[[], Board], force: bool
) -> list[dict[str, Any]]:
    """Measure what is missing of every bank, write table and chart, and return the records, in the order of the banks.

    Args:
        sources: The banks.
        setting: The same for all.
        folders: One for each bank, all in one folder, which is the run's.
        model: Of the trajectories; a Gaussian fitted to each bank where None.
        board: Makes what shows the progress of one bank.
        force: Begin all again, in place of what is there.

    Raises:
        InputError: As `check` and `measure`.
    """
    check(sources, folders, setting, model)
    out, found = folders[0].parent, []
    with claimed(out, KIND, conditions(setting, model)[0], force=force):
        for place, (source, folder) in enumerate(zip(sources, folders, strict=True)):
            shown = board()
            shown.say(f"bank {place + 1} of {len(sources)}: {source.name}")
            found.append(measure(source.open(), setting, folder, model, shown))
            chart.save(found[-1], folder)
        drawn = banks_chart.chart(found)
        for suffix, content in (("csv", drawn.csv().encode()), ("svg", drawn.svg(alone=True).encode()), ("png", drawn.png())):
            with replacing(out / f"banks.{suffix}") as temporary:
                temporary.write_bytes(content)
    return found
