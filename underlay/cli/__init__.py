"""The `underlay` command: one module a verb, each parses, calls and prints."""
