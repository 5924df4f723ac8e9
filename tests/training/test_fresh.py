"""A fresh compact pipeline whose decoder starts as an SR network."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dloral.errors import WeightsError
from dloral.models.srvgg import SRVGG
from dloral.training.fresh import build_pipeline, start_trunk
from dloral.training.start import TINY_SIZES

SIZES = replace(TINY_SIZES, decoder_sees_input=True, trunk_depth=3)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    save_file(SRVGG(TINY_SIZES.vae_width, 3).state_dict(), tmp_path / "network.safetensors")
    return tmp_path / "network.safetensors"


def test_a_trunk_starts_as_the_network_in_a_file(network: Path) -> None:
    pipe = build_pipeline(SIZES)
    start_trunk(pipe, network)
    torch.manual_seed(3)
    wanted = SRVGG(TINY_SIZES.vae_width, 3).state_dict()
    found = pipe.vae.decoder.trunk.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


def test_a_network_of_other_sizes_is_one_line(network: Path) -> None:
    pipe = build_pipeline(replace(SIZES, trunk_depth=4))
    with pytest.raises(WeightsError, match=r"network\.safetensors is a network of other sizes"):
        start_trunk(pipe, network)
