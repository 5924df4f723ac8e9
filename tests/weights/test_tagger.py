"""RAM and DAPE from their released files: equal to the reference; what does not fit is named."""

import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import init_empty_weights
from safetensors.torch import load_file
from torch import Tensor

from dloral.errors import DLoRALError, OutputError
from dloral.models.tagger import Tagger
from dloral.weights.tagger import (
    DAPE_FILE,
    convert_tagger,
    load_tagger,
    read_released,
    released_name,
)

REFERENCE = Path(__file__).parents[1] / "data" / "ram_tiny"
RAM, DAPE = REFERENCE / "ram_tiny.pth", REFERENCE / "DAPE_tiny.pth"
TAGS = REFERENCE / "ram_tag_list.txt"
THRESHOLDS = REFERENCE / "ram_tag_list_threshold.txt"
TOLERANCE = 1e-4
FEATURES_TOLERANCE = 3e-5
EMBEDS_STEP = 4
"""The reference's features are there for every fourth place, but for one picture."""


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return load_file(REFERENCE / "expected.safetensors")


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    """(3,3,384,384) in [0, 1]."""
    with lzma.open(REFERENCE / "inputs.npy.xz") as file:
        return torch.from_numpy(np.load(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("tagger") / "tagger"
    convert_tagger(RAM, DAPE, TAGS, THRESHOLDS, target)
    return target


@pytest.fixture(scope="module")
def taggers(folder: Path) -> dict[str, Tagger]:
    return {name: load_tagger(folder, dape=name == "dape") for name in ("ram", "dape")}


@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("name", ["ram", "dape"])
def test_equal_to_the_reference(
    taggers: dict[str, Tagger],
    pictures: Tensor,
    expected: dict[str, Tensor],
    name: str,
    index: int,
) -> None:
    """Features (up to 22) to 3e-5, logits (up to 11) to 1e-4 of the largest.

    Not logits to 1e-4 of 1, for the reference's own rounding is more: computed in float64 they are
    2.7e-4 from it at most, computed in float32 1.7e-4, our features being as far from float64 as
    the reference's (root mean square 2e-6, of 4.6). The head of this random checkpoint enlarges
    that: one unit in the last place of the pictures moves float32 logits by up to 5e-4. No
    other definition comes near: a layer norm's epsilon of 1e-6 or GELU by tanh move the features by
    3e-4 or more.
    """
    tagger, picture = taggers[name], pictures[index : index + 1]
    with torch.no_grad():
        logits, features = tagger(picture), tagger.embed(picture)
    assert features.shape == (1, 145, 512)
    wanted, wanted_features = (expected[f"{name}_{kind}_{index}"] for kind in ("logits", "embeds"))
    if wanted_features.shape[1] < features.shape[1]:
        features = features[:, ::EMBEDS_STEP]
    assert furthest(features, wanted_features) <= FEATURES_TOLERANCE
    print(f"{name} {index}: logits {furthest(logits, wanted):.1e} of {wanted.abs().max():.1f}")
    assert furthest(logits, wanted) <= TOLERANCE * wanted.abs().max()


@pytest.mark.parametrize("name", ["ram", "dape"])
def test_logits_of_the_references_features(
    taggers: dict[str, Tagger], expected: dict[str, Tensor], name: str
) -> None:
    """The head alone, to 1e-4 of 1."""
    logits = taggers[name].logits(expected[f"{name}_embeds_2"])
    assert furthest(logits, expected[f"{name}_logits_2"]) <= TOLERANCE


def furthest(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return (ours - theirs).abs().max().item()


def test_tags_are_those_above_their_threshold(
    taggers: dict[str, Tagger], pictures: Tensor, expected: dict[str, Tensor]
) -> None:
    names = TAGS.read_text().splitlines()
    named = taggers["dape"].tags_of(pictures)
    for index, tags in enumerate(named):
        likely = expected[f"dape_logits_{index}"][0].sigmoid() > 0.5
        assert tags == [name for name, there in zip(names, likely, strict=True) if there]
    assert any(named)
    assert named != taggers["ram"].tags_of(pictures)


def test_pictures_of_any_size_and_batches(taggers: dict[str, Tagger], pictures: Tensor) -> None:
    tagger = taggers["dape"]
    larger = pictures.repeat_interleave(2, dim=2).repeat_interleave(3, dim=3)
    for few, many in zip(tagger.tags_of(pictures), tagger.tags_of(larger), strict=True):
        assert len(set(few) ^ set(many)) <= len(few) // 4  # smooth pictures, enlarged as blocks
    assert [tagger.tags_of(picture[None])[0] for picture in pictures] == tagger.tags_of(pictures)


def test_stored_without_what_tagging_never_uses(folder: Path) -> None:
    assert not [*folder.rglob("*.pth"), *folder.rglob("*.bin")]
    tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
    assert not [name for name in tensors if "tag_encoder" in name or "attn_mask" in name]
    assert not [name for name in load_file(folder / DAPE_FILE) if "decoder" in name]


def test_half_precision_and_without_dape(tmp_path: Path, pictures: Tensor) -> None:
    convert_tagger(RAM, None, TAGS, THRESHOLDS, tmp_path / "tagger", torch.bfloat16)
    stored = load_file(tmp_path / "tagger" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    tagger = load_tagger(tmp_path / "tagger", dtype=torch.bfloat16, dape=False)
    assert tagger.dtype == torch.bfloat16
    assert tagger.tags_of(pictures[:1])[0]
    with pytest.raises(DLoRALError, match=r"dape\.safetensors") as caught:
        load_tagger(tmp_path / "tagger", dape=True)
    assert 'tagger="none"' in str(caught.value)


# What does not fit ---------------------------------------------------------------------------


def changed(tmp_path: Path, change: dict[str, Any], drop: tuple[str, ...] = ()) -> Path:
    tensors = torch.load(RAM, weights_only=True)["model"]
    for name in drop:
        del tensors[name]
    torch.save({"model": tensors | change}, tmp_path / "ram.pth")
    return tmp_path / "ram.pth"


def refusal(tmp_path: Path, ram: Path = RAM, dape: Path = DAPE, tags: Path = TAGS) -> str:
    target = tmp_path / "out" / "tagger"
    with pytest.raises(DLoRALError) as caught:
        convert_tagger(ram, dape, tags, THRESHOLDS, target)
    assert not target.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_extra_tensors_are_ignored(tmp_path: Path, pictures: Tensor, taggers: dict[str, Tagger]):
    """As the released file has them: masks, indices, a text decoder, a tag encoder."""
    extra = {
        "visual_encoder.layers.0.blocks.1.attn_mask": torch.zeros(64, 144, 144),
        "visual_encoder.layers.0.blocks.0.attn.relative_position_index": torch.zeros(144, 144),
        "tag_encoder.encoder.layer.0.attention.self.query.weight": torch.zeros(128, 128),
        "text_decoder.bert.embeddings.word_embeddings.weight": torch.zeros(10, 128),
    }
    convert_tagger(changed(tmp_path, extra), DAPE, TAGS, THRESHOLDS, tmp_path / "tagger")
    tagger = load_tagger(tmp_path / "tagger", dape=True)
    assert torch.equal(tagger(pictures[:1]), taggers["dape"](pictures[:1]))


MISSING = (
    "fc.weight",
    "visual_encoder.layers.2.blocks.1.attn.qkv.bias",
    "tagging_head.encoder.layer.1.crossattention.self.value.weight",
)


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    line = refusal(tmp_path, changed(tmp_path, {}, MISSING))
    assert "3 tensors are missing" in line
    for name in MISSING:
        assert name in line


@pytest.mark.parametrize(
    "name", ["label_embed", "visual_encoder.patch_embed.proj.weight", "wordvec_proj.weight"]
)
def test_missing_tensor_that_tells_a_size(tmp_path: Path, name: str) -> None:
    assert name in refusal(tmp_path, changed(tmp_path, {}, (name,)))


@pytest.mark.parametrize(
    "value",
    [torch.zeros(7, 9), torch.full((1, 128), float("nan")), "hello"],
    ids=["shape", "not finite", "no tensor"],
)
def test_wrong_tensor_is_named(tmp_path: Path, value: Any) -> None:
    assert "fc.weight" in refusal(tmp_path, changed(tmp_path, {"fc.weight": value}))


def test_wrong_files(tmp_path: Path) -> None:
    assert "'model'" in refusal(tmp_path, ram=DAPE)
    assert "are missing" in refusal(tmp_path, dape=RAM)
    assert "does not exist" in refusal(tmp_path, ram=tmp_path / "absent.pth")
    short = tmp_path / "tags.txt"
    short.write_text("cat\ndog\n")
    assert "2 tags" in refusal(tmp_path, tags=short)
    cut = tmp_path / "cut.pth"
    cut.write_bytes(RAM.read_bytes()[:-1000])
    assert str(cut) in refusal(tmp_path, ram=cut)


def test_dape_of_another_ram(tmp_path: Path) -> None:
    lora = torch.load(DAPE, weights_only=True)
    name = "tagging_head.encoder.layer.0.crossattention.self.key.lora_A"
    torch.save(lora | {name: torch.zeros(8, 768)}, tmp_path / "dape.pth")
    assert "layers.0.key" in refusal(tmp_path, dape=tmp_path / "dape.pth")


def test_target_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(OutputError, match="already exists"):
        convert_tagger(RAM, DAPE, TAGS, THRESHOLDS, tmp_path)
    with pytest.raises(OutputError, match="could not be written"):
        convert_tagger(RAM, DAPE, TAGS, THRESHOLDS, tmp_path / "mine" / "tagger")


def test_full_size_layout(tmp_path: Path) -> None:
    """RAM's own sizes: a state dict with the released file's names and shapes fits.

    The tensors are views of one zero, so that 0.8 GB need not be there.
    """
    with init_empty_weights():
        shapes = {n: t.shape for n, t in Tagger(["t"] * 4585, [0.5] * 4585).state_dict().items()}
    zero = torch.zeros(1)
    tensors: dict[str, Tensor] = {"text_decoder.cls.weight": zero}
    for name, shape in shapes.items():
        rows = 3 if "_proj." in name and "attention.o_" not in name and "swin" in name else 1
        tensors[released_name(name)] = zero.expand(rows * shape[0], *shape[1:])
    assert tensors["visual_encoder.layers.2.blocks.17.attn.qkv.weight"].shape == (2304, 768)
    assert tensors["visual_encoder.layers.3.blocks.1.mlp.fc1.weight"].shape == (6144, 1536)
    assert tensors["tagging_head.encoder.layer.1.crossattention.self.key.weight"].shape == (
        768,
        512,
    )
    assert tensors["label_embed"].shape == (4585, 512)
    assert tensors["image_proj.weight"].shape == (512, 1536)
    torch.save({"model": tensors}, tmp_path / "ram.pth")
    tagger = read_released(tmp_path / "ram.pth", [str(i) for i in range(4585)], [0.5] * 4585)
    assert {name: tensor.shape for name, tensor in tagger.state_dict().items()} == shapes
    assert sum(parameter.numel() for parameter in tagger.parameters()) > 2e8
