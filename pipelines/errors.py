"""What a user of a pipeline can do wrong, and a job that had to stop."""

from models.errors import PacelineError


class InvalidInput(PacelineError, ValueError):
    """The input cannot be used as it is; the message names the file and what would be accepted."""


class OutputRefused(PacelineError, ValueError):
    """The output folder holds something that this job must not touch or cannot continue."""


class OutputBusy(OutputRefused):
    """Another run writes in the output folder; the message says which, and how to go on."""


class JobFailed(PacelineError, RuntimeError):
    """The job had to stop in the middle; what is committed stays and the same command resumes."""
