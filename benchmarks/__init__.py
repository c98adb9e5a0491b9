"""Measurements; run them with nothing beside them: ``make bench`` or ``python -m benchmarks``."""

import os

# What the user asked for. Other people's programs are measured with this, not with our choice.
USERS_WAIT_POLICY = os.environ.get("OMP_WAIT_POLICY")
# As the command line does, and for the same reason (docs/decisions/0004): before PyTorch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
