"""Underlay: what is under ``docker run``, built three times over and proven by traffic."""

__version__ = "0.1.0"
