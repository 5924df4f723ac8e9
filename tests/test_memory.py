"""Memory: the ladder of limits, the estimate, and a real failure of an allocation."""

import itertools
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dloral import memory
from dloral.errors import COMMAND_LINE, ResourceError
from dloral.memory import Limits, free_memory, is_out_of_memory
from dloral.pipeline import DLoRALPipeline
from dloral.weights.loading import load_pipeline

ALL = {"text", "vae_tile", "offload", "tile"}


def ladder(limits: Limits, height: int, width: int, can: set[str]) -> list[Limits]:
    steps = [limits]
    while (lower := steps[-1].lower(max(height, width) // 8, can)) is not None:
        steps.append(lower)
    return steps


def test_ladder_ends_and_never_goes_up() -> None:
    steps = ladder(Limits(batch_size=4), 1080, 1920, ALL)
    told = [step.told(before, 8) for before, step in itertools.pairwise(steps)]
    assert told == [
        "one frame at a time",
        "the text encoder unloaded",
        "the VAE in tiles of 512 pixels",
        "the VAE in tiles of 256 pixels",
        "parts moved to the GPU one by one",
        "the UNet in tiles of 768 pixels",
        "the UNet in tiles of 512 pixels",
        "the UNet in tiles of 384 pixels",
    ]
    assert all(step.tile is None or step.tile_overlap < step.tile for step in steps)


def test_small_frames_have_few_steps() -> None:
    assert len(ladder(Limits(), 256, 256, {"tile"})) == 1
    assert len(ladder(Limits(), 4096, 4096, set())) == 1
    assert [step.vae_tile for step in ladder(Limits(), 512, 512, {"vae_tile", "tile"})] == [
        None,
        32,
        32,
    ]


def test_free_memory_of_this_machine() -> None:
    assert 0 < free_memory(torch.device("cpu")) < 2**45


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("4000\n")
    (tmp_path / "memory.current").write_text("3500\n")
    (tmp_path / "memory.stat").write_text("anon 10\ninactive_file 300\n")
    assert memory._left_in_container(tmp_path) == 800
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._left_in_container(tmp_path) is None
    assert memory._left_in_container(tmp_path / "absent") is None


FAULTS = """
import resource, torch
from dloral.memory import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def frame():
    features = [torch.ones(2**20) for _ in range(8)]  # 32 MB
    return sum(map(float, (part[0] for part in features)))

keep_freed_memory()
for _ in range(3):
    frame()
before = faults()
for _ in range(10):
    frame()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="sets what only glibc has")
def test_freed_memory_is_kept_for_the_next_frame() -> None:
    """As many pages as ten frames have are usually taken anew."""
    faults = int(_run(FAULTS))
    assert faults < 10 * 2**25 / os.sysconf("SC_PAGE_SIZE") / 20


def _run(script: str, *arguments: str | Path) -> str:
    """What a script printed that imports this package, on one thread."""
    root = Path(memory.__file__).parents[1]  # not installed
    result = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def test_what_a_failed_allocation_raises() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("could not create a primitive"))  # oneDNN's, seen for real
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


@pytest.fixture(scope="module")
def full(converted: Path) -> DLoRALPipeline:
    return load_pipeline(converted, device="cpu", dtype="float32")


def clip(frames: int, side: int) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return list(torch.rand(frames, 3, side, side, generator=draw))


def test_foreseen(full: DLoRALPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little for a batch of whole frames: said once, before the first frame; same frames."""
    frames = clip(3, 320)
    whole = torch.stack(list(full.stream(frames, prompt="a cat,")))
    needed = full.needed_memory(Limits(), 320, 320)
    monkeypatch.setattr(memory, "free_memory", lambda device: int(1.2 * needed))
    notes: list[str] = []
    restored = full.stream(frames, prompt="a cat,", batch_size=3, on_note=notes.append)
    torch.testing.assert_close(torch.stack(list(restored)), whole, atol=1e-4, rtol=0)
    assert len(notes) == 1
    assert "one frame at a time" in notes[0]
    assert "VAE" not in notes[0]


def test_prompt_is_read_again_after_the_text_encoder_went(
    full: DLoRALPipeline, tmp_path: Path
) -> None:
    before = full.encode_prompt("a cat,")
    full.unload_text_encoder()
    assert full.text_encoder is None
    full.save_pretrained(tmp_path)  # whole, all the same
    saved = DLoRALPipeline.from_pretrained(tmp_path).encode_prompt("a cat,")
    full.unload_text_encoder()
    after = full.encode_prompt("a cat,")
    assert before is not None
    assert saved is not None
    assert torch.equal(before, saved)
    assert after is not None
    assert torch.equal(before, after)


def test_step_down_when_memory_runs_out(
    full: DLoRALPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An allocation that fails in the VAE of whole frames, and not in tiles; no frame is lost."""
    own = full.vae.decode

    def too_large(latents: torch.Tensor, *rest: object) -> object:
        torch.empty(2**60, dtype=torch.uint8)  # what a VAE of a larger frame asks for
        return own(latents, *rest)

    monkeypatch.setattr(full.vae, "decode", too_large)
    notes: list[str] = []
    frames = clip(3, 320)
    restored = list(full.stream(frames, prompt="a cat,", batch_size=2, on_note=notes.append))
    assert len(restored) == 3
    assert [note.partition(" with ")[2] for note in notes] == [
        "one frame at a time",
        "the text encoder unloaded",
        "the VAE in tiles of 256 pixels",
    ]


def test_nothing_left_to_try(pipe: DLoRALPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        torch.empty(2**60, dtype=torch.uint8)

    monkeypatch.setattr(pipe, "encode", fail)
    with pytest.raises(ResourceError, match='model="compact"') as caught:
        list(pipe.stream(clip(1, 64)))
    assert "64x64" in str(caught.value)
    assert "--model compact" in caught.value.render(COMMAND_LINE)
    assert "\n" not in str(caught.value)


LIMITED = """
import resource, sys, torch
from pathlib import Path
from dloral.weights.loading import load_pipeline
torch.set_num_threads(1)
pipe = load_pipeline(sys.argv[1], device="cpu", dtype="float32")
list(pipe.stream([torch.rand(3, 64, 64)]))
side = 1024
used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
most = used + int(sys.argv[2]) * 10**6
resource.setrlimit(resource.RLIMIT_AS, (most, most))
for frame in pipe.stream([torch.rand(3, side, side)], on_note=print):
    print(*frame.shape)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc, and Linux to refuse memory")
def test_the_system_refuses_memory(converted: Path) -> None:
    """A process that may not grow by what a whole frame of 1024 x 1024 needs restores it all the
    same, after a step down that nobody foresaw.

    Address space must grow by about 0.85 GB for a whole frame, and by 0.3 to 0.4 GB in the
    smallest steps.
    """
    printed = _run(LIMITED, converted, "600")
    assert "memory ran out; continuing with" in printed
    assert "3 1024 1024" in printed
