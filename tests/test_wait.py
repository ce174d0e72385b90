from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from underlay.errors import NotReady
from underlay.wait import NotYet, until


def answers(*values: int | NotYet) -> Iterator[int | NotYet]:
    yield from values


def test_the_first_answer_is_returned_at_once() -> None:
    started = time.monotonic()
    assert until(lambda: 7, deadline_s=60, what="an answer", interval=60) == 7
    assert time.monotonic() - started < 5


def test_it_asks_until_there_is_an_answer() -> None:
    values = answers(NotYet("nothing"), NotYet("nothing"), 3)
    assert until(lambda: next(values), deadline_s=60, what="an answer", interval=0) == 3


def test_false_and_none_are_answers() -> None:
    assert until(lambda: False, deadline_s=0, what="an answer") is False
    assert until(lambda: None, deadline_s=0, what="an answer") is None


def test_the_message_names_what_where_the_last_thing_seen_and_what_to_do() -> None:
    seen = iter(range(1000))
    with pytest.raises(NotReady) as caught:
        until(
            lambda: NotYet(f"sight {next(seen)}"),
            deadline_s=0.01,
            what="the end of the rain",
            where="garden",
            hint="take an umbrella",
            interval=0.02,
        )
    assert str(caught.value) == (
        "garden: the end of the rain did not happen within 0.01 s; last seen: sight 1\n    hint: take an umbrella"
    )


def test_without_any_time_it_asks_once() -> None:
    values = answers(NotYet("nothing"), 5)
    with pytest.raises(NotReady):
        until(lambda: next(values), deadline_s=0, what="an answer")
    assert next(values) == 5


def test_pauses_grow_up_to_the_slowest_and_end_at_the_deadline() -> None:
    asked: list[float] = []

    def probe() -> NotYet:
        asked.append(time.monotonic())
        return NotYet("nothing")

    started = time.monotonic()
    with pytest.raises(NotReady):
        until(probe, deadline_s=1.0, what="an answer", interval=0.01, slowest=0.3)
    assert 5 <= len(asked) <= 15  # a hundred if the pauses stayed as they are
    assert asked[1] - asked[0] < 0.2 < asked[-2] - asked[-3]
    assert asked[-1] - started >= 1.0


def test_what_the_probe_raises_is_passed_on() -> None:
    with pytest.raises(ZeroDivisionError):
        until(lambda: 1 // 0, deadline_s=60, what="an answer")
