"""The one error type that reaches people: a line that names the thing and the remedy."""


class FastganError(Exception):
    """Bad input or a refused request. The command line prints its message as one line and exits with code 2."""
