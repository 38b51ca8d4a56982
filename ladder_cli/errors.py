"""The errors that end a command on purpose. `cli/main.py` turns each into an exit status."""


class UserError(Exception):
    """A mistake that the user can correct: printed as one line without a traceback, exit status 2.

    The message says what is wrong, where, and what to do.
    """


class NotReachable(UserError):
    """Something is neither on this machine nor reachable. A dry run continues without it; training stops."""


class Interrupted(Exception):
    """The user or the scheduler asked to stop, and the state has been saved: exit status 130."""


class RunFailed(Exception):
    """The work failed in a known way: printed as one line without a traceback, exit status 1."""
