"""Plans with mistakes, and what is said of each: ``bad/NAME.yaml`` and ``bad/NAME.txt``.

After a message was changed on purpose, write the texts anew and read the difference before committing it:

    UNDERLAY_GOLDEN=write pytest tests/topology
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.topology.golden import compare
from underlay.errors import Exit, InputError
from underlay.topology import parse_plan

BAD = sorted((Path(__file__).parent / "bad").glob("*.yaml"))


def test_there_are_enough() -> None:
    assert len(BAD) >= 35


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_plan(path: Path) -> None:
    with pytest.raises(InputError) as caught:
        parse_plan(path.read_text(encoding="utf-8"), "topology.yaml")
    assert caught.value.exit_code is Exit.USAGE
    assert str(caught.value).replace("\n", "").isprintable()
    assert all(problem.where and problem.what and problem.hint for problem in caught.value.problems)
    compare(path.with_suffix(".txt"), f"{caught.value}\n")


def test_no_text_without_its_plan() -> None:
    texts = {path.stem for path in (Path(__file__).parent / "bad").glob("*.txt")}
    assert texts == {path.stem for path in BAD}
