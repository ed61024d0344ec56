"""The one error type that reaches people: a line that names the thing and the remedy."""


class FastganError(Exception):
    """Bad input or a refused request, in one line that names the thing and the remedy.

    The command line prints the message and exits with code 2; no half-written file is left.

    Example:
        >>> import fastgan
        >>> try:
        ...     fastgan.Noise((100,), "gaussian")
        ... except fastgan.FastganError as error:
        ...     print(error)
        unknown kind of noise 'gaussian': choose normal, uniform or categorical
    """
