"""Measurements; run them with nothing beside them: ``python -m benchmarks``."""

import os

# As the command line does, and for the same reason (docs/decisions/0004): before PyTorch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
