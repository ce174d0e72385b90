"""``python3 -m underlay``."""

import sys

from underlay.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
