"""Duplicates and parts among the masklets of one video, while its masks are on disk."""

from collections.abc import Sequence

from sam2_pipeline.config import JobConfig
from sam2_pipeline.io.spool import MaskSpool
from sam2_pipeline.masklets.identity import IdentityOptions, identify, overlaps_over_time, quality_of
from sam2_pipeline.masklets.masklet import MaskletSeed


def identity_options(config: JobConfig) -> IdentityOptions | None:
    """How duplicates and parts are told; None: not at all."""
    identity = config.identity
    if identity.apply == "never" or (identity.apply == "discovering" and config.discover.every_s is None):
        return None
    return IdentityOptions(identity.merge_iou, identity.part_share)


def settle_identity(spool: MaskSpool, seeds: Sequence[MaskletSeed], options: IdentityOptions) -> list[MaskletSeed]:
    """The seeds of the masklets that stay, numbered from 0, with their parents; the masks of the others leave the spool."""
    quality = {masklet_id: quality_of(row) for masklet_id, row in spool.statistics().items()}
    kept = identify(seeds, overlaps_over_time(quality, spool.visible_masks()), quality, options)
    spool.renumber({old: seed.masklet_id for old, seed in kept.items()})
    return list(kept.values())
