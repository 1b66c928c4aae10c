"""Banks of other domains than pictures, which `benchmarks/domain_banks.py` makes of recordings and of a text, and `domains` examines.

    log-mel      1×32×32   32 mel bands × 32 frames of 32 ms (`rows.sound`)
    waveform     32×8×8    2,048 samples at 8 kHz over the largest of them, 32 in a row at each place
    text         16×8×8    64 letters and spaces in the order of reading, each a word of the biorthogonal code of length 16
    digits-8x8   1×8×8     scikit-learn's handwritten digits

Rows of a domain are multiplied by one number, such that those to train on deviate from their mean by `DEVIATION` a dimension (root mean
square), as digits in [−1, 1] do: a time t then means the same ratio of noise to data everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from scipy.linalg import hadamard

from scorescope import seeds
from scorescope.errors import InputError
from scorescope.rows import Bank, sound

DEVIATION = 0.5
EVERY = 10  # of takes, of parts of a text and of digits one in ten is held out


def scaled(parts: Mapping[str, np.ndarray], names: Mapping[str, Sequence[str]] | None = None) -> dict[str, Bank]:
    """Banks by name, all multiplied by the number that the first, the one to train on, asks for.

    Args:
        parts: Rows (N, *shape) by the name of their bank.
        names: Of the rows of each, where they have some.
    """
    first = next(iter(parts.values()))
    factor = DEVIATION / np.sqrt(np.square(first - first.mean(0)).mean())
    named = names or {}
    return {name: Bank.from_arrays((factor * rows).astype(np.float32), name=name, names=named.get(name)) for name, rows in parts.items()}


def digits_8x8() -> dict[str, Bank]:
    """1,617 digits to train on, and every tenth of all 1,797 held out.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as missing:
        raise InputError("the digits of 8×8 come with scikit-learn, which is not installed", "pip install scikit-learn") from missing
    rows = load_digits().images[:, None] / 8 - 1
    held = np.arange(len(rows)) % EVERY == 0
    return scaled({"digits-8x8": rows[~held], "digits-8x8-held-out": rows[held]})


# ---- sound --------------------------------------------------------------------------------------------------------------------

RATE = 8000  # samples a second
SAMPLES = 2048  # of a waveform


@dataclass(frozen=True)
class Recordings:
    """Sound at 8 kHz.

    Attributes:
        waves: Of each recording, as long as it is.
        speaker: Who speaks, (N,).
        digit: What is said, (N,).
    """

    waves: Sequence[np.ndarray]
    speaker: np.ndarray
    digit: np.ndarray

    @property
    def take(self) -> np.ndarray:
        """(N,) how often its speaker has said its digit before."""
        same = (self.speaker[:, None] == self.speaker) & (self.digit[:, None] == self.digit)
        return np.tril(same, -1).sum(1)

    @property
    def parts(self) -> dict[str, np.ndarray]:
        """Which are trained on; held out, every tenth take; held out because their speaker is, the last in alphabetical order."""
        new, held = self.speaker == sorted(set(self.speaker))[-1], self.take % EVERY == 0
        found = {"": ~new & ~held, "-held-out": ~new & held, "-new-voice": new}
        return {name: np.flatnonzero(which) for name, which in found.items()}


def waveform(wave: np.ndarray) -> np.ndarray:
    """(32, 8, 8): samples 32 k to 32 k + 31 at place k of an 8×8 grid."""
    part = sound.cut(wave, SAMPLES, RATE)
    return (part / np.abs(part).max()).reshape(8, 8, 32).transpose(2, 0, 1)


def of_recordings(recordings: Recordings) -> dict[str, Bank]:
    """The banks log-mel and waveform, each with -held-out and -new-voice beside it; rows are named digit_speaker_take."""
    called = [f"{d}_{s}_{k}" for d, s, k in zip(recordings.digit, recordings.speaker, recordings.take, strict=True)]
    found: dict[str, Bank] = {}
    for name, turn in (("log-mel", partial(sound.log_mel, rate=RATE)), ("waveform", waveform)):
        rows = np.stack([turn(wave) for wave in recordings.waves])
        parts = {f"{name}{part}": index for part, index in recordings.parts.items()}
        found |= scaled(
            {part: rows[index] for part, index in parts.items()}, {part: [called[k] for k in index] for part, index in parts.items()}
        )
    return found


# ---- text ---------------------------------------------------------------------------------------------------------------------

LETTERS = " abcdefghijklmnopqrstuvwxyz"
CODE = np.concatenate([hadamard(16), -hadamard(16)])[: len(LETTERS)].astype(np.float64)  # (27, 16) of ±1, any two √32 apart or 8
LENGTH = 64  # characters of a window
PIECES = 100  # of the text
TRAINED, HELD_OUT = 10_000, 1_000  # windows


def letters(text: str) -> str:
    """In lower case, with one space for whatever is between words."""
    return " ".join(re.findall("[a-z]+", re.sub("['’]", "", text.lower())))


def windows(text: str, count: int) -> list[str]:
    """At most `count` evenly spaced windows of 64 characters, each from the beginning of a word on."""
    starts = np.linspace(0, len(text) - 2 * LENGTH, min(count, len(text) // LENGTH)).astype(int)
    begun = sorted({text.index(" ", start) + 1 for start in starts})
    return [text[start : start + LENGTH] for start in begun if start + LENGTH <= len(text)]


def encode(texts: Sequence[str]) -> np.ndarray:
    """(N, 16, 8, 8) of texts of 64 characters."""
    index = np.array([[LETTERS.index(letter) for letter in text] for text in texts])
    return CODE[index].reshape(-1, 8, 8, 16).transpose(0, 3, 1, 2)


def decode(rows: np.ndarray) -> list[str]:
    """The text whose codes are nearest to rows (N, 16, 8, 8), whatever their scale: all codes are equally long."""
    nearest = (rows.transpose(0, 2, 3, 1).reshape(-1, LENGTH, 16) @ CODE.T).argmax(-1)
    return ["".join(LETTERS[k] for k in one) for one in nearest]


def of_text(text: str, trained: int = TRAINED, held_out: int = HELD_OUT) -> dict[str, Bank]:
    """The banks text and text-held-out: about so many windows, of which every tenth of a hundred parts of the text gives those held out.

    Raises:
        InputError: The text is too short.
    """
    plain = letters(text)
    if len(plain) < 4 * LENGTH * PIECES:
        raise InputError(f"the text has {len(plain):,} letters and spaces", f"a longer one, of {4 * LENGTH * PIECES:,} at least")
    pieces = [plain[len(plain) * k // PIECES : len(plain) * (k + 1) // PIECES] for k in range(PIECES)]
    kept, apart = ([piece for k, piece in enumerate(pieces) if (k % EVERY == EVERY // 2) == held] for held in (False, True))
    shown = [window for piece in kept for window in windows(piece, -(-trained // len(kept)))]
    known = set(shown)
    unseen = [window for piece in apart for window in windows(piece, -(-held_out // len(apart))) if window not in known]
    return scaled({"text": encode(shown), "text-held-out": encode(unseen)})


# ---- what needs no file -------------------------------------------------------------------------------------------------------


@cache
def drawn() -> dict[str, Bank]:
    """The banks of made-up sounds and words, small ones, each under its name behind "drawn-": to try all steps with."""
    rng = seeds.generator(0, "drawn domain", 0)
    said = [(digit, speaker, take) for digit in range(4) for speaker in "abc" for take in range(20)]
    time = np.arange(3600) / RATE
    waves = []
    for digit, speaker, _ in said:
        pitch = 100 * (1 + ord(speaker) - ord("a")) * (1 + 0.1 * rng.standard_normal())
        tones = sum(np.sin(2 * np.pi * k * pitch * (1 + digit / 10) * time) / k for k in (1, 2, 3))
        waves.append(tones * np.exp(-5 * time) + 0.01 * rng.standard_normal(len(time)))
    recordings = Recordings(waves, np.array([speaker for _, speaker, _ in said]), np.array([digit for digit, *_ in said]))
    lexicon = ["in", "the", "beginning", "was", "a", "word", "and", "of", "it", "were", "made", "other", "words", "that", "we", "know"]
    text = " ".join(lexicon[k] for k in rng.integers(len(lexicon), size=10_000))
    found = of_recordings(recordings) | of_text(text, 300, 50)
    return {f"drawn-{name}": bank for name, bank in found.items()}


def own(name: str) -> Bank | None:
    """The bank of that name, if it is one that needs no file."""
    if name.startswith("digits-8x8"):
        return digits_8x8().get(name)
    return drawn().get(name) if name.startswith("drawn-") else None
