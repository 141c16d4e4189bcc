"""Videos whose streams are joined, damaged or of uneven length."""

from fractions import Fraction

import numpy as np
import pytest

from tests.helpers.image_files import good

av = pytest.importorskip("av", reason="needs pip install 'isr-jax[video]'")

from tests.helpers.clips import make_clip, pictures, read_clip


def test_recordings_that_were_joined_play_one_after_the_other(tmp_path, capsys):
    """Each has a clock of its own: the second begins where the first ends, with its sound."""
    one = make_clip(tmp_path / "one.ts", pictures(60), audio=True).read_bytes()
    clip = tmp_path / "a.ts"
    clip.write_bytes(one + one)
    lines = good(capsys, clip)
    assert "the clock began anew: what follows was joined on" in lines[0]
    found = read_clip(tmp_path / "a_x2.mkv")
    assert len(found.times) == 120
    steps = np.diff([float(time) for time in found.times])
    np.testing.assert_allclose(steps, 1 / 25, atol=1.1e-3)
    sound = [float(time) for _, _, time, *_ in found.others]
    assert len(sound) > 1.9 * len(read_clip(tmp_path / "one.ts").others)
    assert abs(sound[-1] - 4.8) < 0.1


def test_a_damaged_packet_of_sound_is_left_out(tmp_path, capsys):
    clip = make_clip(tmp_path / "a.ts", pictures(20), audio=True)
    data = bytearray(clip.read_bytes())
    at = data.rindex(b"\xff\xf1", 0, len(data) // 2)  # where a packet of AAC begins
    data[at + 1] ^= 0x70
    clip.write_bytes(data)
    lines = good(capsys, clip)
    assert any("damaged" in line for line in lines)
    assert len(read_clip(tmp_path / "a_x2.mkv").images) == 20


def test_the_last_frame_is_shown_as_long_as_it_was(tmp_path, capsys):
    """With B-frames, the last packet is of another frame."""
    options = {"options": {"bf": "0"}, "time_base": Fraction(1, 1000)}
    clip = make_clip(tmp_path / "a.mp4", pictures(8, (64, 64)), step=40, last=3000, **options)
    good(capsys, clip)
    with av.open(str(tmp_path / "a_x2.mp4")) as container:
        stream = container.streams.video[0]
        assert abs(float(stream.duration * stream.time_base) - 3.28) < 0.05
