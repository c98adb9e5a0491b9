"""Any Gymnasium task with discrete actions that shows vectors or images, behind one interface.

Such an environment is somebody else's Python. What it returns is checked at every step, since a
wrong shape or an infinite reward would spoil the weights long before anybody looks. What it raises
costs an episode and not the run, as long as that is rare (`FREE_RESTARTS`, `STEPS_PER_RESTART`).
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from jaxtyping import Bool, Int64, Shaped, UInt8

from actor_mimic.actions import task_action_names
from actor_mimic.envs.grey_images import in_grey, is_image
from actor_mimic.envs.vector_step import EpisodeLog, Frames, VectorStep, closed_on_error
from actor_mimic.errors import (
    ActorMimicError,
    DataError,
    UnavailableError,
    UsageError,
    did_you_mean,
)
from actor_mimic.tasks import TASK_PREFIX

IMAGE_STACK = 4
RENDER_MODE = "rgb_array"
STEPS_PER_S = 30.0  # of an environment that does not say how fast its pictures follow

# A task whose environments fail is given up when they have failed more often than this: the first
# few at once, and on the whole once in so many steps, replayed ones included.
FREE_RESTARTS = 5
STEPS_PER_RESTART = 200
# Of an episode. One of a thousand steps, of which each fails once in a thousand times, is through
# in twenty attempts but once in ten thousand.
MAX_REPLAYS = 20

_logger = logging.getLogger(__name__)


class GymnasiumEnvs:
    """N copies of one registered Gymnasium environment, stepped in this process.

    Observations are float32 vectors, or images, which become grey ones of 84 x 84 by Gymnasium's
    own wrappers and are stacked by four as on Atari. Rewards reach the learner unclipped; nothing
    is skipped, so a frame is a step here. A copy that raises is made again: its episode is
    truncated there, with reward 0, and counts as ``failed``.

    Args:
        task: ``gym:`` and a registered id, such as ``gym:CartPole-v1``.
        num_envs: how many copies.
        run_seed: with the task, the environment and the episode it gives each episode's seed.
        with_picture: render environment 0, for films.

    Raises:
        UsageError: if the id is unknown, or its spaces are not ``Discrete`` actions with a ``Box``
            of observations: one-dimensional, or images of bytes, grey or RGB; or it is to be
            filmed and cannot draw.
        UnavailableError: if the environment, or resizing its images, needs a package that is not
            installed. Any method that steps or resets raises it when the task is given up.
        DataError: from any method that steps or resets, if what an environment returns is not what
            its spaces say.
    """

    frame_skip = 1

    def __init__(
        self, task: str, *, num_envs: int, run_seed: int, with_picture: bool = False
    ) -> None:
        self.task = task
        self.num_envs = num_envs
        self._with_picture = False  # until it is known that they can draw
        self._envs: list[gymnasium.Env[Any, Any]] = []
        with closed_on_error(self._envs):
            self._make_all(with_picture=with_picture)
            self._read_spaces(run_seed)

    def _make_all(self, *, with_picture: bool) -> None:
        task, env_id = self.task, self.task.removeprefix(TASK_PREFIX)
        try:
            for env in range(self.num_envs):
                self._envs.append(self._make(env))
            if with_picture:
                self._let_draw()
        except ActorMimicError:
            raise
        except gymnasium.error.DependencyNotInstalled as error:
            raise UnavailableError(f"cannot make the task {task!r}: {error}") from error
        except (gymnasium.error.Error, ImportError) as error:  # ImportError: `module:Name-v0`
            hint = did_you_mean(env_id, gymnasium.registry)
            raise UsageError(f"cannot make the task {task!r}: {error}{hint}") from error
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            raise UnavailableError(f"cannot make the task {task!r}: {said:.500}") from error

    def _read_spaces(self, run_seed: int) -> None:
        task, num_envs = self.task, self.num_envs
        rate = self._envs[0].metadata.get("render_fps")
        self.steps_per_s: float = float(rate) if rate else STEPS_PER_S
        action_space, obs_space = self._envs[0].action_space, self._envs[0].observation_space
        image = is_image(obs_space)
        if not isinstance(action_space, Discrete) or not (
            isinstance(obs_space, Box) and (image or len(obs_space.shape) == 1)
        ):
            raise UsageError(
                f"{task}: expected Discrete actions and a one-dimensional Box of observations or "
                f"one of images (bytes from 0 to 255, grey or RGB), got {action_space} and "
                f"{obs_space}"
            )
        self._first_action = int(action_space.start)
        self.frame_shape: tuple[int, ...] = obs_space.shape
        self.frame_dtype: type[np.generic] = np.uint8 if image else np.float32
        self.stack_size = IMAGE_STACK if image else 1
        self.action_names = task_action_names(task, int(action_space.n))
        self._log = EpisodeLog(
            num_envs, run_seed=run_seed, task=task, num_actions=len(self.action_names)
        )
        self._frames = np.zeros((num_envs, *self.frame_shape), dtype=self.frame_dtype)
        self._num_steps = self._num_restarts = 0  # of all environments, in this process
        self._sent: Int64[np.ndarray, " envs"] | None = None
        self._behind = False  # what the log says has yet to be played again

    def reset(self) -> Frames:
        """Starts every environment's next episode.

        Frames are float32 ``[envs, features]`` or uint8 ``[envs, 84, 84]``.
        """
        assert not self._behind, "a state was loaded: catch_up first"
        everywhere = np.ones(self.num_envs, dtype=bool)
        return self._reset(everywhere, *self._log.start(everywhere))

    def send(self, actions: Int64[np.ndarray, " envs"]) -> None:
        """Notes the actions; Python environments have nothing to run beside the caller."""
        assert not self._behind, "a state was loaded: catch_up first"
        self._log.append(actions)
        self._sent = actions

    def recv(self) -> VectorStep:
        """Steps the environments, and resets those whose episode is over."""
        assert self._sent is not None, "recv without send"
        reward = np.zeros(self.num_envs, dtype=np.float32)
        terminated, truncated, failed = np.zeros((3, self.num_envs), dtype=bool)
        for env, action in enumerate(self._sent):
            try:
                returned = self._step(env, int(action))
            except _EnvironmentError as error:
                self._restart(env, error)
                truncated[env] = failed[env] = True
            else:
                self._frames[env], reward[env], terminated[env], truncated[env] = returned
        self._sent = None
        final_frames = self._frames.copy()
        over = terminated | truncated
        frames = self._reset(over, *self._log.start(over)) if over.any() else final_frames
        return VectorStep(
            frames=frames,
            final_frames=final_frames,
            raw_reward=reward,
            reward=reward,
            terminated=terminated,
            truncated=truncated & ~terminated,
            life_lost=np.zeros_like(terminated),
            failed=failed,
        )

    def state_dict(self) -> dict[str, Any]:
        """Episode counters and the actions since each reset."""
        return self._log.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over a recorded state; `catch_up` must bring the environments there.

        Raises:
            DataError: if the state was taken from another number of environments.
        """
        self._log.load_state_dict(state)
        self._behind = True

    def catch_up(self) -> Iterator[None]:
        """Plays the recorded actions again; yields after every episode.

        Raises:
            UnavailableError: if an environment fails again and again on its way.
        """
        if self._behind:
            for env in range(self.num_envs):
                seed, actions = self._log.history(env)
                for _ in range(MAX_REPLAYS):
                    done = self._play_again(env, seed, actions)
                    yield
                    if done:
                        break
                else:
                    raise UnavailableError(
                        f"{self.task}: given up, environment {env} failed each of {MAX_REPLAYS} "
                        f"times that the {len(actions)} steps of its episode were played again"
                    )
            self._behind = False

    def picture(self) -> UInt8[np.ndarray, "height width 3"]:
        """Environment 0 as it renders itself; needs ``with_picture=True``.

        Raises:
            UnavailableError: if it cannot draw without a package that is not installed.
            DataError: if what it draws is no RGB picture.
        """
        if not self._with_picture:
            raise ValueError("made without with_picture=True")
        try:
            drawn = np.asarray(self._envs[0].render())
        except gymnasium.error.DependencyNotInstalled as error:
            raise UnavailableError(f"cannot draw {self.task}: {error}") from error
        if drawn.dtype != np.uint8 or drawn.ndim != 3 or drawn.shape[2] != 3 or not drawn.size:
            raise DataError(
                f"{self.task}: expected an RGB picture of bytes [height, width, 3], "
                f"got {drawn.dtype} {list(drawn.shape)}"
            )
        return drawn

    def close(self) -> None:
        """Closes the environments; it is no reason to lose a run if one does not."""
        for env in range(self.num_envs):
            self._close(env)

    def _let_draw(self) -> None:
        modes = self._envs[0].metadata.get("render_modes") or []
        if RENDER_MODE not in modes:
            raise UsageError(
                f"{self.task} cannot be filmed: expected an environment with the render mode "
                f"{RENDER_MODE}, this one has {', '.join(map(str, modes)) or 'none'}"
            )
        self._with_picture = True
        self._envs[0].close()
        self._envs[0] = self._make(0)

    def _make(self, env: int) -> gymnasium.Env[Any, Any]:
        # Only where it is asked for: an environment that cannot draw need not know of it.
        draws: dict[str, Any] = (
            {"render_mode": RENDER_MODE} if self._with_picture and env == 0 else {}
        )
        made = gymnasium.make(
            self.task.removeprefix(TASK_PREFIX),
            disable_env_checker=True,  # it raises what we could not tell from a failure
            **draws,
        )
        return in_grey(made)

    def _reset(
        self,
        over: Bool[np.ndarray, " envs"],
        seeded: Bool[np.ndarray, " envs"],
        seeds: Int64[np.ndarray, " seeded"],
    ) -> Frames:
        assert (over == seeded).all(), "every episode has a seed of its own"
        for env, seed in zip(np.flatnonzero(over), seeds, strict=True):
            while not self._play_again(int(env), int(seed), ()):
                pass
        return self._frames.copy()

    def _play_again(
        self, env: int, seed: int, actions: Sequence[int] | Int64[np.ndarray, " steps"]
    ) -> bool:
        """One episode from its seed; False if the environment failed and was made again."""
        try:
            self._frames[env] = self._first_frame(env, seed)
            for action in actions:
                self._frames[env], *_ = self._step(env, int(action))
        except _EnvironmentError as error:
            self._restart(env, error)
            return False
        return True

    def _first_frame(self, env: int, seed: int) -> Shaped[np.ndarray, "..."]:
        with _as_failure():
            returned = self._envs[env].reset(seed=seed)
        self._refuse_unless("reset", returned, _is_tuple(returned, 2), "observation and info")
        obs, info = returned
        self._refuse_unless("info", info, isinstance(info, dict), "a dictionary")
        return self._checked_frame(obs)

    def _step(
        self, env: int, action: int
    ) -> tuple[Shaped[np.ndarray, "..."], np.float32, bool, bool]:
        self._num_steps += 1
        with _as_failure():
            returned = self._envs[env].step(self._first_action + action)
        self._refuse_unless(
            "step",
            returned,
            _is_tuple(returned, 5),
            "observation, reward, terminated, truncated and info",
        )
        obs, reward, terminated, truncated, info = returned
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            self._refuse_unless(name, flag, isinstance(flag, bool | np.bool_), "true or false")
        self._refuse_unless("info", info, isinstance(info, dict), "a dictionary")
        number = np.asarray(reward)
        self._refuse_unless("reward", reward, number.ndim == 0 and _is_real(number), "a number")
        return (
            self._checked_frame(obs),
            self._finite_float32(number)[()],
            bool(terminated),
            bool(truncated),
        )

    def _restart(self, env: int, error: Exception) -> None:
        """Makes an environment again, if its task has not failed too often."""
        cause = error.__cause__
        said = f"{type(cause).__name__}: {cause}"
        self._num_restarts += 1
        if self._num_restarts > FREE_RESTARTS + self._num_steps // STEPS_PER_RESTART:
            raise UnavailableError(
                f"{self.task}: given up, its environments failed {self._num_restarts} times in "
                f"{self._num_steps} steps; the last time with {said:.500}"
            ) from cause
        _logger.warning("%s: environment %d failed, made again: %.200s", self.task, env, said)
        self._close(env)
        try:
            self._envs[env] = self._make(env)
        except ActorMimicError:  # a signal that came just now
            raise
        except Exception as again:
            raise UnavailableError(
                f"{self.task}: an environment failed with {said:.500}, and cannot be made again: "
                f"{again}"
            ) from again

    def _close(self, env: int) -> None:
        try:
            self._envs[env].close()
        except ActorMimicError:
            raise
        except Exception as error:
            _logger.warning("%s: environment %d did not close: %.200s", self.task, env, error)

    def _checked_frame(self, obs: Any) -> Shaped[np.ndarray, "..."]:
        frame = np.asarray(obs)
        image = self.frame_dtype is np.uint8
        numbers = "bytes" if image else "numbers"
        fits = frame.dtype == np.uint8 if image else _is_real(frame)
        fits = fits and frame.shape == self.frame_shape
        self._refuse_unless("observation", obs, fits, f"{numbers} of shape {self.frame_shape}")
        return frame if image else self._finite_float32(frame)

    def _finite_float32(self, values: Any) -> Any:
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
        if not np.isfinite(values).all():
            raise DataError(f"{self.task}: the environment returned a NaN or infinite value")
        return values

    def _refuse_unless(self, name: str, came: object, fits: bool, expected: str) -> None:
        if not fits:
            raise DataError(
                f"{self.task}: the environment's {name}: expected {expected}, got {came!r:.200}"
            )


class _EnvironmentError(Exception):
    """Caused by whatever somebody else's environment raised."""


@contextmanager
def _as_failure() -> Iterator[None]:
    try:
        yield
    except ActorMimicError:  # a signal that came just now
        raise
    except Exception as error:
        raise _EnvironmentError from error


def _is_tuple(returned: object, length: int) -> bool:
    return isinstance(returned, tuple) and len(returned) == length


def _is_real(values: np.ndarray) -> bool:
    return values.dtype.kind in "biuf"
