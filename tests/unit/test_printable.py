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
        "nothing       none",
        "none of them  none",
    ]


def test_what_lies_too_deep_is_json():
    nested = {"a": {"b": {"c": {"d": 1}}}}

    assert list(printable_facts(nested)) == ["a", "  b", '    c  {"d": 1}']
    assert list(printable_facts(nested, depth=1)) == ['a  {"b": {"c": {"d": 1}}}']


def test_neither_a_name_nor_a_value_can_steer_a_terminal():
    facts = {"a\x1b[2J": {"b\nc": ["\x1b]0;title\x07", "x"]}}

    assert list(printable_facts(facts)) == ["a[2J", "  b c  ]0;title, x"]
