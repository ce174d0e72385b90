"""`python3 -m services.gateway`: serve until SIGTERM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.common.serve import main
from services.gateway.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp


def _create_app(settings: Settings) -> ASGIApp:
    from services.gateway.app import create_app  # only with good settings

    return create_app(settings)


if __name__ == "__main__":
    raise SystemExit(main("gateway", Settings.read, _create_app))
