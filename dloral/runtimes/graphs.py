"""A model's convolutions as ONNX graphs: what is exported, and what the runtimes compile.

Three of the steps account for nearly all of a frame's arithmetic and are plain networks: the
encoder, the UNet and the decoder. Flow, warping and retrieval stay in torch. A graph is traced
once, without weights, for frames of any size and number; the weights are inserted afterwards, so
that other LoRA scales need no new trace.
"""

import hashlib
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dloral.errors import OptionError, OutputError, Setting
from dloral.files import write_whole
from dloral.frame_generator import FrameGenerator
from dloral.packages import needs_extra

ENCODE, PREDICT, DECODE = "encode", "predict", "decode"

OPSET = 18
"""Of ONNX: the first whose Resize is as torch's for every size."""

TRACED_CELLS = (5, 7)
"""Latent cells of the traced frame: odd, so that the UNet's way for sizes that halve unevenly is
the one that is kept. It serves even sizes too."""

_PARTS = ("vae", "unet")


@dataclass(frozen=True)
class Step:
    """``inputs``: names of its tensors; ``run``: calls a generator's step with them."""

    inputs: tuple[str, ...]
    run: Callable[..., Tensor]


STEPS = {
    ENCODE: Step(("lq_frames",), lambda pipe, frames: pipe.encode(frames)),
    PREDICT: Step(
        ("aligned_latents", "retrieved_latents"),
        lambda pipe, aligned, retrieved: pipe.predict(aligned, retrieved, None),
    ),
    DECODE: Step(
        ("restored_latents", "lq_frames"),
        lambda pipe, latents, frames: pipe.decode(latents, frames),
    ),
}
"""Tensors as in :class:`dloral.generator.Generator`, all float32."""


def check_exportable(pipe: FrameGenerator) -> None:
    """Raise :class:`OptionError` for a model without such graphs."""
    if not all(isinstance(getattr(pipe, part, None), nn.Module) for part in _PARTS):
        reason = "has no networks in torch"
    elif pipe.reads_prompts:
        reason = "reads prompts, which compiled networks do not take"
    else:
        return
    raise OptionError(
        "this model {reason}", remedy="use {instead}",
        reason=reason, instead=Setting("model", "compact"),
    )  # fmt: skip


def graphs_of(pipe: FrameGenerator, cache: Path | None = None) -> dict[str, bytes]:
    """Step -> its ONNX graph without weights: the weights are inputs, behind the step's own.

    ``pipe`` runs in torch and passes :func:`check_exportable`. ``cache``: a folder where traces of
    the same architecture are kept; ignored if it cannot be written.
    """
    pipe.set_scales()  # with the UNet's LoRAs merged: no branches are traced
    kept = {}
    if cache is not None:
        folder = cache / _architecture(pipe)[:16]
        kept = {step: folder / f"{step}.onnx" for step in STEPS}
        if all(path.is_file() for path in kept.values()):
            return {step: path.read_bytes() for step, path in kept.items()}
    with _in_float32(pipe), torch.no_grad():
        graphs = {step: _traced(pipe, step) for step in STEPS}
    with suppress(OutputError):
        for step, path in kept.items():
            _write(path, graphs[step])
    return graphs


def weights_of(pipe: FrameGenerator) -> dict[str, Tensor]:
    """The weights by their names in the graphs, the UNet's with the LoRAs at their scales."""
    return {
        f"{part}.{name}": weight
        for part in _PARTS
        for name, weight in getattr(pipe, part).state_dict().items()
    }


def with_weights(step: str, graph: bytes, weights: Mapping[str, Tensor]) -> bytes:
    """A step's graph with its ``weights`` inside, in float32: a whole ONNX model.

    Raises MissingPackageError without the package onnx, ``KeyError`` for a weight that is missing.
    """
    with needs_extra("onnx", "a graph in ONNX"):
        from onnx import load_model_from_string
        from onnx.numpy_helper import from_array
    model = load_model_from_string(graph)
    inputs, count = model.graph.input, len(STEPS[step].inputs)
    names = [value.name for value in inputs[count:]]
    model.graph.initializer.extend(
        from_array(weights[name].detach().float().contiguous().cpu().numpy(), name)
        for name in names
    )
    del inputs[count:]
    whole: bytes = model.SerializeToString()
    return whole


def write_onnx(
    pipe: FrameGenerator, folder: Path, consistency: float = 1.0, detail: float = 1.0
) -> list[Path]:
    """Write ``encode.onnx``, ``predict.onnx`` and ``decode.onnx`` to ``folder``, with the weights
    at these LoRA scales; they take float32 frames and latents of any size and number.

    Raises :class:`OptionError` for scales out of range and for a model that has no such graphs,
    :class:`MissingPackageError` without the package onnx, :class:`OutputError` where they cannot
    be written.
    """
    check_exportable(pipe)
    with needs_extra("onnx", "a graph in ONNX"):
        import_module("onnx")  # before torch's exporter, which needs it too, fails without it
    graphs = graphs_of(pipe)
    pipe.set_scales(consistency, detail)
    weights, paths = weights_of(pipe), []
    for step, graph in graphs.items():
        paths.append(folder / f"{step}.onnx")
        _write(paths[-1], with_weights(step, graph, weights))
    return paths


def _write(path: Path, data: bytes) -> None:
    write_whole(path, lambda part: part.write_bytes(data), parents=True)


class _StepModule(nn.Module):
    """A generator's step as a module that holds the networks, so that it can be traced."""

    def __init__(self, pipe: FrameGenerator, step: str) -> None:
        super().__init__()
        for part in _PARTS:
            self.add_module(part, getattr(pipe, part))
        self._pipe, self._run = pipe, STEPS[step].run

    def forward(self, *tensors: Tensor) -> Tensor:
        return self._run(self._pipe, *tensors)


def _traced(pipe: FrameGenerator, step: str) -> bytes:
    height, width = TRACED_CELLS
    stride = pipe.latent_stride
    latents = torch.zeros(1, pipe.latent_channels, height, width)
    frames = torch.zeros(1, 3, height * stride, width * stride)
    names, output = STEPS[step].inputs, f"{step}d"
    examples = tuple(frames if name == "lq_frames" else latents for name in names)
    graph = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about shapes that are Python numbers while tracing
        # The tracing exporter: torch's newer one takes half a minute for each of these.
        torch.onnx.export(
            _StepModule(pipe, step).eval(),
            examples,
            graph,  # type: ignore[arg-type]  # a buffer is as good as a file
            input_names=list(names),
            output_names=[output],
            dynamic_axes={name: {0: "frames", 2: f"{name}_height", 3: f"{name}_width"}
                          for name in (*names, output)},
            opset_version=OPSET,
            export_params=False,
            keep_initializers_as_inputs=True,  # else equal weights become one
            do_constant_folding=False,  # which would give weights other names
            dynamo=False,
        )  # fmt: skip
    return graph.getvalue()


@contextmanager
def _in_float32(pipe: FrameGenerator) -> Iterator[None]:
    """Widen the networks' weights while they are traced; narrowing restores them exactly."""
    parts = [getattr(pipe, part) for part in _PARTS]
    dtypes = [part.dtype for part in parts]
    for part in parts:
        nn.Module.to(part, torch.float32)
    try:
        yield
    finally:
        for part, dtype in zip(parts, dtypes, strict=True):
            nn.Module.to(part, dtype)


def _architecture(pipe: FrameGenerator) -> str:
    """Digest of everything a trace depends on."""
    shapes = [(name, list(weight.shape)) for name, weight in weights_of(pipe).items()]
    configs: list[Any] = [dict(getattr(pipe, part).config) for part in _PARTS]
    package = Path(__file__).parents[1]
    files = [Path(__file__), package / "pipeline.py", *sorted(package.glob("models/*.py"))]
    code = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    told: list[Any] = [code, torch.__version__, version("diffusers"), shapes, configs]
    told.append(dict(getattr(pipe, "config", {})))
    return hashlib.sha256(json.dumps(told, default=str, sort_keys=True).encode()).hexdigest()
