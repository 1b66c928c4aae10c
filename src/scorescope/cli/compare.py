"""`scorescope compare RUN…`: which recipe fits better, which extrapolates better, and whether the data can tell."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import Positional, arg

from scorescope.cli.parse import parse
from scorescope.errors import InputError
from scorescope.evaluate.options import Sampling

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

    Work = tuple[dict[str, Any], Path, Callable[[Path], xr.Dataset]]

DRAWN = Sampling(n=5000, solver="euler", steps=20)
DESCRIPTION = """Compare training recipes: supervision loss against Fréchet distance, a line a recipe, and compute against loss.
A recipe needs three runs: sizes, or kept steps (RUN@STEP). Killed, the same command continues.

examples:
  scorescope compare runs/sit-s runs/sit-b runs/sit-l runs/unet-s@4000 runs/unet-s@8000 runs/unet-s --bank photos.bank
  scorescope compare table.csv --score fid      your own numbers: recipe,name,loss,fid and perhaps compute
"""


@dataclass(frozen=True)
class Compare:
    """Arguments of `scorescope compare`."""

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN")]
    """Folders of scorescope train, RUN@STEP, weights; or one CSV table."""
    bank: Annotated[str | None, arg(metavar="BANK")] = None
    """What they were trained on; digits for the demo's."""
    recipe: Annotated[tuple[str, ...], arg(metavar="NAME=RUN,RUN…")] = ()
    """Recipes by hand; else runs that differ in size, length and seed alone are of one recipe."""
    loss: str = "loss"
    """Across: loss, or share (of the Gaussian denoiser's); a column of the table."""
    score: str | None = None
    """The table's column of the score; less is better."""
    paths: int = 200
    """Training pairs of the supervision loss."""
    times: int = 25
    """Times along each."""
    sampling: Sampling = field(default_factory=lambda: DRAWN)
    """How runs are sampled."""
    extractor: str = "auto"
    """lite0, inception, pixels, or FILE.py:FUNCTION; lite0 for images, else pixels."""
    weights: Annotated[str | None, arg(metavar="FILE")] = None
    """Of inception."""
    size: int | None = None
    """Pixels of lite0's images; 128."""
    decode: Annotated[str | None, arg(metavar="FOLDER")] = None
    """An autoencoder saved by diffusers: rows are its latents, and features those of what it makes of them."""
    reference: int = 10_000
    """Most rows of the bank to compare samples with."""
    cache: Annotated[str | None, arg(metavar="FOLDER")] = None
    """For features; $SCORESCOPE_CACHE, else ~/.cache/scorescope."""
    out: str | None = None
    """Folder of the comparison; runs/compare-on-BANK unless given."""
    device: str = "cpu"
    """cpu or cuda."""
    force: bool = False
    """Replace another comparison in that folder."""
    json: bool = False
    """Print lines, shifts and verdicts as JSON."""


def main(argv: list[str]) -> int:
    """Run `scorescope compare` with the words after it."""
    told = parse(Compare, argv, "scorescope compare", DESCRIPTION, Compare(tyro.MISSING))
    table = [name for name in told.runs if name.lower().endswith(".csv")]
    if table and len(told.runs) > 1:
        raise InputError(f"{table[0]} is a table, which is given in place of runs", "the table alone")
    if not table and told.score is not None:
        raise InputError("--score names a column of a table, and none is given", "scorescope compare table.csv --score fid")
    from scorescope.compare import KIND
    from scorescope.compare.tables import by, shown, written
    from scorescope.recipes import record
    from scorescope.runs import claimed

    settings, out, measure = _of_table(told, table[0]) if table else _of_runs(told)
    with claimed(out, KIND, settings, force=told.force):
        found, loss = measure(out), "loss" if table else told.loss
        places = written(found, out, loss)
    chosen = by(found, loss)
    if told.json:
        print(json.dumps(record(chosen) | {name: str(path) for name, path in places.items()}))
        return 0
    print("\n".join([shown(chosen), "", *(f"{name:<8} {path}" for name, path in places.items())]))
    return 0


def _of_table(told: Compare, path: str) -> Work:
    """What a comparison of a table depends on, its folder, and the table itself."""
    from scorescope.cli.common import default_out
    from scorescope.compare.tables import read
    from scorescope.files import sha256

    found = read(path, told.score, told.loss)
    settings = {"table": sha256(path), "score": found.attrs["score"], "loss": told.loss}
    return settings, Path(told.out or default_out("compare-{}", Path(path).stem)), lambda out: found


def _of_runs(told: Compare) -> Work:
    """What a comparison of runs depends on, its folder, and how the table is measured."""
    told.sampling.validate()
    from scorescope.cli.common import check_device, default_out, model_of
    from scorescope.compare.measure import Comparing, Measuring
    from scorescope.demo import named_bank
    from scorescope.evaluate.comparison import default_extractor
    from scorescope.evaluate.decoded import decoded
    from scorescope.evaluate.extractors import Options, extractor

    runs, named = list(told.runs), list[str]()
    for word in told.recipe:
        name, equal, members = word.partition("=")
        if not (name and equal and members):
            raise InputError(f"--recipe {word!r} is not of the form NAME=RUN,RUN…", "--recipe wide=runs/a,runs/b,runs/c")
        runs += members.split(",")
        named += [name] * len(members.split(","))
    if told.recipe and told.runs:
        raise InputError("runs are named both with and without --recipe", "all of them in --recipe, or none")
    if not runs:
        raise InputError("no run is named", "scorescope compare runs/s runs/m runs/l --bank photos.bank")
    if told.bank is None:
        raise InputError("runs are measured on the bank that they were trained on, and none is given", "--bank photos.bank")
    if told.loss not in ("loss", "share"):
        raise InputError(f"--loss {told.loss} is no loss that is measured", "--loss loss, or --loss share")
    check_device(told.device)
    bank = named_bank(told.bank)
    features = default_extractor(bank.shape, told.decode) if told.extractor == "auto" else told.extractor
    chosen = decoded(extractor(features, Options(told.weights, told.size)), told.decode)
    models = [model_of(path, bank, device=told.device) for path in runs]
    how = Measuring(told.sampling, chosen, told.paths, told.times, told.reference, told.cache, told.device)
    comparing = Comparing(models, bank, how, named or None)
    return how.settings(bank), Path(told.out or default_out("compare-on-{}", bank.name)), comparing.run
