"""Rows from sound: recordings as waveforms (channels, samples), or as the logarithm of their mel spectrum.

    log-mel      1×32×32   32 mel bands × 32 frames of 32 ms, 12 ms apart: decibels below the loudest, no lower than −60

Another length than 0.404 s stretches frames and steps alike. Sound is read by the library soundfile (the extra `audio`), and resampled
by SciPy's polyphase filter.
"""

from __future__ import annotations

import io
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import islice
from typing import Any

import numpy as np

from scorescope.errors import InputError
from scorescope.rows.arrays import array_source
from scorescope.rows.images import Item
from scorescope.rows.options import Options
from scorescope.rows.raw import Raw
from scorescope.rows.storage import Progress, Source
from scorescope.rows.tags import Tags

SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff"})
INSTALL = "pip install 'scorescope[audio]'"
STEPS = 100  # a second: of those steps the energy tells where sound begins
QUIET = 0.01  # of the loudest step's energy
BANDS, FRAMES, DECIBELS = 32, 32, 60
STREAMED = 0xFFFFFF00  # bytes, and more: what a .wav says whose length was not known when it was begun
SPAN = 0.404  # seconds from the first frame's beginning to the last one's end


# ---- spectra ------------------------------------------------------------------------------------------------------------------


def onset(wave: np.ndarray, rate: int) -> int:
    """The first sample of the first 10 ms whose energy is above a hundredth of that of the loudest."""
    step = max(1, rate // STEPS)
    energy = np.square(wave[: len(wave) // step * step].reshape(-1, step)).mean(1)
    return step * int(np.argmax(energy > QUIET * energy.max())) if len(energy) else 0


def cut(wave: np.ndarray, length: int, rate: int) -> np.ndarray:
    """(length,) from the onset on, with silence after the end."""
    part = wave[onset(wave, rate) :][:length]
    return np.pad(part, (0, length - len(part)))


@cache
def mel_filters(rate: int, spectrum: int) -> np.ndarray:
    """(BANDS, spectrum // 2 + 1) triangles of frequency, evenly spaced in mel = 2595 log₁₀(1 + f/700 Hz), up to half the rate."""
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    f = np.fft.rfftfreq(spectrum, 1 / rate)
    return np.clip(np.minimum((f - low) / (middle - low), (high - f) / (high - middle)), 0, None)


def frames_of(rate: int, seconds: float = SPAN) -> tuple[int, int, int]:
    """Samples of a frame, from one frame to the next, and of its spectrum: frames overlap by 5/8 and together last `seconds`.

    Raises:
        InputError: So short that a mel band lies between two frequencies of the spectrum.
    """
    length = round(seconds * rate)
    hop = round(3 * length / (3 * (FRAMES - 1) + 8))  # length = 31 steps and a frame of 8/3 steps
    window = length - (FRAMES - 1) * hop
    spectrum = 2 << max(0, window - 1).bit_length() if hop > 0 else 2
    if not mel_filters(rate, spectrum).any(1).all():
        said = f"{length} samples ({seconds:g} s at {rate} Hz) are too few for {BANDS} mel bands × {FRAMES} frames"
        raise InputError(said, "a longer --seconds")
    return window, hop, spectrum


def log_mel(wave: np.ndarray, rate: int, seconds: float = SPAN) -> np.ndarray:
    """(1, BANDS, FRAMES): decibels of the power in each mel band below the largest, from −DECIBELS and less to 0 as −1 to 1.

    Args:
        wave: (samples,) from whose onset on the frames are; silence gives −1 everywhere.
        rate: Samples a second.
        seconds: From the first frame's beginning to the last one's end.
    """
    window, hop, spectrum = frames_of(rate, seconds)
    frames = np.lib.stride_tricks.sliding_window_view(cut(wave, hop * (FRAMES - 1) + window, rate), window)[::hop]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(window), spectrum))) @ mel_filters(rate, spectrum).T
    decibels = 10 * np.log10(np.maximum(power / (power.max() or 1.0), 10 ** (-DECIBELS / 10)))
    return (1 + 2 * decibels / DECIBELS).T[None]


# ---- files --------------------------------------------------------------------------------------------------------------------


def sound_source(
    where: str,
    items: Callable[[], Iterator[Item]],
    n: int,
    options: Options,
    tags: Tags,
    progress: Progress,
    cautions: tuple[str, ...] = (),
) -> Source:
    """The rows of sound files; `items` can be gone through twice: their heads are looked at first."""
    options.refuse(where, "sound", "size", "gray", "layout", "range", "array", "columns")
    if options.flips:
        raise InputError(f"--flips mirrors pixels; sound played backwards is no sound that the model was shown ({where})", "leaving it out")
    rates, channels, lengths = _survey(items(), n, where, progress)
    if options.rate is None and len(rates) > 1:
        listed = ", ".join(f"{count:,} of {rate} Hz" for rate, count in rates.most_common(3))
        raise InputError(f"{where} has sound of several rates ({listed})", f"--rate {min(rates)}")
    rate = options.rate or next(iter(rates))
    if len(channels) > 1 and not options.log_mel:
        raise InputError(f"{where} has sound of {min(channels)} and of {max(channels)} channels", "--log-mel, or files of one kind")
    words = [f"resampled to {rate} Hz"] if set(rates) != {rate} else []
    seconds = options.seconds or SPAN
    if options.log_mel:
        window, hop, _ = frames_of(rate, seconds)
        words.append(
            f"log-mel spectrum: {BANDS} bands up to {rate / 2:g} Hz, {FRAMES} frames of {window} samples, {hop} apart, from the onset on, "
            f"the loudest 1, {DECIBELS} dB less −1" + (", mean of the channels" if max(channels) > 1 else "")
        )
        shape: tuple[int, ...] = (1, BANDS, FRAMES)
    else:
        shape = (next(iter(channels)), _samples(where, rate, lengths, options))
        if options.seconds is not None:
            words.append(f"cut or filled with silence to {shape[1]:,} samples ({options.seconds:g} s) from the beginning")

    def row(item: Item) -> np.ndarray:
        wave = _read(item, rate, where)
        if options.log_mel:
            return log_mel(wave.mean(0), rate, seconds)
        part = wave[:, : shape[1]]
        return np.pad(part, ((0, 0), (0, shape[1] - part.shape[1])))

    def batches(count: int, size: int) -> Iterator[np.ndarray]:
        stream = iter(items())
        for start in range(0, count, size):
            yield np.stack([row(item) for item in islice(stream, min(size, count - start))])

    raw = Raw(where, (n, *shape), np.dtype(np.float64), batches)
    plain = replace(options, limit=None, rate=None, seconds=None, log_mel=False)
    found = array_source(raw, plain, tags)
    return replace(found, transform=(*words, *found.transform), cautions=cautions)


def _library(where: str) -> Any:
    try:
        import soundfile
    except (ImportError, OSError) as problem:  # OSError: its own library, libsndfile, is not there
        raise InputError(f"reading the sound of {where} needs the package soundfile", INSTALL) from problem
    return soundfile


def _open(item: Item, where: str) -> Any:
    """A sound file, opened."""
    name, data = item
    soundfile = _library(where)
    try:
        return soundfile.SoundFile(io.BytesIO(data) if isinstance(data, bytes) else str(data))
    except (soundfile.LibsndfileError, RuntimeError) as problem:
        said = getattr(problem, "error_string", str(problem)).rstrip(".")
        raise InputError(f"{where}: {name} can't be read as sound ({said})", "repair or remove it") from problem


def _survey(items: Iterator[Item], n: int, where: str, progress: Progress) -> tuple[Counter[int], set[int], list[tuple[float, str]]]:
    """How many files have which rate; the numbers of channels; the seconds and the name of each."""
    rates: Counter[int] = Counter()
    channels: set[int] = set()
    lengths = []
    for k, item in enumerate(items, 1):
        with _open(item, where) as sound:
            _refuse_cut(item, where)
            if not sound.frames:
                raise InputError(f"{where}: {item[0]} has no sound", "repair or remove it")
            rates[sound.samplerate] += 1
            channels.add(sound.channels)
            lengths.append((sound.frames / sound.samplerate, item[0]))
        if k % 1000 == 0:
            progress("looking at sound", k, n)
    return rates, channels, lengths


def _refuse_cut(item: Item, where: str) -> None:
    """Raise `InputError` for a .wav that is shorter than its head says, of which the library reads what is there."""
    name, data = item
    if isinstance(data, bytes):
        head, size = data[:8], len(data)
    else:
        with open(data, "rb") as file:
            head, size = file.read(8), os.fstat(file.fileno()).st_size
    told = 8 + int.from_bytes(head[4:], "little")
    if head[:4] == b"RIFF" and size < told < STREAMED:
        raise InputError(f"{where}: {name} was cut: expected {told:,} bytes, found {size:,}", "repair or remove it")


def _samples(where: str, rate: int, lengths: list[tuple[float, str]], options: Options) -> int:
    """Samples of a row of waveforms."""
    if options.seconds is not None:
        return max(1, round(options.seconds * rate))
    (least, short), (most, long) = min(lengths), max(lengths)
    if round(least * rate) != round(most * rate):
        said = f"{where}: sound of mixed length: {short} lasts {least:.3f} s, {long} {most:.3f} s"
        raise InputError(said, f"--seconds {sorted(lengths)[len(lengths) // 2][0]:.3f}, or --log-mel")
    return round(least * rate)


def _read(item: Item, rate: int, where: str) -> np.ndarray:
    """The sound of a file (channels, samples) at `rate`, float64 in [−1, 1]."""
    with _open(item, where) as sound:
        try:
            wave = sound.read(dtype="float64", always_2d=True).T
        except (_library(where).LibsndfileError, RuntimeError) as problem:
            raise InputError(f"{where}: {item[0]} can't be read as sound ({problem})", "repair or remove it") from problem
        if wave.shape[1] != sound.frames:
            said = f"{where}: {item[0]} was cut: {wave.shape[1]:,} of {sound.frames:,} samples"
            raise InputError(said, "repair or remove it")
        found = sound.samplerate
    if found == rate:
        return np.ascontiguousarray(wave)
    from scipy.signal import resample_poly

    common = math.gcd(rate, found)
    return np.asarray(resample_poly(wave, rate // common, found // common, axis=1))
