"""The mask decoder as training needs it: all candidate masks with their scores, and gradients through everything.

Shapes as in `model.sam2`; K candidates: three after one click or none, else one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sam2_pipeline.model.conventions import NO_OBJECT_LOGIT, NOT_A_POINT
from sam2_pipeline.model.image_encoder import FrameFeatures
from sam2_pipeline.model.mask_decoder import NUM_MASKS
from sam2_pipeline.model.sam2 import Sam2

_LOUDEST = 32.0  # mask logits that go back in as a prompt, as at inference


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the decoder says of each row.

    Attributes:
        logits_NKHW: mask logits ``[N, K, S/4, S/4]``, float32, drawn whether or not the object is thought to be there.
        predicted_iou_NK, object_score_N: float32.
        pointer_ND: object pointer of the candidate that the model itself prefers.
    """

    logits_NKHW: Tensor
    predicted_iou_NK: Tensor
    object_score_N: Tensor
    pointer_ND: Tensor

    def chosen_logits(self) -> Tensor:
        """Of the candidate that the model prefers, ``[N, S/4, S/4]``."""
        best = self.predicted_iou_NK.argmax(dim=1)
        return self.logits_NKHW[torch.arange(len(best), device=best.device), best]

    def shown_logits(self) -> Tensor:
        """The same, as inference shows them: nothing where the object is thought to be absent."""
        present = (self.object_score_N > 0)[:, None, None]
        return torch.where(present, self.chosen_logits(), NO_OBJECT_LOGIT)


def decode_candidates(
    model: Sam2,
    embedding_NDHW: Tensor,
    features: FrameFeatures,
    lanes_N: Tensor,
    points: tuple[Tensor, Tensor] | None = None,
    mask_logits_NHW: Tensor | None = None,
) -> Candidates:
    """`Sam2.decode_masks` without its choices. ``points`` are (places ``[N, P, 2]``, labels ``[N, P]``)."""
    multimask = points is None or points[1].shape[1] == 1
    if points is None:
        points = (
            torch.zeros(len(lanes_N), 1, 2, device=model.device),
            torch.full((len(lanes_N), 1), NOT_A_POINT, device=model.device),
        )
    first, last = (1, NUM_MASKS) if multimask else (0, 1)
    rows = torch.arange(len(lanes_N), device=model.device)
    with model.precision():
        encoder, decoder = model.sam_prompt_encoder, model.sam_mask_decoder
        dense = encoder.no_mask() if mask_logits_NHW is None else encoder.encode_masks(mask_logits_NHW.clamp(-_LOUDEST, _LOUDEST))
        decoded = decoder.attend(embedding_NDHW + dense, encoder.image_positions(), encoder.encode_points(*points))
        upscaled = decoder.upscale(decoded.image_NDHW, features.stride8_VCHW[lanes_N], features.stride4_VCHW[lanes_N])
        logits = decoder.draw(
            upscaled, decoded.mask_tokens_NMD, torch.arange(first, last, device=model.device).expand(len(rows), -1)
        )
        scores = decoded.predicted_iou_NM[:, first:last]
        token = decoded.mask_tokens_NMD[rows, first + scores.argmax(dim=1)]
        pointer = model.obj_ptr_proj(token).float()
    present = (decoded.object_score_N > 0).float()[:, None]
    return Candidates(logits, scores, decoded.object_score_N, present * pointer + (1 - present) * model.no_obj_ptr)
