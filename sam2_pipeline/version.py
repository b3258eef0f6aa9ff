"""Which version of this package is running."""

from importlib import metadata


def package_version() -> str:
    """``source`` where it runs from a checkout that is not installed (``ray job submit --working-dir .``)."""
    try:
        return metadata.version("sam2-pipeline")
    except metadata.PackageNotFoundError:
        return "source"
