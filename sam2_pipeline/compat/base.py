"""What the compat classes share: a model together with the reference's options, answering for the model where asked."""

from __future__ import annotations

from typing import Any

from sam2_pipeline.model.sam2 import Sam2
from sam2_pipeline.segment.options import TrackingOptions


class SAM2Base:
    """A `Sam2` with the options it was built with. Attributes and methods it lacks are the model's."""

    def __init__(self, model: Sam2, options: TrackingOptions):
        self.model, self.options = model, options

    @property
    def image_size(self) -> int:
        return self.model.config.image_size

    def to(self, *args: Any, **kwargs: Any) -> SAM2Base:
        self.model.to(*args, **kwargs)
        return self

    def cuda(self) -> SAM2Base:
        return self.to("cuda")

    def cpu(self) -> SAM2Base:
        return self.to("cpu")

    def eval(self) -> SAM2Base:
        self.model.eval()
        return self

    def __getattr__(self, name: str) -> Any:
        if name == "model":  # not constructed yet (unpickling)
            raise AttributeError(name)
        return getattr(self.model, name)
