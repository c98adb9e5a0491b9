"""Compute: what `auto` resolves to, what is refused, and what is set."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from actor_mimic import compute
from actor_mimic.compute import (
    Compute,
    Workers,
    available_cores,
    available_memory_bytes,
    choose_compute,
    require_memory,
)
from actor_mimic.errors import ConfigError, UnavailableError
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.regressors import build_regressor
from actor_mimic.networks.torsos import TorsoSpec

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA here")


@pytest.fixture
def no_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (8, 0))


@pytest.fixture
def files(monkeypatch):
    """What the kernel's files say, by path; others are not there."""
    content: dict[str, str] = {}

    def read(path):
        if str(path) not in content:
            raise FileNotFoundError(path)
        return content[str(path)]

    monkeypatch.setattr(compute.Path, "read_text", read)
    return content


@pytest.mark.usefixtures("no_cuda")
@pytest.mark.parametrize(("native", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_auto_without_cuda(monkeypatch, native, precision):
    monkeypatch.setattr(compute, "cpu_multiplies_bfloat16", lambda: native)

    assert choose_compute() == Compute("cpu", precision, available_cores())


@pytest.mark.usefixtures("two_gpus")
def test_auto_with_cuda(monkeypatch):
    monkeypatch.setattr(compute, "cpu_multiplies_bfloat16", lambda: False)
    monkeypatch.setattr(compute, "_compiles", lambda _: False)

    assert choose_compute(threads=3) == Compute("cuda", "bfloat16", 3)
    assert choose_compute("cuda:1", "float32", 1) == Compute("cuda:1", "float32", 1)
    assert choose_compute("cpu").precision == "float32"


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("capability", "precision"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((12, 0), "bfloat16")]
)
def test_old_gpus_only_emulate_bfloat16(monkeypatch, capability, precision):
    asked = []
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device: asked.append(device) or capability
    )

    assert choose_compute("cuda:1").precision == precision
    assert set(asked) == {"cuda:1"}
    assert choose_compute("cuda:1", "bfloat16").precision == "bfloat16"


@pytest.mark.usefixtures("two_gpus")
def test_devices_that_are_not_there():
    with pytest.raises(UnavailableError, match=r"'cuda:2' was asked for.*finds 2 CUDA devices"):
        choose_compute("cuda:2")


@pytest.mark.usefixtures("no_cuda")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_cuda_where_there_is_none(device):
    with pytest.raises(UnavailableError, match=f"'{device}' was asked for.*finds 0 CUDA devices"):
        choose_compute(device)


@pytest.mark.parametrize(
    "device", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cudas", "", "CPU", "cpu:0"]
)
def test_unknown_devices(device):
    with pytest.raises(ConfigError, match=f"unknown device '{device}'.*cuda:N"):
        choose_compute(device)


def test_other_refusals():
    with pytest.raises(ConfigError, match=r"unknown precision 'float16'.*float32 or bfloat16"):
        choose_compute("cpu", "float16")
    with pytest.raises(ConfigError, match=r"threads must be 0 .* got -1"):
        choose_compute("cpu", "float32", -1)


def test_cores_are_those_of_this_process(files):
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system has no processor affinity")
    assert not files
    assert available_cores() == len(os.sched_getaffinity(0)) >= 1


@pytest.mark.parametrize(
    ("limits", "cores"),
    [
        ({"a/b": "max 100000", "a": "300000 100000"}, 3),
        ({"a/b": "250000 100000", "a": "300000 100000", ".": "max 100000"}, 2),
        ({"a/b": "50000 100000"}, 1),
        ({"elsewhere": "100000 100000"}, 16),
        ({"a/b": "nonsense"}, 16),
    ],
)
def test_cores_are_limited_by_control_groups(monkeypatch, files, limits, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    files["/proc/self/cgroup"] = "1:cpu:/x\n0::/a/b\n"
    for group, limit in limits.items():
        files[str(compute.CGROUPS / group / "cpu.max")] = f"{limit}\n"

    assert available_cores() == cores


@pytest.mark.parametrize(
    ("flags", "native"), [("avx512f avx512_bf16", True), ("amx_bf16", True), ("avx2", False)]
)
def test_bfloat16_is_read_from_the_processors_flags(monkeypatch, flags, native):
    monkeypatch.setattr(compute.Path, "read_text", lambda _path: f"flags : {flags}\n")

    assert compute.cpu_multiplies_bfloat16() is native


def test_unreadable_processor_counts_as_without(monkeypatch):
    def unreadable(_path: object) -> str:
        raise OSError

    monkeypatch.setattr(compute.Path, "read_text", unreadable)

    assert not compute.cpu_multiplies_bfloat16()
    assert available_memory_bytes() > 0


def test_place_sets_the_precision_of_torsos_only():
    network = QNetwork(TorsoSpec("mlp", (3,)), 2, generator=torch.Generator())
    regressor = build_regressor("linear", 3, 2, generator=torch.Generator())
    both = nn.ModuleDict({"network": network, "regressor": regressor})

    Compute("cpu", "bfloat16", 1).place(both)

    assert network.torso.precision == torch.bfloat16
    assert {parameter.dtype for parameter in both.parameters()} == {torch.float32}
    assert network(torch.zeros(1, 3)).scores.dtype == torch.float32
    Compute("cpu", "float32", 1).place(both)
    assert network.torso.precision == torch.float32


@pytest.mark.parametrize(
    ("threads", "workers", "each"), [(1, 1, 1), (2, 2, 1), (5, 4, 1), (16, 4, 4)]
)
def test_threads_are_shared_out_among_the_workers(threads, workers, each):
    before = torch.get_num_threads()
    try:
        compute = Compute("cpu", "float32", threads)
        compute.start()
        assert (compute.workers().count, torch.get_num_threads()) == (workers, each)
        Compute("cuda", "float32", threads).start()
        assert torch.get_num_threads() == workers  # as many as a CPU would have of these
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("two_gpus")
def test_compiling_is_for_gpus(monkeypatch):
    assert choose_compute("cuda", compiled="off").compiled is False
    for lacking in ("nothing", "triton", "compiler", "capability"):
        with monkeypatch.context() as patch:
            has = {name: name != lacking for name in ("triton", "compiler", "capability")}
            patch.delenv("CC", raising=False)
            patch.setattr(compute.importlib.util, "find_spec", lambda _, h=has: h["triton"] or None)
            patch.setattr(compute.shutil, "which", lambda _, h=has: h["compiler"] and "/bin/cc")
            capability = (7 if has["capability"] else 6, 0)
            patch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
            assert choose_compute("cuda", "float32").compiled is (lacking == "nothing")
    assert choose_compute("cuda", compiled="on").compiled is True
    assert choose_compute("cpu").compiled is False
    with pytest.raises(ConfigError, match="compiled = on needs device = cuda"):
        choose_compute("cpu", compiled="on")
    with pytest.raises(ConfigError, match="compiled must be auto, on or off, got 'yes'"):
        choose_compute("cpu", compiled="yes")


def test_the_eager_run_calls_the_network_itself():
    network = nn.Linear(2, 2)
    assert Compute("cuda", "float32", 1).fixed_shape(network) is network


# In bfloat16 a loss, the square of a small difference of values, is known to its first digit: the
# compiler rounds at other places. An H200 had 0.013 for PQN and 0.093 for DQN, whose losses in
# float32 were equal to 6e-7 in all updates.
@pytest.mark.parametrize("subject", ["network", "pqn", "dqn"])
@pytest.mark.parametrize(
    ("what", "tolerance"),
    [
        ("trace", 1e-5),
        pytest.param("float32", 1e-3, marks=needs_cuda),
        pytest.param("bfloat16", {"network": 5e-2, "pqn": 5e-2, "dqn": 0.2}, marks=needs_cuda),
    ],
)
def test_what_is_compiled_computes_what_its_eager_twin_does(subject, what, tolerance):
    script = Path(__file__).with_name("compiled_twin.py")
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, script, subject, what],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    if isinstance(tolerance, dict):
        tolerance = tolerance[subject]
    assert float(done.stdout.splitlines()[-1]) <= tolerance


def test_a_gpu_has_one_worker():
    assert Compute("cuda", "float32", 16).num_workers == 1


@pytest.mark.parametrize(
    ("count", "num_rows", "parts"),
    [
        (1, 64, [(0, 64)]),
        (2, 64, [(0, 32), (32, 64)]),
        (3, 64, [(0, 21), (21, 42), (42, 64)]),
        (4, 17, [(0, 8), (8, 17)]),  # at least 8 rows each
        (2, 15, [(0, 15)]),
        (2, 1, [(0, 1)]),
    ],
)
def test_workers_take_consecutive_rows(count, num_rows, parts):
    names = []

    def part(rows: slice) -> tuple[int, int]:
        names.append(threading.current_thread().name)
        return rows.start, rows.stop

    assert Workers(count).map(part, num_rows) == parts
    assert len(names) == len(parts)
    assert threading.current_thread().name in names


def test_workers_wait_for_each_other_and_hand_on_what_went_wrong():
    """Nobody computes any more when the error arrives: the caller may change the weights."""
    ended = []

    def part(rows: slice) -> None:
        if rows.start == 0:
            raise ValueError("mine")
        time.sleep(0.05)
        ended.append(rows)

    with pytest.raises(ValueError, match="mine"):
        Workers(2).map(part, 64)
    assert ended == [slice(32, 64)]

    with pytest.raises(ValueError, match="invalid literal"):
        Workers(2).map(lambda rows: int("theirs") if rows.start else 0, 64)


def test_whoever_is_free_takes_the_next_piece():
    """The first ends only when two others have: the other worker does both of those."""
    others_done = threading.Semaphore(0)

    def slow(rows: range) -> range:
        for _ in range(2):
            assert others_done.acquire(timeout=10)
        return rows

    def quick(rows: range) -> range:
        others_done.release()
        return rows

    inputs = [range(16), range(100, 108), range(0), range(200, 220)]
    results = Workers(2).map_each([slow, quick, quick, quick], inputs)

    # Two workers would have 22 of the 44 rows each, and no piece has more.
    assert results == [[range(16)], [range(100, 108)], [], [range(200, 220)]]
    assert Workers(2).map_each([slow], [range(0)]) == [[]]
    assert Workers(2).map_each([quick, quick], [range(3), range(30)]) == [
        [range(3)],
        [range(15), range(15, 30)],
    ]


def test_pieces_stay_in_order_whichever_ends_first():
    second_done = threading.Event()

    def part(rows: range) -> range:
        if rows.start == 0:
            assert second_done.wait(timeout=10)
        else:
            second_done.set()
        return rows

    assert Workers(2).map_each([part], [range(32)]) == [[range(16), range(16, 32)]]


def test_what_goes_wrong_in_a_piece_is_handed_on_once_the_others_have_ended():
    ended = []

    def fail(_: range) -> None:
        raise ValueError("mine")

    def late(rows: range) -> None:
        time.sleep(0.05)
        ended.append(rows)

    with pytest.raises(ValueError, match="mine"):
        Workers(2).map_each([fail, late, late], [range(16), range(8), range(9)])
    assert sorted(map(len, ended)) == [8, 9]


def test_inference_keeps_the_rows_and_no_gradient():
    weight = torch.tensor(2.0, requires_grad=True)
    inputs = torch.arange(20.0)
    result = Workers(2).infer(lambda rows: rows * weight, inputs)

    assert torch.equal(result, 2 * inputs)
    assert not result.requires_grad


def test_float32_on_cuda_is_float32(monkeypatch):
    monkeypatch.setattr(torch, "set_float32_matmul_precision", asked := [].append)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)

    Compute("cuda", "float32", torch.get_num_threads()).start()

    assert asked.__self__ == ["highest"]
    assert not torch.backends.cudnn.allow_tf32


def test_memory_is_refused_before_it_is_needed(monkeypatch):
    monkeypatch.setattr(compute, "available_memory_bytes", lambda: 11 * 2**30)

    require_memory(10 * 2**30, "the replay of pong")
    with pytest.raises(
        ConfigError, match=r"the replay of pong needs 10\.5 GiB, 11\.0 GiB are free.*smaller"
    ):
        require_memory(10 * 2**30 + 2**29, "the replay of pong")


def test_free_memory_is_read(files):
    files["/proc/meminfo"] = "MemTotal: 9 kB\nMemAvailable:   2048 kB\n"

    assert available_memory_bytes() == 2048 * 1024


@pytest.mark.parametrize(
    ("limit", "used", "stat", "left"),
    [
        ("9000", "5000", "", 4000),
        ("9000", "5000", "anon 1\ninactive_file 1500\nactive_file 7", 5500),
        ("9000", "9500", "", 0),
        ("max", "5000", "", 2048 * 1024),
        ("9000000", "5000", "", 2048 * 1024),  # more than the machine has
    ],
)
def test_free_memory_is_limited_by_control_groups(files, limit, used, stat, left):
    files["/proc/meminfo"] = "MemAvailable:   2048 kB\n"
    files["/proc/self/cgroup"] = "0::/a/b\n"
    around = str(compute.CGROUPS / "a")
    files |= {f"{around}/memory.max": f"{limit}\n", f"{around}/memory.current": f"{used}\n"}
    files[f"{around}/memory.stat"] = stat

    assert available_memory_bytes() == left


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA here")
def test_output_layers_are_not_rounded_on_cuda():
    Compute("cuda", "float32", torch.get_num_threads()).start()
    rng = torch.Generator().manual_seed(0)
    features, weight = torch.rand(256, 512, generator=rng), torch.rand(18, 512, generator=rng)

    on_device = (features.to("cuda") @ weight.to("cuda").T).cpu()

    exact = (features.double() @ weight.double().T).float()
    torch.testing.assert_close(on_device, exact, atol=0.0, rtol=1e-5)
