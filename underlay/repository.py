"""Where this checkout lies: everything that is read from it, or shown to hosts, is found from here."""

from __future__ import annotations

from pathlib import Path

#: The directory that holds ``topology.yaml``.
REPOSITORY = Path(__file__).resolve().parents[1]
