"""The one exception a user is meant to read."""


class UserError(Exception):
    """Something the user can fix: the message names the place, what was expected, what was found and the fix.

    The command line prints the message alone, without a traceback, and exits with 2.
    """


def listed(items, limit: int = 5) -> str:
    """`a, b, c and 4 more`: a list that stays readable however long it is."""
    items = [str(item) for item in items]
    more = len(items) - limit
    return ", ".join(items[:limit]) + (f" and {more} more" if more > 0 else "")
