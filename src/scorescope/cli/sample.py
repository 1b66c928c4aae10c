"""`scorescope sample MODEL`: samples as arrays and as a picture."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import Positional, arg

from scorescope.cli.parse import parse
from scorescope.evaluate.options import Sampling

DESCRIPTION = """Draw samples of a model: arrays, and a picture where they are images. Killed, the same command continues.

examples:
  scorescope sample runs/photos --n 100 --out samples
  scorescope sample model.safetensors --items 37 --labels 3 --guidance 1.5 --out sample-37
"""


@dataclass(frozen=True)
class Sample:
    """Arguments of `scorescope sample`."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """Weights, a run's or diffusers' folder, hf:OWNER/NAME, or FILE.py:FUNCTION."""
    sampling: Sampling = field(default_factory=Sampling)
    """What to draw."""
    bank: Annotated[str | None, arg(metavar="BANK")] = None
    """Names the classes, and the shape where the model has none; digits for the demo's."""
    out: str | None = None
    """Folder of the samples; runs/MODEL-samples unless given."""
    device: str = "cpu"
    """cpu or cuda."""
    force: bool = False
    """Replace other samples in that folder."""
    load: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE")] = ()
    """What a state dict can't tell of itself, as family=sit heads=6."""
    trust: bool = False
    """Open a pickle, which runs the code inside."""
    json: bool = False
    """Print the paths as JSON."""


def main(argv: list[str]) -> int:
    """Run `scorescope sample` with the words after it."""
    told = parse(Sample, argv, "scorescope sample", DESCRIPTION)
    told.sampling.validate()
    from scorescope.cli.common import check_device, default_out, model_of
    from scorescope.demo import named_bank
    from scorescope.evaluate.drawing import GRID, SAMPLES, generate

    check_device(told.device)
    bank = None if told.bank is None else named_bank(told.bank)
    model = model_of(told.model, bank, told.load, told.trust, told.device)
    folder = generate(
        model, told.sampling, told.out or default_out("{}-samples", model.name), bank=bank, device=told.device, force=told.force
    )
    paths = {name: str(folder / file) for name, file in (("picture", GRID), ("samples", SAMPLES)) if (folder / file).exists()}
    print(json.dumps(paths) if told.json else "\n".join(f"{name:<8} {path}" for name, path in paths.items()))
    return 0
