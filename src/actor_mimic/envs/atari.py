"""Atari games through ale-py's vector environment: C++ emulators and preprocessing.

Grey 84x84 frames, the maximum of the last two of each four emulator frames. ale-py is imported
when the first game is made, because it is an optional (GPL-2.0-only) dependency.

Episodes are ended here, by masked resets, and not by the emulator's own auto-reset: that one
inserts a dummy step whose action is ignored, and it resets with seeds that nobody chose. The
limit on an episode's length is kept here too: the emulator's own goes unreported when a life is
lost in the same step, and the frame that it ends with misses its last emulator frame.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Bool, Int64, UInt8

from actor_mimic.actions import ATARI_ALPHABET
from actor_mimic.envs.vector_step import EpisodeLog, Frames, VectorStep, close_all
from actor_mimic.errors import UnavailableError, UsageError, did_you_mean
from actor_mimic.protocols import FRAME_SKIP, FRAMES_PER_S, MAX_EPISODE_FRAMES

# A seeded reset loads the ROM again, some 70 ms for which every other environment waits; a plain
# one takes a tenth of that, and goes on from the emulator's own generators. The more steps on one
# seed, the longer a resumed run plays before it is where it was: 64 environments, half a minute.
STEPS_PER_SEED = 4_000

SCREEN_SIZE = 84
PICTURE_SHAPE = (210, 160)

_WITHOUT_SINGLE_PLAYER = {"combat", "joust", "maze_craze", "warlords"}


def _ale_py() -> Any:
    try:
        import ale_py
    except ImportError as error:
        raise UnavailableError(
            "Atari games need ale-py, which is not installed; "
            "install it with: pip install 'actor-mimic[atari]'"
        ) from error
    return ale_py


def atari_games() -> list[str]:
    """Every game for one player that ale-py ships, by its ROM name (``space_invaders``).

    Raises:
        UnavailableError: if ale-py is not installed.
    """
    _ale_py()
    from ale_py import roms

    return sorted(set(roms.get_all_rom_ids()) - _WITHOUT_SINGLE_PLAYER)


def check_game(game: str) -> None:
    """Refuses what is no game.

    Raises:
        UsageError: with the closest name that would do.
        UnavailableError: if ale-py is not installed.
    """
    games = atari_games()
    if game in games:
        return
    hint = did_you_mean(game, games)
    if game in gymnasium.registry:
        # Gymnasium's names of Atari games say which ROM they play.
        rom = (gymnasium.registry[game].kwargs or {}).get("game")
        hint = f"; did you mean '{rom if rom in games else f'gym:{game}'}'?"
    raise UsageError(f"unknown game {game!r}{hint}")


@contextmanager
def _as_batch_threads() -> Iterator[None]:
    """On Linux, threads that start within do not preempt others when they wake (decision 16).

    Emulators step while the network learns, on the same cores. The threads that learn wait for
    each other, so whoever preempts one of them keeps them all waiting. No thread's share of the
    processor changes by that; elsewhere, or where a sandbox forbids it, nothing does.
    """
    changed = False
    with suppress(AttributeError, OSError):  # another system; a sandbox
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
            changed = True
    try:
        yield
    finally:
        if changed:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@cache  # the emulator takes some 70 ms to load a ROM
def atari_action_names(game: str) -> tuple[str, ...]:
    """Meanings of the game's minimal action set, in the ROM's own order.

    Raises:
        UnavailableError: if ale-py is not installed.
        UsageError: if there is no such game.
    """
    envs = AtariEnvs(
        game, num_envs=1, num_threads=1, run_seed=0, repeat_action_probability=0.0, max_noops=0
    )
    envs.close()
    return envs.action_names


class AtariEnvs:
    """N copies of one Atari game; see `VectorEnv`.

    Args:
        game: ROM name, ``pong`` or ``space_invaders``.
        num_envs: how many emulators.
        num_threads: C++ threads that step them; never left to the library, whose default takes
            every core for each game.
        run_seed: with the game, the environment and the episode it gives each episode's seed.
        repeat_action_probability: sticky actions; 0 switches them off.
        max_noops: at reset, a random number of no-ops up to this, the FIRE press included.
        max_episode_frames: emulator frames after which an episode is truncated, not counting
            those of the reset.
        with_picture: also run a colour twin of the emulators in lockstep, for films.

    Raises:
        UnavailableError: if ale-py is not installed.
        UsageError: if there is no such game.
        ValueError: if there is no environment or no thread.
    """

    frame_shape: tuple[int, ...] = (SCREEN_SIZE, SCREEN_SIZE)
    frame_dtype: type[np.generic] = np.uint8
    stack_size = 4
    frame_skip = FRAME_SKIP
    steps_per_s: float = FRAMES_PER_S / FRAME_SKIP

    def __init__(
        self,
        game: str,
        *,
        num_envs: int,
        num_threads: int,
        run_seed: int,
        repeat_action_probability: float,
        max_noops: int,
        max_episode_frames: int = MAX_EPISODE_FRAMES,
        with_picture: bool = False,
    ) -> None:
        ale_py = _ale_py()
        check_game(game)
        if num_envs < 1 or num_threads < 1:
            raise ValueError(f"need environments and threads, got {num_envs} and {num_threads}")
        self.task = game
        self.num_envs = num_envs
        self._max_episode_frames = max_episode_frames
        # Everything is passed: the library's defaults clip rewards and do not say so.
        settings = {
            "num_envs": num_envs,
            "num_threads": min(num_threads, num_envs),
            "max_num_frames_per_episode": max_episode_frames + FRAME_SKIP,  # never reached
            "repeat_action_probability": repeat_action_probability,
            "full_action_space": False,
            "stack_num": 1,
            "frameskip": FRAME_SKIP,
            "maxpool": True,
            "noop_max": max_noops + 1,  # the library draws a number below this
            "episodic_life": False,
            "life_loss_info": True,
            "reward_clipping": False,
            "use_fire_reset": True,
        }
        self._picture: UInt8[np.ndarray, "height width 3"] | None = None
        with _as_batch_threads():
            emulators = ale_py.AtariVectorEnv(
                game, img_height=SCREEN_SIZE, img_width=SCREEN_SIZE, grayscale=True, **settings
            )
            self._twins = [emulators]
            if with_picture:
                height, width = PICTURE_SHAPE
                self._twins.append(
                    ale_py.AtariVectorEnv(
                        game, img_height=height, img_width=width, grayscale=False, **settings
                    )
                )
        self.action_names = tuple(
            ale_py.Action(action).name for action in emulators.ale.get_action_set()
        )
        assert set(self.action_names) <= set(ATARI_ALPHABET)
        self._log = EpisodeLog(
            num_envs,
            run_seed=run_seed,
            task=game,
            num_actions=len(self.action_names),
            steps_per_seed=STEPS_PER_SEED,
        )
        self._behind = False  # what the log says has yet to be played again

    def reset(self) -> Frames:
        """Starts every environment's next episode; frames are uint8 ``[envs, 84, 84]``."""
        assert not self._behind, "a state was loaded: catch_up first"
        everywhere = np.ones(self.num_envs, dtype=bool)
        return self._reset(everywhere, *self._log.start(everywhere))

    def send(self, actions: Int64[np.ndarray, " envs"]) -> None:
        """Starts a step of all emulators."""
        assert not self._behind, "a state was loaded: catch_up first"
        self._log.append(actions)
        self._send(actions)

    def recv(self) -> VectorStep:
        """Waits for the emulators, and resets those whose episode is over."""
        final_frames, raw_reward, terminated, _, info = self._recv()
        # With `life_loss_info` a lost life also says "terminated"; the game is over at 0 lives,
        # in games without lives too.
        game_over = terminated & (info["lives"] == 0)
        truncated = (self._log.steps * FRAME_SKIP >= self._max_episode_frames) & ~game_over
        over = game_over | truncated
        frames = final_frames
        if over.any():
            frames = final_frames.copy()
            frames[over] = self._reset(over, *self._log.start(over))[over]
        raw_reward = raw_reward.astype(np.float32)
        return VectorStep(
            frames=frames,
            final_frames=final_frames,
            raw_reward=raw_reward,
            reward=np.clip(raw_reward, -1.0, 1.0),
            terminated=game_over,
            truncated=truncated,
            life_lost=terminated & ~game_over,
            failed=np.zeros_like(game_over),
        )

    def state_dict(self) -> dict[str, Any]:
        """Episode counters, and the actions and resets since each seed."""
        return self._log.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over a recorded state; `catch_up` must bring the environments there.

        Raises:
            DataError: if the state was taken from another number of environments.
        """
        self._log.load_state_dict(state)
        self._behind = True

    def catch_up(self) -> Iterator[None]:
        """Plays the recorded actions again, some thousand environment steps a second and thread."""
        if self._behind:
            yield from self._log.play_again(self._reset, self._send, self._recv)
            self._behind = False

    def picture(self) -> UInt8[np.ndarray, "height width 3"]:
        """Environment 0 in colour, 210x160 RGB; needs ``with_picture=True``."""
        if self._picture is None:
            raise ValueError("made without with_picture=True")
        return self._picture

    def close(self) -> None:
        """Frees the emulators."""
        twins, self._twins = self._twins, []  # each keeps threads and memory until it is let go
        close_all(twins)

    def _reset(
        self,
        over: Bool[np.ndarray, " envs"],
        seeded: Bool[np.ndarray, " envs"],
        seeds: Int64[np.ndarray, " seeded"],
    ) -> Frames:
        """Resets the environments that are over; only their rows of the frames are new."""
        plain = over & ~seeded
        frames = np.zeros((self.num_envs, *self.frame_shape), dtype=np.uint8)
        for rows, seed in ((seeded, seeds), (plain, None)):
            if rows.any():
                obs = [
                    twin.reset(seed=seed, options={"reset_mask": rows})[0] for twin in self._twins
                ]
                frames[rows] = obs[0][rows, 0]
                if rows[0]:
                    self._keep_picture(obs[-1])
        return frames

    def _send(self, actions: Int64[np.ndarray, " envs"]) -> None:
        for twin in self._twins:
            twin.send(actions)

    def _recv(self) -> tuple[Frames, Any, Any, Any, dict[str, Any]]:
        results = [twin.recv() for twin in self._twins]
        self._keep_picture(results[-1][0])
        frames, *rest = results[0]
        return frames[:, 0], *rest

    def _keep_picture(self, obs: UInt8[np.ndarray, "..."]) -> None:
        if len(self._twins) > 1:
            self._picture = obs[0, 0]
