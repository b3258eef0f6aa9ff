"""What the numbers that go into the networks and come out of them mean. No torch: whatever runs the networks keeps to it."""

from dataclasses import dataclass

# Labels of points. A box is two points, its corners, placed before the clicks.
NOT_A_POINT, BACKGROUND, OBJECT, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT = -1, 0, 1, 2, 3
NO_OBJECT_LOGIT = -1024.0  # mask logits of an object that is not there
MASK_SCALE, MASK_BIAS = 20.0, -10.0  # masks enter the memory encoder, and leave a mask prompt, as -10..10
OVERLAP_LOGIT = -10.0  # where another object wins a pixel, a mask is at most this sure
PREVIOUS_LOGIT_LIMIT = 32.0  # an earlier mask that a prompt refines is cut to +- this
PIXEL_MEAN, PIXEL_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in 0..1, before the image encoder


@dataclass(frozen=True, slots=True)
class DecodingRules:
    """How one mask is chosen among the decoder's four. The defaults are the released behaviour.

    Attributes:
        multimask_points: the three ambiguous masks compete (by predicted IoU) when the number of points is in this range;
            a box counts as two points, no prompt as none.
        dynamic_multimask: a single mask that is not stable gives way to the best of the three.
        stability_offset, stability_threshold: "stable" is an IoU of at least the threshold between cuts at +- offset.
        soft_pointer: blend the object pointer with the no-object pointer by probability, not by yes or no.
    """

    multimask_points: tuple[int, int] = (0, 1)
    dynamic_multimask: bool = True
    stability_offset: float = 0.05
    stability_threshold: float = 0.98
    soft_pointer: bool = False


RELEASED_RULES = DecodingRules()
