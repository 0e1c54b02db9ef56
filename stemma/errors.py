"""The errors a person meets: one clear line each, with the exit code that the command line ends in."""


class StemmaError(Exception):
    """The run failed, or a blocking check did (exit code 1)."""

    exit_code = 1


class UsageError(StemmaError):
    """Wrong use: a bad command line, configuration or query (exit code 2)."""

    exit_code = 2


class RetryableError(StemmaError):
    """A row failed for a reason that may pass (time-out, memory): reported, and tried again by the next run."""
