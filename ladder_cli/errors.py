"""The ways a command may end early on purpose; `cli.py` turns them into exit statuses."""


class UserError(Exception):
    """A mistake that the user can mend: printed as one line without a traceback, exit status 2.

    The message says what is wrong, where, and what to do.
    """


class NotReachable(UserError):
    """What was asked for is not on this machine: a plan does without it, a run cannot."""


class Interrupted(Exception):
    """The user or the scheduler asked to stop and the state has been saved: exit status 130."""


class RunFailed(Exception):
    """The work itself went wrong in a known way: printed as one line without a traceback, exit status 1."""
