"""The one exception for mistakes that a user can make and mend."""


class UserError(ValueError):
    """A mistake in what the user gave: flags, JSON, data, checkpoints, paths.

    The message is one line that says what was expected and what was received, and
    where. Commands print it without a traceback and exit with status 1
    (`tfvid.cli.run`); library callers catch it as a `ValueError`.
    """
