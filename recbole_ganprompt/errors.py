"""The one exception for mistakes that a user can make and mend."""


class UserError(ValueError):
    """A mistake in the input or the configuration: one sentence that says what to do.

    The command line prints it without a traceback and exits with status 2.
    """
