from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rewards.rules.decision import Decision, first_decided, met, named
from rewards.rules.rule_set import load_rule_set, shipped
from rewards.rules.valid_sets import largest_agreement, solutions, space_size

SIZES = {
    "bone_marrow": (5, 288),
    "ecg_mi": (11, 24),
    "chest_triage": (3, 18),
    "phantom_marrow": (8, 288),
    "blood_smear": (8, 16),
}
DECISIONS = {name: load_rule_set(name).decision for name in SIZES}
MARROW, ECG, CHEST = (DECISIONS[name] for name in ("bone_marrow", "ecg_mi", "chest_triage"))
POOL = {"train": ["x"], "test": ["y"]}


def node(*symbols, **keys):
    answers = {s: {"phrases": [s], "say": {"train": [f"{s}."], "test": [f"It is {s}."]}} for s in symbols}
    return {"gloss": "g", "ask": POOL, "answers": answers, **keys}


def decision(nodes, **keys):
    order = list(nodes)
    return Decision.model_validate(
        {"nodes": nodes, "order": order, "final": order[-1], "hint": POOL, "confirm": POOL, **keys}
    )


@pytest.mark.parametrize("name", SIZES)
def test_the_valid_set_has_the_size_that_the_rules_imply(name):
    found = DECISIONS[name]
    assert (len(found.tuples), space_size(found.domains)) == SIZES[name]


def test_every_shipped_decision_is_counted_here():
    assert {name for name in shipped() if load_rule_set(name).decision} == set(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_the_search_finds_what_trying_every_tuple_finds(name):
    found = DECISIONS[name]
    tried = [dict(zip(found.domains, symbols, strict=True)) for symbols in product(*found.domains.values())]
    assert [full for full in tried if found.possible(full)] == list(found.tuples)


def test_the_ecg_has_six_tuples_with_elevation_three_with_other_signs_and_two_without():
    by_signs = {}
    for full in ECG.tuples:
        by_signs.setdefault((full["st_elevation"], full["st_depression"]), []).append(full["diagnosis"])
    assert sorted(len(v) for k, v in by_signs.items() if k[0] == "elevated") == [3, 3]
    assert len(by_signs["level", "seen"]) == 3
    assert sorted(by_signs["level", "unseen"]) == ["normal", "nstemi"]


@pytest.mark.parametrize("name", SIZES)
@settings(deadline=None)
@given(data=st.data())
def test_listing_and_searching_agree_on_any_answers(name, data):
    found = DECISIONS[name]
    asked = data.draw(st.lists(st.sampled_from(list(found.nodes)), unique=True))
    said = {n: data.draw(st.sampled_from(found.domains[n])) for n in asked}
    searched = next(solutions(found.domains, found.possible, said), None) is not None
    assert found.is_valid(said) == searched == (found.agreement(said) == len(said))
    assert found.agreement(said) == largest_agreement(found.domains, found.possible, said)


def test_a_space_too_large_to_list_is_searched():
    nodes = {f"n{k}": node("a", "b", "c") for k in range(14)}
    chain = [{"when": {f"n{k}": "a"}, "then": {f"n{k + 1}": "a"}} for k in range(13)]
    large = decision(nodes, constraints=chain)
    assert large.tuples is None
    assert large.is_valid({"n0": "a", "n13": "a"})
    assert not large.is_valid({"n0": "a", "n13": "b"})
    assert large.agreement({"n0": "a", "n13": "b", "n5": "a"}) == 2


def test_pairs_that_fit_do_not_make_a_whole_that_fits():
    """The order 3-1-4-2-5 of the published consistency: each neighbouring pair co-occurs, the whole is no path."""
    said = {"abnormality": "normal", "quality": "high", "proliferation": "no abnormality", "region": "adequate"}
    said["diagnosis"] = "AML"
    names = list(said)
    for one, two in pairwise(names):
        assert MARROW.is_valid({one: said[one], two: said[two]})
    assert not MARROW.is_valid(said)
    assert MARROW.agreement(said) == 4


def test_a_conditional_node_is_asked_only_where_its_condition_holds():
    patterns = {full["abnormality"]: full["pattern"] for full in CHEST.tuples}
    assert patterns["normal"] == "n/a"
    assert not CHEST.is_valid({"abnormality": "normal", "pattern": "focal"})


def test_a_conditional_node_with_a_symbol_for_not_applicable_is_asked_and_says_so():
    nodes = {"sick": node("y", "n"), "where": node("left", "right", "nowhere", ask_if={"sick": "y"}, na="nowhere")}
    assert [tuple(full.values()) for full in decision(nodes).tuples] == [
        ("y", "left"),
        ("y", "right"),
        ("n", "nowhere"),
    ]


def test_shares_count_the_classes_as_equally_frequent():
    assert MARROW.shares["quality"] == pytest.approx({"high": 0.6, "low": 0.4})
    assert CHEST.shares["pattern"] == pytest.approx({"bilateral": 0.5, "focal": 0.5})
    assert ECG.shares["diagnosis"] == pytest.approx({"stemi": 2 / 11, "nstemi": 2 / 11, "normal": 7 / 11})


def test_classes_are_equally_frequent_however_many_tuples_each_has():
    # class one: a = x with either b, class two: (y, u). So x and y half each; u 1/4 + 1/2.
    nodes, paths = {"a": node("x", "y"), "b": node("u", "v")}, {"one": {"a": "x"}, "two": {"a": "y", "b": "u"}}
    assert decision(nodes, paths=paths).shares == {"a": {"x": 0.5, "y": 0.5}, "b": {"u": 0.75, "v": 0.25}}
    # without classes the four tuples are equally frequent
    assert decision(nodes).shares == {"a": {"x": 0.5, "y": 0.5}, "b": {"u": 0.5, "v": 0.5}}


def test_a_symbol_that_a_prior_leaves_out_has_no_share():
    assert decision({"a": node("x", "y")}, prior={"a": {"x": 1.0}}).shares["a"] == {"x": 1.0, "y": 0.0}


def test_rules_that_nothing_meets_leave_no_answer_to_agree_with():
    never = [{"when": {"a": "x"}, "then": {"a": "not x"}}, {"when": {"a": "y"}, "then": {"a": "not y"}}]
    none = decision({"a": node("x", "y")}, constraints=never)
    assert (none.tuples, none.agreement({"a": "x"}), none.is_valid({})) == ((), 0, False)
    assert none.shares == {"a": {"x": 0.0, "y": 0.0}}


def test_a_decision_has_a_node_and_an_order():
    content = {"nodes": {"a": node("x", "y")}, "order": ["a"], "final": "a", "hint": POOL, "confirm": POOL}
    assert Decision.model_validate(content).domains == {"a": ("x", "y")}
    for lacking in ({"nodes": {}}, {"order": []}):
        with pytest.raises(ValidationError, match="at least 1 item"):
            Decision.model_validate(content | lacking)


def test_a_given_prior_takes_the_place_of_equal_shares():
    nodes = {"a": node("x", "y")}
    assert decision(nodes, prior={"a": {"x": 0.9, "y": 0.1}}).shares["a"] == {"x": 0.9, "y": 0.1}


@pytest.mark.parametrize(
    ("record", "want"),
    [
        (
            {"field": "adequate", "blast_fraction": 0.3, "plasma_fraction": 0.01},
            ["high", "adequate", "abnormal", "AML"],
        ),
        ({"field": "adequate", "blast_fraction": 0.2, "plasma_fraction": 0.2}, ["high", "adequate", "abnormal", "MM"]),
        ({"field": "clot"}, ["low", "clot", "inadequate", "inadequate"]),
        ({"field": "adequate", "blast_fraction": 0.1}, ["high", "adequate", None, None]),
        ({}, [None, None, None, None]),
    ],
)
def test_labels_are_derived_from_thresholds_and_unknown_stays_unknown(record, want):
    found = MARROW.derived(record)
    assert [found[name] for name in ("quality", "region", "abnormality", "diagnosis")] == want


@pytest.mark.parametrize(
    ("record", "want"),
    [
        ({"report": "ST elevation, inferior", "codes": ["I2119", "E11"]}, ("elevated", "unseen", "order", "stemi")),
        ({"report": "inverted T waves", "codes": ["I214"]}, ("level", "seen", "order", "nstemi")),
        ({"report": "sinus rhythm", "codes": ["I214"]}, ("level", "unseen", "do not order", "nstemi")),
        (
            {"report": "ST depression", "codes": ["R07"], "troponin_measured": True},
            ("level", "seen", "order", "normal"),
        ),
        (
            {"report": "ST depression", "codes": [], "troponin_measured": False},
            ("level", "seen", "do not order", "normal"),
        ),
    ],
)
def test_labels_are_derived_from_code_sets_and_reports(record, want):
    found = ECG.derived(record)
    assert tuple(found.values()) == want
    assert ECG.is_valid(found)


def test_a_rule_that_may_hold_keeps_a_later_one_from_deciding():
    assert first_decided([("a", None), ("b", True)]) is None
    assert first_decided([("a", None), ("a", True)]) == "a"
    assert first_decided([("a", False), ("b", True), ("c", None)]) == "b"


def test_errors_weigh_by_what_they_mean_for_the_patient():
    assert MARROW.severity("diagnosis", "AML", "normal") == 1.0
    assert MARROW.severity("diagnosis", "AML", "MM") == 0.8
    assert MARROW.severity("diagnosis", "AML", "AML") == 0.0
    assert MARROW.credit("diagnosis", "AML", "cancer") == 0.5
    assert MARROW.credit("diagnosis", "AML", "AML") == 1.0
    assert MARROW.credit("diagnosis", "AML", "normal") == 0.0


@pytest.mark.parametrize(
    ("change", "want"),
    [
        ({"diagnosis": None}, "node 'diagnosis' has no answer"),
        ({"diagnosis": "ALM"}, "no answer 'ALM'. Did you mean 'AML'"),
        ({"diagnosis": "MM"}, "no valid path: high, adequate, abnormal, myeloblasts, MM"),
        ({}, None),
    ],
)
def test_a_record_that_the_rules_do_not_know_is_named(change, want):
    symbols = {**MARROW.tuples[1], **change}
    fault = MARROW.fault_of(symbols)
    assert fault is None if want is None else want in fault


@pytest.mark.parametrize(
    ("record", "want"),
    [
        ({"field": "adequate", "blast_fraction": 0.5, "plasma_fraction": 0.0}, None),
        ({"field": "unknown"}, "node 'quality' has no answer (from field: 'unknown')"),
        ({}, "node 'quality' has no answer (from field: not given)"),
        # the cells are not known, for want of a fraction, and with them the abnormality
        (
            {"field": "adequate", "plasma_fraction": 0.0},
            "node 'abnormality' has no answer (from proliferation: not given)",
        ),
        ({"field": 7}, "node 'quality' has no answer (from field: given)"),
    ],
)
def test_the_labels_that_decide_nothing_are_named_and_numbers_only_as_given(record, want):
    assert MARROW.record_fault(record) == want


def test_a_column_of_its_own_is_named_where_a_node_has_no_rule_and_a_wrong_path_names_none():
    plain = decision({"a": node("x", "y"), "b": node("u", "v")}, constraints=[{"when": {"a": "x"}, "then": {"b": "u"}}])
    assert plain.record_fault({"a": "x"}) == "node 'b' has no answer (from b: not given)"
    assert plain.record_fault({"a": "x", "b": "v"}) == "no valid path: x, v"
    assert plain.record_fault({"a": "y", "b": "v"}) is None


def test_a_valid_tuple_is_valid():
    assert MARROW.is_valid(MARROW.tuples[1])


def test_the_symbols_of_a_clause_are_named_without_not():
    assert (named("x"), named("not x"), named(["x", "y"])) == (["x"], ["x"], ["x", "y"])


def test_a_clause_takes_one_symbol_several_or_all_but_one():
    assert met({"a": "x"}, {"a": "x"}) is True
    assert met({"a": ["x", "y"]}, {"a": "z"}) is False
    assert met({"a": "not x"}, {"a": "z"}) is True
    assert met({"a": "not x"}, {}) is None
