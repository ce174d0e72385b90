"""``python3 -m provision.host.receive HOST``: take what the workstation hands over to a virtual machine.

Vagrant copies it to the machine with the repository, readable by root alone. Phases keep files of their own in
/etc/underlay, so it cannot be copied there as a whole.
"""

from __future__ import annotations

import sys
from pathlib import Path

from underlay import durable
from underlay.repository import REPOSITORY

#: Below the repository: one directory for each host.
HANDOVER = REPOSITORY / ".handover"
SETTINGS = Path("/etc/underlay")


def receive(source: Path, target: Path) -> list[str]:
    """Copy each file whose contents or mode differ; return their names. FileNotFoundError when nothing was handed over.

    Owners are not copied: the files belong to who runs this.
    """
    target.mkdir(parents=True, exist_ok=True, mode=0o755)
    changed = []
    for file in sorted(source.iterdir()):
        there = target / file.name
        mode = file.stat().st_mode & 0o777
        if there.exists() and there.read_bytes() == file.read_bytes() and there.stat().st_mode & 0o777 == mode:
            continue
        durable.replace(there, file.read_bytes(), mode=mode)
        changed.append(file.name)
    return changed


def main() -> int:
    """Receive what is meant for the host that the command line names."""
    try:
        (host,) = sys.argv[1:]
        receive(HANDOVER / host, SETTINGS)
    except ValueError:
        print("error: name the host: python3 -m provision.host.receive HOST", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: nothing was handed over to this machine: {error}", file=sys.stderr)
        print("    hint: on the workstation: ./lab vagrant provision", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
