"""A film as a file: pictures go in one by one, and an MP4 or a GIF is there once all have.

ffmpeg, which comes with imageio-ffmpeg, compresses them as they arrive, so a film of any length
takes no memory. imageio-ffmpeg's own writer is not used: it does not say whether ffmpeg failed.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
from jaxtyping import UInt8

from actor_mimic.errors import CannotCreateError, StorageError, UnavailableError
from actor_mimic.storage.durable import TEMPORARY, sync_path

QUALITY = 23  # x264's scale: 0 is lossless, 51 the worst
BUFFER_S = 2.0  # over which a limited rate is an average

# H.264 in the colours and the sampling that every browser decodes, its index in front so that
# playing begins before the end is there.
_MP4 = [
    "-vf",
    "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p,"
    "setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv",
    *["-c:v", "libx264", "-preset", "slow", "-tune", "animation", "-crf", str(QUALITY)],
    *["-movflags", "+faststart", "-f", "mp4"],
]
# A palette for every picture: all of up to 255 colours, and nothing to wait for.
_GIF = [
    "-filter_complex",
    "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1:dither=none",
    *["-loop", "0", "-f", "gif"],
]
_FORMATS = {".mp4": _MP4, ".gif": _GIF}


class FilmFile:
    """A film that is being written; use it as a context manager.

    Left without an error, it is on the disk as a whole and replaces what was there; left by one,
    there is no trace of it.

    Args:
        path: a name in ``.mp4`` or ``.gif``.
        size: width and height of every picture in pixels; an MP4 needs even ones.
        pictures_per_s: how fast it is played.
        max_bits_per_s: makes an MP4 coarser where it would take more, averaged over `BUFFER_S`;
            None for always the same quality.

    Raises:
        UnavailableError: if imageio-ffmpeg is not installed.
        CannotCreateError: if there can be no such file.
        ValueError: for another kind of file, or odd sides of an MP4.
    """

    def __init__(
        self,
        path: Path,
        *,
        size: tuple[int, int],
        pictures_per_s: float,
        max_bits_per_s: int | None = None,
    ) -> None:
        kind = path.suffix.lower()
        if kind not in _FORMATS:
            raise ValueError(f"expected a name in {' or '.join(_FORMATS)}, got {path}")
        width, height = size
        if kind == ".mp4" and (width % 2 or height % 2):
            raise ValueError(f"an MP4 has even sides, got {width}x{height}")
        self._path = path
        self._shape = (height, width, 3)
        # In a directory of its own: a signal inside `Popen` leaves an ffmpeg that nobody knows,
        # which can put nothing where there is no directory any more.
        self._directory = path.parent / f"{TEMPORARY}{os.getpid()}-{path.name}"
        self._temporary = self._directory / path.name
        limit = []
        if max_bits_per_s is not None and kind == ".mp4":
            buffer = round(BUFFER_S * max_bits_per_s)
            limit = ["-maxrate", str(max_bits_per_s), "-bufsize", str(buffer)]
        self._command = [
            *[ffmpeg(), "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"],
            *["-s", f"{width}x{height}", "-r", str(Fraction(pictures_per_s).limit_denominator())],
            *["-i", "-", *_FORMATS[kind], *limit, str(self._temporary.absolute())],
        ]
        self._complaints: IO[bytes]
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> "FilmFile":
        self._complaints = tempfile.TemporaryFile()
        try:
            self._directory.mkdir()
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._complaints,
                # Ctrl-C is for us alone: we may want to finish the film.
                start_new_session=True,
            )
        except BaseException as error:  # a signal, too, leaves no trace
            self._complaints.close()
            shutil.rmtree(self._directory, ignore_errors=True)
            if isinstance(error, OSError):
                raise CannotCreateError(f"cannot write {self._path}: {error}") from error
            raise
        return self

    def write(self, picture: UInt8[np.ndarray, "height width 3"]) -> None:
        """Adds one RGB picture.

        Raises:
            ValueError: if it has another size than was said.
            StorageError: if the film cannot be written, as on a full disk.
        """
        if picture.shape != self._shape:
            raise ValueError(f"expected a picture of shape {self._shape}, got {picture.shape}")
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(np.ascontiguousarray(picture).data)
        except OSError as error:
            raise self._failure() from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            # Nothing to do for a film that was finished.
            self._process.kill()
            self._process.wait()
            _close(self._process.stdin)
            self._complaints.close()
            shutil.rmtree(self._directory, ignore_errors=True)

    def _finish(self) -> None:
        _close(self._process.stdin)
        if self._process.wait():
            raise self._failure()
        try:
            sync_path(self._temporary)
            os.replace(self._temporary, self._path)
            sync_path(self._path.parent)
        except OSError as error:
            raise StorageError(f"cannot write {self._path}: {error}") from error

    def _failure(self) -> StorageError:
        self._process.kill()
        self._process.wait()
        self._complaints.seek(0)
        said = self._complaints.read().decode("utf-8", "replace").strip().splitlines()
        return StorageError(f"cannot write {self._path}: {said[-1] if said else 'ffmpeg ended'}")


def ffmpeg() -> str:
    """Where ffmpeg is.

    Raises:
        UnavailableError: if imageio-ffmpeg is not installed, or has none for this machine.
    """
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise UnavailableError(
            "films need imageio-ffmpeg; install it with: pip install 'actor-mimic[video]'"
        ) from error


def _close(pipe: IO[bytes] | None) -> None:
    """Closes it, whatever becomes of the bytes that still wait in it."""
    assert pipe is not None
    with contextlib.suppress(OSError):  # ffmpeg has ended before it; its exit status tells
        pipe.close()
