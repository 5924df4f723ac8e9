"""What compiles a graph for this processor: OpenVINO, ONNX Runtime. One function, one row each."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Run = Callable[..., np.ndarray]
"""Takes the graph's inputs in order, float32 arrays that are contiguous, and gives its output."""


@dataclass(frozen=True)
class Backend:
    """``extra``: the package's extra with the modules it needs. ``compile``: (ONNX model,
    precision, threads) -> what runs it; raises what its library raises. ``precisions``: those it
    computes in where the processor has them, else in float32."""

    extra: str
    compile: Callable[[bytes, torch.dtype, int], Run]
    precisions: tuple[torch.dtype, ...] = (torch.float32,)


def _openvino(model: bytes, precision: torch.dtype, threads: int) -> Run:
    import openvino

    core = openvino.Core()
    halves = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    narrow = precision == torch.bfloat16 and halves
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "bf16" if narrow else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # other programs have cores too
    }
    compiled = core.compile_model(core.read_model(io.BytesIO(model)), "CPU", settings)
    request = compiled.create_infer_request()

    def run(*inputs: np.ndarray) -> np.ndarray:
        # Its own memory for the inputs, a copy of the output: the next run overwrites that.
        result: np.ndarray = request.infer(list(inputs), share_inputs=True)[0]
        return result

    return run


def _onnx_runtime(model: bytes, precision: torch.dtype, threads: int) -> Run:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3
    # Like torch's threads here: waiting ones sleep (dloral.threads).
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(*inputs: np.ndarray) -> np.ndarray:
        result: np.ndarray = session.run(None, dict(zip(names, inputs, strict=True)))[0]
        return result

    return run


BACKENDS = {
    "openvino": Backend("openvino", _openvino, (torch.float32, torch.bfloat16)),
    "onnx": Backend("onnx", _onnx_runtime),
}
"""By the names of :data:`dloral.options.RUNTIMES`."""
