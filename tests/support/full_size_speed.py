"""How fast the full model is on a GPU, with random weights of Stable Diffusion 2.1's shapes.

    PYTHONPATH=. python tests/support/full_size_speed.py

Times `DLoRALPipeline.stream` in float16 with AdaIN and tiles of 96 cells where a frame is larger;
prompt embeddings are given, since a clip's prompt is encoded once.
"""

import time

import torch
from full_size import build

SIZES = ((512, 512, 1), (512, 512, 4), (720, 1280, 1), (768, 1408, 1), (1080, 1920, 1))
TILED_FROM = 96 * 96 * 64


def main() -> None:
    torch.backends.cudnn.benchmark = True
    pipe = build(torch.float16)
    pipe.register_modules(text_encoder=None, tokenizer=None)
    pipe = pipe.to("cuda").channels_last()
    embeds = torch.zeros(1, 77, 1024, device="cuda", dtype=torch.float16)
    pipe.encode_prompt = lambda prompt: embeds  # type: ignore[method-assign]
    for height, width, batch in SIZES:
        frames = torch.rand(10 * batch, 3, height, width)
        torch.cuda.reset_peak_memory_stats()
        tile = 96 if height * width > TILED_FROM else None
        restored = pipe.stream(frames, batch_size=batch, color_fix="adain", tile=tile)
        for _ in range(2 * batch):  # to warm up
            next(restored)
        torch.cuda.synchronize()
        started = time.perf_counter()
        count = sum(1 for _ in restored)
        torch.cuda.synchronize()
        each = (time.perf_counter() - started) / count
        peak = torch.cuda.max_memory_allocated() / 2**30
        print(
            f"{torch.cuda.get_device_name()} {width}x{height} batch {batch}: {each:.4f} s a frame, "
            f"{1 / each:.2f} frames/s, peak {peak:.2f} GiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
