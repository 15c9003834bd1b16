"""Which encoding a text is in that is not UTF-8, as far as its bytes show, and how to convert it.

Left out: reading it all the same. A wrong guess changes words without a sign, so the file is converted once, by its
owner, who can look at it.
"""

from itertools import pairwise

MARKS = ((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
SAMPLE = 2**16
"""So many bytes are looked at."""


def likely_encoding(content: bytes) -> str:
    """The name of the encoding that these bytes look like, by which ``iconv`` knows it too.

    Chinese characters are pairs of bytes above 127; accented letters stand alone between those of the alphabet.

    >>> likely_encoding("右肺结节".encode("gbk")), likely_encoding("opacité à droite".encode("cp1252"))
    ('GBK', 'CP1252')
    """
    if marked := next((name for mark, name in MARKS if content.startswith(mark)), None):
        return marked
    high = [k for k, byte in enumerate(content) if byte > 127]
    paired = sum(right - left == 1 for left, right in pairwise(high))
    try:
        content.decode("gbk")
    except UnicodeDecodeError as fault:
        if fault.end < len(content):  # else the bytes were cut within a character
            return "CP1252"
    return "GBK" if 2 * paired >= len(high) > 1 else "CP1252"


def conversion(fault: UnicodeDecodeError) -> str:
    """What a text seems to be that is not UTF-8, and the command that makes UTF-8 of it.

    >>> try:
    ...     "结节".encode("gbk").decode()
    ... except UnicodeDecodeError as fault:
    ...     conversion(fault)
    'It looks like GBK; convert it: iconv -f GBK -t UTF-8 OLD > NEW.'
    """
    content, first = fault.object, fault.start
    while first and content[first - 1] > 127:  # from where a character begins
        first -= 1
    name = likely_encoding(content[0 if content[:1] > b"\xfd" else first : fault.start + SAMPLE])
    return f"It looks like {name}; convert it: iconv -f {name} -t UTF-8 OLD > NEW."
