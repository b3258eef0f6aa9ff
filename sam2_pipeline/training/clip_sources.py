"""Videos with known masks as clips: synthetic scenes, SA-V folders, DAVIS-like folders."""

_KINDS = ("manual", "auto")
