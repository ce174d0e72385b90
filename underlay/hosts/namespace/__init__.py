"""Hosts that are sets of namespaces of this machine."""
