"""The operators that training on a GPU uses instead of PyTorch's, without a GPU: their kernels stand in here as plain formulas.
(The kernels themselves: tests/gpu.)"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_pipeline.model import attention, layers, linear, memory_attention, memory_encoder
from sam2_pipeline.model.checkpoint import build_model
from sam2_pipeline.model.native import row_kernels
from sam2_pipeline.training.clip_forward import ClipLearner
from sam2_pipeline.training.loading import Batch, materials
from sam2_pipeline.training.schedule import Schedule
from sam2_pipeline.training.settings import TrainConfig

WHERE = (layers, linear, attention, memory_attention, memory_encoder)


def normalise(x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    mean, factor = x.float().mean(-1), (x.float().var(-1, correction=0) + eps).rsqrt()
    normal = (x.float() - mean[..., None]) * factor[..., None]
    return (normal * weight + bias).to(dtype), torch.stack((mean.flatten(), factor.flatten()))


def normalise_back(gradient: Tensor, x: Tensor, weight: Tensor, moments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows, gradients = x.float().flatten(0, -2), gradient.float().flatten(0, -2)
    normal = (rows - moments[0, :, None]) * moments[1, :, None]
    weighted = gradients * weight
    along, level = (weighted * normal).mean(1, keepdim=True), weighted.mean(1, keepdim=True)
    given = (weighted - normal * along - level) * moments[1, :, None]
    return given.view(x.shape).to(x.dtype), (gradients * normal).sum(0), gradients.sum(0)


def turn(x: Tensor, cos: Tensor, sin: Tensor, back: bool = False) -> Tensor:
    a, b = x.float().chunk(2, dim=-1)
    sin = -sin if back else sin
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1).to(x.dtype)


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in WHERE:
        monkeypatch.setattr(module, "learns_on_gpu", lambda x: torch.is_grad_enabled() and x.dtype.is_floating_point)
    monkeypatch.setattr(linear, "_FEWEST_SUMMED", 64)
    monkeypatch.setattr(row_kernels, "normalise", normalise)
    monkeypatch.setattr(row_kernels, "normalise_back", normalise_back)
    monkeypatch.setattr(row_kernels, "sum_rows", lambda x: x.float().sum(0))
    monkeypatch.setattr(row_kernels, "turn", turn)


def batch_of(prompt: str, frames: int) -> Batch:
    config = TrainConfig.load(None, [
        "data.batch=2", "data.size=96", "data.image_sizes=[128]", "data.loaders=0", "data.objects=2", "data.image_share=0",
        f"data.frames={frames}", "optim.steps=1", f"prompts={{mask: {int(prompt == 'mask')}, box: 0, corrections: 1}}",
    ])  # fmt: skip
    return next(iter(materials(Schedule(config), 0))).batch(0)


def learnt(batch: Batch) -> tuple[float, dict[str, Tensor]]:
    torch.manual_seed(3)
    learner = ClipLearner(build_model("sam2_pipeline_small").train(), TrainConfig.load(None, ["loss.pixels=0.5"]).loss)
    loss = learner(batch).losses.total
    loss.backward()
    return loss.item(), {name: p.grad for name, p in learner.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("prompt", "frames"), [("click", 3), ("mask", 2), ("click", 1)])
def test_gradients_are_those_of_the_plain_operators(request: pytest.FixtureRequest, prompt: str, frames: int) -> None:
    batch = batch_of(prompt, frames)
    loss, gradients = learnt(batch)
    request.getfixturevalue("as_on_a_gpu")
    ours, found = learnt(batch)
    assert ours == pytest.approx(loss, rel=1e-5) and found.keys() == gradients.keys()
    length = torch.stack([g.norm() for g in gradients.values()]).norm()
    for name, gradient in gradients.items():
        # The biases of keys, of which a softmax knows nothing, have a gradient of rounding alone.
        assert (found[name] - gradient).norm() <= 2e-3 * gradient.norm() + 1e-6 * length, name


def test_a_convolution_by_halves_is_a_product() -> None:
    for channels, outs in ((1, 4), (4, 16)):
        conv, x = nn.Conv2d(channels, outs, 3, 2, 1, bias=False), torch.randn(2, channels, 16, 24)
        ours = memory_encoder._halved(x.permute(0, 2, 3, 1), conv.weight).permute(0, 3, 1, 2)
        torch.testing.assert_close(ours, conv(x), atol=1e-5, rtol=1e-5)


def test_attention_of_few_to_many_and_back(as_on_a_gpu: None) -> None:
    for queries, keys in ((4, 16), (9, 300), (300, 9)):
        q, k, v = (torch.randn(2, 3, n, 8) for n in (queries, keys, keys))
        plain = attention.dot_product_attention(q, k, v)
        torch.testing.assert_close(plain, F.scaled_dot_product_attention(q, k, v), atol=1e-5, rtol=1e-5)


def test_the_stand_ins_are_layer_norm_and_a_rotation() -> None:
    x, weight, bias = torch.randn(5, 7, 12), torch.rand(12), torch.rand(12)
    torch.testing.assert_close(normalise(x, weight, bias, 1e-6, torch.float32)[0], F.layer_norm(x, (12,), weight, bias, 1e-6))
    angle = torch.rand(7, 6)
    turned = turn(x, angle.cos(), angle.sin())
    torch.testing.assert_close(turn(turned, angle.cos(), angle.sin(), back=True), x)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
