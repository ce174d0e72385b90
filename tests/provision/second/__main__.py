"""``python3 -m tests.provision.second VERB phase9``: provisioning with one phase more, one file beside this."""

from __future__ import annotations

import sys
from pathlib import Path

import provision
from underlay import phases

if __name__ == "__main__":
    provision.__path__ = [*provision.__path__, str(Path(__file__).parent)]
    phases.PHASES = (*phases.PHASES, "phase9")
    from provision.__main__ import main

    sys.exit(main(sys.argv[1:]))
