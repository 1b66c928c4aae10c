"""`scorescope evaluate SAMPLES --bank BANK`: Fréchet distance, precision and recall."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from scorescope.cli.parse import parse
from scorescope.errors import InputError
from scorescope.evaluate.options import Sampling

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
    decode: Annotated[str | None, arg(metavar="FOLDER")] = None
    """An autoencoder saved by diffusers: rows are its latents, and features those of what it makes of them."""
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
    from scorescope.cli.common import check_device, default_out, model_of
    from scorescope.demo import named_bank
    from scorescope.evaluate.comparison import KIND, RESULT, check, compare, default_extractor, work
    from scorescope.evaluate.decoded import decoded
    from scorescope.evaluate.drawing import generate, settings_of
    from scorescope.evaluate.extractors import Options, extractor
    from scorescope.evaluate.samples import holds_samples, open_samples
    from scorescope.progress import Board
    from scorescope.runs import claimed, record_of

    check_device(told.device)
    bank = named_bank(told.bank)
    features = default_extractor(bank.shape, told.decode) if told.extractor == "auto" else told.extractor
    chosen = decoded(extractor(features, Options(told.weights, told.size)), told.decode)
    about: dict[str, Any] = {
        "command": shlex.join(["scorescope", "evaluate", *argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    subject: Any
    if holds_samples(told.samples):
        if told.sampling != DRAWN:
            raise InputError(f"{told.samples} holds samples, so nothing is drawn and sampling options mean nothing", "leaving them out")
        samples = open_samples(told.samples, bank)
        name, n, subject = Path(told.samples).stem, len(samples.rows), samples.fingerprint
    else:
        model = model_of(told.samples, bank, told.load, told.trust, told.device)
        name, n, (subject, _) = model.name, len(told.sampling.numbers()), settings_of(model, told.sampling, bank, told.device)
    check(told.samples, n, bank, chosen, told.reference, told.k)
    out = Path(told.out or default_out("{}-against-{}", name, bank.name))
    settings = {"samples": subject, "bank": bank.fingerprint, "extractor": chosen.identity, "reference": told.reference, "k": told.k}
    with claimed(out, KIND, settings, force=told.force):
        if not holds_samples(told.samples):
            folder = generate(model, told.sampling, out / "samples", bank=bank, device=told.device, force=told.force)
            about["model"], samples = record_of(folder), open_samples(folder, bank)
        m = min(len(bank.rows), told.reference)
        with Board() as board:
            board.say(f"comparing {n:,} samples with {m:,} rows of {bank.name} by {chosen.title}")
            with board.row(f"features of {chosen.name}", work(n, len(bank.rows), told.reference)) as row:
                found = compare(
                    samples, bank, chosen, reference=told.reference, k=told.k, cache=told.cache, device=told.device, tick=row
                )  # fmt: skip
        found = replace(found, provenance={**found.provenance, **about})
        path = found.save(out / RESULT)
    if told.json:
        print(json.dumps(found.record()))
        return 0
    print("\n".join([found.table(), "", *(f"warning: {line}" for line in found.warnings), f"result   {path}"]))
    return 0
