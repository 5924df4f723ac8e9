"""Threads that build models wait for one another."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from accelerate import init_empty_weights

from dloral.models.building import building
from dloral.pipeline import DLoRALPipeline
from dloral.weights.checkpoint_io import quiet_bars
from dloral.weights.loading import load_pipeline


def test_what_is_built_while_another_thread_loads_has_its_weights(
    make_pipeline: Callable[[], DLoRALPipeline],
):
    """As a page loads a model while another thread makes one: within diffusers' own loading, new
    parameters of every thread are on the meta device."""
    expected = make_pipeline().unet.state_dict()
    begun = threading.Event()
    with ThreadPoolExecutor(1) as other:
        with quiet_bars(), init_empty_weights():

            def build() -> DLoRALPipeline:
                begun.set()
                return make_pipeline()

            built = other.submit(build)
            begun.wait(10)
            with pytest.raises(TimeoutError):
                built.result(timeout=0.3)
        found = built.result(timeout=60).unet.state_dict()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name


def test_loading_waits_too(make_pipeline: Callable[[], DLoRALPipeline], tmp_path: Path):
    make_pipeline().save_pretrained(tmp_path)
    with ThreadPoolExecutor(1) as other:
        with building():
            loaded = other.submit(load_pipeline, tmp_path, "cpu", "float32")
            with pytest.raises(TimeoutError):
                loaded.result(timeout=0.3)
        assert not any(p.is_meta for p in loaded.result(timeout=60).unet.parameters())
