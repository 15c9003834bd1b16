from rewards.compare import compare
from rewards.facts import Facts, Finding


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
