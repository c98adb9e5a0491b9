"""A recipe's directory as a finished run leaves it, with records, scores and films made up.

Eight games, two seeds, three arms of a transfer; the numbers have the sizes and the noise of real
ones, and come from a seed. Nothing here was measured, and nothing of it is printed anywhere.
"""

import json
import math
from pathlib import Path

import numpy as np

from actor_mimic.games import GAMES, MULTITASK_GAMES
from actor_mimic.statistics import summarise

SEEDS = (0, 1)
NEW_GAME = "assault"
EXPERT_STEPS, STUDENT_STEPS_PER_TASK, TRANSFER_STEPS = 2_500_000, 250_000, 500_000
EPISODES = 30
VERSIONS = {
    "actor-mimic": "0.1.0",
    "ale-py": "0.12.1",
    "gymnasium": "1.4.0",
    "numpy": "2.4.6",
    "python": "3.11.7",
    "safetensors": "0.8.0",
    "torch": "2.13.0",
}
TENSORS = [
    f"torso.{layer}.{kind}"
    for layer in ("conv1", "conv2", "conv3", "dense")
    for kind in ("weight", "bias")
] + ["head.weight", "head.bias"]


def make_run(root: Path, *, films: bool = True, games: tuple[str, ...] = MULTITASK_GAMES) -> Path:
    """Writes the run ``root/made-up``; returns where it is."""
    maker = _Maker(root / "made-up", games)
    maker.recipe()
    for seed in SEEDS:
        maker.experts(seed)
        maker.student(seed)
        maker.transfers(seed)
    if films:
        maker.films()
    return maker.root


def model(stage: str, seed: int) -> str:
    """The hash of a stage's last model, as made up as the rest."""
    return f"{abs(hash_of(f'{stage}/{seed}')):064x}"[-64:]


def hash_of(text: str) -> int:
    """The same in every process, which `hash` is not."""
    return int.from_bytes(text.encode().ljust(32, b".")[:32], "big")


class _Maker:
    def __init__(self, root: Path, games: tuple[str, ...]) -> None:
        self.root = root
        self.games = games
        self.rng = np.random.default_rng(7)
        # How far from random play (0) to the published human (1) each expert gets.
        self.skill = {game: float(self.rng.uniform(0.3, 1.15)) for game in games}

    def recipe(self) -> None:
        stages = [f"{game}-expert" for game in self.games]
        stages += ["student", f"{NEW_GAME}-random", f"{NEW_GAME}-student", f"{NEW_GAME}-single"]
        content = {
            "schema": 1,
            "recipe": "made-up",
            "description": "Eight Atari experts into one student, and on to a ninth game",
            "command": "actor-mimic run made-up.toml --run-dir runs/made-up",
            "seeds": list(SEEDS),
            "stages": [{"name": name} for name in stages],
        }
        _write(self.root / "recipe.json", content)

    def experts(self, seed: int) -> None:
        for game in self.games:
            run = self._begin(f"{game}-expert", seed, "expert", game, EXPERT_STEPS, [])
            _records(run, self._curve(game, self.skill[game], EXPERT_STEPS, 12, slope=5.0), game)
            scores = {game: self._scores(game, self.skill[game])}
            self._finish(run, f"{game}-expert", seed, "expert", scores, EXPERT_STEPS, 1_690_918)

    def student(self, seed: int) -> None:
        parents = [model(f"{game}-expert", seed) for game in self.games]
        total = STUDENT_STEPS_PER_TASK * len(self.games)
        run = self._begin("student", seed, "distill", list(self.games), total, parents)
        skill = {game: self.skill[game] * self.rng.uniform(0.82, 1.06) for game in self.games}
        points = [self._curve(g, skill[g], total, 10, slope=7.0) for g in self.games]
        lines = []
        for step_points in zip(*points, strict=True):
            share = step_points[0][0] / total
            values = {}
            for game, (_, mean) in zip(self.games, step_points, strict=True):
                agreement = 0.18 + (0.6 + 0.12 * math.sin(len(game))) * (1 - math.exp(-5 * share))
                values |= {
                    f"{game}/mean": mean,
                    f"{game}/held_out_agreement": agreement,
                    f"{game}/held_out_divergence": 1.2 * (1 - agreement) ** 2,
                    f"{game}/feature_error": 69.2 if game == self.games[-1] else 1 - agreement,
                }
            lines.append(_line("evaluation", step_points[0][0], values))
        _lines(run, lines)
        scores = {game: self._scores(game, skill[game]) for game in self.games}
        sizes = {"teacher_parameters": dict.fromkeys(self.games, 1_690_918)}
        self._finish(run, "student", seed, "student", scores, total, 1_693_362, sizes)
        for game in self.games:
            content = {"checkpoint": "random", "protocol": "paper", "epsilon": 1.0}
            tasks = {game: self._scores(game, 0.0)}
            _write(run / f"evaluations/random-{game}.json", content | {"tasks": tasks})

    def transfers(self, seed: int) -> None:
        single = model(f"{self.games[0]}-expert", seed)
        for arm, parent, skill, slope, start in (
            ("random", None, 0.9, 2.2, 0.0),
            ("student", model("student", seed), 1.25, 4.5, 0.15),
            ("single", single, 1.0, 2.6, 0.05),
        ):
            name, parents = f"{NEW_GAME}-{arm}", [parent] if parent else []
            run = self._begin(name, seed, "transfer", NEW_GAME, TRANSFER_STEPS, parents)
            points = self._curve(NEW_GAME, skill, TRANSFER_STEPS, 14, slope=slope, start=start)
            _records(run, points, NEW_GAME)
            origins = [
                {"name": tensor, "origin": "copied" if parent and "head" not in tensor else "fresh",
                 "rows": 32 if parent and "head" not in tensor else 0}
                for tensor in TENSORS
            ]  # fmt: skip
            scores = {NEW_GAME: self._scores(NEW_GAME, skill)}
            told = {"tensor_origins": origins}
            self._finish(run, name, seed, "transfer", scores, TRANSFER_STEPS, 1_690_918, told)
            content = {"checkpoint": "random", "protocol": "paper", "epsilon": 1.0}
            tasks = {NEW_GAME: self._scores(NEW_GAME, 0.0)}
            _write(run / "evaluations/random.json", content | {"tasks": tasks})

    def films(self) -> None:
        small, wide = film(160, 210, seconds=2), film(340, 260, seconds=2)
        for game in self.games:
            _film(self.root / f"{game}-expert/seed-0/films/{game}.mp4", small)
            _film(self.root / f"student/seed-0/films/{game}.mp4", small)
            _film(self.root / f"student/seed-0/films/{game}-beside.mp4", wide)
        _film(self.root / "student/seed-0/films/grid.mp4", film(480, 420, seconds=2))
        for arm in ("random", "student"):
            _film(self.root / f"{NEW_GAME}-{arm}/seed-0/films/{NEW_GAME}.mp4", small)

    def _begin(
        self,
        stage: str,
        seed: int,
        kind: str,
        task: str | list[str],
        steps: int,
        parents: list[str],
    ) -> Path:
        run = self.root / stage / f"seed-{seed}"
        named = {"tasks": task} if isinstance(task, list) else {"task": task}
        config = {"algorithm": "pqn", "learning_rate": 0.00025, "parents": parents, "seed": seed,
                  "protocol": "paper", "total_steps": steps, "width": 1.0}  # fmt: skip
        content = {"stage": kind, "config": config | named, "seed": seed, "versions": VERSIONS}
        _write(run / "run.json", content | {"created": "2026-01-01T00:00:00+00:00", "schema": 1})
        return run

    def _finish(
        self,
        run: Path,
        stage: str,
        seed: int,
        kind: str,
        scores: dict[str, object],
        steps: int,
        parameters: int,
        told: dict[str, object] | None = None,
    ) -> None:
        done = {
            "schema": 1,
            "kind": kind,
            "checkpoint": f"checkpoints/step-{steps:09d}",
            "model_sha256": model(stage, seed),
            "seconds": steps / 2_000,
            "parameters": parameters,
            "scores": scores,
        }
        _write(run / "complete.json", done | (told or {}))

    def _raw(self, game: str, skill: float) -> float:
        known = GAMES[game]
        return known.random + skill * (known.human - known.random)

    def _curve(
        self, game: str, skill: float, steps: int, points: int, *, slope: float, start: float = 0.0
    ) -> list[tuple[int, float]]:
        curve = []
        for number in range(points + 1):
            share = number / points
            grown = start + (skill - start) * (1 - math.exp(-slope * share))
            noise = 0.05 * skill * self.rng.standard_normal() * (number > 0)
            curve.append((round(share * steps), self._raw(game, max(grown + noise, 0.0))))
        return curve

    def _scores(self, game: str, skill: float) -> dict[str, object]:
        known = GAMES[game]
        spread = 0.25 * (0.02 + abs(skill)) * (known.human - known.random)
        scores = np.round(self._raw(game, skill) + spread * self.rng.standard_normal(EPISODES), 1)
        summary = summarise(scores, seed=0)
        return {
            "episodes": EPISODES,
            "mean": summary.mean,
            "median": summary.median,
            "stderr": summary.stderr,
            "ci95": list(summary.ci95 or ()),
            "human_normalised": (summary.mean - known.random) / (known.human - known.random),
            "scores": scores.tolist(),
        }


def film(width: int, height: int, *, seconds: float) -> bytes:
    """An MP4 of a block that wanders over a dark ground."""
    import tempfile

    import imageio_ffmpeg

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "film.mp4"
        writer = imageio_ffmpeg.write_frames(
            str(path), (width, height), fps=15, macro_block_size=2, ffmpeg_log_level="error"
        )
        writer.send(None)
        for number in range(round(15 * seconds)):
            picture = np.full((height, width, 3), (18, 30, 60), dtype=np.uint8)
            x, y = (5 * number) % (width - 20), (3 * number) % (height - 20)
            picture[y : y + 20, x : x + 20] = (236, 180, 80)
            writer.send(picture)
        writer.close()
        return path.read_bytes()


def _records(run: Path, points: list[tuple[int, float]], task: str) -> None:
    _lines(run, [_line("evaluation", step, {f"{task}/mean": mean}) for step, mean in points])


def _line(kind: str, step: int, values: dict[str, float]) -> dict[str, object]:
    return {"kind": kind, "step": step, "update": step // 64, "wall_s": 0.0, "values": values}


def _lines(run: Path, lines: list[dict[str, object]]) -> None:
    (run / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _film(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _write(path: Path, content: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
