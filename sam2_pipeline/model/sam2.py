"""SAM 2: four verbs over tensors, none of which remembers anything. Read this file first.

    features   = model.encode_frames(images)                    pictures -> features, once per picture
    embedding  = model.attend_memory(features, lanes, memory)   features -> what each object sees, knowing its past
    prediction = model.decode_masks(embedding, ...)             -> mask, scores, object pointer
    memory     = model.encode_memory(features, lanes, ...)      mask -> what is remembered of the frame

What is remembered, and which of it is read, is `memory_bank.py`'s business; who walks through the frames, `segment/`'s.

Shapes: V pictures (lanes), N rows (objects), S image side, T = (S/16)^2 tokens, D = 256, C = 64. ``lanes_N`` says for every
row which picture it looks at. Names of submodules are those of Meta's checkpoints, which load with ``strict=True``.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sam2_pipeline.model.config import ModelConfig
from sam2_pipeline.model.conventions import MASK_BIAS, MASK_SCALE, NO_OBJECT_LOGIT, NOT_A_POINT, RELEASED_RULES, DecodingRules
from sam2_pipeline.model.image_encoder import FrameFeatures, ImageEncoder
from sam2_pipeline.model.layers import learned, resize_maps
from sam2_pipeline.model.linear import MLP
from sam2_pipeline.model.mask_decoder import MaskDecoder, stability
from sam2_pipeline.model.memory_attention import MemoryAttention
from sam2_pipeline.model.memory_bank import CONDITIONING
from sam2_pipeline.model.memory_batch import MemoryBatch
from sam2_pipeline.model.memory_encoder import MemoryEncoder
from sam2_pipeline.model.positions import sine_1d, sine_2d
from sam2_pipeline.model.prompt_encoder import PromptEncoder


@dataclass(frozen=True, slots=True)
class MaskPrediction:
    """One mask per row.

    Attributes:
        logits_NHW: ``[N, S/4, S/4]`` float32; all `NO_OBJECT_LOGIT` where the object is not there.
        predicted_iou_N, object_score_N: ``[N]`` float32.
        pointer_ND: object pointers ``[N, D]`` float32.
    """

    logits_NHW: Tensor
    predicted_iou_N: Tensor
    object_score_N: Tensor
    pointer_ND: Tensor

    def __repr__(self) -> str:
        return f"MaskPrediction(logits={tuple(self.logits_NHW.shape)}, pointers={tuple(self.pointer_ND.shape)})"


class Sam2(nn.Module):
    """The network. ``compute_dtype`` bfloat16 runs the verbs under autocast, weights staying in float32."""

    def __init__(self, config: ModelConfig, compute_dtype: torch.dtype = torch.float32):
        super().__init__()
        self.config, self.compute_dtype = config, compute_dtype
        D, C, width = config.hidden_dim, config.memory_dim, config.feedforward_dim
        self.maskmem_tpos_enc = learned(CONDITIONING + 1, 1, 1, C)
        self.no_mem_embed = learned(1, 1, D)
        self.no_mem_pos_enc = learned(1, 1, D)  # in every checkpoint, read by nobody
        self.no_obj_ptr = learned(1, D)
        signed = config.version == "2.1"
        self.no_obj_embed_spatial = learned(1, C) if signed else None
        self.image_encoder = ImageEncoder(config.trunk, D)
        self.mask_downsample = nn.Conv2d(1, 1, kernel_size=4, stride=4)
        self.memory_attention = MemoryAttention(D, C, width, config.memory_layers)
        self.memory_encoder = MemoryEncoder(D, C)
        self.sam_prompt_encoder = PromptEncoder(config.image_size, D)
        self.sam_mask_decoder = MaskDecoder(D, width)
        self.obj_ptr_proj = MLP([D, D, D, D])
        self.obj_ptr_tpos_proj = nn.Linear(D, C) if signed else None

    @property
    def device(self) -> torch.device:
        return self.no_mem_embed.device

    @property
    def mask_side(self) -> int:
        """Side of the low-resolution masks."""
        return self.config.image_size // 4

    def precision(self, *, decoding: bool = False) -> AbstractContextManager:
        """The autocast context in which the networks run; float32 needs none. Nor does the mask decoder (``decoding``) on a CPU:
        its products are many and small, and rounding takes longer than it saves."""
        small = decoding and self.device.type == "cpu" and not torch.is_grad_enabled()
        if self.compute_dtype == torch.float32 or small:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.compute_dtype)

    # ------------------------------------------------------------------------------------------------------ the verbs

    def encode_frames(self, images_V3SS: Tensor) -> FrameFeatures:
        """Features of normalised pictures ``[V, 3, S, S]`` (see `image_encoder.normalise`)."""
        with self.precision():
            return self.image_encoder(images_V3SS, self.sam_mask_decoder.conv_s0, self.sam_mask_decoder.conv_s1)

    def attend_memory(self, features: FrameFeatures, lanes_N: Tensor, memory: MemoryBatch | None) -> Tensor:
        """The image embedding ``[N, D, h, h]`` as each row sees it; without memory, marked as such."""
        if memory is None:
            return features.stride16_VDHW[lanes_N] + self.no_mem_embed[0, 0, :, None, None]
        with self.precision():
            tokens, positions, num_pointer_tokens = self._memory_tokens(memory)
            side = self.config.feature_side
            frame_positions = sine_2d(self.config.hidden_dim, side, side, self.device)
            return self.memory_attention(features.stride16_VDHW, frame_positions, lanes_N, tokens, positions, num_pointer_tokens)

    def decode_masks(
        self,
        embedding_NDHW: Tensor,
        features: FrameFeatures,
        lanes_N: Tensor,
        points_NP2: Tensor | None = None,
        labels_NP: Tensor | None = None,
        mask_logits_NHW: Tensor | None = None,
        *,
        multimask: bool | None = None,
        rules: DecodingRules = RELEASED_RULES,
    ) -> MaskPrediction:
        """One mask per row, from what the row sees and its prompts (pixels of the S x S input), if any.

        ``multimask`` None lets the number of points decide, as `DecodingRules` says.
        """
        if points_NP2 is None or labels_NP is None:
            points_NP2 = embedding_NDHW.new_zeros(len(lanes_N), 1, 2, dtype=torch.float32)
            labels_NP = torch.full((len(lanes_N), 1), NOT_A_POINT, device=self.device)
            num_points = 0
        else:
            num_points = points_NP2.shape[1]
        if multimask is None:
            multimask = rules.multimask_points[0] <= num_points <= rules.multimask_points[1]
        with self.precision(decoding=True):
            encoder, decoder = self.sam_prompt_encoder, self.sam_mask_decoder
            dense = encoder.no_mask() if mask_logits_NHW is None else encoder.encode_masks(mask_logits_NHW)
            decoded = decoder.attend(
                embedding_NDHW + dense, encoder.image_positions(), encoder.encode_points(points_NP2, labels_NP)
            )

            def draw(indices_NK: Tensor) -> Tensor:
                one = not torch.compiler.is_compiling() and len(features) == 1
                fine = features if one else features.select(lanes_N)  # a single picture need not be repeated
                return decoder.paint(
                    decoded.image_NDHW, fine.stride8_VCHW, fine.stride4_VCHW, decoded.mask_tokens_NMD, indices_NK
                )

            best_N1 = decoded.predicted_iou_NM[:, 1:].argmax(dim=1, keepdim=True) + 1
            zero_N1 = torch.zeros_like(best_N1)
            if multimask:
                index_N1 = pointer_index_N1 = best_N1
                logits = draw(best_N1)[:, 0]
            else:
                index_N1 = pointer_index_N1 = zero_N1
                logits = draw(torch.cat((zero_N1, best_N1), dim=1))
                logits, stable_N = settle(logits, rules)
                index_N1 = torch.where(stable_N[:, None], zero_N1, best_N1)
            pointer = self._pointer(decoded.mask_tokens_NMD, pointer_index_N1, decoded.object_score_N, rules)
        present = (decoded.object_score_N > 0)[:, None, None]
        return MaskPrediction(
            torch.where(present, logits, NO_OBJECT_LOGIT),
            decoded.predicted_iou_NM.gather(1, index_N1)[:, 0],
            decoded.object_score_N,
            pointer,
        )

    def adopt_masks(
        self, features: FrameFeatures, lanes_N: Tensor, masks_NSS: Tensor, rules: DecodingRules = RELEASED_RULES
    ) -> MaskPrediction:
        """Takes mask prompts (0 or 1, ``[N, S, S]``) as the prediction itself; only the object pointer is computed.

        The pointer comes from the decoder looking at the raw embedding with the mask as its prompt.
        """
        masks = masks_NSS[:, None].float()
        with self.precision():
            mask_prompt = self.mask_downsample(masks)[:, 0].float()
        pointer = self.decode_masks(
            features.stride16_VDHW[lanes_N], features, lanes_N, mask_logits_NHW=mask_prompt, multimask=False, rules=rules
        ).pointer_ND
        logits = resize_maps(masks * MASK_SCALE + MASK_BIAS, (self.mask_side, self.mask_side), antialias=True)[:, 0]
        present_N = (masks > 0).flatten(1).any(dim=1)
        return MaskPrediction(
            logits,
            torch.ones_like(present_N, dtype=torch.float32),
            MASK_SCALE * present_N.float() + MASK_BIAS,
            torch.where(present_N[:, None], pointer, self.no_obj_ptr),
        )

    def encode_memory(
        self, features: FrameFeatures, lanes_N: Tensor, logits_NHW: Tensor, object_score_N: Tensor, *, binarise: bool
    ) -> Tensor:
        """Memories ``[N, T, C]`` of masks ``[N, S/4, S/4]``, rounded to bfloat16 as the reference stores them.

        ``binarise`` cuts the mask at 0 (frames with a prompt); otherwise its probabilities are remembered.
        """
        high = resize_maps(logits_NHW[:, None], (self.config.image_size, self.config.image_size))
        return self.remember_masks(features, lanes_N, (high > 0).float() if binarise else high.sigmoid(), object_score_N)

    def remember_masks(self, features: FrameFeatures, lanes_N: Tensor, masks_N1SS: Tensor, object_score_N: Tensor) -> Tensor:
        """`encode_memory` of masks that are probabilities at the size of the network input."""
        with self.precision():
            projected = self.memory_encoder.project_frames(features.stride16_VDHW)[lanes_N]
            memory = self.memory_encoder(projected, masks_N1SS * MASK_SCALE + MASK_BIAS)
        if self.no_obj_embed_spatial is not None:
            absent = (object_score_N <= 0).to(memory.dtype)[:, None, None, None]
            memory = memory + absent * self.no_obj_embed_spatial[0, :, None, None]
        return memory.flatten(2).transpose(1, 2).to(torch.bfloat16)

    # -------------------------------------------------------------------------------------------------------- details

    def _memory_tokens(self, memory: MemoryBatch) -> tuple[Tensor, Tensor, int]:
        """(tokens, their positions, number of pointer tokens); tokens ``[N, M * T + 4 * P, C]``, maps first."""
        N, M, T, C = memory.maps_NMTC.shape
        side = self.config.feature_side
        place_TC = sine_2d(C, side, side, self.device).flatten(1).T
        map_positions = place_TC + self.maskmem_tpos_enc[memory.rows_NM].view(N, M, 1, C)
        tokens = [memory.maps_NMTC.view(N, M * T, C).float()]
        positions = [map_positions.reshape(N, M * T, C)]
        P, pieces = memory.pointers_NPD.shape[1], self.config.hidden_dim // C
        if P:
            tokens.append(memory.pointers_NPD.reshape(N, P * pieces, C))
            if self.obj_ptr_tpos_proj is None:
                positions.append(torch.zeros_like(tokens[1]))
            else:
                time_NPC = self.obj_ptr_tpos_proj(sine_1d(memory.pointer_time_NP, self.config.hidden_dim))
                positions.append(time_NPC.float()[:, :, None].expand(-1, -1, pieces, -1).flatten(1, 2))
        return torch.cat(tokens, dim=1), torch.cat(positions, dim=1), P * pieces

    def _pointer(self, tokens_NMD: Tensor, index_N1: Tensor, object_score_N: Tensor, rules: DecodingRules) -> Tensor:
        token = tokens_NMD.gather(1, index_N1[..., None].expand(-1, -1, tokens_NMD.shape[-1]))[:, 0]
        pointer = self.obj_ptr_proj(token).float()
        share = object_score_N.sigmoid() if rules.soft_pointer else (object_score_N > 0).float()
        return share[:, None] * pointer + (1 - share[:, None]) * self.no_obj_ptr


def settle(logits_N2HW: Tensor, rules: DecodingRules) -> tuple[Tensor, Tensor]:
    """Of (single mask, best of three) the one to use: ``[N, H, W]``, and whether it is the single one ``[N]``."""
    if not rules.dynamic_multimask:
        return logits_N2HW[:, 0], torch.ones(len(logits_N2HW), dtype=torch.bool, device=logits_N2HW.device)
    stable_N = stability(logits_N2HW[:, 0], rules.stability_offset) >= rules.stability_threshold
    return torch.where(stable_N[:, None, None], logits_N2HW[:, 0], logits_N2HW[:, 1]), stable_N
