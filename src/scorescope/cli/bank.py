"""`scorescope bank build|info|show|check|features`: the training set as rows on disk."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import OmitArgPrefixes, Positional, arg

from scorescope.cli.parse import parse
from scorescope.errors import InputError, unknown
from scorescope.progress import Board, Row
from scorescope.rows.options import Options

if TYPE_CHECKING:
    from scorescope.rows import Bank
    from scorescope.rows.storage import Progress

SIDE = 1024  # pixels: larger rows are shrunk
VERBS = {
    "build": "make a bank from images, arrays or a dataset",
    "info": "say what a bank holds",
    "show": "write the picture of a row, and say its name and class",
    "check": "read every row and compare with what was recorded",
    "features": "keep what an encoder says of every row, for scorescope train --objective repa",
}

HELP = """A bank is the training set as rows on disk: what a model is measured against.

  scorescope bank build photos/ --out photos.bank    class subfolders become labels
  scorescope bank info photos.bank
  scorescope bank show photos.bank 604
  scorescope bank check photos.bank
  scorescope bank features photos.bank --out photos.features

verbs (scorescope bank VERB --help tells more):
{verbs}
"""

BUILD = """Make a bank from data as they are on disk; docs/data.md has a line for each layout.

examples:
  scorescope bank build photos/ --out photos.bank --size 64 --flips --hold-out 0.1
  scorescope bank build 'shards/{000..099}.tar' --out photos.bank --size 64
  scorescope bank build latents.npz --out latents.bank --scale 0.18215
  scorescope bank build recordings/ --out words.bank --rate 8000 --log-mel --groups '_(\\w+)_'
"""

INFO = """Say what a bank holds.

example:
  scorescope bank info photos.bank
"""

SHOW = """Write the picture of one row of a bank as PNG, and say its index, name and class.

examples:
  scorescope bank show photos.bank 604
  scorescope bank show photos.bank cat/001.png --out cat.png
"""

CHECK = """Read every row of a bank and compare it with what was recorded when it was built.

example:
  scorescope bank check photos.bank
"""

FEATURES = """Keep what an encoder says of every row, mirrored ones included, so that REPA's training asks the disk instead of the encoder.
Killed, the same command continues.

examples:
  scorescope bank features photos.bank --out photos.features
  scorescope bank features photos.bank --out photos.dino --encoder transformers:facebook/dinov2-base
"""


@dataclass(frozen=True)
class Build:
    """Arguments of `scorescope bank build`."""

    source: Annotated[Positional[str], arg(metavar="SOURCE")]
    """A path, a pattern of paths, or FILE.py:FUNCTION. Class subfolders are labels."""

    out: Annotated[str, arg(metavar="X.bank")]
    """The bank to make."""

    reading: OmitArgPrefixes[Options] = dataclasses.field(default_factory=Options)

    hold_out: Annotated[float | None, arg(metavar="SHARE")] = None
    """Keep that share of each class out of X.bank, in X-held-out.bank beside it, for examine --held-out."""

    hold_out_seed: int = 0
    """Chooses the rows that are held out."""

    force: bool = False
    """Replace the bank that is already there."""


@dataclass(frozen=True)
class Info:
    """Arguments of `scorescope bank info`."""

    bank: Annotated[Positional[str], arg(metavar="X.bank")]
    """The bank."""

    json: bool = False
    """Print the whole manifest as JSON."""


@dataclass(frozen=True)
class Show:
    """Arguments of `scorescope bank show`."""

    bank: Annotated[Positional[str], arg(metavar="X.bank")]
    """The bank; digits for the demo's."""
    row: Annotated[Positional[str], arg(metavar="ROW")]
    """Its number or its name; N and above are the mirror images of a bank with flips."""
    out: Annotated[str | None, arg(metavar="FILE.png")] = None
    """Where to write; in this folder, after the row's name, unless given."""
    force: bool = False
    """Replace the file that is there."""


@dataclass(frozen=True)
class Check:
    """Arguments of `scorescope bank check`."""

    bank: Annotated[Positional[str], arg(metavar="X.bank")]
    """The bank."""


@dataclass(frozen=True)
class MakeFeatures:
    """Arguments of `scorescope bank features`."""

    bank: Annotated[Positional[str], arg(metavar="X.bank")]
    """The bank, of images."""
    out: Annotated[str, arg(metavar="FOLDER")]
    """Folder of the features."""
    encoder: str = "lite0"
    """lite0, hog, random, timm:NAME, transformers:NAME, or FILE.py:FUNCTION that returns a torch module."""
    latents: Annotated[str | None, arg(metavar="Y.bank")] = None
    """The bank that will be trained on, where it holds latents of the same images in the same order."""
    device: str = "cpu"
    """cpu or cuda."""
    force: bool = False
    """Begin again, in place of the features in --out."""


def main(argv: list[str]) -> int:
    """Run `scorescope bank` with the words after `bank`."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP.format(verbs="\n".join(f"  {verb:<10}{summary}" for verb, summary in VERBS.items())), end="")
        return 0
    if argv[0] not in VERBS:
        raise unknown("verb of bank", argv[0], VERBS)
    return {"build": _build, "info": _info, "show": _show, "check": _check, "features": _features}[argv[0]](argv[1:])


def _build(argv: list[str]) -> int:
    told = _parse(Build, argv, "build", BUILD)
    from scorescope.rows import Bank, hold_out

    with _progress("building") as progress:
        options = {"force": told.force, "progress": progress, **vars(told.reading)}
        if told.hold_out is None:
            bank = Bank.build(told.source, told.out, **options)
        else:
            bank = hold_out.build(told.source, told.out, told.hold_out, told.hold_out_seed, **options)
    for caution in bank.manifest["cautions"]:
        print(f"warning: {caution}", file=sys.stderr)
    print(f"{told.out}: {_in_words(bank)}")
    if told.hold_out is not None:
        beside = hold_out.held_out_path(Path(told.out))
        print(f"{beside}: {_in_words(Bank.open(beside))}")
    return 0


def _info(argv: list[str]) -> int:
    told = _parse(Info, argv, "info", INFO)
    from scorescope.rows import Bank

    bank = Bank.open(told.bank)
    if told.json:
        print(json.dumps(bank.manifest, indent=1, ensure_ascii=False))
    else:
        lines = dict(_description(bank, Path(told.bank)))
        width = max(map(len, lines))
        print("\n".join(f"{key:<{width}}  {value}" for key, value in lines.items()))
    return 0


def _show(argv: list[str]) -> int:
    told = _parse(Show, argv, "show", SHOW)
    from scorescope.demo import named_bank
    from scorescope.files import replacing
    from scorescope.report.pictures import Painter, png_bytes

    bank = named_bank(told.bank)
    index = bank.row_named(told.row)
    name = bank.row_name(index)
    out = Path(told.out or _file_name(bank, index))
    if out.suffix.lower() != ".png":
        raise InputError(f"--out {out} is not the name of a PNG file", f"--out {out.with_suffix('.png')}")
    if out.exists() and not (told.force and out.is_file()):
        raise InputError(f"{out} exists", "another --out, or --force to replace it")
    row = bank[index].numpy()
    byte = bank.rows.dtype.name == "uint8"
    ends = (bank.low, bank.high) if byte else (bank.manifest.get("minimum", row.min()), bank.manifest.get("maximum", row.max()))
    paint = Painter(bank.shape, float(ends[0]), float(ends[1]), SIDE)
    with replacing(out) as temporary:
        temporary.write_bytes(png_bytes(paint.tile(row)))
    stored = index % len(bank.rows)
    label = "" if bank.labels is None else f", class {bank.class_name(int(bank.labels[stored]))}"
    group = "" if bank.groups is None else f", group {bank.groups[stored]}"
    print(f"{out}: row {index}{f', {name}' if name != str(index) else ''}{label}{group}")
    if paint.remark:
        print(paint.remark)
    return 0


def _file_name(bank: Bank, index: int) -> str:
    """A file's name for the picture of a row, after the row's own."""
    stored = index % len(bank.rows)
    name = re.sub(r"\.\w{3,4}$", "", bank.row_name(stored)) if bank.names else f"row-{stored}"
    return (re.sub(r"[^\w.-]+", "_", name).strip("._")[:200] or f"row-{stored}") + "-mirrored" * (index != stored) + ".png"


def _check(argv: list[str]) -> int:
    told = _parse(Check, argv, "check", CHECK)
    from scorescope.rows import Bank
    from scorescope.rows.verify import verify

    bank = Bank.open(told.bank)
    with _progress("checking") as progress:
        verify(bank, progress)
    print(f"ok {told.bank}: {_in_words(bank)}")
    return 0


def _features(argv: list[str]) -> int:
    told = _parse(MakeFeatures, argv, "features", FEATURES)
    from scorescope.cli.common import check_device
    from scorescope.rows import Bank
    from scorescope.training.encoders import encode

    check_device(told.device)
    bank, latents = Bank.open(told.bank), None if told.latents is None else Bank.open(told.latents)
    with _progress("features") as progress:
        folder = encode(
            bank, told.encoder, told.out, latents=latents, device=told.device, force=told.force,
            progress=lambda done, total: progress(told.encoder, done, total),
        )  # fmt: skip
    print(f"{folder}: of {len(bank):,} rows by {told.encoder}\ntrain with  --objective repa --features {folder}")
    return 0


def _parse(kind: Any, argv: list[str], verb: str, description: str) -> Any:
    return parse(kind, argv, f"scorescope bank {verb}", description)


def _in_words(bank: Bank) -> str:
    classes = f", {bank.classes} classes" if bank.labels is not None else ""
    flips = ", flips" if bank.flips else ""
    groups = f", {bank.manifest['groups']['count']:,} groups" if "groups" in bank.manifest else ""
    return f"{len(bank.rows):,} rows {bank.shape} {bank.rows.dtype}{classes}{groups}{flips}, fingerprint {bank.fingerprint[:12]}"


def _description(bank: Bank, path: Path) -> Iterator[tuple[str, str]]:
    """What `info` prints, a line each."""
    manifest = bank.manifest
    size = sum(file.stat().st_size for file in path.iterdir())
    yield "bank", f"{manifest['name']} ({path}, {size / 1e6:,.1f} MB)"
    yield "rows", f"{manifest['rows']:,}" + (", and their mirror images" if bank.flips else "")
    yield "shape", f"{bank.shape} = {bank.d:,} values, stored as {manifest['dtype']}"
    if manifest["low"] is not None:
        yield "range", f"8-bit 0 and 255 stand for {manifest['low']:g} and {manifest['high']:g}"
    yield "values", f"{manifest['minimum']:.4g} to {manifest['maximum']:.4g}, mean {manifest['mean']:.4g}"
    if manifest["channel_means"]:
        yield "channel means", ", ".join(f"{mean:.4g}" for mean in manifest["channel_means"][:16])
    yield "radius", f"{manifest['radius']:.6g} (root mean square distance of the rows from their mean)"
    yield "classes", _classes(bank)
    yield "names", f"one a row, as {bank.row_name(0)}" if bank.names else "none; rows are called by their numbers"
    if bank.groups is not None:
        counts = Counter(bank.groups)
        yield "groups", f"{len(counts):,}, with {min(counts.values()):,} to {max(counts.values()):,} rows, as {bank.groups[0]}"
    yield "duplicates", f"{manifest['duplicates']:,} rows repeat an earlier row"
    for key, words in (("held_out", "held out"), ("held_out_of", "held out of")):
        if key in manifest:
            yield words, f"{manifest[key]['rows']:,} rows, {manifest[key]['folder']} (seed {manifest[key]['seed']})"
    yield "source", str(manifest["source"])
    yield "transform", "; ".join(manifest["transform"]) or "none"
    yield "fingerprint", bank.fingerprint
    for k, caution in enumerate(manifest["cautions"], 1):
        yield f"warning {k}", caution


def _classes(bank: Bank) -> str:
    counts = bank.manifest["class_counts"]
    if counts is None:
        return "none (no labels)"
    if len(counts) > 20:
        return f"{len(counts):,}, with {min(counts):,} to {max(counts):,} rows"
    return f"{len(counts)}: " + ", ".join(f"{bank.class_name(k)} {count:,}" for k, count in enumerate(counts))


@contextmanager
def _progress(what: str) -> Iterator[Progress]:
    """A row for each stage, which the next one closes."""
    with Board() as board, ExitStack() as stack:
        rows: dict[str, Row] = {}

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in rows:
                stack.close()
                rows[stage] = stack.enter_context(board.row(f"{what}: {stage}", total))
            rows[stage](done - rows[stage].done)

        yield progress
