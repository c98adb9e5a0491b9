"""Films on the disk: whole or not there, and what a player reads from them."""

import re
import subprocess
import sys

import numpy as np
import pytest

from actor_mimic.errors import CannotCreateError, StorageError, UnavailableError
from actor_mimic.storage import film_file
from actor_mimic.storage.film_file import FilmFile, ffmpeg

SIZE = (64, 48)


def picture(number, size=SIZE):
    """Large squares of plain colours, another for every number."""
    rng = np.random.default_rng(number)
    squares = rng.integers(0, 256, (size[1] // 16, size[0] // 16, 3), dtype=np.uint8)
    return squares.repeat(16, axis=0).repeat(16, axis=1)


def write(path, pictures, *, rate=15.0, size=SIZE, limit=None):
    with FilmFile(path, size=size, pictures_per_s=rate, max_bits_per_s=limit) as film:
        for one in pictures:
            film.write(one)


def read(path, size=SIZE):
    """The pictures of a film, and what ffmpeg says about it."""
    command = [ffmpeg(), "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    result = subprocess.run(command, capture_output=True, check=True)
    pictures = np.frombuffer(result.stdout, dtype=np.uint8).reshape(-1, size[1], size[0], 3)
    return pictures, result.stderr.decode()


def test_an_mp4_is_what_browsers_play(tmp_path):
    pictures = [picture(number) for number in range(20)]
    write(tmp_path / "film.mp4", pictures)

    found, said = read(tmp_path / "film.mp4")

    assert "Video: h264 (High)" in said
    assert re.search(r"yuv420p\(tv, bt709[,/) ]", said)
    assert "64x48" in said
    assert "15 fps" in said
    assert len(found) == 20
    # Colours come back, but for what the compression takes.
    assert np.abs(found.astype(int) - np.stack(pictures)).mean() < 6.0
    content = (tmp_path / "film.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_a_gif_has_every_colour(tmp_path):
    pictures = [picture(number) for number in range(5)]
    write(tmp_path / "film.gif", pictures, rate=10.0)

    found, said = read(tmp_path / "film.gif")

    assert "10 fps" in said
    assert np.abs(found.astype(int) - np.stack(pictures)).max() <= 1


def test_a_limit_holds(tmp_path):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(90)]
    for name, limit in (("free.mp4", None), ("limited.mp4", 80_000)):
        write(tmp_path / name, noise, limit=limit)

    free, limited = ((tmp_path / f"{name}.mp4").stat().st_size for name in ("free", "limited"))
    # Six seconds, and what the buffer may hold beside them.
    assert limited < 80_000 / 8 * (6 + film_file.BUFFER_S)
    assert free > 2 * limited


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "film.mp4"
    path.write_bytes(b"before")

    def fails_half_way():
        yield picture(0)
        raise KeyError

    film = FilmFile(path, size=SIZE, pictures_per_s=15.0)
    with pytest.raises(KeyError), film:
        list(map(film.write, fails_half_way()))

    assert film._process.poll() is not None
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("pictures", [0, 200])
def test_a_failure_of_ffmpeg_is_told(tmp_path, monkeypatch, pictures):
    """It ends at once, or after the last picture: both are failures, with its last line."""
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\necho No space left on device >&2\nexit 1\n")
    broken.chmod(0o700)
    monkeypatch.setattr(film_file, "ffmpeg", lambda: str(broken))
    folder = tmp_path / "films"
    folder.mkdir()

    with pytest.raises(StorageError, match=r"film\.mp4: No space left on device"):
        write(folder / "film.mp4", [picture(0)] * pictures)
    assert list(folder.iterdir()) == []


def test_no_directory_no_film(tmp_path):
    with pytest.raises(CannotCreateError, match="nowhere"):
        write(tmp_path / "nowhere" / "film.mp4", [])


def test_wrong_pictures_are_mistakes(tmp_path):
    with pytest.raises(ValueError, match=r"\.mp4 or \.gif"):
        FilmFile(tmp_path / "film.avi", size=SIZE, pictures_per_s=15.0)
    with pytest.raises(ValueError, match="even sides, got 63x48"):
        FilmFile(tmp_path / "film.mp4", size=(63, 48), pictures_per_s=15.0)
    with pytest.raises(ValueError, match="expected a picture of shape"):
        write(tmp_path / "film.mp4", [picture(0)[1:]])
    assert list(tmp_path.iterdir()) == []


def test_without_imageio_ffmpeg_the_install_line_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UnavailableError, match=r"pip install 'actor-mimic\[video\]'"):
        FilmFile(tmp_path / "film.mp4", size=SIZE, pictures_per_s=15.0)


def test_an_ffmpeg_that_nobody_knows_leaves_no_trace(tmp_path, monkeypatch):
    """A signal inside Popen: the child has been started, and writes when we are gone."""
    original = subprocess.Popen
    orphans = []

    def interrupted(command, **_):
        orphans.append(original(["sh", "-c", 'sleep 0.2; echo film > "$0"', command[-1]]))
        raise KeyboardInterrupt

    monkeypatch.setattr(film_file.subprocess, "Popen", interrupted)
    with (
        pytest.raises(KeyboardInterrupt),
        FilmFile(tmp_path / "film.mp4", size=(16, 16), pictures_per_s=15.0),
    ):
        pass

    assert orphans[0].wait() != 0
    assert list(tmp_path.iterdir()) == []
