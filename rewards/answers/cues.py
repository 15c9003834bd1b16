"""Cues of free answers: hedges, refusals, echoes, negations, and the words that turn a sentence round."""

CUES = {
    # Hold a negation and state all the same: "no doubt", "not only"; tried before all others.
    "pseudo": r"(?:there is |have )?(?:no|without(?: a| any)?) (?:doubt|question)|undoubtedly|not (?:only|just|merely)"
    r"|no (?:further|other)",
    # Leave it open: "cannot be excluded", "possibly"; "un" stands with "likely", for both are doubts.
    "hedge": r"(?:cannot|can not|can't|not|could not) (?:be )?(?:entirely |fully )?(?:excluded?|ruled? out)"
    r"|(?:to )?rule out|perhaps|possibl[ey]|maybe|may|might|could|probabl[ey]|(?:un)?likely|suspected|suspicious"
    r"|questionable|equivocal|seems?|suggests?|suggestive of|differential",
    # Give no answer: "cannot tell", "not sure", "do not know".
    "refuse": r"(?:cannot|can not|can't|could not|couldn't|unable to|not able to|impossible to|not possible to)"
    r" (?:\w+ )?(?:say|tell|determine|decide|assess|judge|answer|know|be (?:sure|certain))"
    r"|(?:not|un)[ -]?(?:sure|certain)|do(?:n't| not) know|no idea",
    # Tell what another one claims, which is no claim of the answer: "as you said", "the clinician believes".
    "echo": r"you (?:said|say|believe|think|suggest|suggested|claim|claimed|state|stated|assume)"
    r"|(?:clinician|colleague|doctor) (?:said|says|believes?|thinks?|suggests?|claims?)"
    r"|(?:prior|previous|earlier) (?:assessment|claim|answer)|as (?:suggested|claimed|stated)",
    # Deny what stands before them: "effusion is absent", "pneumonia has been ruled out".
    "after": r"(?:is|are|was|were|has been|have been) (?:absent|excluded|ruled out"
    r"|not (?:seen|present|identified|visible|found|evident|there))|ha(?:s|ve) resolved|ruled out|absent",
    # Deny what follows: "no effusion", "rather than pneumonia", "denies".
    "negation": r"no|not|non|never|neither|nor|none|without|absence of|free of|negative for|denies|lacks?|lacking"
    r"|rather than|instead of|rules? out|excludes?|isn't|aren't|doesn't|don't",
    # End what a cue before them holds for: "no effusion, *but* ..."; "and" only before a new subject.
    "turn": r"but|however|although|though|yet|whereas|while|because|since|therefore|so|and(?= (?:the|it|this|there) )",
}
