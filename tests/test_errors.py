from __future__ import annotations

import pytest

from underlay.errors import CheckFailed, Exit, InputError, NotReady, Problem, UnderlayError


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (Problem("host1", "it is off"), "host1: it is off"),
        (Problem("host1", "it is off", "bring it up"), "host1: it is off\n    hint: bring it up"),
        (Problem("", "it is off"), "it is off"),
    ],
)
def test_problem_says_where_what_and_what_to_do(problem: Problem, said: str) -> None:
    assert str(problem) == said


def test_error_says_all_its_problems() -> None:
    error = InputError(Problem("plan:1", "one", "do this"), Problem("plan:2", "two"))
    assert str(error) == "plan:1: one\n    hint: do this\nplan:2: two"
    assert [problem.where for problem in error.problems] == ["plan:1", "plan:2"]


@pytest.mark.parametrize(
    ("kind", "code"),
    [(CheckFailed, 1), (InputError, 2), (NotReady, 3), (UnderlayError, 3)],
)
def test_exit_codes(kind: type[UnderlayError], code: int) -> None:
    error = kind.of("here", "something", "do something")
    assert isinstance(error, kind)
    assert int(error.exit_code) == code
    assert error.problems == (Problem("here", "something", "do something"),)


def test_good_is_nought() -> None:
    assert int(Exit.GOOD) == 0


def test_error_needs_a_problem() -> None:
    with pytest.raises(ValueError, match="at least one problem"):
        NotReady()
