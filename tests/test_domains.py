"""Banks of sound and text: what a row is can be read from it; and which texts copy is known of texts that do."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from scorescope.claims import Verdict
from scorescope.errors import InputError
from scorescope.experiments import domain_banks as banks
from scorescope.experiments import domains
from scorescope.rows import Bank, sound

SHORTEST = 32**0.5  # between two letters' codes


def rows_of(bank):
    return np.asarray(bank.rows, float)


# ---- text ---------------------------------------------------------------------------------------------------------------------


@given(st.lists(st.text(banks.LETTERS, min_size=64, max_size=64), min_size=1, max_size=3), st.integers(0, 2**32 - 1))
def test_a_text_is_read_back_from_rows_that_are_off_by_less_than_half_a_code(texts, seed):
    rows = banks.encode(texts)
    off = np.random.default_rng(seed).standard_normal((len(texts), 16, 8, 8))
    off *= 0.99 * SHORTEST / 2 / np.sqrt(np.square(off).sum(1, keepdims=True))
    assert banks.decode(0.3 * (rows + off)) == texts


def test_letters_are_far_apart():
    apart = np.linalg.norm(banks.CODE[:, None] - banks.CODE, axis=-1)
    assert apart[~np.eye(len(apart), dtype=bool)].min() == pytest.approx(SHORTEST)


def test_windows_begin_at_a_word_and_none_that_is_held_out_was_shown():
    words = [f"{'abcdefghij'[k % 10]}{'klmnop'[k % 6] * (k % 4)}" for k in range(20_000)]
    plain, text = " ".join(words), ". ".join(words).title()
    found = banks.of_text(text, 200, 40)
    shown, unseen = (banks.decode(rows_of(found[name])) for name in ("text", "text-held-out"))
    assert len(shown) == pytest.approx(200, abs=90)
    assert unseen
    assert not {*shown} & {*unseen}
    assert all(f" {text}" in plain for text in [*shown, *unseen])
    assert np.array_equal(banks.of_text(text, 200, 40)["text"].rows, found["text"].rows)


def test_a_text_that_is_too_short_is_one_line():
    with pytest.raises(InputError, match="the text has 9 letters and spaces"):
        banks.of_text("Too short")


@given(st.text("ab ", max_size=8), st.text("ab ", max_size=12))
def test_the_longest_copied_part_is_the_longest_of_all_parts(text, corpus):
    every = [text[i:j] for i in range(len(text)) for j in range(i, len(text) + 1)]
    assert domains.longest_copied(text, corpus) == max((len(part) for part in every if part in corpus), default=0)


# ---- sound --------------------------------------------------------------------------------------------------------------------


def tone(frequency, silence=800, length=6000):
    time = np.arange(length) / banks.RATE
    return np.concatenate([np.zeros(silence), np.sin(2 * np.pi * frequency * time)])


@pytest.mark.parametrize("frequency", [300, 1000, 3000])
def test_a_tone_is_in_its_own_band_from_the_onset_on_however_loud(frequency):
    wave = tone(frequency)
    assert sound.onset(wave, banks.RATE) == 800
    row = sound.log_mel(wave, banks.RATE)
    assert sound.frames_of(banks.RATE) == (256, 96, 512)
    centres = np.fft.rfftfreq(512, 1 / banks.RATE)[sound.mel_filters(banks.RATE, 512).argmax(1)]
    assert (row[0].argmax(0) == abs(centres - frequency).argmin()).all()
    assert row.min() >= -1
    assert row.max() == 1
    np.testing.assert_allclose(sound.log_mel(1e-3 * wave, banks.RATE), row, atol=1e-9)


def test_a_waveform_is_read_place_by_place_and_ends_in_silence():
    wave = tone(500, length=1500)
    row = banks.waveform(7 * wave).transpose(1, 2, 0).ravel()
    np.testing.assert_allclose(row[:1500], wave[800:] / abs(wave).max())
    assert not row[1500:].any()


def test_takes_and_a_speaker_are_held_out():
    speaker, digit = np.repeat(["a", "c", "b"], 22), np.tile([3, 4], 33)
    recordings = banks.Recordings([], speaker, digit)
    assert recordings.take[:6].tolist() == [0, 0, 1, 1, 2, 2]
    shown, unseen, new = (recordings.parts[part] for part in ("", "-held-out", "-new-voice"))
    assert sorted([*shown, *unseen, *new]) == list(range(66))
    assert {*speaker[new]} == {"c"}
    assert {*recordings.take[unseen]} == {0, 10}


# ---- rows ---------------------------------------------------------------------------------------------------------------------


def test_all_parts_are_scaled_by_what_the_rows_to_train_on_ask_for():
    rng = np.random.default_rng(0)
    shown, unseen = 3 + 7 * rng.standard_normal((200, 1, 4, 4)), 20 * rng.standard_normal((10, 1, 4, 4))
    found = banks.scaled({"a": shown, "b": unseen})
    rows = rows_of(found["a"])
    assert np.sqrt(np.square(rows - rows.mean(0)).mean()) == pytest.approx(banks.DEVIATION, rel=1e-5)
    np.testing.assert_allclose(rows_of(found["b"]) / unseen, rows.flat[0] / shown.flat[0], rtol=1e-4)


def test_rows_fill_as_many_dimensions_as_share_their_variance():
    drawn = np.random.default_rng(0).standard_normal((4000, 12))
    drawn[:, 5:] = 0
    assert domains.effective_dimension(Bank.from_arrays(drawn.astype(np.float32))) == pytest.approx(5, rel=0.02)
    assert domains.effective_dimension(Bank.from_arrays(np.outer(drawn[:, 0], np.arange(3.0)).astype(np.float32))) == pytest.approx(1)


# ---- verdicts -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("copied", "known", "verdict"),
    [(14, 4, Verdict.SUPPORTED), (40, 5, Verdict.CONTRADICTED), (3, 0, Verdict.UNDECIDED)],
    ids=["as held-out text", "a copier", "no words"],
)
def test_texts_that_copy_are_told_from_those_that_do_not(copied, known, verdict):
    rng = np.random.default_rng(0)
    found = xr.Dataset(
        {
            "copied": (("model", "sample"), copied + rng.integers(-2, 3, (1, 256))),
            "copied_held_out": ("sample", 14 + rng.integers(-2, 3, 256)),
            "words": (("model", "sample"), np.full((1, 256), 5)),
            "words_known": (("model", "sample"), np.full((1, 256), known)),
            "words_held_out": ("sample", np.full(256, 5)),
            "words_known_held_out": ("sample", np.full(256, 5)),
            "text": (("model", "sample"), np.full((1, 256), "and it came to pass")),
        },
        coords={"model": ["large"]},
    )
    assert domains.copies_text(found, "").verdict is verdict
