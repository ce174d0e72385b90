"""Settings of the order service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.common.settings import DatabaseSettings, Reader, ServerSettings


@dataclass(frozen=True, slots=True)
class Settings:
    """Where to listen, and the database."""

    server: ServerSettings
    database: DatabaseSettings

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings; raise SettingsError with all mistakes."""
        reader = Reader(environment)
        settings = cls(server=ServerSettings.read(reader), database=DatabaseSettings.read(reader))
        reader.finish()
        return settings
