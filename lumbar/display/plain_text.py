"""Characters that a console cannot show are replaced, so that no output fails."""

from __future__ import annotations

import codecs
import io
import sys

ERRORS = "lumbar_plain"
"""The name of `_in_other_letters` as a Python error handler."""

PLAIN = {
    "\N{HORIZONTAL ELLIPSIS}": "...",
    "\N{EN DASH}": "-",
    "\N{EM DASH}": "-",
    "\N{MINUS SIGN}": "-",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{MIDDLE DOT}": ".",
    "\N{BULLET}": "*",
    "\N{MICRO SIGN}": "u",
    "\N{GREEK SMALL LETTER MU}": "u",
    "\N{DEGREE SIGN}": " deg",
    "\N{PLUS-MINUS SIGN}": "+-",
    "\N{ALMOST EQUAL TO}": "~",
    "\N{LESS-THAN OR EQUAL TO}": "<=",
    "\N{GREATER-THAN OR EQUAL TO}": ">=",
    "\N{RIGHTWARDS ARROW}": "->",
    "\N{LEFTWARDS ARROW}": "<-",
}


def show_any_text() -> None:
    """Let standard output and error write any text in any encoding of the console.

    A character that the encoding lacks is replaced by `PLAIN`, or else by a Python escape, so that
    names of files stay unique. Bytes of a file's name that are no text are escaped, too.
    """
    codecs.register_error(ERRORS, _in_other_letters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)


def _in_other_letters(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    escaped = (PLAIN.get(x) or x.encode("ascii", "backslashreplace").decode() for x in letters)
    return "".join(escaped), error.end
