"""What Wingspan raises when something is wrong: one line that names the thing, the value and the mend."""


class WingspanError(Exception):
    """A failure that a person can act on; `cli` prints its text as one line and exits with `exit_code`."""

    exit_code = 1


class InputError(WingspanError):
    """What the user gave does not fit: a file, a number, a rank, a cluster. Nothing was written."""

    exit_code = 2


class RunError(WingspanError):
    """A run that had started failed: a rank died, a peer went silent, a link broke."""

    exit_code = 1


class LostPeerError(RunError):
    """This rank is sound, but another went away: a consequence, never the first cause."""
