"""The verb that lists the shipped experts, and, for maintainers, makes one of a run.

Listing them needs no PyTorch.
"""

import json
from dataclasses import dataclass

from actor_mimic.errors import DataError, UsageError
from actor_mimic.verbs.arguments import (
    Device,
    Number,
    OptionalRun,
    Quiet,
    Stop,
    Switch,
    checkpoint_argument,
    notice,
)


@dataclass(frozen=True)
class Zoo:
    """List the experts that come with the package; each is zoo:NAME wherever a checkpoint is meant.

    For example:
      actor-mimic zoo
      actor-mimic distill pong=zoo:pong breakout=zoo:breakout
      actor-mimic zoo --add runs/expert-pong-pqn-0@best    # for maintainers, in a clone
    """

    add: OptionalRun = None
    """Of this run of an expert (its last checkpoint, or RUN@best): round the weights to 16 bits,
    play whole games with them under each protocol, and put it all into the package."""
    episodes: Number = 100
    """With --add: games under each protocol. Stopped, the same command plays only what is left."""
    device: Device = "auto"
    """With --add: auto, cpu, cuda or cuda:N."""
    threads: Number = 0
    """With --add: CPU threads of PyTorch and of the emulators; 0 takes all cores."""
    json: Switch = False
    """Print one JSON object on standard output."""
    quiet: Quiet = False
    """Say nothing but errors."""

    def run(self) -> int:
        """Does it; returns the exit code."""
        from actor_mimic.report.zoo import facts, text_table
        from actor_mimic.storage.shipped import read_shipped, shipped_names

        if self.add is not None:
            self._add(self.add)
        elif (self.episodes, self.device, self.threads) != (Zoo.episodes, Zoo.device, Zoo.threads):
            raise UsageError("--episodes, --device and --threads say how --add RUN plays; no RUN")
        experts, problems = [], []
        for name in shipped_names():
            try:
                experts.append(read_shipped(name))
            except DataError as error:
                problems.append(str(error))
        if self.json:
            print(json.dumps({expert.name: facts(expert) for expert in experts}))
        else:
            print(text_table(experts))
        if problems:
            raise DataError("\n".join(problems))
        return 0

    def _add(self, source: str) -> None:
        from actor_mimic.compute import choose_compute
        from actor_mimic.progress import StageProgress
        from actor_mimic.stages.shipping import ship_expert
        from actor_mimic.storage.run_dir import is_complete

        if self.episodes < 1:
            raise UsageError(f"--episodes must be at least 1, got {self.episodes}")
        checkpoint = checkpoint_argument(source)
        if checkpoint.run is not None and not is_complete(checkpoint.run):
            notice(f"{checkpoint.run} is not finished: taking it at {checkpoint.step:,} steps")
        # A score that is shipped belongs to the file, not to the bfloat16 of some machines.
        compute = choose_compute(self.device, "float32", self.threads)
        compute.start()
        with StageProgress("zoo", 0) as progress:
            shipped = ship_expert(
                checkpoint,
                episodes=self.episodes,
                num_threads=compute.threads,
                compute=compute,
                stop=Stop("stopping; what has been measured is kept, nothing is added"),
                on_game=progress.on_game,
            )
        notice(f"{shipped.path} holds {shipped.name}; its card: {shipped.path / 'card.md'}")
