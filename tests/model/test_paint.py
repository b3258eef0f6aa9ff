"""Masks painted cell by cell equal those drawn on the upscaled map."""

import pytest
import torch

from sam2_pipeline.model.mask_decoder import MaskDecoder


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("side, dim", [(24, 256), (9, 64)])
def test_paint_is_draw_of_upscale(side: int, dim: int, shared: bool) -> None:
    torch.manual_seed(0)
    decoder, rows = MaskDecoder(dim, 4 * dim).eval(), 3
    pictures = 1 if shared else rows
    image, tokens = torch.randn(rows, dim, side, side), torch.randn(rows, 4, dim)
    stride8 = torch.randn(pictures, dim // 4, 2 * side, 2 * side)
    stride4 = torch.randn(pictures, dim // 8, 4 * side, 4 * side)
    indices = torch.tensor([[0, 3], [2, 1], [1, 1]])
    drawn = decoder.draw(decoder.upscale(image, stride8, stride4), tokens, indices)
    painted = decoder.paint(image, stride8, stride4, tokens, indices)
    assert drawn.std() > 0.01
    torch.testing.assert_close(painted, drawn, rtol=0, atol=1e-5)
    as_the_encoder = (maps.contiguous(memory_format=torch.channels_last) for maps in (image, stride8, stride4))
    torch.testing.assert_close(decoder.paint(*as_the_encoder, tokens, indices), painted, rtol=0, atol=1e-5)
