"""WAV files as windows, and drawn vowels."""

import io
import random
import struct
import wave

import numpy as np
import pytest

from fastgan.data.sounds import vowels, wav, windows
from fastgan.data.sounds.windows import open_sounds, split
from fastgan.errors import FastganError


def tone(hertz, rate, seconds=1.0):
    return np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def written(samples, rate, width, channels=1):
    """A WAV file of this many bytes a sample; the second channel is silent."""
    whole = np.rint(samples * (2 ** (8 * width - 1) - 1)).astype(np.int64)
    if width == 1:
        whole += 128
    both = np.zeros((len(whole), channels), np.int64) + (128 if width == 1 else 0)
    both[:, 0] = whole
    raw = both.astype("<i8").reshape(-1, 1).view(np.uint8)[:, :width].tobytes()
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(raw)
    return target.getvalue()


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_each_width_is_read_and_mixed(width, channels):
    sound = 0.8 * tone(300, 8000, 0.1)
    read, rate = wav.decode(written(sound, 8000, width, channels))
    assert rate == 8000
    np.testing.assert_allclose(read * channels, sound, atol=4 * 2.0 ** -(8 * width - 1) + 1e-6)


def test_an_extensible_header_is_read_and_floats_are_refused():
    data = written(tone(300, 8000, 0.1), 8000, 2)
    rest = struct.pack("<HHI", 22, 16, 0) + struct.pack("<H", 1) + b"\0" * 14
    fmt = struct.pack("<H", wav.EXTENSIBLE) + data[22:36] + rest
    wide = data[:16] + struct.pack("<I", len(fmt)) + fmt + data[36:]
    wide = wide[:4] + struct.pack("<I", len(wide) - 8) + wide[8:]
    np.testing.assert_array_equal(wav.decode(wide)[0], wav.decode(data)[0])
    for bad, message in (
        (data[:20] + struct.pack("<H", 3) + data[22:], "no PCM"),
        (b"RIFF0000WAVE", "no PCM"),
        (b"ID3", "no WAV file"),
    ):
        with pytest.raises(wav.Unreadable, match=message):
            wav.decode(bad)


def test_damaged_files_are_read_or_unreadable():
    dice = random.Random(0)
    whole = [written(tone(300, 4000, 0.5), 4000, width, 2) for width in (1, 2, 3, 4)]
    unreadable = 0
    for _ in range(400):
        data = bytearray(dice.choice(whole))
        for _ in range(dice.randint(1, 4)):
            if dice.random() < 0.3:
                del data[dice.randint(1, len(data)) :]
            data[dice.randrange(min(len(data), 60))] = dice.randrange(256)
        try:
            samples, rate = wav.decode(bytes(data))
            assert np.isfinite(wav.resampled(samples[:100], rate, 4000)).all()
        except wav.Unreadable:
            unreadable += 1
    assert 50 < unreadable < 400


def test_rates_with_nothing_in_common_take_no_memory():
    with pytest.raises(wav.Unreadable, match="use a usual rate"):
        wav.resampled(np.zeros(1000, np.float32), 4_294_967_295, 44_100)


def test_a_rate_that_is_none_of_sound_is_refused():
    with pytest.raises(wav.Unreadable, match="at 1 Hz"):
        wav.decode(written(tone(300, 4000, 0.1), 1, 2))


def test_what_is_written_is_read_again():
    sound = 0.9 * tone(440, 8000, 0.2)
    read, rate = wav.decode(wav.encode(sound, 8000))
    assert rate == 8000
    np.testing.assert_allclose(read, sound, atol=1e-4)


@pytest.mark.parametrize(("rate", "wanted"), [(44100, 8000), (8000, 16000), (48000, 44100)])
def test_resampling_keeps_tones_and_drops_what_is_too_high(rate, wanted):
    made = wav.resampled(tone(440, rate), rate, wanted)
    assert len(made) == wanted
    np.testing.assert_allclose(made[200:-200], tone(440, wanted)[200:-200], atol=1e-4)
    if 2 * wanted < rate:
        high = wav.resampled(tone(0.48 * rate, rate), rate, wanted)
        assert np.abs(high[200:-200]).max() < 2e-3
    assert wav.resampled(np.ones(900), rate, wanted)[45:-45] == pytest.approx(1, abs=1e-6)


def test_vowels_have_their_resonances():
    made, which = vowels.draw(60, 4096, 8000)
    assert made.dtype == np.float32
    assert np.abs(made).max() <= 0.95
    power = np.abs(np.fft.rfft(made)) ** 2
    hertz = np.fft.rfftfreq(4096, 1 / 8000)

    def share(name, low, high):
        mine = power[which == vowels.NAMES.index(name)].sum(0)
        return mine[(hertz > low) & (hertz < high)].sum() / mine.sum()

    assert share("i", 600, 1700) < 0.1 < share("a", 600, 1700)
    assert share("i", 1900, 2700) > 2 * share("u", 1900, 2700)
    again, _ = vowels.draw(60, 4096, 8000)
    np.testing.assert_array_equal(made, again)


def test_a_resonator_is_the_recursion():
    x = np.zeros((1, 5))
    x[0, 0] = 1
    c = -np.exp(-2 * np.pi * 100 / 8000)
    b = 2 * np.exp(-np.pi * 100 / 8000) * np.cos(2 * np.pi * 500 / 8000)
    a = 1 - b - c
    expected = [a, a * b, a * (b * b + c), a * (b**3 + 2 * b * c)]
    found = vowels.resonance(x, np.array([500.0]), 100, 8000)
    np.testing.assert_allclose(found[0, :4], expected)


def folder_of(path, names, rate=8000, seconds=0.6):
    for i, name in enumerate(names):
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(written(0.5 * tone(200 + 50 * i, rate, seconds), rate, 2))


def test_files_become_windows_of_one_length_and_rate(tmp_path):
    folder_of(tmp_path, ["a/1.wav", "a/2.WAV", "b/3.wav"], rate=16000)
    (tmp_path / "b" / "bad.wav").write_bytes(b"RIFF....")
    (tmp_path / "notes.txt").write_text("no sound")
    sounds = open_sounds(str(tmp_path), 1024, 8000)
    assert sounds.fields["image"].shape == (1, 1024)
    assert sounds.classes == ["a", "b"]
    assert sounds.skipped == [("b/bad.wav", "no WAV file")]
    assert sounds.notes == ["brought from 16,000 Hz to 8,000 Hz"]
    peak = np.abs(sounds.array("image")).max() / 32767
    assert peak == pytest.approx(0.95, abs=0.01)
    assert len(set(sounds.source.tolist())) == 3
    assert sounds.describe().startswith(f"{tmp_path.name}: {len(sounds)} windows of 1,024 samples")
    with pytest.raises(FastganError, match=r"bad\.wav: no WAV file"):
        open_sounds(str(tmp_path), 1024, 8000, strict=True)


def test_short_files_are_filled_and_silence_is_left_out(tmp_path):
    folder_of(tmp_path, ["short.wav"], seconds=0.05)
    assert len(open_sounds(str(tmp_path), 1024, 8000)) == 1
    (tmp_path / "still.wav").write_bytes(wav.encode(np.zeros(8000), 8000))
    assert open_sounds(str(tmp_path), 1024, 8000).skipped == [("still.wav", "silence")]
    (tmp_path / "gap.wav").write_bytes(
        wav.encode(np.r_[tone(300, 8000), np.zeros(8000), tone(300, 8000)], 8000)
    )
    cut = windows.windows_of(*windows.read(tmp_path / "gap.wav"), 1024, 8000)
    assert (np.abs(cut).max(1) > 100).all()
    assert len(cut) < 46


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "is not there: name a folder of WAV files"),
        (lambda p: p.mkdir(), "has no .wav file"),
        (
            lambda p: (p.mkdir(), (p / "a.wav").write_bytes(b"x")),
            "no sound to learn from; left out 1",
        ),
    ],
)
def test_what_is_no_sound_is_one_line(make, message, tmp_path):
    make(tmp_path / "sounds")
    with pytest.raises(FastganError, match=message):
        open_sounds(str(tmp_path / "sounds"), 1024, 8000)


def test_held_out_windows_are_of_other_files(tmp_path):
    folder_of(tmp_path, [f"{i}.wav" for i in range(10)])
    train, apart = split(open_sounds(str(tmp_path), 1024, 8000), 0.2)
    assert set(apart.source) == {4, 9}
    assert not set(train.source) & set(apart.source)
    one = open_sounds(str(tmp_path / "3.wav"), 1024, 8000)
    train, apart = split(one, 0.2)
    assert len(train) + len(apart) == len(one) - 1
    assert len(apart) >= 1
