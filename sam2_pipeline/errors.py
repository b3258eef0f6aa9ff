"""The exceptions that this package raises on purpose.

Everything a user can mend (a wrong option, a broken file) is one of these and carries a message that says what was found
and what was expected. Anything else that escapes is a bug of ours.
"""


class PipelineError(Exception):
    """Base of every error raised on purpose by ``sam2_pipeline``."""


class ConfigError(PipelineError, ValueError):
    """A setting, option, prompt or argument is wrong. Raised before any work starts."""


class CheckpointError(PipelineError):
    """Weights could not be found, downloaded, read, or fitted to the model."""


class VideoError(PipelineError):
    """One video (or picture) cannot be read. Costs that video its row, never the run."""


class StorageError(PipelineError):
    """The place that results are written to, or read from, failed or holds something else."""
