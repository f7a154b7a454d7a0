"""The one exception a user is meant to read."""

import re
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can fix: the message names the place, what was expected, what was found and the fix.

    The command line prints the message alone, without a traceback, and exits with 2. Whoever prints it, the passwords
    of addresses are not in it.
    """

    def __str__(self) -> str:
        return concealed(super().__str__())


def listed(items: Iterable[object], limit: int = 5) -> str:
    """`a, b, c and 4 more`: a list that stays readable however long it is."""
    names = [plain(item, 300) for item in items]
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


SECRETS = (  # forms in which a password or token is part of an address
    (re.compile(r"(?<=://)\S+@"), "***@"),  # up to the last @: what is inside of a password is anybody's guess
    (re.compile(r"(?<![\w/.-])[^\s/:@'\"]+:[^\s/:@'\"]+@"), "***@"),
    (re.compile(r"(?i)([?&;](?:password|passwd|pwd|token|secret|key|auth)\w*=)[^\s&;'\"]+"), r"\1***"),
)


def concealed(text: str) -> str:
    """A message without the passwords that addresses in it hold."""
    for form, instead in SECRETS:
        text = form.sub(instead, text)
    return text


def plain(value: object, limit: int = 80) -> str:
    """Text of the user's in a message: as it is where that is readable, else as `brief` shows it."""
    text = str(value)
    return text if text.isprintable() and len(text) <= limit else brief(text, limit)


def brief(value: object, limit: int = 60) -> str:
    """A value in quotes as in a message: on one line, and not the whole of a long one."""
    text = repr(value[:limit] if isinstance(value, str) else value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
