"""Recipes: what is accepted, what is refused and where the message points."""

import dataclasses
import os
from importlib import resources
from pathlib import Path

import pytest

from actor_mimic.config import DistillConfig, EvaluateConfig, ExpertConfig, TransferConfig
from actor_mimic.errors import ConfigError, DataError, UsageError
from actor_mimic.flat_config import build_config
from actor_mimic.games import MULTITASK_GAMES, TRANSFER_SOURCE_GAMES, TRANSFER_TARGET_GAMES
from actor_mimic.learner_config import DQNConfig, PQNConfig
from actor_mimic.networks.q_network import QNetwork
from actor_mimic.networks.torsos import TorsoSpec
from actor_mimic.recipes.load import load_recipe, parse_recipe, shipped_recipes
from actor_mimic.recipes.recipe import Parent, seed_of_parent

RECIPE = """\
name = "mine"
seeds = [0, 7]
scale = 0.5

[defaults.expert]
total_steps = 10_000
width = 0.25

[[stage]]
name = "pong-expert"
kind = "expert"
task = "pong"

[[stage]]
name = "cart"
kind = "expert"
task = "gym:CartPole-v1"
algorithm = "dqn"
total_steps = 20_000
seeds = [3]

[[stage]]
name = "student"
kind = "distill"
steps_per_task = 5_000
teachers = { pong = "pong-expert" }

[[stage]]
name = "warm"
kind = "transfer"
task = "breakout"
parent = "student@best"

[[stage]]
name = "cold"
kind = "transfer"
task = "breakout"

[[stage]]
name = "random-play"
kind = "evaluate"
checkpoint = "random"
tasks = ["breakout"]
episodes = 5
"""


def parse(text):
    return parse_recipe(text.encode(), "mine.toml")


def refused(old, new, *, text=RECIPE):
    """The message about the recipe with one thing replaced."""
    assert old in text
    with pytest.raises(ConfigError) as caught:
        parse(text.replace(old, new, 1))
    return str(caught.value)


def line_of(text, part):
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


def test_stages_take_settings_defaults_seeds_and_scale():
    recipe = parse(RECIPE)

    expert, cart, student, warm, cold, play = recipe.stages
    assert isinstance(expert.config, ExpertConfig)
    assert expert.config.total_steps == 5_000  # half of the default of its kind
    assert expert.config.network.width == 0.25
    assert expert.seeds == (0, 7)
    assert [expert.for_seed(seed).seed for seed in expert.seeds] == [0, 7]
    assert isinstance(cart.config, ExpertConfig)
    assert isinstance(cart.config.learner, DQNConfig)
    assert (cart.config.total_steps, cart.seeds) == (10_000, (3,))
    assert isinstance(student.config, DistillConfig)
    assert student.config.steps_per_task == 2_500
    assert student.teachers == {"pong": Parent(stage="pong-expert")}
    assert isinstance(warm.config, TransferConfig)
    assert warm.config.total_steps == 500_000  # half of what nobody wrote down
    assert warm.parent == Parent(stage="student", best=True)
    assert cold.parent is None
    assert play.config == EvaluateConfig(("breakout",), 5)


BASELINE = """
[defaults.multitask-dqn]
preset = "nature"

[[stage]]
name = "baseline"
kind = "multitask-dqn"
tasks = ["pong", "boxing"]
head = "branched"
num_envs = 4

[[stage]]
name = "from-baseline"
kind = "distill"
teachers = { boxing = "baseline@best" }
"""


def test_a_multitask_dqn_has_tasks_and_teaches_them():
    text = RECIPE + BASELINE
    recipe = parse(text)

    stage = recipe.stage("baseline")
    settings = {"tasks": ["pong", "boxing"], "preset": "nature", "head": "branched", "num_envs": 4}
    assert stage.config == build_config("multitask-dqn", settings | {"steps_per_task": 5_000_000})
    assert stage.tasks == ("pong", "boxing")
    assert not stage.parents
    assert recipe.stage("from-baseline").teachers == {"boxing": Parent("baseline", best=True)}

    for old, new, said in [
        ('tasks = ["pong", "boxing"]\n', "", "tasks must be a list of names, and is missing"),
        ('tasks = ["pong", "boxing"]', 'tasks = "pong"', "tasks must be a list of names"),
        ('tasks = ["pong", "boxing"]', 'tasks = ["pong", "pong"]', "tasks must be different"),
        ('tasks = ["pong", "boxing"]', 'tasks = ["pong", "a:b"]', "neither an Atari game nor gym:"),
        ('"branched"', '"branhced"', "head"),
        ("{ boxing =", "{ breakout =", "'baseline' plays pong, boxing, not breakout"),
        ('kind = "multitask-dqn"', 'kind = "multitask-dnq"', "did you mean 'multitask-dqn'"),
        ('preset = "nature"', 'preset = "fast"', "preset"),
    ]:
        message = refused(old, new, text=text)
        assert message.startswith("mine.toml:")
        assert said in message


def test_a_parent_decides_the_shape_and_defaults_are_for_random_weights():
    text = RECIPE.replace('kind = "transfer"', 'kind = "transfer"\nwidth = 1.0', 1)

    with pytest.raises(ConfigError, match="width with a parent") as caught:
        parse(text)

    assert f"mine.toml:{line_of(text, 'width = 1.0')}: " in str(caught.value)
    parse(RECIPE + "[defaults.transfer]\nwidth = 1.0\n")


def test_a_preset_is_named_like_any_setting_and_others_stand_over_it():
    text = RECIPE.replace('algorithm = "dqn"', 'preset = "nature"\nbatch_size = 8')
    text = text.replace("total_steps = 20_000", "total_steps = 200_000")
    (cart,) = [stage for stage in parse(text).stages if stage.name == "cart"]

    expected = {"task": "gym:CartPole-v1", "preset": "nature", "batch_size": 8}
    assert cart.config == build_config("expert", expected | {"total_steps": 100_000, "width": 0.25})

    said = refused("width = 0.25", 'preset = "natur"')
    assert said.startswith(f"mine.toml:{line_of(RECIPE, 'width')}: ")
    assert "did you mean 'nature'" in said
    said = refused('algorithm = "dqn"', 'algorithm = "dqn"\npreset = "fast"')
    assert "leave one of the two out" in said


def test_jobs_come_in_order_with_a_directory_each(tmp_path):
    jobs = list(parse(RECIPE).jobs(tmp_path))

    assert [job.title for job in jobs[:4]] == [
        "pong-expert/seed-0",
        "pong-expert/seed-7",
        "cart/seed-3",
        "student/seed-0",
    ]
    assert jobs[1].path == tmp_path / "pong-expert" / "seed-7"
    assert jobs[1].config.seed == 7


def test_a_parent_has_the_same_seed_or_only_one():
    recipe = parse(RECIPE)

    assert seed_of_parent(recipe.stage("pong-expert"), 7) == 7
    assert seed_of_parent(recipe.stage("cart"), 7) == 3
    assert seed_of_parent(recipe.stage("pong-expert"), 1) is None


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('task = "pong"', 'task = "pong"\nlerning_rate = 1.0', "lerning_rate"),
        ("scale = 0.5", "scael = 0.5", "scael"),
        ("width = 0.25", "widht = 0.25", "widht"),
        ('kind = "distill"', 'kind = "distil"', "distil"),
        ('pong = "pong-expert"', 'pong = "pong-exprt"', "pong-exprt"),
        ('parent = "student@best"', 'paernt = "student"', "paernt"),
        ("episodes = 5", "episode = 5", "episode"),
        ("episodes = 5", 'protocol = "papr"', "papr"),
    ],
)
def test_misspelt_keys_are_named_with_file_line_and_the_nearest(old, new, key):
    message = refused(old, new)

    number = line_of(RECIPE.replace(old, new, 1), key)
    assert message.startswith(f"mine.toml:{number}: ")
    assert repr(key) in message
    assert "did you mean" in message


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("seeds = [0, 7]", "seeds = []", "mine.toml:2: seeds must be"),
        ("seeds = [0, 7]", "seeds = [true]", "seeds must be"),
        ("seeds = [0, 7]", "seeds = [1, 1]", "seeds must be"),
        ("seeds = [0, 7]", "seeds = [-1]", "seeds must be"),
        ("scale = 0.5", "scale = 0", "scale must be a positive number"),
        ("scale = 0.5", "films = 1", "films must be true or false, got 1"),
        ("scale = 0.5", "scale = nan", "scale must be a positive number"),
        ('name = "mine"', 'name = "../mine"', "name of the recipe"),
        ('name = "warm"', 'name = "a/b"', "name of the [[stage]]"),
        ('name = "warm"', 'name = "Student"', "every stage needs its own"),
        ('name = "warm"', "", "the [[stage]] needs one"),
        ('name = "warm"', 'name = "random"', "every stage needs its own"),
        ('task = "pong"', "", "task must be the name of a game"),
        ('task = "pong"', 'task = "zoo:pong"', "neither an Atari game nor gym:"),
        ('task = "pong"', 'task = "pong"\nseed = 1', "seeds = [...]"),
        ("steps_per_task = 5_000", 'tasks = ["pong"]', "tasks is given by the keys of teachers"),
        ('{ pong = "pong-expert" }', "{}", "teachers must be"),
        ('{ pong = "pong-expert" }', '{ boxing = "pong-expert" }', "plays pong, not boxing"),
        ('{ pong = "pong-expert" }', '{ pong = "student" }', "must stand above it"),
        ('{ pong = "pong-expert" }', '{ pong = "cold" }', "must stand above it"),
        ('{ pong = "pong-expert" }', '{ pong = "random" }', "random play teaches nothing"),
        ('parent = "student@best"', "parent = 3", "must name a stage or a path"),
        ('parent = "student@best"', 'parent = "zoo:nothing"', "zoo:nothing"),
        ('checkpoint = "random"', "", "checkpoint is missing"),
        ('checkpoint = "random"', 'checkpoint = "student"', "plays pong, not breakout"),
        ('tasks = ["breakout"]', "", "name tasks"),
        ("episodes = 5", "episodes = 0", "episodes must be a positive whole number"),
        ("[defaults.expert]", "[defaults.experts]", "unknown key 'experts' of defaults"),
        ("width = 0.25", 'name = "x"', "belongs into a [[stage]]"),
        (
            'task = "pong"',
            'task = "pong"\nminibatch_size = 100',
            "minibatch_size 100 must divide",
        ),
        ('task = "pong"', 'task = "pong"\ntotal_steps = "many"', "total_steps must be a whole"),
        ("name = ", "name ", "expected TOML"),
    ],
)
def test_contradictions_are_refused(old, new, expected):
    message = refused(old, new)

    assert message.startswith("mine.toml:")
    assert expected in message


def test_a_wrong_setting_is_found_in_the_table_that_has_it():
    both = RECIPE.replace('task = "pong"', 'task = "pong"\ntotal_steps = -5')

    message = refused("total_steps = 10_000", "total_steps = -1", text=both)

    assert message.startswith(f"mine.toml:{line_of(both, 'total_steps = -5')}: stage 'pong-expert'")
    alone = refused("total_steps = 10_000", "total_steps = -1")
    assert alone.startswith("mine.toml:6: stage 'pong-expert'")


def test_a_parent_without_the_seed_is_refused():
    message = refused('name = "student"', 'name = "student"\nseeds = [0, 1]')

    assert "runs with the seeds [0, 7], not with 1" in message


def test_a_stage_that_only_plays_has_no_weights():
    text = RECIPE + '\n[[stage]]\nname = "last"\nkind = "transfer"\ntask = "pong"\nparent = "X"\n'

    assert "has no weights" in refused('parent = "X"', 'parent = "random-play"', text=text)


def test_a_table_of_teachers_is_located():
    text = RECIPE.replace('teachers = { pong = "pong-expert" }', "").replace(
        '[[stage]]\nname = "warm"', '[stage.teachers]\npong = "nobody"\n[[stage]]\nname = "warm"'
    )

    with pytest.raises(ConfigError, match=f"mine.toml:{line_of(text, 'nobody')}: "):
        parse(text)


@pytest.mark.parametrize("text", ["", 'name = "x"', 'name = "x"\nstage = 3', "\x00", "a" * 50])
def test_what_is_no_recipe_is_refused(text):
    with pytest.raises(ConfigError, match=r"mine\.toml"):
        parse(text)


def test_what_is_no_file_is_no_recipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")  # opening it for reading would block
    (tmp_path / "link.toml").symlink_to(tmp_path / "link.toml")
    for path in (tmp_path / "pipe.toml", tmp_path / "link.toml", tmp_path, Path("/dev/zero")):
        with pytest.raises((DataError, UsageError), match="expected"):
            load_recipe(path)
    (tmp_path / "mine.toml").write_text(RECIPE)
    (tmp_path / "named.toml").symlink_to(tmp_path / "mine.toml")
    assert load_recipe(tmp_path / "named.toml").name == "mine"


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(ConfigError, match="expected TOML"):
        parse_recipe(b'name = "\xff"', "mine.toml")


def test_a_path_may_be_a_parent(tmp_path):
    text = RECIPE.replace('parent = "student@best"', f'parent = "{tmp_path}/run@best"')

    assert parse(text).stage("warm").parent == Parent(path=tmp_path / "run", best=True)


def test_a_file_is_no_parent(tmp_path):
    (tmp_path / "agent.zip").write_bytes(b"PK")
    text = RECIPE.replace('parent = "student@best"', f'parent = "{tmp_path}/agent.zip"')

    with pytest.raises(ConfigError, match=r"toml:\d+: .*agent\.zip' is a file.*actor-mimic import"):
        parse(text)


def test_files_and_names(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE)

    assert load_recipe(path).source == str(path)
    with pytest.raises(DataError, match=r"other\.toml: there is no such recipe"):
        load_recipe(tmp_path / "other.toml")
    (tmp_path / "other.toml").mkdir()
    with pytest.raises(DataError, match="expected a recipe"):
        load_recipe(tmp_path / "other.toml")
    with pytest.raises(UsageError, match="did you mean 'demo'"):
        load_recipe("dmeo")


def test_every_shipped_recipe_is_valid_and_opens_with_its_command():
    names = ["demo", "from-scratch", "paper-multitask", "paper-transfer", "small-transfer", "zoo"]

    assert shipped_recipes() == names
    for name in names:
        recipe = load_recipe(name)
        assert recipe.name == name
        assert recipe.description
        text = resources.files("actor_mimic.recipes").joinpath(f"{name}.toml").read_text()
        assert text.startswith((f"# actor-mimic run {name}\n", f"# actor-mimic run {name} --yes\n"))


def test_the_teachers_of_the_demo_come_with_the_package():
    recipe = load_recipe("demo")

    assert not [stage for stage in recipe.stages if stage.kind == "expert"]
    teachers = recipe.stage("student").teachers
    assert len(teachers) == 4
    assert {task: str(parent) for task, parent in teachers.items()} == {
        task: f"zoo:{task}" for task in teachers
    }


def test_the_teachers_of_from_scratch_are_trained_by_it():
    recipe = load_recipe("from-scratch")
    experts = {stage.name: stage.tasks for stage in recipe.stages if stage.kind == "expert"}

    teachers = recipe.stage("student").teachers
    assert len(teachers) == 2
    assert {parent.stage: (task,) for task, parent in teachers.items()} == experts


@pytest.mark.parametrize("name", ["demo", "from-scratch"])
def test_a_new_game_is_learnt_from_a_student_from_nothing_and_played_at_random(name):
    recipe = load_recipe(name)
    arms = [stage for stage in recipe.stages if stage.kind == "transfer"]

    assert [arm.parent for arm in arms] == [Parent("student"), None]
    assert arms[0].config == arms[1].config
    (played,) = [stage for stage in recipe.stages if stage.kind == "evaluate"]
    assert (played.parent, played.tasks) == (None, arms[0].tasks)
    assert not {*arms[0].tasks} & {*recipe.stage("student").tasks}


def test_the_zoo_has_the_games_of_the_paper_and_freeway():
    recipe = load_recipe("zoo")
    experts = {stage.tasks[0]: stage for stage in recipe.stages}

    assert experts.keys() == {*MULTITASK_GAMES, "freeway"}
    assert all(stage.name == f"{task}-expert" for task, stage in experts.items())
    start = build_config("expert", {"task": "pong", "epsilon_end": 0.05})
    for task, stage in experts.items():
        # Nothing but the budget is a game's own; Freeway's exploration lasts longer.
        assert stage.config.total_steps >= 1_000_000
        share = 0.3 if task == "freeway" else 0.1
        assert stage.config.learner.exploration_fraction == share
        learner = dataclasses.replace(stage.config.learner, exploration_fraction=0.1)
        alike = {"task": "pong", "total_steps": start.total_steps, "schedule": start.schedule}
        assert dataclasses.replace(stage.config, **alike, learner=learner) == start, task


def test_paper_multitask_has_the_games_of_the_paper_and_the_experts_of_the_package():
    recipe = load_recipe("paper-multitask")
    students = {s.name: s for s in recipe.stages if s.kind == "distill"}
    baselines = [stage for stage in recipe.stages if stage.kind == "multitask-dqn"]

    assert recipe.scale == 0.014
    for stage in (*students.values(), *baselines):
        assert stage.tasks == MULTITASK_GAMES
        assert stage.config.steps_per_task == 350_000
        assert stage.config.schedule.final_episodes == 100
    for stage in students.values():
        teachers = {task: str(parent) for task, parent in stage.teachers.items()}
        assert teachers == {task: f"zoo:{task}" for task in MULTITASK_GAMES}
    # The objectives differ in one number, the sizes in another, and both have the seeds asked for.
    policy, features = students["student-policy"], students["student-features"]
    assert policy.seeds == features.seeds == (0, 1)
    assert (policy.config.feature_weight, features.config.feature_weight) == (0.0, 0.01)
    assert dataclasses.replace(features.config, feature_weight=0.0) == policy.config
    full = QNetwork(TorsoSpec("nature", (4, 84, 84)), 18, generator=None)
    for name, share in (("student-quarter", 0.25), ("student-fourteenth", 0.07)):
        config = students[name].config
        assert dataclasses.replace(config, network=policy.config.network) == policy.config
        small = QNetwork(TorsoSpec("nature", (4, 84, 84), config.network.width), 18, generator=None)
        sizes = [sum(p.numel() for p in network.parameters()) for network in (small, full)]
        assert sizes[0] / sizes[1] == pytest.approx(share, abs=0.01)
    assert [stage.config.head for stage in baselines] == ["per_task", "branched"]
    alike = {repr(dataclasses.replace(stage.config, head="shared")) for stage in baselines}
    assert len(alike) == 1


def test_paper_transfer_has_the_games_of_the_paper():
    transfer = load_recipe("paper-transfer")

    learning = [stage.config for stage in transfer.stages if stage.kind != "evaluate"]
    assert not any(config.network.centred for config in learning)
    assert transfer.stage("student-policy").tasks == TRANSFER_SOURCE_GAMES
    assert transfer.stage("student-feature").tasks == TRANSFER_SOURCE_GAMES
    arms = [stage for stage in transfer.stages if stage.kind == "transfer"]
    assert len(arms) == 3 * len(TRANSFER_TARGET_GAMES)
    assert {stage.tasks[0] for stage in arms} == set(TRANSFER_TARGET_GAMES)
    # The arms differ in where the weights come from, and in nothing else.
    assert len({repr(dataclasses.replace(arm.config, task="")) for arm in arms}) == 1


def test_the_arms_of_small_transfer_differ_in_their_parent_only():
    recipe = load_recipe("small-transfer")
    arms = [stage for stage in recipe.stages if stage.kind == "transfer"]

    parents = [arm.parent.stage if arm.parent else None for arm in arms]
    assert parents == [None, "student", "demon_attack-expert"]
    assert all(arm.config == arms[0].config for arm in arms)
    assert isinstance(arms[0].config, TransferConfig)
    assert isinstance(arms[0].config.learner, PQNConfig)
