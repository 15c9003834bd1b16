"""The cues of negation and doubt, all in one place: of reports, of answers in sentences, of yes and no.

Three readers hold them against a text, each with a reach of its own: `reading.assertion` (a cue holds for the findings
of its clause), `rules.symbols` (for the whole answer to one question), `answers.label_accuracy` (is it yes or no?).
The lists are our own, after NegEx (Chapman et al. 2001) and ConText (Harkema et al. 2009).
"""

import re

_VERY = (
    r"(?:(?:significant|interval|acute|definite|substantial|appreciable|major|large|further|obvious|new)(?:ly)? ){0,3}"
)
_FULLY = r"(?:(?:completely|entirely|fully|definitely|definitively|totally|confidently|yet|currently|clearly) ){0,2}"
_BE = r"(?:is|are|was|were|be|been|being|appears?|remains?)"
_SEEN = (
    r"(?:seen|present|identified|visible|visuali[sz]ed|demonstrated|evident|appreciated|detected|observed|found|noted"
    r"|apparent|shown|suspected|recogni[sz]ed|appreciable|there)"
)
_GONE = r"(?:resolved|cleared|disappeared|regressed completely|gone away)"
_SINCE = r"(?:(?:since|now|also|completely|entirely|fully|largely|subsequently|been|interval) ){0,3}"
_PRIOR = r"(?:on|in|at) (?:the |any |his |her )?(?:prior|previous|earlier|old|lateral|frontal|comparison)"
_CHANGE = (
    r"(?:changed?|increased?|decreased?|improve(?:ment|d)|progress(?:ion|ed)|worsen(?:ing|ed)|difference|different)"
)

REPORT_CUES = {
    # Holds for nothing: looks like a cue and is none. It stands first, since of two at one place the first counts.
    "neutral": rf"(?:no|without|not) (?:any )?{_VERY}{_CHANGE}"
    rf"|not {_SEEN} {_PRIOR}|not (?:as |so )?(?:well|clearly|optimally|fully) {_SEEN}|no doubt|not only|not necessarily"
    r"|no (?:prior|previous|comparison)|not (?:compared|included|imaged|evaluated|assessed)"
    rf"|(?:ha[sd]|have) not {_FULLY}{_GONE}|not {_FULLY}{_GONE}|(?:no|not|without) (?:absen(?:t|ce of)|resolution of)"
    r"|(?:partial|incomplete|near|near complete|nearly complete|improvement/) ?resolution of"
    r"|(?:compatible|consistent|associated|keeping|correlat\w+) with"
    r"|(?:partially|incompletely|nearly|almost|not) (?:completely )?resolved|more likely than not",
    # Doubts what stands before it. "Likely due to" doubts a cause, not the finding: hence what must not follow.
    "possible_after": r"(?:cannot|can not|can't|could not|couldn't|not|never) (?:be )?"
    rf"{_FULLY}(?:be )?{_FULLY}(?:excluded|ruled out)|(?:difficult|hard|impossible) to {_FULLY}(?:exclude|rule out)"
    rf"(?= *[.,]|$)|{_BE} (?:also |still |thought |felt |considered )?(?:not )?(?:less |more |most )?"
    r"(?:possible|suspected|likely|questionable|questioned|uncertain|equivocal|unlikely|doubtful|probable|queried)"
    r"(?! (?:to|due|represent\w*|reflect\w*|related|secondary|from|for|because|on|that))"
    rf"|(?:may|might|could) (?:also |still )?(?:be {_SEEN}|persist|exist)"
    r"|(?:felt |considered )?less likely(?= *[.,)]|$)"
    rf"|(?:not|never|neither) confirmed|suspected(?= *[.,;]|$)"
    rf"|(?:{_BE}|would be) (?:also )?a (?:possibility|consideration|concern|question)",
    # Doubts its two neighbours, and reaches no further.
    "possible_around": r"versus|vs\.?",
    # Denies what stands before it. A bare "absent" or "no" does so only where the part of the sentence ends.
    "absent_after": rf"{_BE} (?:now |all |also |both )?(?:absent|negative|gone|resolved)"
    rf"|(?:{_BE} )?(?:not|never|no longer) {_FULLY}(?:be )?{_SEEN}|(?:{_BE} )?(?:no longer)"
    rf"|(?:has|have|had) {_SINCE}{_GONE}|{_BE} (?:been )?(?:ruled out|excluded)"
    r"|(?:have|has) been (?:removed|ruled out|excluded)"
    r"|(?:now|since|interval(?:ly)?) (?:resolved|cleared|gone|absent)|none (?:seen|present|identified|visible)"
    r"|ruled out"
    r"|: (?:none|absent|negative(?! for)|no(?= *(?:[.,;)]|$)))|(?:absent|negative|resolved)(?= *(?:[.,;)]|$))",
    # Names without a claim: history, a question to the reader, a risk, a treatment.
    "not_asserted": r"(?:past |prior |previous |known |remote |clinical |medical ){0,6}(?:history|hx) (?:of|for)|h/o|hx"
    r"|(?:to |please )?(?:evaluate|assess|evaluation|assessment|look|looking|check|screen|screening) for"
    r"|(?:clinical|any|strong) (?:concern|suspicion) (?:for|of)|risk (?:of|for)|if (?:there|clinical\w*|symptoms)"
    r"|(?:treated|treatment|therapy) for|negative predictive",
    # Doubts what follows. It stands before the denials: "not to exclude" begins as they do.
    "possible_before": rf"(?:cannot|can not|can't|could not|not|to|unable to|impossible to|difficult to) {_FULLY}"
    r"(?:exclude|rule out)|rule out|r/o|possibl[ey]|possibility (?:of|for)|probabl[ey]|may|might|could"
    r"|suspect(?:ed)?"
    r"|suspicious for|suspicion (?:of|for)|questionable|questioned|question|query|uncertain|equivocal|perhaps"
    r"|concern(?:ing)? (?:for|of|about)|worrisome for|worry for|presumed|presumably|unlikely|likely|doubtful"
    r"|suggest(?:s|ing|ed|ive)?(?: of)?|potential(?:ly)?|conceivabl[ey]|either|differential (?:includes|diagnosis)"
    r"|less likely|cannot be certain|consider(?:ations?)?|correlat\w+ (?:clinically )?for|unclear (?:whether|if)"
    r"|(?:appropriate|proper|right|correct) clinical setting|concern is for|differential",
    # Denies what follows, through a list, until a cue of another kind or the end of the clause.
    "absent_before": r"no|not|without|w/o|nor|neither|never|absence of|absent|lack of|lacks|lacking|free (?:of|from)"
    r"|clear of|negative for|denie[sd]|denying|rather than|instead of|as opposed to|resolution of|disappearance of"
    r"|(?:interval |now |previously )?resolved|(?:interval )?(?:removal|clearing) of|ruled out|rules out|excludes?"
    r"|excluded|(?:cannot|can not|unable to) (?:see|identify|find|detect|appreciate)"
    r"|fail(?:s|ed)? to (?:show|demonstrate|reveal|identify)|argues? against|nonvisuali[sz]ation of|against",
    # Ends a denial and no doubt: what follows is a cause, which is claimed.
    "end_of_denial": r"secondary to|due to|related to|because",
    # Ends whatever holds: a clause with a subject or a verb of its own begins.
    "end": r"but|however|although|though|except(?:ing)?|aside from|apart from|other than|besides|yet|whereas|while"
    r"|there (?:is|are|was|were|has|have)|with|which"
    r"|(?:and|then) (?:the|there|a|an|also|stable|unchanged|mild\w*|minimal\w*|moderate\w*|persist\w+|heart|lungs"
    r"|degenerative|old|chronic|cardiomegaly)",
}
"""Of reports, in lower case: what a sentence says of each finding."""
LIST_END = (
    r", (?:and )?(?:the|there|this|these|it|stable|unchanged|persist\w+|mild\w*|minimal\w*|moderate\w*|old|chronic"
    r"|again|heart|lungs?|healed|calcified|otherwise|now|prior|remote|borderline)\b|;| - |\[|\]|\("
    r"|\b(?:seen|identified|noted|demonstrated|evident|appreciated|visuali[sz]ed),(?! (?:and |or )?no\b)"
)
"""Ends the list through which a cue reaches: behind the comma something has a claim of its own."""
RESTRICTED = re.compile(
    r"\b(?:large|new|acute(?:ly)?|suspicious|displaced|significant|other|additional|further|increasing|enlarging|worsening"
    r"|superimposed|developing|recurrent|definite|obvious|focal|discrete|sizable|overt|confluent|lobar|dominant|gross"
    r"|active|frank|discernible|convincing|substantial|measurable|tension|severe|noncalcified|non-calcified|progressive)\b"
)
"""Adjectives by which only some of a kind are denied ("no large effusion")."""

ANSWER_CUES = {
    # Looks like a negation and is none: "no doubt", "not only".
    "pseudo": r"(?:there is |have )?(?:no|without(?: a| any)?) (?:doubt|question)|undoubtedly|not (?:only|just|merely)"
    r"|no (?:further|other)",
    # Leaves the whole clause open. First the forms that hold a "not": it is not to be read as a denial.
    "hedge": r"(?:cannot|can not|can't|not|could not) (?:be )?(?:entirely |fully )?(?:excluded?|ruled? out)"
    r"|(?:to )?rule out|perhaps|possibl[ey]|maybe|may|might|could|probabl[ey]|(?:un)?likely|suspected|suspicious"
    r"|questionable|equivocal|seems?|suggests?|suggestive of|differential",
    # Gives no answer. One free word may stand between, as in "cannot reliably say".
    "refuse": r"(?:cannot|can not|can't|could not|couldn't|unable to|not able to|impossible to|not possible to)"
    r" (?:\w+ )?(?:say|tell|determine|decide|assess|judge|answer|know|be (?:sure|certain))"
    r"|(?:not|un)[ -]?(?:sure|certain)|do(?:n't| not) know|no idea",
    # Quotes the clinician; what is quoted is no answer.
    "echo": r"you (?:said|say|believe|think|suggest|suggested|claim|claimed|state|stated|assume)"
    r"|(?:clinician|colleague|doctor) (?:said|says|believes?|thinks?|suggests?|claims?)"
    r"|(?:prior|previous|earlier) (?:assessment|claim|answer)|as (?:suggested|claimed|stated)",
    # Stands behind what it denies, and with it what is listed there: "blasts and clots are absent".
    "after": r"(?:is|are|was|were|has been|have been) (?:absent|excluded|ruled out"
    r"|not (?:seen|present|identified|visible|found|evident|there))|ha(?:s|ve) resolved|ruled out|absent",
    # Denies whatever follows in its clause.
    "negation": r"no|not|non|never|neither|nor|none|without|absence of|free of|negative for|denies|lacks?|lacking"
    r"|rather than|instead of|rules? out|excludes?|isn't|aren't|doesn't|don't",
    # Begins a new clause, in which no earlier cue holds; "and" only before a subject of its own.
    "turn": r"but|however|although|though|yet|whereas|while|because|since|therefore|so|and(?= (?:the|it|this|there) )",
}
"""Of answers in sentences, in any case: which answer is stated."""

# Of short answers, in any case: yes or no.
NO = re.compile(r"\b(?:no|not|nope|none|never|false(?!\s+\w)|without|negative|cannot|\w+n't)\b", re.IGNORECASE)
# "Not normal" and "no doubt" deny nothing that a yes/no question asks for.
NO_DENIAL = re.compile(
    r"\b(?:no|not|without(?: an?| any)?|never|none of (?:it|this|that|them))(?: (?:is|are|entirely|completely|longer))?"
    r" (?:without|doubt|question|normal|clear|healthy|free|absent|only|just|merely|excluded?|ruled out|unlikely"
    r"|negative|unremarkable)\b",
    re.IGNORECASE,
)
TWICE_DENIED = re.compile(r"\b(?:not|never|\w+n't)(?: (?:think|believe|say))? (?:no|not)\b", re.IGNORECASE)
OPENS_WITH_NO = re.compile(
    r"\W*(?:there (?:is|are) )?(?:no|not(?= \w)|nope|none|never|false|without|negative)\b", re.IGNORECASE
)
SHOWS = r"(?:shows?|ha(?:s|ve)|contains?|reveals?|demonstrates?|sees?|finds?)"
# A negation denies what was asked only where it governs a clause; "that makes no sense" holds a "no", and is none.
DENIES = re.compile(
    rf"{OPENS_WITH_NO.pattern}|.*\bno\W*\Z|.*\b(?:is|are|was|were|do|does|did|has|have)(?: not|n't)\b"
    rf"|.*\b(?:there (?:is|are)|{SHOWS}) (?:no|none|neither)\b|.*\b(?:cannot|can't|can not)\b|.*\bnegative for\b"
    r"|.*\b(?:not|without)(?: (?:any|an?))?(?: \w+ly)?"
    r" (?:evidence|signs?|seen|present|visible|detected|identified|found)\b",
    re.IGNORECASE,
)
