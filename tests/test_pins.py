"""The shop runs on the same packages in all phases: its images' pins are the hosts' image's."""

from __future__ import annotations

import re
from pathlib import Path

_REQUIREMENTS = Path(__file__).parents[1] / "requirements"
#: Only where the images' Python is another, and what installs the rest.
_ELSEWHERE = {"async-timeout", "tzdata", "pip"}


def _pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (_REQUIREMENTS / name).read_text(), re.MULTILINE))


def test_images_have_the_same_versions_as_hosts() -> None:
    services, image = _pins("services.txt"), _pins("image.txt")
    assert {name: version for name, version in services.items() if name not in _ELSEWHERE} == {
        name: version for name, version in image.items() if name in services
    }
    assert {"aiohttp", "psycopg", "redis", "uvicorn"} <= services.keys()
