"""Hosts that are virtual machines which Vagrant made."""
