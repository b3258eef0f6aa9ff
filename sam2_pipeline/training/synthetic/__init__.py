"""Synthetic videos with perfect ground truth, each from a seed.

    scene = make_scene(7, SceneOptions(frames=48))
    scene.frame(0)      # uint8 [H, W, 3]
    scene.masks(0)      # bool [N, H, W], what the camera sees of each object

The parts: `shapes` (silhouettes), `textures` (surfaces), `sprites` (both together), `motion` (where things are), `drawing` (a
frame), `scene` (a whole one), `files` (videos and annotations).
"""

from sam2_pipeline.training.synthetic.options import SceneOptions
from sam2_pipeline.training.synthetic.scene import Scene, make_scene

__all__ = ["Scene", "SceneOptions", "make_scene"]
