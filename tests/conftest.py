"""Fixtures of all unit tests."""

from tests.apart import apart, guard

__all__ = ["apart", "guard"]
