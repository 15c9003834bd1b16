from collections import Counter
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler

from alignment.config.curriculum_section import CurriculumSection, curriculum_faults
from alignment.data.curriculum_sampler import recipe_order, segments, shares, stream
from alignment.data.row_order import EpochSampler
from rewards.config.input_error import InputError

PUBLISHED = {
    "advanced_biomarkers": 30, "specific_qa": 15, "general_qa": 15, "staging_introduction": 20, "staging_logic": 20,
    "referral_reasoning": 25, "report_writing": 15, "full_report_writing": 20, "staging_accuracy_guidelines": 40,
    "staging_accuracy": 30,
}  # fmt: skip
SHARES = (13.0, 6.5, 6.5, 8.7, 8.7, 10.9, 6.5, 8.7, 17.4, 13.0)


def section_of(*stages: dict, **more) -> CurriculumSection:
    return CurriculumSection.model_validate({"stages": list(stages), **more})


def columns(counts: dict[str, dict[str, int]]) -> tuple[list[str], list[str]]:
    """The columns ``stage`` and ``task`` of rows, so many of each task."""
    pairs = [(stage, task) for stage, tasks in counts.items() for task, n in tasks.items() for _ in range(n)]
    return [stage for stage, _ in pairs], [task for _, task in pairs]


def drawn_tasks(counts, section, **more) -> list[str]:
    stages, tasks = columns(counts)
    return [tasks[place] for place in stream(stages, tasks, section, **{"rows_per_step": 8, "seed": 1, **more})]


def test_alpha_one_reproduces_the_published_shares():
    own = shares(PUBLISHED, section_of({"of": ["specialism"], "steps": 1}))
    assert [round(100 * share, 1) for share in own.values()] == list(SHARES)


def test_a_hundred_thousand_draws_are_within_one_per_cent_of_the_published_shares():
    drawn = Counter(drawn_tasks({"specialism": PUBLISHED}, section_of({"of": ["specialism"], "steps": 12_500})))
    assert sum(drawn.values()) == 100_000
    for (task, size), share in zip(PUBLISHED.items(), SHARES, strict=True):
        assert abs(drawn[task] / 100_000 - size / 230) < 0.01
        assert abs(100 * drawn[task] / 100_000 - share) < 1.0


def test_alpha_zero_draws_every_task_equally_often_and_weights_count():
    section = section_of({"of": ["s"], "steps": 1}, alpha=0.0, weights={"b": 3.0})
    assert shares({"a": 90, "b": 10, "c": 1}, section) == pytest.approx({"a": 0.2, "b": 0.6, "c": 0.2})


def test_stages_follow_each_other():
    section = section_of({"of": ["one"], "steps": 10}, {"of": ["two"], "steps": 5})
    drawn = drawn_tasks({"one": {"a": 7}, "two": {"b": 9}}, section)
    assert drawn == ["a"] * 80 + ["b"] * 40


def test_a_share_of_the_draws_replays_the_stages_before():
    section = section_of({"of": ["one"], "steps": 100}, {"of": ["two"], "steps": 1000, "replay": 0.2})
    later = drawn_tasks({"one": {"a": 30, "c": 10}, "two": {"b": 9}}, section)[800:]
    counts = Counter(later)
    assert abs((counts["a"] + counts["c"]) / len(later) - 0.2) < 0.02
    assert abs(counts["a"] / (counts["a"] + counts["c"]) - 0.75) < 0.05


def test_a_task_waits_until_those_before_it_were_passed_through():
    section = section_of({"of": ["s"], "steps": 100}, after={"late": ["early"], "last": ["late"]})
    drawn = drawn_tasks({"s": {"early": 40, "late": 40, "last": 40}}, section)
    assert drawn[:40] == ["early"] * 40
    first = {task: drawn.index(task) for task in ("early", "late", "last")}
    assert first["early"] < first["late"] < first["last"]
    assert "last" not in drawn[: first["late"] + 40]
    assert set(drawn[-100:]) == {"early", "late", "last"}


def test_a_gate_of_zero_makes_nothing_wait():
    section = section_of({"of": ["s"], "steps": 1}, after={"late": ["early"]}, gate=0.0)
    assert [set(s.chances) for s in segments({"early": 4, "late": 4}, section, 8)] == [{"early", "late"}]


def test_a_task_that_waits_for_one_of_another_stage_does_not_wait():
    section = section_of({"of": ["s"], "steps": 1}, after={"late": ["elsewhere"]})
    assert set(drawn_tasks({"s": {"late": 3}}, section)) == {"late"}


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 50), min_size=1),
    st.integers(1, 400),
    st.floats(0.0, 3.0),
    st.data(),
)
def test_the_segments_of_any_stage_fill_its_draws_and_open_every_task(sizes, num_draws, gate, data):
    names = sorted(sizes)
    after = {name: data.draw(st.lists(st.sampled_from(names[:k]), unique=True)) for k, name in enumerate(names) if k}
    section = section_of({"of": ["s"], "steps": 1}, after=after, gate=gate)
    found = segments(sizes, section, num_draws)
    assert sum(s.num_draws for s in found) == num_draws
    for one, other in pairwise(found):
        assert set(one.chances) <= set(other.chances)
    assert all(abs(sum(s.chances.values()) - 1) < 1e-9 for s in found)


def test_every_row_of_a_task_comes_once_before_any_comes_twice():
    stages, tasks = columns({"s": {"a": 50}})
    rows = stream(stages, tasks, section_of({"of": ["s"], "steps": 25}), rows_per_step=4, seed=3)
    assert sorted(rows[:50]) == sorted(rows[50:]) == list(range(50))
    assert list(rows[:50]) != list(rows[50:])


def test_a_task_goes_on_in_its_pass_when_a_later_stage_draws_it_again():
    stages, tasks = columns({"s": {"a": 64}})
    section = section_of({"of": ["s"], "steps": 8}, {"of": ["s"], "steps": 8})
    assert sorted(stream(stages, tasks, section, rows_per_step=4, seed=3)) == list(range(64))


def test_the_stream_depends_on_the_seed_and_on_nothing_else():
    stages, tasks = columns({"s": {"a": 50, "b": 9}})
    section = section_of({"of": ["s"], "steps": 25})
    first, again, other = (stream(stages, tasks, section, rows_per_step=4, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_processes_share_the_stream_out_and_a_resumed_one_takes_the_rest():
    stages, tasks = columns({"s": {"a": 50, "b": 30}})
    rows = stream(stages, tasks, section_of({"of": ["s"], "steps": 6}), rows_per_step=8, seed=1)
    ranks = [
        [
            row
            for batch in BatchSamplerShard(BatchSampler(EpochSampler(lambda _: rows.tolist()), 4, False), 2, rank)
            for row in batch
        ]
        for rank in (0, 1)
    ]
    assert sorted(ranks[0] + ranks[1]) == sorted(rows)
    step_3 = ranks[0][8:12] + ranks[1][8:12]
    assert step_3 == list(rows[16:24])
    assert list(EpochSampler(lambda _: rows.tolist()))[16:] == list(rows[16:])


def test_a_recipe_gives_its_steps_and_its_batch():
    data = {"stage": ["s"] * 10, "task": ["a"] * 10}
    arguments = SimpleNamespace(
        per_device_train_batch_size=2, gradient_accumulation_steps=3, world_size=2, data_seed=None, seed=5, max_steps=-1
    )
    recipe = SimpleNamespace(data=SimpleNamespace(curriculum=section_of({"of": ["s"], "steps": 4})))
    order = recipe_order(recipe, data, arguments)
    assert order is not None
    assert (len(order(0)), arguments.max_steps) == (4 * 12, 4)


def test_weights_and_prerequisites_come_from_a_curriculum_file():
    ruled = section_of({"of": ["s"], "steps": 1}, file="retina_vlm", weights={"specific_questions": 2.0}).ruled()
    assert ruled.weights["specific_questions"] == 2.0
    assert ruled.weights["advanced_biomarkers"] == 1.0
    assert ruled.after["staging_logic"] == ["staging_introduction"]


@pytest.mark.parametrize(
    ("section", "says"),
    [
        (section_of({"of": ["specialsm"], "steps": 1}), "no row of the data is of stage 'specialsm'. Did you mean"),
        (section_of({"of": ["specialism"], "steps": 1, "replay": 0.1}), "is to replay, and no stage is before it"),
        (
            section_of({"of": ["specialism"], "steps": 1}, weights={"a": 0.0, "b": 0.0}),
            "every task of a, b has weight 0",
        ),
        (
            section_of({"of": ["specialism"], "steps": 1}, after={"a": ["b"], "b": ["a"]}),
            "a after b after a: tasks wait for each other",
        ),
    ],
)
def test_a_curriculum_that_the_data_cannot_follow_is_refused(section, says):
    stages, tasks = columns({"specialism": {"a": 3, "b": 3}})
    with pytest.raises(InputError, match=r"data\.curriculum") as refused:
        stream(stages, tasks, section, rows_per_step=2, seed=0)
    assert says in str(refused.value)


def test_faults_of_a_recipe_are_named_before_training():
    section = section_of({"of": ["s"], "steps": 5})
    trainer = {"max_steps": 9}
    faults = curriculum_faults(section, trainer, ["task"])
    assert len(faults) == 2
    assert "reads column 'stage'" in faults[0]
    assert "have 5 steps" in faults[1]
    assert curriculum_faults(section, {"max_steps": 5}, ["stage", "task"]) == []
    assert curriculum_faults(None, trainer, []) == []


def test_a_million_draws_take_little_time():
    stages, tasks = columns({"s": {name: 10_000 for name in "abcdefghij"}})
    rows = stream(stages, tasks, section_of({"of": ["s"], "steps": 10_000}), rows_per_step=100, seed=0)
    assert len(rows) == 1_000_000
    assert torch.tensor(rows).max() < 100_000
