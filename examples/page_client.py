"""Restore a clip on a running page (``python app.py``) through its HTTP API.

python examples/page_client.py examples/cars.mp4 restored.mp4 --url http://127.0.0.1:7860
"""

import argparse
import shutil

from gradio_client import Client, handle_file

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("source")
parser.add_argument("target")
parser.add_argument("--url", default="http://127.0.0.1:7860")
parser.add_argument("--scale", type=float, default=4)
parser.add_argument("--detail", type=float, default=1)
parser.add_argument("--duration", type=float, help="seconds to restore; all by default")
options = parser.parse_args()

page = Client(options.url, verbose=False)
in_use = next(model["name"] for model in page.predict(api_name="/models") if model["in_use"])
print(f"restoring with {in_use}")

clip = handle_file(options.source)
look = {"scale": options.scale, "detail": options.detail}
preview = page.predict(clip, frame=0, **look, api_name="/preview_frame")
print(f"the first frame: {preview}")

# "/upscale" gives the file alone.
part = {"duration": options.duration}
restored, made = page.predict(clip, **look, **part, api_name="/upscale_with_notes")
shutil.copyfile(restored, options.target)
print(f"wrote {options.target}, {made['width']} x {made['height']}, {made['frames']} frames")
for note in made["notes"]:
    print(f"note: {note}")
