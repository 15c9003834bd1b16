"""Text of others (a server, a model, a file) made fit for one line of an error or a log."""


def printable(text: str, *, limit: int = 300) -> str:
    r"""The text on one line, at most ``limit`` characters of it, with what is not printed as itself escaped.

    Escaped are control characters (also those of terminals), marks that turn the direction of writing, and lone
    surrogates.

    >>> printable("red \x1b[31m\nand \u202eback")
    'red \\x1b[31m and \\u202eback'
    """
    return escaped(" ".join(text[: 4 * limit].split()))[:limit]


def escaped(text: str) -> str:
    r"""The text with what a terminal would act on, or no file could hold, written out.

    >>> escaped("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def without_surrogates(text: str) -> str:
    r"""The text with each half of a character replaced by U+FFFD: no file could be written with it.

    >>> without_surrogates("a\ud800b") == "a\ufffdb"
    True
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
