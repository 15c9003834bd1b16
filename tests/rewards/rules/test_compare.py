from rewards.rules.compare import Comparison, claims_nothing, compare
from rewards.rules.facts import Facts, Finding


def effusion(side):
    return Facts(rule_set="chest_report@1", findings={"effusion": Finding(polarity="present", side=side)})


def test_one_side_of_a_bilateral_finding_is_found():
    told = compare(effusion("bilateral"), effusion("left"))
    assert (told.found, told.hallucinations) == (("effusion",), ())


def test_both_sides_of_a_one_sided_finding_are_a_hallucination():
    told = compare(effusion("left"), effusion("bilateral"))
    assert (told.found, told.hallucinations, told.omissions) == ((), ("effusion",), ())


def test_the_other_side_is_a_hallucination_and_none_is_not():
    assert compare(effusion("left"), effusion("right")).hallucinations == ("effusion",)
    assert compare(effusion("left"), effusion(None)).found == ("effusion",)


PRESENT, ABSENT, DOUBTED = (Finding(polarity=polarity) for polarity in ("present", "absent", "uncertain"))


def chest(**findings):
    return Facts(rule_set="chest_xray@1", findings=findings)


TRUTH = chest(
    nodule=Finding(polarity="present", side="left"),
    effusion=Finding(polarity="present", side="bilateral"),
    cardiomegaly=PRESENT,
    consolidation=DOUBTED,
)
CLAIMED = chest(
    nodule=Finding(polarity="present", side="right"),
    effusion=Finding(polarity="present", side="left"),
    consolidation=PRESENT,
    pneumothorax=PRESENT,
)
"""Wrong side, one side of both, doubted, and not known; cardiomegaly is left out."""


def test_every_kind_of_claim_at_once():
    for told in (compare(TRUTH, CLAIMED), compare(TRUTH, CLAIMED, unsupported="wrong")):
        assert told == Comparison(
            claims=("nodule", "effusion", "pneumothorax"),
            hallucinations=("nodule", "pneumothorax"),
            true_findings=("nodule", "effusion", "cardiomegaly"),
            found=("effusion",),
            omissions=("cardiomegaly",),
            unsupported=("pneumothorax",),
        )
    ignoring = compare(TRUTH, CLAIMED, unsupported="ignore")
    assert (ignoring.claims, ignoring.hallucinations) == (("nodule", "effusion"), ("nodule",))
    assert ignoring.unsupported == ("pneumothorax",)


def test_a_claim_of_what_is_denied_is_a_hallucination_and_a_denial_of_it_is_nothing():
    denied = chest(nodule=ABSENT, effusion=PRESENT)
    assert compare(denied, chest(nodule=PRESENT, effusion=ABSENT)) == Comparison(
        claims=("nodule",), hallucinations=("nodule",), true_findings=("effusion",), found=(), omissions=("effusion",)
    )
    assert compare(denied, chest(nodule=ABSENT, effusion=PRESENT)).claims == ("effusion",)


def test_a_text_claims_nothing_if_it_denies_and_doubts_what_the_truth_doubts():
    truth = chest(nodule=ABSENT, effusion=DOUBTED)
    assert claims_nothing(truth, chest(nodule=ABSENT, effusion=DOUBTED))
    assert not claims_nothing(truth, chest(nodule=ABSENT))
    assert not claims_nothing(truth, chest(nodule=DOUBTED, effusion=DOUBTED))
    assert not claims_nothing(truth, chest(nodule=PRESENT, effusion=DOUBTED))
    assert not claims_nothing(chest(nodule=ABSENT), chest())
    assert claims_nothing(chest(nodule=ABSENT), chest(nodule=ABSENT))
