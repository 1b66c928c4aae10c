"""`scorescope evaluate SAMPLES --bank BANK`: Fréchet distance, precision and recall."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from scorescope.cli.parse import keywords, parse
from scorescope.errors import InputError
from scorescope.evaluate.options import Sampling

if TYPE_CHECKING:
    from scorescope.rows import Bank

DRAWN = Sampling(n=1000)
DESCRIPTION = """Compare samples, or a model's, with a bank: Fréchet distance by a named extractor, precision and recall.

examples:
  scorescope evaluate samples --bank photos.bank
  scorescope evaluate runs/photos --bank photos.bank --n 10000 --extractor inception --weights pt_inception-2015-12-05-6726825d.pth
"""


@dataclass(frozen=True)
class Evaluate:
    """Arguments of `scorescope evaluate`."""

    samples: Annotated[Positional[str], arg(metavar="SAMPLES|MODEL")]
    """A folder of scorescope sample, .npy or .npz, a bank, images; or a model, which is sampled first."""
    bank: Annotated[str, arg(metavar="BANK")]
    """Real rows; digits for the demo's."""
    extractor: str = "auto"
    """lite0, inception, pixels, or FILE.py:FUNCTION; lite0 for images, else pixels."""
    weights: Annotated[str | None, arg(metavar="FILE")] = None
    """Of inception; with the published file the distance is called FID."""
    size: int | None = None
    """Pixels of lite0's images; 128."""
    reference: int = 50_000
    """Most rows of the bank to compare with."""
    k: int = 3
    """Nearest neighbours of precision and recall."""
    sampling: Sampling = field(default_factory=lambda: DRAWN)
    """How a model is sampled."""
    cache: Annotated[str | None, arg(metavar="FOLDER")] = None
    """For features; $SCORESCOPE_CACHE, else ~/.cache/scorescope."""
    out: str | None = None
    """Folder of the result; runs/SAMPLES-against-BANK unless given."""
    device: str = "cpu"
    """cpu or cuda."""
    force: bool = False
    """Replace other samples in that folder."""
    load: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE")] = ()
    """What a state dict can't tell of itself, as family=sit heads=6."""
    trust: bool = False
    """Open a pickle, which runs the code inside."""
    json: bool = False
    """Print the result as JSON."""


def main(argv: list[str]) -> int:
    """Run `scorescope evaluate` with the words after it."""
    told = parse(Evaluate, argv, "scorescope evaluate", DESCRIPTION)
    told.sampling.validate()
    from scorescope.cli.common import check_device
    from scorescope.demo import named_bank
    from scorescope.evaluate.comparison import compare, default_extractor, work
    from scorescope.evaluate.extractors import Options, extractor
    from scorescope.evaluate.samples import holds_samples, open_samples
    from scorescope.progress import Board

    check_device(told.device)
    bank = named_bank(told.bank)
    chosen = extractor(default_extractor(bank.shape) if told.extractor == "auto" else told.extractor, Options(told.weights, told.size))
    about: dict[str, Any] = {
        "command": shlex.join(["scorescope", "evaluate", *argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    out = None if told.out is None else Path(told.out)
    if holds_samples(told.samples):
        if told.sampling != DRAWN:
            raise InputError(f"{told.samples} holds samples, so nothing is drawn and sampling options mean nothing", "leaving them out")
        samples = open_samples(told.samples, bank)
        out = out or Path(f"runs/{Path(told.samples).stem}-against-{bank.name}")
    else:
        out, samples = _drawn(told, bank, out)
        about["model"] = json.loads((out / "samples" / "sample.json").read_text(encoding="utf-8"))
    m = min(len(bank.rows), told.reference)
    with Board() as board:
        board.say(f"comparing {len(samples.rows):,} samples with {m:,} rows of {bank.name} by {chosen.title}")
        with board.row(f"features of {chosen.name}", work(len(samples.rows), len(bank.rows), told.reference)) as row:
            found = compare(
                samples, bank, chosen, reference=told.reference, k=told.k, cache=told.cache, device=told.device, tick=row, about=about
            )  # fmt: skip
    path = found.save(out / "evaluation.json")
    if told.json:
        print(json.dumps(found.record()))
        return 0
    print("\n".join([found.table(), "", *(f"warning: {line}" for line in found.warnings), f"result   {path}"]))
    return 0


def _drawn(told: Evaluate, bank: Bank, out: Path | None) -> tuple[Path, Bank]:
    """The folder of the result, and samples of the model in it."""
    from scorescope.adapters import load
    from scorescope.evaluate.drawing import generate
    from scorescope.evaluate.samples import open_samples

    model = load(told.samples, trust=told.trust, **keywords(told.load))
    folder = out or Path(f"runs/{model.name.replace('/', '_')}-against-{bank.name}")
    return folder, open_samples(generate(model, told.sampling, folder / "samples", bank=bank, device=told.device, force=told.force), bank)
