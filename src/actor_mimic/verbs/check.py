"""The verb that checks what lies on the disk."""

import json
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from actor_mimic.errors import DataError
from actor_mimic.verbs.arguments import CheckpointName, Quiet, Switch, notice


@dataclass(frozen=True)
class Verify:
    """Check what lies in a run, in a recipe's runs, or in one checkpoint.

    For example:
      actor-mimic verify runs/demo
      actor-mimic verify zoo:pong
    """

    path: Positional[CheckpointName]
    """A run, the directory of a recipe's runs, an import, a checkpoint directory, zoo:NAME."""
    json: Switch = False
    """Print one JSON object on standard output."""
    quiet: Quiet = False
    """Say nothing but errors."""

    def run(self) -> int:
        """Does it; the exit code says whether all is whole."""
        from actor_mimic.storage.shipped import PREFIX, shipped_path
        from actor_mimic.storage.verify import verify

        path = shipped_path(self.path) if self.path.startswith(PREFIX) else Path(self.path)
        findings = []
        for finding in verify(path):
            findings.append(finding)
            if not self.json:
                said = (
                    f"{finding.path} ({finding.facts})" if not finding.problem else finding.problem
                )
                print(f"{'damaged' if finding.problem else 'whole':8} {said}", flush=True)
        if not findings:
            raise DataError(f"{path}: expected a run or a checkpoint, got neither")
        damaged = {str(f.path): f.problem for f in findings if f.problem}
        if self.json:
            whole = [str(f.path) for f in findings if not f.problem]
            print(json.dumps({"whole": whole, "damaged": damaged}))
        else:
            notice(f"{len(findings) - len(damaged)} whole, {len(damaged)} damaged")
        return DataError.exit_code if damaged else 0
