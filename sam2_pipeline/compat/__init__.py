"""Drop-in names for scripts written against ``facebookresearch/sam2``: same classes, arguments, return types and shapes.

Thin over `segment`. Results are the reference's wherever it has any; where it crashes, these work.
"""

from sam2_pipeline.compat.automatic import SAM2AutomaticMaskGenerator
from sam2_pipeline.compat.build import build_sam2, build_sam2_hf, build_sam2_video_predictor, build_sam2_video_predictor_hf
from sam2_pipeline.compat.image import SAM2ImagePredictor
from sam2_pipeline.compat.video import SAM2VideoPredictor

__all__ = [
    "SAM2AutomaticMaskGenerator",
    "SAM2ImagePredictor",
    "SAM2VideoPredictor",
    "build_sam2",
    "build_sam2_hf",
    "build_sam2_video_predictor",
    "build_sam2_video_predictor_hf",
]
