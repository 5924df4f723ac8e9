"""``python command_line.py upscale ...``: the command line, which takes the tiny checkpoint for the
release's. Everything else is as the environment says (``HF_ENDPOINT``, ``HF_HOME``)."""

import sys

from released import CHECKPOINT, pin

from dloral.cli import main

if __name__ == "__main__":
    pin(CHECKPOINT.read_bytes())
    sys.exit(main(sys.argv[1:]))
