import pytest

from actor_mimic.schedules import linear


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 1.0), (1, 0.9991), (500, 0.55), (999, 0.1009), (1000, 0.1), (1001, 0.1), (10**9, 0.1)],
)
def test_exploration_falls_along_a_line_and_stays(step, expected):
    value = linear(step, start=1.0, end=0.1, duration_steps=1000)

    assert value == pytest.approx(expected, abs=1e-12)


def test_both_ends_are_exact():
    # 0.1 + (0.3 - 0.1) is 0.30000000000000004 in floating point.
    assert linear(0, start=0.1, end=0.3, duration_steps=7) == 0.1
    assert linear(7, start=0.1, end=0.3, duration_steps=7) == 0.3


@pytest.mark.parametrize(("step", "expected"), [(0, -2.0), (2, 0.0), (4, 2.0), (5, 2.0)])
def test_it_may_rise_through_zero(step, expected):
    assert linear(step, start=-2.0, end=2.0, duration_steps=4) == expected


def test_one_step_jumps():
    assert [linear(step, start=1.0, end=0.0, duration_steps=1) for step in (0, 1)] == [1.0, 0.0]


@pytest.mark.parametrize("duration_steps", [0, -1])
def test_a_duration_must_be_positive(duration_steps):
    with pytest.raises(ValueError, match="duration_steps must be positive"):
        linear(0, start=1.0, end=0.0, duration_steps=duration_steps)


def test_a_negative_step_is_refused():
    with pytest.raises(ValueError, match="step must not be negative"):
        linear(-1, start=1.0, end=0.0, duration_steps=10)
