"""VMAF, by the FFmpeg that imageio-ffmpeg ships, on the files themselves.

FFmpeg reads both clips, so that VMAF sees exactly the stored luma; frames are paired by number,
whatever their timestamps. The same by hand::

    ffmpeg -i RESTORED -i REFERENCE -lavfi "[0:v]settb=AVTB,setpts=N/TB/25,format=yuv420p[a];
        [1:v]settb=AVTB,setpts=N/TB/25,format=yuv420p[b];
        [a][b]libvmaf=log_fmt=json:log_path=vmaf.json" -fps_mode passthrough -f null -
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from dloral.errors import InputError, WeightsError
from dloral.packages import needs_extra
from dloral.video.images import frame_files
from dloral.video.media import reason
from dloral.video.probe import ClipInfo

FORMATS = "mov,mp4,matroska,webm,avi,mpeg,mpegts,gif,flv,asf,ogg,mxf,yuv4mpegpipe,ivf,apng"


def find_ffmpeg() -> str:
    """The program's path; :class:`WeightsError` where it or its VMAF filter is missing."""
    with needs_extra("evaluate", "VMAF"):
        import imageio_ffmpeg

    try:
        program: str = imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise WeightsError(
            "VMAF needs ffmpeg and imageio-ffmpeg has none for this system",
            remedy="install ffmpeg with libvmaf and set IMAGEIO_FFMPEG_EXE",
        ) from error
    filters = _run([program, "-hide_banner", "-filters"]).stdout
    if "libvmaf" not in filters:
        raise WeightsError(
            "{path} was built without libvmaf",
            remedy="unset IMAGEIO_FFMPEG_EXE, or leave vmaf out",
            path=Path(program),
        )
    return program


def vmaf(restored: ClipInfo, reference: ClipInfo) -> list[float]:
    """VMAF (0 to 100) of every frame; both clips must have the same size.

    Raises InputError where FFmpeg cannot read one.
    """
    deep = max(restored.bit_depth, reference.bit_depth) > 8
    pixels = "yuv420p10le" if deep else "yuv420p"
    with tempfile.TemporaryDirectory() as folder:
        inputs: list[str] = []
        for number, clip in enumerate((restored, reference)):
            inputs += _input_of(clip, Path(folder) / f"{number}.txt")
        same = f"settb=AVTB,setpts=N/TB/25,scale=out_range=tv,format={pixels}"
        graph = f"[0:v]{same}[a];[1:v]{same}[b];[a][b]libvmaf=log_fmt=json:log_path=vmaf.json"
        quiet = [find_ffmpeg(), "-hide_banner", "-nostdin", "-loglevel", "error"]
        done = _run(
            [*quiet, *inputs, "-lavfi", graph, "-fps_mode", "passthrough", "-f", "null", "-"],
            folder,
        )
        log = Path(folder) / "vmaf.json"
        if done.returncode or not log.is_file():
            raise InputError(
                "VMAF of {path} could not be measured (ffmpeg: {reason})",
                remedy="leave vmaf out, or convert the clip",
                path=restored.path,
                reason=" ".join(done.stderr.split())[-200:],
            )
        return [frame["metrics"]["vmaf"] for frame in json.loads(log.read_text())["frames"]]


def _input_of(clip: ClipInfo, list_file: Path) -> list[str]:
    """FFmpeg's arguments to read a clip; a folder is read through a list of its frames."""
    if clip.kind != "folder":
        whitelist = [] if clip.kind == "image" else ["-format_whitelist", FORMATS]
        return [*whitelist, "-protocol_whitelist", "file", "-i", f"file:{clip.path.resolve()}"]
    quoted = (str(path.resolve()).replace("'", "'\\''") for path in frame_files(clip.path))
    list_file.write_text("".join(f"file 'file:{name}'\nduration 0.04\n" for name in quoted))
    return ["-f", "concat", "-safe", "0", "-protocol_whitelist", "file", "-i", str(list_file)]


def _run(command: list[str], folder: str | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        raise WeightsError(
            "{path} cannot be run: {reason}",
            remedy="set IMAGEIO_FFMPEG_EXE to an ffmpeg or unset it, or leave vmaf out",
            path=Path(command[0]),
            reason=reason(error),
        ) from error
