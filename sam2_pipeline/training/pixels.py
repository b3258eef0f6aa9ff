"""Which pixels belong together, taught to the image encoder itself, without the mask decoder.

A mask decoder that knows nothing yet says little of what is wrong with the features that it reads. Here two vectors are made
of every pixel's features, linear but for one activation: some pixels of an object ask, all pixels of the picture answer, and
what they make of each other is to be the object's mask, in their own frame or a later one. It costs a fraction of a decoding, and
is thrown away after training.
(Instance discrimination beside a mask transformer: Wang et al., MaX-DeepLab, 2021.)

Letters in names: N rows, A asking pixels of each, P = S/4 x S/4 places, E channels.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sam2_pipeline.model.config import ModelConfig
from sam2_pipeline.model.image_encoder import FrameFeatures
from sam2_pipeline.model.layers import resize_maps
from sam2_pipeline.training.clicks import some_of
from sam2_pipeline.training.losses import dice_loss, focal_loss
from sam2_pipeline.training.settings import LossSection

_WIDTH = 64
_CHANNELS = 32
_ASKING = 4  # as many random numbers as a row has for its first prompt
_SHARPNESS, _DOUBT = 8.0, -3.0  # of a pixel about another, at first


class Vectors(NamedTuple):
    """Two of unit length for every place of V pictures, ``[V, E, P]``: as it asks, and as it answers."""

    asking_VEP: Tensor
    answering_VEP: Tensor


class PixelTeacher(nn.Module):
    """Part of training, not of the model. Random from a seed of its own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D = config.hidden_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.levels = nn.ModuleList(nn.Conv2d(channels, _WIDTH, 1) for channels in (D, D // 4, D // 8))
            self.vectors = nn.Conv2d(_WIDTH, 2 * _CHANNELS, 1)
        self.sharpness = nn.Parameter(torch.tensor(_SHARPNESS))
        self.bias = nn.Parameter(torch.tensor(_DOUBT))

    def forward(self, features: FrameFeatures) -> Vectors:
        maps = (features.stride16_VDHW, features.stride8_VCHW, features.stride4_VCHW)
        height, width = features.stride4_VCHW.shape[-2:]
        coarse, middle, fine = (resize_maps(level(m), (height, width)) for level, m in zip(self.levels, maps, strict=True))
        vectors = self.vectors(F.gelu(coarse + middle + fine)).flatten(2)
        return Vectors(*(F.normalize(half, dim=1).to(vectors.dtype) for half in vectors.chunk(2, dim=1)))

    def logits(self, seen: Vectors, frames: int, lanes_N: Tensor, truth_NSS: Tensor, draws_NA: Tensor) -> Tensor:
        """``[T, N, A, S/4, S/4]``: what of a clip's T frames is thought to belong to the pixel of an object that ``draws_NA``
        chooses in the first of them, of which the truth is. ``seen`` are the frames of clip after clip."""
        S = truth_NSS.shape[-1]
        side = S // 4
        asking_VTEP, answering_VTEP = (vectors.unflatten(0, (-1, frames)) for vectors in seen)
        pixels_NA = some_of(truth_NSS.flatten(1), draws_NA)
        asking_NAE = asking_VTEP[:, 0].mT[lanes_N[:, None], pixels_NA // S // 4 * side + pixels_NA % S // 4]
        alike_TNAP = (asking_NAE @ answering_VTEP.transpose(0, 1)[:, lanes_N]).float()
        return (self.sharpness * alike_TNAP + self.bias).unflatten(3, (side, side))

    def losses(
        self, features: FrameFeatures, lanes_N: Tensor, truth_TNSS: Tensor, draws_NK: Tensor, weights: LossSection
    ) -> tuple[Tensor, Tensor]:
        """The mask losses of every frame and row, ``[T, N]``, 0 for objects that are not there; and masks, ``[T, N, S/4, S/4]``.
        ``features`` are those of the frames of clip after clip.

        Pixels of the first frame ask, of which every object has some, and all frames answer: so an object is to look the same
        over time, and unlike others.
        """
        logits = self.logits(self(features), len(truth_TNSS), lanes_N, truth_TNSS[0], draws_NK[:, :_ASKING])
        flat, truth = logits.flatten(3), F.avg_pool2d(truth_TNSS.float(), 4).flatten(2)[:, :, None]
        focal_TNA = focal_loss(flat, truth.expand_as(flat), weights.focal_alpha, weights.focal_gamma)
        loss_TN = (weights.focal * focal_TNA + weights.dice * dice_loss(flat, truth)).mean(dim=2)
        return loss_TN * truth_TNSS.flatten(2).any(dim=2), logits[:, :, 0]
