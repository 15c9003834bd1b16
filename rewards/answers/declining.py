"""Answers that give none: a refusal, a missing image, a doubt. None of them is a "no", though all hold negations.

Left out: telling a doubt about a detail ("yes, probably acute") from one about the answer; both are doubts here.
"""

import re

from rewards.answers.cues import ANSWER_CUES

# What a refusal lacks: "no *image*", "not enough *information*", "no *idea*".
THING = (
    r"(?:images?|pictures?|photos?|scans?|films?|x-?rays?|attachments?|files?|inputs?|information|info|data|context"
    r"|access|knowledge|comments?|ideas?|clues?|answers?|opinions?|way|means)"
)
# With "cannot" no refusal but a finding: "I cannot *see* a nodule" says that there is none.
_SEE = r"(?:see|seen|find|found|identif(?:y|ied)|detect(?:ed)?|visuali[sz]ed?|appreciated?|demonstrated?|show|shown)"
# One alternative a kind of refusal, in this order: cannot say; lacks a thing; cannot do; cannot open the image;
# unknown or unclear; will not; is no physician; waves it aside; "hard to say"; sorry; ask another.
DECLINES = re.compile(
    rf"""\b(?-x:{ANSWER_CUES["refuse"]})\b
    |\b(?:no|not\ (?:an?|any|enough)|without(?:\ (?:an?|any|the|more|further))?|(?:in|not\ )sufficient)
        \ (?:\w+\ ){{0,2}}?{THING}\b(?!\ (?:of|findings?|evidence)\b)
    |\b(?:cannot|can\ not|can't|could\ not|couldn't|unable\ to|not\ able\ to|(?:im|not\ )possible\ to)\b
        (?!\ (?:be\ )?(?:\w+ly\ )?{_SEE}\b)
    |\b(?:see|open|view|access|load|read)\ (?:(?:the|this|that|any|your|an?)\ )?(?:\w+\ )?
        (?:images?|pictures?|scans?|films?|x-?rays?|photos?|files?|anything)\b
    |\b(?:not\ |un-?|in)(?:known|clear|sure|certain|determin\w+|decided|answerable|readable|assess\w+|interpretable
        |applicable|available|provided|given|evaluable|enough|sufficient|qualified|allowed)\b
    |\bI\ (?:do\ not|don't|did\ not|didn't|won't|will\ not|would\ (?:rather\ )?not|prefer\ not\ to|refuse|decline)\b
        (?!\ (?:think|believe|{_SEE})\b)
    |\bI(?:\ am|'m)\ (?:not|just|only)\b|\bnot\ (?:me|my|your|our|relevant|important)\b
    |\bnever\ mind\b|\bnone\ of\ (?:your|my)\b
    |\bto\ (?:say|tell|judge|decide|determine|comment|answer)\b
    |\b(?:sorry|apologi[sz]e|as\ an\ AI|don't\ know|N/A|(?:no\ one|nobody)\ (?:knows|can))\b
    |\bask\ (?:a|an|your|the)\b|\bconsult\ (?:a|an|your|the|with)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
# Words of doubt, a choice left open ("either ... or", "all of the above"), a question mark at the end, "likely yes".
DOUBTS = re.compile(
    r"\b(?:maybe|perhaps|possibly|probably|presumably|supposedly|either (?:\w+ ){1,3}or"
    rf"|(?:might|may|could) be(?! (?:\w+ly )?{_SEE})|whichever|i guess|a guess|50/50|fifty-fifty"
    r"|(?:all|any|both|none|one|some) of the above)\b|\?\s*\Z"
    r"|\blikely\W+(?:yes|no|-?\d)|\b(?:yes|no)\W+(?:most\W+)?likely\W*\Z",
    re.IGNORECASE,
)
# "It is false that it is so", "anything but yes", "far from normal": name an answer and mean the other one.
CONTRARY = re.compile(
    r"\b(?:is|are|be|it's) (?:wrong|incorrect|untrue|false)\b|\b(?:wrong|incorrect|untrue|false) (?:that|to)\b"
    r"|\banything but\b|\b(?:opposite|contrary) of\b|\bfar from\b",
    re.IGNORECASE,
)


def declines(text: str) -> bool:
    """Whether a text says that it gives no answer.

    >>> [declines(text) for text in ("I cannot say.", "No image was given.", "no idea", "I see no nodule.")]
    [True, True, True, False]
    """
    return DECLINES.search(text) is not None


def doubts(text: str) -> bool:
    """Whether a text leaves open what it says, or asks it.

    >>> doubts("Maybe yes."), doubts("Yes?"), doubts("Yes.")
    (True, True, False)
    """
    return DOUBTS.search(text) is not None


def turns_round(text: str) -> bool:
    """Whether a text names an answer to say that it is not so.

    >>> turns_round("The opposite of yes"), turns_round("It is false that it is so"), turns_round("yes")
    (True, True, False)
    """
    return CONTRARY.search(text) is not None
