"""One file from the Hugging Face Hub, at one commit."""

import re
from pathlib import Path
from typing import Any

from actor_mimic.errors import UnavailableError, UnsafeError, UsageError
from actor_mimic.teachers.archives import MAX_FILE_BYTES

FORM = "hf:OWNER/REPO/FILE@COMMIT"

_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}"
_FILE = re.compile(rf"hf:(?P<repo>{_PART}/{_PART})/(?P<file>{_PART}(?:/{_PART}){{0,9}})@(?P<at>.*)")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def download(name: str) -> Path:
    """Fetches a file, or finds it where it was fetched to before.

    Its size is asked for first. Nothing else of the repository is fetched, and the library keeps
    any token to itself.

    Args:
        name: ``hf:owner/repo/file@commit``. A branch or a tag may be moved to another file
            after somebody has looked at it, so only a whole commit is taken.

    Raises:
        UsageError: if the name is none, or not of a commit.
        UnavailableError: if huggingface_hub is not installed, or the file cannot be had.
        UnsafeError: if it is larger than any agent.
    """
    match = _FILE.fullmatch(name)
    if match is None:
        raise UsageError(f"expected {FORM}, got {name!r:.200}")
    if not _COMMIT.fullmatch(match["at"]):
        raise UsageError(
            f"{name:.200}: expected a commit of 40 hexadecimal digits after @, got "
            f"{match['at']!r:.100}: a branch or a tag may be another file tomorrow"
        )
    try:
        import huggingface_hub
    except ImportError as error:
        raise UnavailableError(
            "files of the Hugging Face Hub need huggingface_hub, which is not installed; "
            "install it with: pip install 'actor-mimic[hub]'"
        ) from error
    where: dict[str, Any] = {
        "repo_id": match["repo"],
        "filename": match["file"],
        "revision": match["at"],
    }
    cached = huggingface_hub.try_to_load_from_cache(**where)
    if isinstance(cached, str):  # of one commit, so it is still that file; no network is needed
        return Path(cached)
    try:
        url = huggingface_hub.hf_hub_url(**where)
        size = huggingface_hub.get_hf_file_metadata(url).size
    # The library's errors have no base of their own; all of them mean that there is no file.
    except Exception as error:
        raise UnavailableError(f"{name}: cannot ask for its size: {error}") from error
    if size is None or size > MAX_FILE_BYTES:
        raise UnsafeError(f"{name}: refused: expected at most {MAX_FILE_BYTES} bytes, got {size}")
    try:
        return Path(huggingface_hub.hf_hub_download(**where))
    except Exception as error:
        raise UnavailableError(f"{name}: cannot be fetched: {error}") from error
