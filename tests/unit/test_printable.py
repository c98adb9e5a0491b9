"""Facts of checkpoints as `show` prints them."""

from actor_mimic.report.printable import printable_facts


def test_facts_stand_one_below_the_other_and_what_has_names_is_indented():
    facts = {
        "step": 12,
        "tasks": {"pong": ["NOOP", "FIRE"]},
        "parents": [{"task": "pong"}, {"task": "boxing"}],
        "done": True,
        "nothing": None,
        "none of them": [],
        "flags": [True, False],
    }

    assert list(printable_facts(facts)) == [
        "step          12",
        "tasks",
        "  pong  NOOP, FIRE",
        "parents",
        "  1",
        "    task  pong",
        "  2",
        "    task  boxing",
        "done          true",
        "nothing       -",
        "none of them  -",
        "flags         [true, false]",
    ]


def test_what_lies_too_deep_is_json():
    nested = {"a": {"b": {"c": {"d": 1}}}}

    assert list(printable_facts(nested)) == ["a", "  b", '    c  {"d": 1}']
    assert list(printable_facts(nested, depth=1)) == ['a  {"b": {"c": {"d": 1}}}']


def test_neither_a_name_nor_a_value_can_steer_a_terminal():
    facts = {"a\x1b[2J": {"b\nc": ["\x1b]0;title\x07", "x"]}}

    assert list(printable_facts(facts)) == ["a[2J", "  b c  ]0;title, x"]


def test_a_long_name_does_not_move_the_values_of_others():
    long = "n" * 100

    assert list(printable_facts({long: 1, "a": 2})) == [f"{long}  1", f"{'a':32}  2"]
