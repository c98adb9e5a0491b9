"""``python -m benchmarks``: every measurement, one after the other, and where the figures go.

Prints tables, and writes what it measured with machine, versions and date to
``benchmarks/results/loops.json``. Takes about four minutes on two cores; run nothing beside it.
"""

import sys

from benchmarks import loops, replay_memory

if __name__ == "__main__":
    sys.exit(max(replay_memory.main([]), loops.main([])))
