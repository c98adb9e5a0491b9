"""The process that decodes foreign files: what it can still do, and what it cannot do to us.

Each limit was removed once, and each check of the answer, to see the test of it fail.
"""

import json
import os
import sys

import pytest
import torch
from safetensors.torch import save

import actor_mimic
from actor_mimic.errors import DataError, UnavailableError, UnsafeError
from actor_mimic.teachers import confined, decoder
from actor_mimic.teachers.archives import MAX_WEIGHTS_BYTES
from actor_mimic.teachers.confined import decode_confined
from actor_mimic.teachers.weights import read_weights
from benchmarks.faults.gadgets import sb3_zip, state, torch_file

FOUND = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
LIMITS = ("CPU", "FSIZE", "CORE", "NPROC", "NOFILE")
ATTEMPTS = """
import os, resource, socket, subprocess
import actor_mimic
from actor_mimic.teachers import decoder
decoder._practise()
decoder._give_up(1000)
def fails(act):
    try: act()
    except BaseException as error: return type(error).__name__
    return "done"
said = {
    "variables": sorted(os.environ), "package": actor_mimic.__file__, "at": os.getcwd(),
    "reads": fails(lambda: open("/etc/hostname")),
    "writes": fails(lambda: open("/tmp/x-of-a-stranger", "w")),
    "connects": fails(lambda: socket.socket()),
    "pipes": fails(lambda: os.pipe()),
    "runs": fails(lambda: subprocess.run(["true"])),
    "forks": fails(lambda: os._exit(0) if os.fork() == 0 else None),
    "takes a gigabyte": fails(lambda: bytearray(1 << 30)),
    "limits": {name: resource.getrlimit(getattr(resource, "RLIMIT_" + name)) for name in LIMITS},
}
print(json.dumps(said))
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "agent.pt"
    path.write_bytes(torch_file(state()))
    return path


@pytest.fixture
def program(monkeypatch):
    """Replaces what the process runs."""
    return lambda code: monkeypatch.setattr(confined, "_PROGRAM", code)


def test_tensors_come_back_as_they_are(tmp_path):
    content = state() | {"tied": state()["network.0.weight"], "count": torch.tensor([3])}
    content["twice"] = content["tied"]
    (tmp_path / "agent.zip").write_bytes(sb3_zip(torch_file(content)))

    weights = read_weights(tmp_path / "agent.zip")

    assert (weights.kind, weights.tensors.keys()) == ("sb3", content.keys())
    for name, tensor in content.items():
        assert torch.equal(weights.tensors[name], tensor)
        assert weights.tensors[name].dtype == tensor.dtype


def test_it_has_no_secrets_and_can_do_nothing_but_answer(monkeypatch, program, file):
    secrets = (
        "HF_TOKEN",
        "WANDB_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD",
    )
    for name in (*secrets, "PYTHONPATH", "PYTHONSTARTUP", "LD_PRELOAD"):
        monkeypatch.setenv(name, "1")
    program(FOUND + f"LIMITS = {LIMITS}; exec({ATTEMPTS!r})")

    said = json.loads(decode_confined(file, "torch", b""))

    threads = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"}
    assert set(said.pop("variables")) <= {*confined.KEPT_VARIABLES, *threads, "LC_CTYPE"}
    assert said.pop("package") == actor_mimic.__file__
    assert said.pop("at") == "/"
    assert said.pop("takes a gigabyte") == "MemoryError" or not sys.platform.startswith("linux")
    limits = said.pop("limits")
    assert all(soft == hard for soft, hard in limits.values()), "they can be raised again"
    soft = {name: limit for name, (limit, _) in limits.items()}
    assert 1 <= soft.pop("CPU") <= decoder.CPU_S + 60
    assert soft == {"FSIZE": MAX_WEIGHTS_BYTES, "CORE": 0, "NPROC": 0, "NOFILE": 3}
    if os.geteuid() == 0:
        del said["forks"]  # nobody limits root's processes
    assert set(said.values()) <= {"OSError", "BlockingIOError"}, said


def test_what_takes_too_much_is_refused(program, file):
    """The whole program, but that its decoder wants a gigabyte once it has practised."""
    program(
        FOUND + "from actor_mimic.teachers import decoder\n"
        "practise = decoder._practise\n"
        "def practise_and_change():\n"
        "    practise()\n"
        "    decoder.decode = lambda *_: bytes(1 << 30)\n"
        "decoder._practise = practise_and_change\n"
        "sys.exit(decoder.main())"
    )

    with pytest.raises(UnsafeError, match="more memory than any"):
        decode_confined(file, "torch", file.read_bytes())


def test_a_program_that_never_ends_is_ended(monkeypatch, program, file):
    monkeypatch.setattr(confined, "TIMEOUT_S", 0.5)
    program("import time; time.sleep(60)")

    with pytest.raises(UnsafeError, match=r"not decoded in 0\.5 s"):
        read_weights(file)


@pytest.mark.parametrize("signal", ["SIGSEGV", "SIGXCPU", "SIGKILL"])
def test_a_crash_is_a_refusal(program, file, signal):
    program(f"import os, signal; os.kill(os.getpid(), signal.{signal})")

    with pytest.raises(UnsafeError, match=signal):
        read_weights(file)


NAN = save({"a": torch.tensor([float("nan")])})
LONG = save({"a" * 300: torch.ones(1)})
ODD = save({"a": torch.ones(1, dtype=torch.float8_e5m2)})
TWICE = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{}}'


@pytest.mark.parametrize(
    ("answer", "error", "match"),
    [
        (b"", DataError, "expected a JSON header"),
        (b"\xff" * 100, UnsafeError, "a header of at most"),
        (len(TWICE).to_bytes(8, "little") + TWICE + bytes(4), UnsafeError, "every tensor once"),
        (NAN, DataError, "NaN or infinity in 'a'"),
        (LONG, DataError, "names of at most 200"),
        (ODD, UnsafeError, "of type 'F8_E5M2'"),
        (NAN[:-1], DataError, "bytes of tensors, got a header of 1"),
        (save({}), DataError, "expected 1 to 1024 tensors"),
    ],
    ids=["nothing", "header", "twice", "nan", "name", "type", "truncated", "no tensors"],
)
def test_its_answer_is_checked_like_any_file(program, file, answer, error, match):
    program(f"import sys; sys.stdout.buffer.write({answer!r})")

    with pytest.raises(error, match=match):
        read_weights(file)


def test_an_endless_answer_is_cut(monkeypatch, program, file):
    monkeypatch.setattr(confined, "MAX_WEIGHTS_BYTES", 1000)
    program("import sys; sys.stdout.buffer.write(bytes(5000))")

    with pytest.raises(UnsafeError, match="at most 1000 bytes"):
        read_weights(file)


@pytest.mark.parametrize(("code", "error"), [(77, UnsafeError), (65, DataError)])
def test_what_it_says_is_printed_without_control_characters(program, file, code, error):
    program(
        f"import sys; sys.stderr.write('refused\\x1b[31m\\n\\u202ered' * 500); sys.exit({code})"
    )

    with pytest.raises(error) as caught:
        read_weights(file)
    assert str(caught.value).isprintable()
    assert str(caught.value).endswith("refused [31m red")
    assert len(str(caught.value)) < 1000


def test_a_system_that_cannot_confine_is_told_so(monkeypatch, program, file):
    program("import no_such_module")
    with pytest.raises(UnavailableError, match=r"does not run here: .*no_such_module"):
        read_weights(file)

    monkeypatch.setitem(sys.modules, "resource", None)
    with pytest.raises(UnavailableError, match="Linux or macOS"):
        read_weights(file)


def test_the_decoder_answers_in_safetensors_alone():
    with pytest.raises(DataError, match="expected named tensors"):
        decoder.decode("torch", torch_file({1: torch.ones(1)}))
    with pytest.raises(UnsafeError, match="dense tensors"):
        decoder._dense({"a": torch.eye(2).to_sparse()})
