"""A small model with synthetic weights, and small moving pictures."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from golden.models import synthetic_model
from golden.synthetic_inputs import synthetic_frame

from sam2_pipeline.model.sam2 import Sam2

HEIGHT, WIDTH = 90, 120


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model() -> Sam2:
    return synthetic_model(image_size=128)


@pytest.fixture(scope="session")
def video() -> list[np.ndarray]:
    return [synthetic_frame(t, HEIGHT, WIDTH, seed=2) for t in range(14)]
