"""Cues of free answers: hedges, refusals, echoes, negations, and the words that turn a sentence round."""

CUES = {
    "pseudo": r"(?:there is |have )?(?:no|without(?: a| any)?) (?:doubt|question)|undoubtedly|not (?:only|just|merely)"
    r"|no (?:further|other)",
    "hedge": r"(?:cannot|can not|can't|not|could not) (?:be )?(?:entirely |fully )?(?:excluded?|ruled? out)"
    r"|(?:to )?rule out|perhaps|possibl[ey]|maybe|may|might|could|probabl[ey]|(?:un)?likely|suspected|suspicious"
    r"|questionable|equivocal|seems?|suggests?|suggestive of|differential",
    "refuse": r"(?:cannot|can not|can't|could not|couldn't|unable to|not able to|impossible to|not possible to)"
    r" (?:\w+ )?(?:say|tell|determine|decide|assess|judge|answer|know|be (?:sure|certain))"
    r"|(?:not|un)[ -]?(?:sure|certain)|do(?:n't| not) know|no idea",
    "echo": r"you (?:said|say|believe|think|suggest|suggested|claim|claimed|state|stated|assume)"
    r"|(?:clinician|colleague|doctor) (?:said|says|believes?|thinks?|suggests?|claims?)"
    r"|(?:prior|previous|earlier) (?:assessment|claim|answer)|as (?:suggested|claimed|stated)",
    "after": r"(?:is|are|was|were|has been|have been) (?:absent|excluded|ruled out"
    r"|not (?:seen|present|identified|visible|found|evident|there))|ha(?:s|ve) resolved|ruled out|absent",
    "negation": r"no|not|non|never|neither|nor|none|without|absence of|free of|negative for|denies|lacks?|lacking"
    r"|rather than|instead of|rules? out|excludes?|isn't|aren't|doesn't|don't",
    "turn": r"but|however|although|though|yet|whereas|while|because|since|therefore|so|and(?= (?:the|it|this|there) )",
}
