"""Rows of input that somebody made to harm: D1 to D11, in the words of ``SECURITY.md``.

Each is a function that gets an empty directory and returns its `Row`; together they take some
minutes, most of them for loading PyTorch again for every foreign file that gets so far. The same
files, fewer of them decoded in processes of their own, are in the tests (`test_hostile_files`).
"""

from collections.abc import Callable
from pathlib import Path

from benchmarks.faults.foreign_files import (
    gadgets_as_weights,
    gadgets_beside_weights,
    lying_safetensors,
    misfits,
    other_tasks,
    tensors,
    zips,
)
from benchmarks.faults.hub import files_of_the_hub
from benchmarks.faults.names import env_ids, recipes, run_names
from benchmarks.faults.row import Row

ROWS: dict[str, Callable[[Path], Row]] = {
    "D1": gadgets_beside_weights,
    "D2": gadgets_as_weights,
    "D3": zips,
    "D4": lying_safetensors,
    "D5": tensors,
    "D6": misfits,
    "D7": other_tasks,
    "D8": run_names,
    "D9": recipes,
    "D10": env_ids,
    "D11": files_of_the_hub,
}
