"""Mutated pickles are read, and nothing runs: `python -m benchmarks.fuzz_pickles`, from the repository's root.

Pickles of six kinds (a torch zip file, an older torch file, a snapshot as EDM's, a Lightning checkpoint, plain ones of all protocols,
traps that make a file when they are unpickled) are cut, flipped, spliced and given dangerous names, huge lengths and strange operations.
Each is read and searched for weights. Four watches stand over it:

    an audit hook     any import, exec, open, subprocess, … ends the run
    the traps         the file that they would make is not there
    memory            the address space may grow by MEMORY and no more
    time              no pickle may take SECONDS of the processor

Every pickle has its own seed: `--first 4711 --count 1` repeats one.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import pickle
import pickletools
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
import zipfile
from pathlib import Path

import torch
from tests.pickles import edm, lightning, modules, saved, small, traps

from scorescope.adapters import inert, weights
from scorescope.errors import InputError

MEMORY = 256 * 2**20
SECONDS = 5
ALLOWED = {"object.__getattr__", "object.__setattr__", "sys._getframe", "builtins.id"}  # events of the interpreter's own doings
NAMES = (
    b"os\nsystem",
    b"builtins\nexec",
    b"builtins\neval",
    b"builtins\ngetattr",
    b"subprocess\nPopen",
    b"torch.storage\n_load_from_bytes",
)
NAMES += (b"torch._utils\n_rebuild_tensor_v2", b"numpy.core.multiarray\n_reconstruct", b"numpy\ndtype", b"collections\nOrderedDict")
NAMES += (b"copyreg\n_reconstructor", b"_codecs\nencode", b"argparse\nNamespace", b"torch.nn\nModule", b"builtins\nset", b"torch\nSize")
HUGE = (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x00" * 4, b"\xff" * 8, b"\x00\x00\x00\x00\x01\x00\x00\x00")
OPERATIONS = [opcode.code.encode("latin1") for opcode in pickletools.opcodes]


class TooLong(BaseException):
    """A pickle that does not end."""


def subjects(canary: Path) -> list[bytes]:
    """The pickles that are mutated."""
    whole, names = lightning()
    states = small().state_dict()
    plain = {"ema": {"shadow_params": list(states.values())}, "model": states, "step": 3, "names": ["a", "b"], "args": whole["args"]}
    found = [edm()[0], saved(whole, names), saved(plain), saved(plain, _use_new_zipfile_serialization=False), saved(small())]
    with modules(**names):
        found += [pickle.dumps(whole, protocol) for protocol in range(6)]
    return [*found, *(pickle.dumps({"ema": states, "args": trap}, protocol) for trap in traps(canary) for protocol in (0, 2, 4))]


@functools.lru_cache(maxsize=256)
def operations(content: bytes) -> list[tuple[int, int, str]]:
    """Begin, end and name of each operation; of what can't be read to its end, those before."""
    found: list[tuple[int, str]] = []
    with contextlib.suppress(ValueError):
        for opcode, _, at in pickletools.genops(content):
            found.append((at or 0, opcode.name))
    ends = [*(at for at, _ in found[1:]), len(content)][: len(found)]
    return [(at, end, name) for (at, name), end in zip(found, ends, strict=True)] or [(0, len(content), "")]


def changed(content: bytes, other: bytes, dice: random.Random) -> bytes:
    """One mutation; the first four kinds leave a pickle that can be read to its end, if the one before could."""
    data, known = bytearray(content), operations(content)
    at, end, _ = dice.choice(known)
    kind = dice.randrange(12)
    if kind < 2:  # a call of something, whose answer is dropped, or not
        args = dice.choice((b")", b"(X\x01\x00\x00\x00at", b"N\x85", b"(Kxt", b"}\x85", b"(cos\nsystem\n]t"))
        data[at:at] = (
            b"c" + dice.choice(NAMES) + b"\n" + args + dice.choice((b"R", b"\x81", b"R}b", b"R(NNNNNtb")) + dice.choice((b"0", b"0", b""))
        )
    elif kind == 2:  # another name, or word
        texts = [one for one in known if one[2] in ("GLOBAL", "SHORT_BINUNICODE", "BINUNICODE", "UNICODE")]
        at, end, name = dice.choice(texts or known)
        module, word = dice.choice(NAMES).split(b"\n")
        word = dice.choice((module, word, b"", b"x" * 300))
        new = {"GLOBAL": b"c" + dice.choice(NAMES) + b"\n", "SHORT_BINUNICODE": b"\x8c" + bytes([len(word) % 256]) + word[:255]}
        data[at:end] = new.get(name, b"X" + len(word).to_bytes(4, "little") + word)
    elif kind == 3:  # another number
        numbers = [one for one in known if one[2].startswith(("BININT", "LONG", "BINFLOAT"))]
        at, end, _ = dice.choice(numbers or known)
        data[at:end] = dice.choice(
            (b"J" + dice.choice(HUGE)[:4], b"\x8a\x08" + dice.choice(HUGE).ljust(8, b"\x7f"), b"K\x00", b"N", b"G" + b"\x7f" * 8)
        )
    elif kind == 4:
        for _ in range(dice.randint(1, 8)):
            data[dice.randrange(len(data))] = dice.randrange(256)
    elif kind == 5:
        del data[at : dice.choice((end, at + dice.randint(1, 40)))]
    elif kind == 6:
        data[at:at] = dice.randbytes(dice.randint(1, 12))
    elif kind == 7:
        data[at:at] = b"".join(dice.choice(OPERATIONS) for _ in range(dice.randint(1, 6)))
    elif kind == 8:
        data[at:at] = dice.choice(
            (b"B", b"\x8e", b"X", b"\x8d", b"\x96", b"\x95", b"2r", b"\x8b", b"T", b"j", b"J", b"\x84")
        ) + dice.choice(HUGE)
    elif kind == 9:
        begin, stop = sorted((at, dice.choice(known)[0]))
        data[at:at] = data[begin:stop][:2000] * dice.randint(1, 3)
    elif kind == 10:
        data[at:] = other[dice.choice(operations(other))[0] :]
    else:
        place = dice.randrange(max(len(data) - 8, 1))
        value = dice.choice(HUGE)
        data[place : place + len(value)] = value
    return bytes(data)


def mutated(found: list[bytes], dice: random.Random) -> bytes:
    """One of the pickles after one to three mutations: of a zip file, mostly those of the pickle inside."""
    content, other = dice.choice(found), dice.choice(found)
    inside = content[:2] == b"PK" and dice.random() < 0.9
    target = _main(content) if inside else content
    other = _main(other) if other[:2] == b"PK" else other
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        target = changed(target, other, dice)
        if not target:
            break
    return _zip_with(content, target) if inside else target


@functools.cache
def _main(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def _zip_with(content: bytes, main: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(out, "w") as made:
        for entry in archive.infolist():
            made.writestr(zipfile.ZipInfo(entry.filename), main if entry.filename.endswith("data.pkl") else archive.read(entry))
    return out.getvalue()


def main() -> None:
    """Print one line; any watch that is set off ends the run with a traceback."""
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("--count", type=int, default=100_000)
    told.add_argument("--first", type=int, default=0)
    asked = told.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        canary = Path(folder) / "made"
        pickle.loads(pickle.dumps(traps(canary)[4]))  # a trap does make the file
        canary.unlink()
        found = subjects(canary)
        "".encode("cp437")  # names in zip files
        for content in found:  # nothing is imported late
            read(content)
        watching, seen = [False], []

        def hook(event: str, args: tuple) -> None:
            if watching[0] and event not in ALLOWED:
                seen.append((event, str(args)[:200]))

        def late(*_: object) -> None:
            raise TooLong

        sys.addaudithook(hook)
        signal.signal(signal.SIGVTALRM, late)
        with open("/proc/self/statm") as opened:
            size = int(opened.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.RLIM_INFINITY))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        outcomes, longest, begun = {"weights": 0, "no weights": 0, "refused": 0}, 0.0, time.time()
        for number in range(asked.first, asked.first + asked.count):
            content = mutated(found, random.Random(f"pickle {number}"))
            start = time.process_time()
            signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
            watching[0] = True
            try:
                outcome = read(content)
            except BaseException as problem:
                watching[0] = False
                raise SystemExit(f"pickle {number}: {type(problem).__name__}: {problem}") from problem
            watching[0] = False
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            longest = max(longest, time.process_time() - start)
            outcomes[outcome] += 1
            if seen or canary.exists():
                raise SystemExit(f"pickle {number}: {seen[:3] or 'a trap was sprung'}")
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        said = ", ".join(f"{name} {count:,}" for name, count in outcomes.items())
        print(
            f"{asked.count:,} mutated pickles from {asked.first:,} on in {time.time() - begun:.0f} s: {said}; nothing ran, "
            f"longest {longest:.2f} s, memory grew by {grown:.0f} MB"
        )


def read(content: bytes) -> str:
    """What came out."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            value = inert.loads(content)
        except InputError:
            return "refused"
        try:
            weights.checkpoint(value)
        except InputError:
            return "no weights"
        return "weights"


if __name__ == "__main__":
    main()
