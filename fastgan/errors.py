"""The one error type that reaches people: a line that names the thing and the remedy."""

from __future__ import annotations


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

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message)))


def empty(what: str) -> FastganError:
    """Of an argument, option or path without a text."""
    return FastganError(f"{what} is empty: give it a value, or leave it out")


def no_path(what: str, given: str) -> FastganError:
    """Of a path that is neither a text nor a pathlib.Path."""
    return FastganError(f"{what} must be a path, not {given}")


def printable(text: str) -> str:
    """Text from files or people as one line that is safe on any terminal: what can't be seen, such
    as line ends, escape codes and marks that turn the writing direction, is escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
