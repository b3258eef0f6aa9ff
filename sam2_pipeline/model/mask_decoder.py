"""Mask decoder: image embedding and prompt tokens to masks (SAM 2 paper, figure 9; SAM paper, appendix A).

Shapes: N prompts, L prompt tokens, T = 6 + L tokens, D = 256 channels, h = S/16, M = 4 mask tokens.
Token order: object score, IoU, mask 0 (the single mask), masks 1..3 (the ambiguous three), then the prompt.
"""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_pipeline.model.attention import Attention
from sam2_pipeline.model.layers import LayerNorm, LayerNorm2d, in_pieces
from sam2_pipeline.model.linear import MLP

NUM_MASKS = 4
_NUM_HEADS = 8
_OBJECT_SCORE, _IOU, _FIRST_MASK = 0, 1, 2


@dataclass(frozen=True, slots=True)
class DecodedTokens:
    """What the two-way transformer says before any mask is drawn.

    Attributes:
        mask_tokens_NMD: ``[N, 4, D]``.
        predicted_iou_NM: ``[N, 4]`` in 0..1.
        object_score_N: ``[N]`` presence logits.
        image_NDHW: ``[N, D, h, h]``, the image as the transformer leaves it.
    """

    mask_tokens_NMD: Tensor
    predicted_iou_NM: Tensor
    object_score_N: Tensor
    image_NDHW: Tensor


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves, then to the image; the image attends to the tokens. Post-norm."""

    def __init__(self, dim: int, feedforward_dim: int, first: bool):
        super().__init__()
        self.first = first
        self.self_attn = Attention(dim, dim, _NUM_HEADS)
        self.norm1 = LayerNorm(dim, rounds=False)
        self.cross_attn_token_to_image = Attention(dim, dim // 2, _NUM_HEADS)
        self.norm2 = LayerNorm(dim, rounds=False)
        self.mlp = MLP([dim, feedforward_dim, dim])
        self.norm3 = LayerNorm(dim, rounds=False)
        self.norm4 = LayerNorm(dim, rounds=False)
        self.cross_attn_image_to_token = Attention(dim, dim // 2, _NUM_HEADS)

    def forward(self, queries: Tensor, image: Tensor, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        if self.first:  # the tokens are their own position encoding: nothing to add yet, and no residual
            queries = self.self_attn(queries, queries, queries)
        else:
            q = queries + tokens
            queries = queries + self.self_attn(q, q, queries)
        queries = self.norm1(queries)
        keys = image + positions
        queries = self.norm2(queries + self.cross_attn_token_to_image(queries + tokens, keys, image))
        queries = self.norm3(queries + self.mlp(queries))
        image = self.norm4(image + self.cross_attn_image_to_token(keys, queries + tokens, queries))
        return queries, image


class TwoWayTransformer(nn.Module):
    """Two blocks and a last look of the tokens at the image."""

    def __init__(self, dim: int, feedforward_dim: int):
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(dim, feedforward_dim, first=i == 0) for i in range(2))
        self.final_attn_token_to_image = Attention(dim, dim // 2, _NUM_HEADS)
        self.norm_final_attn = LayerNorm(dim, rounds=False)

    def forward(self, image: Tensor, positions: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        queries = tokens
        for layer in self.layers:
            queries, image = layer(queries, image, tokens, positions)
        queries = queries + self.final_attn_token_to_image(queries + tokens, image + positions, image)
        return self.norm_final_attn(queries), image


class MaskDecoder(nn.Module):
    """Three steps, apart because callers stop early: `attend`, `upscale`, `draw`; `paint` is the last two in one.

    ``conv_s0`` and ``conv_s1`` live here in the checkpoints; the image encoder applies them, once per picture.
    """

    def __init__(self, dim: int, feedforward_dim: int):
        super().__init__()
        self.transformer = TwoWayTransformer(dim, feedforward_dim)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(NUM_MASKS, dim)
        self.obj_score_token = nn.Embedding(1, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.conv_s0 = nn.Conv2d(dim, dim // 8, kernel_size=1)
        self.conv_s1 = nn.Conv2d(dim, dim // 4, kernel_size=1)
        self.output_hypernetworks_mlps = nn.ModuleList(MLP([dim, dim, dim, dim // 8]) for _ in range(NUM_MASKS))
        self.iou_prediction_head = MLP([dim, dim, dim, NUM_MASKS])
        self.pred_obj_score_head = MLP([dim, dim, dim, 1])

    def attend(self, image_NDHW: Tensor, positions_1DHW: Tensor, prompt_NLD: Tensor) -> DecodedTokens:
        """Runs the two-way transformer. The batch of ``image_NDHW`` (with the dense prompt added) is N, or 1 for all prompts."""
        N, (D, H, W) = prompt_NLD.shape[0], image_NDHW.shape[1:]
        own = torch.cat((self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight))
        tokens = torch.cat((own.expand(N, -1, -1), prompt_NLD), dim=1)
        queries, image = self.transformer(
            image_NDHW.flatten(2).transpose(1, 2), positions_1DHW.flatten(2).transpose(1, 2), tokens
        )
        return DecodedTokens(
            mask_tokens_NMD=queries[:, _FIRST_MASK : _FIRST_MASK + NUM_MASKS],
            predicted_iou_NM=self.iou_prediction_head(queries[:, _IOU]).float().sigmoid(),
            object_score_N=self.pred_obj_score_head(queries[:, _OBJECT_SCORE]).float()[:, 0],
            image_NDHW=image.transpose(1, 2).reshape(N, D, H, W),
        )

    def upscale(self, image_NDHW: Tensor, stride8_NCHW: Tensor, stride4_NCHW: Tensor) -> Tensor:
        """Mask features ``[N, D/8, S/4, S/4]``; the high-resolution features may have batch 1."""
        up1, norm, gelu1, up2, gelu2 = self.output_upscaling
        x = gelu1(norm(up1(image_NDHW) + stride8_NCHW))
        return gelu2(up2(x) + stride4_NCHW)

    def draw(self, upscaled_NCHW: Tensor, mask_tokens_NMD: Tensor, indices_NK: Tensor) -> Tensor:
        """Mask logits ``[N, K, S/4, S/4]``, float32, of the K mask tokens (0..3) that ``indices_NK`` names in each row."""
        N, C, H, W = upscaled_NCHW.shape
        weights_NKC = self._brushes(mask_tokens_NMD, indices_NK)
        return (weights_NKC @ upscaled_NCHW.reshape(N, C, H * W)).view(N, -1, H, W).float()

    def paint(
        self, image_NDHW: Tensor, stride8_NCHW: Tensor, stride4_NCHW: Tensor, mask_tokens_NMD: Tensor, indices_NK: Tensor
    ) -> Tensor:
        """What `draw` makes of `upscale`, in one go, for inference: nothing as large as the upscaled map is ever held.

        Transposed convolutions whose stride is their kernel's side treat every cell of the map on its own: one is a matrix
        product that gives a cell 2 x 2 cells, the next one gives each of these 2 x 2. So a few cells go through all steps while
        they are in the cache, their channels last, and only the masks are put in order.
        Compilers and exporters see the plain form.
        """
        if torch.compiler.is_compiling():
            return self.draw(self.upscale(image_NDHW, stride8_NCHW, stride4_NCHW), mask_tokens_NMD, indices_NK)
        up1, norm, _, up2, _ = cast(tuple[nn.ConvTranspose2d, LayerNorm2d, nn.Module, nn.ConvTranspose2d, nn.Module],
                                    tuple(self.output_upscaling))  # fmt: skip
        N, _, H, W = image_NDHW.shape
        weights_NCK = self._brushes(mask_tokens_NMD, indices_NK).mT
        K = weights_NCK.shape[2]

        spread1, spread2 = _spreading(up1), _spreading(up2)

        def paint_rows(fine_NTSC: Tensor, middle_NTSC: Tensor, cells_NTD: Tensor, brushes_NCK: Tensor) -> Tensor:
            def paint_cells(fine_NTSC: Tensor, middle_NTSC: Tensor, cells_NTD: Tensor) -> Tensor:
                x = F.linear(cells_NTD, *spread1).unflatten(-1, (4, -1)) + middle_NTSC
                x = F.gelu(F.layer_norm(x, norm.weight.shape, norm.weight, norm.bias, norm.eps))
                x = F.gelu(F.linear(x, *spread2).unflatten(-1, (4, -1)).flatten(2, 3) + fine_NTSC)
                return (x.flatten(1, 2) @ brushes_NCK).unflatten(1, (-1, 16))

            return in_pieces(paint_cells, fine_NTSC, middle_NTSC, cells_NTD, dim=1)

        cells = image_NDHW.flatten(2).mT
        middle, fine = (_cells(maps, n).expand(N, -1, -1, -1) for maps, n in ((stride8_NCHW, 1), (stride4_NCHW, 2)))
        painted = in_pieces(paint_rows, fine, middle, cells, weights_NCK, dim=0)
        painted = painted.view(N, H, W, 2, 2, 2, 2, K)  # the last four: (y, x) in the cell, (y, x) in the cell's quarter
        return painted.permute(0, 7, 1, 3, 5, 2, 4, 6).reshape(N, K, 4 * H, 4 * W).float()

    def _brushes(self, mask_tokens_NMD: Tensor, indices_NK: Tensor) -> Tensor:
        """What each of the chosen mask tokens multiplies the upscaled channels by, ``[N, K, D/8]``."""
        weights = torch.stack([mlp(mask_tokens_NMD[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        return weights.gather(1, indices_NK[..., None].expand(-1, -1, weights.shape[-1]))


def _spreading(up: nn.ConvTranspose2d) -> tuple[Tensor, Tensor | None]:
    """A 2 x 2 transposed convolution of stride 2 as weight and bias of a linear layer: a cell's C channels to its 2 x 2 cells
    of C' channels, row by row."""
    return up.weight.permute(2, 3, 1, 0).flatten(0, 2), None if up.bias is None else up.bias.repeat(4)


def _cells(maps_NCHW: Tensor, doublings: int) -> Tensor:
    """A finer map by the coarse cells it belongs to, ``[N, cells, 4 ** doublings, C]``, in the order of `_spreading`."""
    N, C, H, W = maps_NCHW.shape
    side = 2**doublings
    halves = [2] * doublings
    x = maps_NCHW.reshape(N, C, H // side, *halves, W // side, *halves)
    down, right = range(3, 3 + doublings), range(4 + doublings, 4 + 2 * doublings)
    within = [axis for pair in zip(down, right, strict=True) for axis in pair]
    return x.permute(0, 2, 3 + doublings, *within, 1).reshape(N, -1, side * side, C)


def stability(logits_NHW: Tensor, offset: float) -> Tensor:
    """Share of the looser mask (logits > -offset) that the stricter one (> offset) keeps; 1 where both are empty."""
    strict = (logits_NHW > offset).flatten(1).sum(1).float()
    loose = (logits_NHW > -offset).flatten(1).sum(1).float()
    return torch.where(loose > 0, strict / loose, torch.ones_like(loose))
