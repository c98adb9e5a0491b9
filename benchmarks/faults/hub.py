"""Row D11: files of the Hugging Face Hub, from a server of our own on this machine.

The server speaks as much of the Hub's protocol as its library asks for: sizes and files of one
commit. It notes what it is asked, and with which token.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from actor_mimic.errors import UnsafeError, UsageError
from actor_mimic.teachers.archives import MAX_FILE_BYTES
from benchmarks.faults import gadgets
from benchmarks.faults.forgery import CARTPOLE
from benchmarks.faults.row import Row
from benchmarks.faults.verdicts import ACCEPTED, run_python

COMMIT = "0123456789abcdef" * 2 + "01234567"
TOKEN = "hf_" + "canary" * 5
AGENT = "agent.zip"
HUGE = "huge.zip"

_ASK = """
import contextlib, io, json, sys
from pathlib import Path
from actor_mimic.verbs.foreign import import_file
from benchmarks.faults.verdicts import exit_code
said = io.StringIO()
codes = {}
with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
    for number, name in enumerate(json.loads(sys.argv[1])):
        def act():
            try:
                import_file(name, sys.argv[2], Path(f"imported-{number}"))
            except Exception as error:
                print(error)
                raise
        codes[name] = exit_code(act)
print(json.dumps([codes, said.getvalue()]))
"""


def files_of_the_hub(scratch: Path) -> Row:
    """D11: an honest file, one that is too large, one that moved, names that lead elsewhere."""
    agent = gadgets.sb3_zip(gadgets.torch_file(gadgets.sb3_state()))
    honest = f"hf:owner/repo/{AGENT}@{COMMIT}"
    expected = {
        honest: ACCEPTED,
        f"hf:owner/repo/{HUGE}@{COMMIT}": UnsafeError.exit_code,
        f"hf:owner/repo/{AGENT}@main": UsageError.exit_code,
        f"hf:owner/repo/{AGENT}@{COMMIT[:12]}": UsageError.exit_code,
        f"hf:owner/repo/../{AGENT}@{COMMIT}": UsageError.exit_code,
        f"hf:owner/repo/{AGENT}?x=1@{COMMIT}": UsageError.exit_code,
        f"hf:owner/repo/%2e%2e/{AGENT}@{COMMIT}": UsageError.exit_code,
    }
    asked: list[tuple[str, str, bool]] = []
    with _server(agent, asked) as address:
        codes, said = run_python(
            _ASK,
            json.dumps(list(expected)),
            CARTPOLE,
            cwd=scratch,
            variables={
                "HF_ENDPOINT": address,
                "HF_HOME": str((scratch / "hub").absolute()),
                "HF_TOKEN": TOKEN,
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "no_proxy": "127.0.0.1",
            },
        )
    wrong = sum(codes[name] != code for name, code in expected.items())
    fetched = sum(method == "GET" and HUGE in path for method, path, _ in asked)
    unpinned = sum(COMMIT not in path for _, path, _ in asked)
    assert any(token for *_, token in asked), "the library sent no token: nothing could leak"
    leaked = TOKEN in said or any(
        TOKEN.encode() in path.read_bytes() for path in scratch.rglob("*") if path.is_file()
    )
    failures = wrong + fetched + unpinned + leaked
    return Row(
        "D11",
        "a server in the Hub's place: an honest file, one of a terabyte, moved and odd names",
        len(expected),
        failures,
        f"{len(expected) - wrong} of {len(expected)} as expected, {fetched} large files fetched, "
        f"{unpinned} requests without the commit, token kept {int(leaked)} times",
        f"{len(expected)}, 0, 0, 0",
        failures == 0,
    )


@contextmanager
def _server(agent: bytes, asked: list[tuple[str, str, bool]]) -> Iterator[str]:
    """A Hub with two files; its address."""

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            size = MAX_FILE_BYTES * 1024 if HUGE in self.path else len(agent)
            self._answer(size)

        def do_GET(self) -> None:
            self._answer(len(agent))
            self.wfile.write(agent)

        def _answer(self, size: int) -> None:
            token = TOKEN in self.headers.get("authorization", "")
            asked.append((self.command, self.path, token))
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", '"0123456789abcdef"')
            self.send_header("Content-Length", str(size))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
