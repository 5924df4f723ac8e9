"""``python -m dloral``."""

import sys

from dloral.cli import main

if __name__ == "__main__":
    sys.exit(main())
