"""The converted checkpoint computes what the public implementation computed (float32, CPU)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from dloral.frames.resize import shrink_for_flow
from dloral.pipeline import DLoRALPipeline
from dloral.weights.loading import load_pipeline

PROMPT = "a cat, grass,"
TOLERANCE = 1e-3

DETAIL_SCALE = {"stage0": 0.0, "stage1": 1.0}
"""The public code's stages: C-LoRA alone, and both LoRAs."""


@pytest.fixture(scope="module")
def expected(reference: Path) -> dict[str, Tensor]:
    """The reference's values; its inputs (T,3,H,W) uint8 lie beside them as PNG files: the second
    frame is the first, moved by 4 pixels to the left, but for its last 4 columns."""
    tensors = load_file(reference / "expected.safetensors")
    for size in ("512x512", "512x1280"):
        first = np.array(Image.open(reference / f"input_{size}_0.png"))
        edge = np.array(Image.open(reference / f"input_{size}_1_edge.png"))
        second = np.concatenate([first[:, 4:], edge], axis=1)
        pictures = torch.from_numpy(np.stack([first, second]))
        tensors[f"input_{size}"] = pictures.permute(0, 3, 1, 2)
    return tensors


@pytest.fixture(scope="module")
def converted_pipe(converted: Path) -> DLoRALPipeline:
    return load_pipeline(converted, device="cpu", dtype="float32")


def furthest(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return (ours - theirs).abs().max().item()


@pytest.fixture(scope="module")
def restored_512(converted_pipe: DLoRALPipeline, expected: dict[str, Tensor]) -> Tensor:
    """Restored latents (T,C,h,w) of the 512 x 512 case with both LoRAs, called as users do."""
    return converted_pipe(
        expected["input_512x512"],
        prompt=PROMPT,
        consistency=1.0,
        detail=1.0,
        tile=96,
        tile_overlap=32,
        output_type="latent",
    ).frames


def test_restored_latents_of_both_loras(restored_512: Tensor, expected: dict[str, Tensor]) -> None:
    assert len(restored_512) == 2
    assert furthest(restored_512[1], expected["stage1_512x512_x_denoised"]) <= TOLERANCE


@pytest.fixture(scope="module")
def intermediates(converted_pipe: DLoRALPipeline, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our value of each intermediate of the 512 x 512 case, by the reference's name."""
    frames = expected["input_512x512"].float() / 255
    with torch.no_grad():
        lq_latents = converted_pipe.encode(frames)
        small_frames = shrink_for_flow(frames)
        flow = converted_pipe.estimate_flow(small_frames[1:], small_frames[:1])
        retrieved, aligned = converted_pipe.retrieve(
            lq_latents[1:], small_frames[1:], lq_latents[None, :1], small_frames[None, :1]
        )
    return {
        "lq_latents": lq_latents,
        "flow_cur_to_prev": flow[0],
        "aligned_prev_latents": aligned[0],
        "retrieved_latents": retrieved[0],
    }


def test_restored_latents_of_consistency_alone(
    converted_pipe: DLoRALPipeline, intermediates: dict[str, Tensor], expected: dict[str, Tensor]
) -> None:
    converted_pipe.set_scales(consistency=1.0, detail=0.0)
    with torch.no_grad():
        restored = converted_pipe.refine(
            intermediates["aligned_prev_latents"][None],
            intermediates["retrieved_latents"][None],
            converted_pipe.encode_prompt(PROMPT),
        )
    assert furthest(restored[0], expected["stage0_512x512_x_denoised"]) <= TOLERANCE


@pytest.fixture(scope="module")
def encoded_1280(
    converted_pipe: DLoRALPipeline, expected: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Latents and small frames of the 512 x 1280 case, both frames."""
    frames = expected["input_512x1280"].float() / 255
    with torch.no_grad():
        return converted_pipe.encode(frames), shrink_for_flow(frames)


@pytest.mark.parametrize("stage", DETAIL_SCALE)
def test_restored_latents_of_tiles(
    converted_pipe: DLoRALPipeline,
    encoded_1280: tuple[Tensor, Tensor],
    expected: dict[str, Tensor],
    stage: str,
) -> None:
    """Frame 1 alone, from the public steps: the reference gives no frame 0, and time is dear."""
    latents, small = encoded_1280
    converted_pipe.set_scales(consistency=1.0, detail=DETAIL_SCALE[stage])
    with torch.no_grad():
        restored = converted_pipe.restore(
            latents[1:],
            small[1:],
            latents[None, :1],
            small[None, :1],
            converted_pipe.encode_prompt(PROMPT),
            tile=96,
            tile_overlap=32,
        )
    assert furthest(restored[0], expected[f"{stage}_512x1280_x_denoised"]) <= TOLERANCE


def test_stages_differ(expected: dict[str, Tensor]) -> None:
    """Else the comparison above would pass with a D-LoRA that does nothing."""
    for size in ("512x512", "512x1280"):
        one, other = (expected[f"{stage}_{size}_x_denoised"] for stage in DETAIL_SCALE)
        assert furthest(one, other) > 10 * TOLERANCE


@pytest.mark.parametrize(
    "name", ["lq_latents", "flow_cur_to_prev", "aligned_prev_latents", "retrieved_latents"]
)
def test_intermediates(
    intermediates: dict[str, Tensor], expected: dict[str, Tensor], name: str
) -> None:
    """They come before the LoRAs, so both stages share them."""
    assert furthest(intermediates[name], expected[f"512x512_{name}"]) <= TOLERANCE


def test_prompt_embeddings(converted_pipe: DLoRALPipeline, expected: dict[str, Tensor]) -> None:
    with torch.no_grad():
        embeds = converted_pipe.encode_prompt(PROMPT)
    assert embeds is not None
    assert furthest(embeds[0], expected["prompt_embeds"]) <= 1e-4


def test_decoded_frame(
    converted_pipe: DLoRALPipeline, restored_512: Tensor, expected: dict[str, Tensor]
) -> None:
    lq_frame = expected["input_512x512"][1:].float() / 255
    with torch.no_grad():
        frame = converted_pipe.decode(restored_512[1:], lq_frame)[0]
    middle = frame[:, 128:384, 128:384]
    assert furthest(middle, (expected["stage1_512x512_image"].float() + 1) / 2) <= 2 / 255
