"""Prompt encoder: points, boxes and masks to tokens and a dense map (SAM paper, appendix A; SAM 2 keeps it).

Shapes: N prompts, P points each, D = 256 channels, h = S/16 side of the image embedding.
A box is two points, labelled `BOX_TOP_LEFT` and `BOX_BOTTOM_RIGHT`, placed before the clicks.
"""

import torch
from torch import Tensor, nn

from sam2_pipeline.model.conventions import BACKGROUND, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, NOT_A_POINT, OBJECT
from sam2_pipeline.model.layers import LayerNorm2d
from sam2_pipeline.model.positions import FourierPositions

_MASK_CHANNELS = 16


class PromptEncoder(nn.Module):
    """Encodes prompts given in pixels of the square network input."""

    def __init__(self, image_size: int, dim: int):
        super().__init__()
        self.image_size = image_size
        self.pe_layer = FourierPositions(dim)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, _MASK_CHANNELS // 4, kernel_size=2, stride=2),
            LayerNorm2d(_MASK_CHANNELS // 4),
            nn.GELU(),
            nn.Conv2d(_MASK_CHANNELS // 4, _MASK_CHANNELS, kernel_size=2, stride=2),
            LayerNorm2d(_MASK_CHANNELS),
            nn.GELU(),
            nn.Conv2d(_MASK_CHANNELS, dim, kernel_size=1),
        )
        self.no_mask_embed = nn.Embedding(1, dim)

    def encode_points(self, points_NP2: Tensor, labels_NP: Tensor) -> Tensor:
        """Tokens ``[N, P + 1, D]``: one per point and a padding token, which the network expects after any points.

        Points are (x, y) pixels of the S x S input; labels are those of `conventions`.
        """
        N = points_NP2.shape[0]
        points = torch.cat((points_NP2, points_NP2.new_zeros(N, 1, 2)), dim=1)
        labels = torch.cat((labels_NP, labels_NP.new_full((N, 1), NOT_A_POINT)), dim=1)
        return self.point_tokens(points, labels)

    def point_tokens(self, points_NL2: Tensor, labels_NL: Tensor) -> Tensor:
        """Tokens ``[N, L, D]`` of points among which the padding is already."""
        tokens = self.pe_layer((points_NL2.float() + 0.5) / self.image_size)  # pixel centres
        for label, embedding in zip((BACKGROUND, OBJECT, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT), self.point_embeddings, strict=True):
            tokens = torch.where((labels_NL == label)[..., None], tokens + embedding.weight, tokens)
        return torch.where((labels_NL == NOT_A_POINT)[..., None], self.not_a_point_embed.weight, tokens)

    def encode_masks(self, logits_NHW: Tensor) -> Tensor:
        """Dense map ``[N, D, h, h]`` of mask logits ``[N, S/4, S/4]``."""
        return self.mask_downscaling(logits_NHW[:, None])

    def no_mask(self) -> Tensor:
        """Dense map ``[1, D, 1, 1]`` that stands for "no mask given"; broadcasts over prompts and places."""
        return self.no_mask_embed.weight[..., None, None]

    def image_positions(self) -> Tensor:
        """Position encoding ``[1, D, h, h]`` of the image embedding."""
        return self.pe_layer.grid(self.image_size // 16)
