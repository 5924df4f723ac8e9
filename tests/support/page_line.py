"""``python page_line.py ...``: ``app.py``, which takes the tiny checkpoint for the release's.
Everything else is as the environment says (``HF_ENDPOINT``, ``HF_HOME``)."""

from released import CHECKPOINT, pin

from dloral.studio import launch

if __name__ == "__main__":
    pin(CHECKPOINT.read_bytes())
    launch()
