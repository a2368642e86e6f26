"""Why the local system cannot start or go on; each is one line on standard error."""

from proctor_cli.faults import CommandFault


class CannotStart(CommandFault):
    """Something on this machine prevents it: a port, a folder, a program."""

    exit_code = 1


class GivenUp(CommandFault):
    """A child does not start, or keeps dying."""

    exit_code = 1
