"""SAM 2 on onnxruntime: pictures and videos segmented without PyTorch, from files that `sam2-pipeline export-onnx` writes.

    from sam2_pipeline import onnx

    model = onnx.load_model("exported/")
    onnx.ImageSegmenter(model)     # as sam2_pipeline.ImageSegmenter, with NumPy arrays
    onnx.VideoSegmenter(model)     # as sam2_pipeline.VideoSegmenter

Nothing that is imported here imports torch; `export.py`, `graphs.py` and `agreement.py` do, which make the files and check them.
"""

from sam2_pipeline.onnx.image import ImageSegmenter
from sam2_pipeline.onnx.model import OnnxModel, load_model
from sam2_pipeline.onnx.video import VideoSegmenter

__all__ = ["ImageSegmenter", "OnnxModel", "VideoSegmenter", "load_model"]
