"""Linear layers with the weight in oneDNN's order equal PyTorch's, whatever became of the weight in the meantime."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sam2_pipeline.model import linear
from sam2_pipeline.model.kept import Kept
from sam2_pipeline.model.linear import MLP, Linear, PairedLinear, packs

ACTIVATIONS = {"none": lambda x: x, "relu": F.relu, "gelu": F.gelu}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(600, 48), (2, 17, 19, 48), (3, 48)])
def test_equals_the_plain_layer(activation, shape):
    torch.manual_seed(0)
    layer, x = Linear(48, 96), torch.randn(shape) * 3
    for given in (x, x.transpose(0, -2)):
        expected = ACTIVATIONS[activation](F.linear(given, layer.weight, layer.bias))
        torch.testing.assert_close(layer(given, activation), expected, atol=1e-5, rtol=1e-5)


def test_without_a_bias():
    layer, x = Linear(16, 8, bias=False), torch.randn(700, 16)
    torch.testing.assert_close(layer(x), x @ layer.weight.T, atol=1e-5, rtol=1e-5)


def test_a_new_weight_is_seen():
    torch.manual_seed(0)
    layer, x = Linear(16, 8), torch.randn(700, 16)
    before = layer(x)
    layer.load_state_dict(nn.Linear(16, 8).state_dict())
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), atol=1e-5, rtol=1e-5)
    assert not torch.equal(layer(x), before)
    with torch.no_grad():
        layer.weight.mul_(2)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), atol=1e-5, rtol=1e-5)
    layer.double()
    assert layer(x.double()).dtype == torch.float64


def test_copies_and_pickles():
    layer, x = Linear(16, 8), torch.randn(700, 16)
    expected = layer(x)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), expected) and twin.state_dict().keys() == {"weight", "bias"}


def test_training_sees_the_plain_layer():
    layer, x = Linear(16, 8), torch.randn(700, 16)
    with torch.enable_grad():
        assert not packs(x, layer.weight)
        layer(x, "gelu").sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_what_it_always_gives(dtype):
    torch.manual_seed(0)
    layer, x = Linear(16, 8), torch.randn(700, 16)
    plain = nn.Linear(16, 8)
    plain.load_state_dict(layer.state_dict())
    for _ in range(2):  # the second time with a new bias
        with torch.autocast("cpu", dtype), torch.no_grad():
            assert torch.equal(layer(x), plain(x)) and layer(x).dtype == dtype
            assert layer.operands()[0] is layer.operands()[0]  # made once
        for one in (layer, plain):
            one.bias.data = torch.ones(8)
    with torch.autocast("cpu", dtype), torch.no_grad():
        layer.weight.mul_(2)
        plain.weight.mul_(2)
        assert torch.equal(layer(x), plain(x))
    with torch.no_grad():
        assert layer.operands() == (layer.weight, layer.bias)
    assert pickle.loads(pickle.dumps(layer))._operands._held is None


@pytest.mark.skipif(not linear._IN_BFLOAT16, reason="oneDNN has no bfloat16 on this processor")
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_packed_product_rounds_as_autocast_does(activation):
    torch.manual_seed(0)
    layer, x = Linear(48, 96), torch.randn(300, 48)
    assert not packs(x, layer.weight), "in float32 that is too few rows"
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert packs(x, layer.weight) and packs(x.bfloat16(), layer.weight) and not packs(x[:200], layer.weight)
        found = layer(x, activation)
        assert found.dtype == torch.bfloat16 and torch.equal(layer(x.bfloat16(), activation), found)
    rounded = (x.bfloat16().float(), layer.weight.bfloat16().float(), layer.bias.bfloat16().float())
    torch.testing.assert_close(found.float(), ACTIVATIONS[activation](F.linear(*rounded)), atol=1e-3, rtol=2**-8)


def test_autocast_in_training_sees_the_weight_itself():
    layer, x = Linear(16, 8), torch.randn(700, 16)
    with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16):
        layer(x).float().sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.abs().sum() > 0


def test_pairs_become_halves_whichever_way_the_product_goes():
    torch.manual_seed(0)
    layer = PairedLinear(16, 8)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    for x in (torch.randn(700, 16), torch.randn(3, 16)):  # by oneDNN's operator, and by PyTorch's
        plain = F.linear(x, layer.weight, layer.bias)[:, order]
        torch.testing.assert_close(layer(x), plain, atol=1e-5, rtol=1e-5)
        with torch.enable_grad():
            torch.testing.assert_close(layer(x), plain, atol=1e-5, rtol=1e-5)
    assert layer.state_dict().keys() == {"weight", "bias"} and torch.equal(layer.operands()[0], layer.weight[order])


def test_what_is_kept_is_made_anew_when_it_must_be():
    weight, made = nn.Parameter(torch.ones(2)), []

    def make():
        made.append(weight.detach().clone())
        return made[-1], None

    kept = Kept()
    assert kept(make, weight)[0] is kept(make, weight)[0] and len(made) == 1
    with torch.autocast("cpu", torch.bfloat16):
        kept(make, weight)
        kept(make, weight)
    assert len(made) == 2
    weight.mul_(3)
    assert kept(make, weight)[0].tolist() == [3, 3]
    with torch.enable_grad():
        kept(make, weight)
        kept(make, weight)
    assert len(made) == 5
    assert copy.deepcopy(kept)._held is None


def test_a_chain():
    torch.manual_seed(0)
    chain, x = MLP([16, 32, 8], "gelu"), torch.randn(700, 16)
    first, last = chain.layers
    expected = F.linear(F.gelu(F.linear(x, first.weight, first.bias)), last.weight, last.bias)
    torch.testing.assert_close(chain(x), expected, atol=1e-5, rtol=1e-5)
