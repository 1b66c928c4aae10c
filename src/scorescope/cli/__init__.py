"""The `scorescope` command: a thin entry point that imports a verb's module only when that verb is called.

Bad input ends with one line on stderr and exit status 2; an interrupt with 130; anything else is a bug and shows its traceback.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys

from scorescope import __version__, process
from scorescope.errors import InputError, unknown

VERBS = {
    "demo": "examine the three models that come with the package on 4,500 real digits",
    "examine": "measure a trained model against the exact empirical score of its data; write a report",
    "check": "say in seconds whether a model is read right: its prediction, its time, its range of values",
    "bank": "build, describe or check a bank: the training set as rows on disk",
    "train": "train a diffusion model on a bank",
    "sample": "draw samples of a model: arrays and a picture",
    "evaluate": "compare samples with a bank: Fréchet distance, precision and recall",
    "compare": "set training recipes side by side: supervision loss against Fréchet distance",
    "report": "draw the report of a finished run again",
    "reproduce": "run the paper's experiments: a figure and a verdict each",
    "bench": "compare the exact empirical score, or training steps, with what else one could use",
}

TRAINING = ("train", "sample")  # networks alone, whose many small operations are faster with threads that stay awake

HELP = """scorescope shows where a diffusion model has learned the empirical score of its training set, where it extrapolates,
and whether it memorizes.

  scorescope bank build photos/ --out photos.bank          a folder of images becomes a bank
  scorescope examine model.safetensors --bank photos.bank  one HTML report
  scorescope demo                                          the same on an embedded example

verbs (scorescope VERB --help tells more):
{verbs}

options:
  --version   print the version
  --help      print this
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (the process's own by default) and return the exit status."""
    _prepare_streams()
    try:
        try:
            status = _run(sys.argv[1:] if argv is None else argv)
        except SystemExit as leaving:  # help was printed
            status = int(leaving.code or 0)
        sys.stdout.flush()
        return status
    except InputError as problem:
        if problem.details:
            print(problem.details, file=sys.stderr)
        return _fail(str(problem))
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has gone
        _discard()
        return 1
    except OSError as problem:
        known = _in_words(problem)
        if known is None:
            raise
        _discard()
        return _fail(known)


def _prepare_streams() -> None:
    """Closed streams take what is printed, and forget it; signs that an encoding lacks are escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _discard() -> None:
    """Forget what is still buffered if it can't be written: it must not complain again when the process ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(words: list[str]) -> int:
    """Do what the words say and return the exit status."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP.format(verbs="\n".join(f"  {verb:<10}{summary}" for verb, summary in VERBS.items())), end="")
        return 0
    if words[0] == "--version":
        print(f"scorescope {__version__}")
        return 0
    if words[0] not in VERBS:
        raise unknown("verb", words[0], VERBS)
    count = os.environ.get("WORLD_SIZE", "1")  # of torchrun's processes
    if words[0] != "train" and count.isdecimal() and int(count) > 1:
        if os.environ.get("RANK", "0") != "0":  # one speaks for all
            return 2
        raise InputError(f"scorescope {words[0]} runs in one process, and WORLD_SIZE is {count}", "the same command without torchrun")
    process.keep_memory()
    if words[0] not in TRAINING:
        process.wait_asleep()
    return int(importlib.import_module(f"scorescope.cli.{words[0]}").main(words[1:]) or 0)


def _in_words(problem: OSError) -> str | None:
    """What the machine refused, as one line; None for what only a bug can cause."""
    name = problem.filename or "a file"
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full while writing {name}. Try: free some space and run the same command again"
    if problem.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission for {name}. Try: another folder"
    if problem.errno in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG):
        return f"{name} can't be used as it is ({problem.strerror}). Try: another name"
    return None


def _fail(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2
