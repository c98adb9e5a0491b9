"""A foreign file is decoded by another process: `decoder`, with limits and without secrets."""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from actor_mimic.errors import DataError, StorageError, UnavailableError, UnsafeError
from actor_mimic.teachers.archives import MAX_WEIGHTS_BYTES

TIMEOUT_S = 300.0  # for loading PyTorch from a slow disk too; the decoder bounds itself closer

# What Python and PyTorch may need to be found and loaded; every other variable stays here.
KEPT_VARIABLES = (
    "PATH",
    "HOME",
    "TMPDIR",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
)
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from actor_mimic.teachers.decoder import main; sys.exit(main())"
)


def decode_confined(path: Path, kind: str, content: bytes) -> bytes:
    """What `decoder.decode` gives, from a process of its own; takes the time of loading PyTorch.

    Args:
        path: of the file, for messages only: the process never sees it.
        kind: as `decoder.decode` takes it.
        content: likewise.

    Returns:
        What claims to be safetensors, and is to be checked like anything from outside.

    Raises:
        UnsafeError: if the decoder refused, was stopped by a limit, or crashed.
        DataError: if it found damage.
        UnavailableError: if this system cannot limit a process, or the decoder does not run.
        StorageError: if there is no room for temporary files.
    """
    try:
        importlib.import_module("resource")
    except ImportError as error:
        raise UnavailableError(
            "foreign files are decoded in a process with limits, which this system cannot set; "
            "import the file on Linux or macOS"
        ) from error
    try:
        # Files and not pipes: nothing to wait for, and a limit on files bounds the answer.
        with (
            tempfile.TemporaryFile() as given,
            tempfile.TemporaryFile() as answer,
            tempfile.TemporaryFile() as complaint,
        ):
            given.write(content)
            given.seek(0)
            code = _run(path, kind, given, answer, complaint)
            if code == 0:
                return _read(path, answer)
            said = _printable(_tail(complaint))
    except OSError as error:
        raise StorageError(f"{path}: cannot be decoded: {error}") from error
    if code in (UnsafeError.exit_code, DataError.exit_code):
        raise (UnsafeError if code == UnsafeError.exit_code else DataError)(f"{path}: {said}")
    if code < 0:
        raise UnsafeError(
            f"{path}: refused: expected tensors, got what ended the process that decoded it "
            f"({signal.Signals(-code).name}: a limit of time or memory, or a crash)"
        )
    raise UnavailableError(f"the process that decodes foreign files does not run here: {said}")


def _run(path: Path, kind: str, given: IO[bytes], answer: IO[bytes], complaint: IO[bytes]) -> int:
    # Isolated from the working directory and from Python's own variables: it finds what we found.
    paths = [entry for entry in sys.path if os.path.isabs(entry)]
    try:
        return subprocess.run(
            [sys.executable, "-I", "-B", "-c", _PROGRAM, json.dumps(paths), kind],
            stdin=given,
            stdout=answer,
            stderr=complaint,
            env=_environment(),
            cwd="/",
            timeout=TIMEOUT_S,
            # Signals for us are not for it: it has ended before we act on one.
            start_new_session=True,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired as error:
        raise UnsafeError(
            f"{path}: refused: expected tensors, got what was not decoded in {TIMEOUT_S:g} s"
        ) from error


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    # One thread: its stack and its arenas would count as memory.
    return kept | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def _read(path: Path, answer: IO[bytes]) -> bytes:
    answer.seek(0)
    content = answer.read(MAX_WEIGHTS_BYTES + 1)
    if len(content) > MAX_WEIGHTS_BYTES:
        raise UnsafeError(f"{path}: refused: expected at most {MAX_WEIGHTS_BYTES} bytes of tensors")
    return content


def _tail(complaint: IO[bytes]) -> str:
    size = complaint.seek(0, os.SEEK_END)
    complaint.seek(max(0, size - 2000))
    return complaint.read(2000).decode("utf-8", "replace")


def _printable(text: str) -> str:
    """In one line, without what could move a cursor or colour a terminal."""
    words = "".join(letter if letter.isprintable() else " " for letter in text).split()
    return " ".join(words)[-600:]
