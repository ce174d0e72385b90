"""The state of the hosts when something failed, bounded in size: what a person would look at first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from underlay.errors import UnderlayError
from underlay.hosts.base import Host, Lab

#: Characters of each answer; the last ones are the newest.
_MOST = 4000
_LOG_LINES = "8"

_QUESTIONS: Mapping[str, tuple[str, ...]] = {
    "links": ("ip", "-s", "-br", "address"),
    "link counters": ("ip", "-s", "-j", "link"),
    "rules and counters": ("iptables-save", "-c", "-t", "filter"),
    "nat and counters": ("iptables-save", "-c", "-t", "nat"),
    "conntrack": ("conntrack", "-S"),
    "namespaces": ("ip", "netns", "list"),
    "programs": ("supervisorctl", "status"),
    "logs": ("sh", "-c", f"tail -n {_LOG_LINES} /var/log/supervisor/*.log"),
}


def diagnose(lab: Lab) -> Iterator[tuple[str, str]]:
    """Yield a title and a text for each host that services run on."""
    for name, host in lab.hosts.items():
        if lab.plan.services_on(name):
            yield f"state of {name}", "\n".join(_answers(host))


def _answers(host: Host) -> Iterator[str]:
    for title, command in _QUESTIONS.items():
        try:
            done = host.run(command, check=False)
            text = (done.stdout + done.stderr).strip()
        except UnderlayError as error:
            text = str(error)
        cut = "" if len(text) <= _MOST else f"({len(text) - _MOST} characters before this are left out)\n"
        yield f"-- {title}\n{cut}{text[-_MOST:]}"
