"""Options and fixtures of the acceptance suite. Tests of our own code (tests/) need nothing of it and ask no lab."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from underlay.hosts.base import Host, Lab
from underlay.hosts.find import HOSTS_VARIABLE, KINDS, LAB_VARIABLE, PLAN_VARIABLE
from underlay.phases import PHASES
from underlay.signals import usual_signals
from underlay.topology import Plan

#: The folder whose tests need a lab.
_SUITE = Path(__file__).with_name("acceptance")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that choose where the acceptance suite runs."""
    group = parser.getgroup("underlay", "where the acceptance suite runs")
    group.addoption(
        "--lab",
        metavar="NAME",
        help=f"the lab's name (default: ${LAB_VARIABLE}, else that of the plan: ${PLAN_VARIABLE}, else topology.yaml)",
    )
    group.addoption(
        "--hosts",
        choices=("auto", *KINDS),
        help=f"the kind of hosts (default: ${HOSTS_VARIABLE}, else whatever is up)",
    )
    group.addoption(
        "--phase",
        choices=PHASES,
        default=PHASES[0],
        help="the phase that what holds in every phase (acceptance/suite) is proved of (default: %(default)s)",
    )


def pytest_configure() -> None:
    """Make the tests, and all they start, hear signals even where they were started in the background."""
    usual_signals()


def pytest_report_collectionfinish(config: pytest.Config, items: Sequence[pytest.Item]) -> list[str]:
    """Say which lab it is, once it is known that an acceptance test will run."""
    if not any(item.path.is_relative_to(_SUITE) for item in items):
        return []
    from acceptance.chosen import chosen

    lab = chosen(config)
    lines = []
    for host in lab.hosts.values():
        facts = host.facts()
        rules = host.run(["iptables", "--version"], check=False).stdout.strip() or "no iptables"
        docker = facts.get("docker") or "none"
        said = [f"kernel {facts.get('kernel', '?')}", f"docker {docker}", rules]
        if "provider" in facts:
            said += [facts["provider"], "emulated processors" if facts["emulated"] == "yes" else "real processors"]
        lines.append(f"{host.name}: {', '.join(said)}")
    return [f"lab: {lab.plan.lab} on {lab.kind} hosts", *lines]


@pytest.fixture(scope="session")
def lab(pytestconfig: pytest.Config) -> Lab:
    """Return the lab that is up."""
    from acceptance.chosen import chosen

    return chosen(pytestconfig)


@pytest.fixture(scope="session")
def plan(lab: Lab) -> Plan:
    """Return the plan on record: the one that the lab was brought up with, or took since."""
    return lab.plan


@pytest.fixture(scope="session")
def machine(lab: Lab) -> Callable[[str], Host]:
    """Return a host by its name."""
    return lambda name: lab.hosts[name]
