import json
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from transformers import AutoModelForImageTextToText

from alignment.config.data_entries import parquet
from alignment.config.generation_section import GenerationSection
from alignment.data.prompt_rows import COLUMNS, limited, read_reference, read_rows
from alignment.evaluation.answer_files import outcomes_of
from alignment.evaluation.answers import generate_answers
from alignment.evaluation.controls import baselines, blinded, controls_for
from alignment.evaluation.evaluate import evaluate
from alignment.evaluation.evaluation_file import Evaluation
from alignment.evaluation.kept_answers import KeptAnswers
from alignment.evaluation.pictures import pictured
from alignment.metrics.unjudged import unjudged_rows
from alignment.models.generation import model_inputs
from alignment.models.processors import load_processor
from alignment.models.tiny import build_tiny
from alignment.provenance.data_summary import data_summary
from data_builders.cards import card_of_rows
from data_builders.digest import sha256
from data_builders.imaging.images import image_key, pixels
from data_builders.schema import assistant_turn, user_turn
from rewards.config.input_error import InputError
from rewards.rules.facts import Facts, Finding

TEXTS = ["Is there a nodule?", "Where is the nodule?", "Write the report.", "Yes", "No", "No nodule."]


def png(seed, size=(32, 24)):
    values = np.random.default_rng(seed).integers(0, 256, size=(size[1], size[0]), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(values).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def rows_of(patient, seed):
    side = "left" if seed % 2 else "right"
    nodule = Finding(polarity="present", side=side, boxes=((10 + seed, 10, 30 + seed, 30),))
    facts = Facts(rule_set="chest_xray@1", findings={"nodule": nodule}).to_json()
    asked = [
        ("presence", "Is there a nodule?", "Yes", None),
        ("box", "Where is the nodule?", None, [[10 + seed, 10, 30 + seed, 30]]),
        ("report", "Write the report.", f"There is a nodule on the {side}.", None),
    ]
    return [
        {
            "images": [png(seed)], "prompt": user_turn(question), "answer": answer, "boxes": boxes,
            "facts": facts, "rule_set": "chest_xray@1", "task": task, "patient": patient,
            "id": f"{patient}-{task}",
        }
        for task, question, answer, boxes in asked
    ]  # fmt: skip


def some_rows(num_patients=4):
    return [row for n in range(num_patients) for row in rows_of(f"p{n}", n)]


def save(rows, folder):
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "test.parquet")
    return folder / "test"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny(TEXTS, folder, image_size=32, hidden_size=32, vision_hidden_size=32)
    return AutoModelForImageTextToText.from_pretrained(folder), load_processor(str(folder))


def test_an_evaluation_leaves_figures_answers_pictures_and_a_page(tiny, tmp_path):
    data = save(some_rows(), tmp_path / "data" / "prompt")
    card = {
        "sha256": {"prompt/test.parquet": sha256(parquet(str(data)))},
        "patients": {"test": 4},
        "assign": {"p0": "a"},
    }
    (tmp_path / "data" / "card.json").write_text(json.dumps(card))
    made = evaluate(*tiny, data, out=tmp_path / "out", reference=data, num_resamples=50, weights_sha256="a" * 64)
    assert Evaluation.read(tmp_path / "out") == made
    assert list(made.metrics) == ["clean", "noise", "shuffled", "habit", "mean_box_true_side"]
    assert (made.num_rows, made.num_patients, made.model_sha256) == (12, 4, "a" * 64)
    assert (made.protocol, made.trained_on) == ("clinalign", None)
    assert made.data_card == data_summary(parquet(str(data)), made.data_sha256)
    assert (made.data_card["patients"], made.rule_sets) == (4, ["chest_xray@1"])
    lines = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [row["id"] for row in some_rows()]
    assert set(lines[0]["responses"]) == {"clean", "noise", "shuffled", "habit"}
    assert len(list((tmp_path / "out" / "pictures").glob("*.png"))) == 4
    assert "<svg" in (tmp_path / "out" / "report.html").read_text()


def test_the_answer_to_a_row_does_not_depend_on_its_batch(tiny):
    rows = some_rows()
    together = generate_answers(*tiny, rows, generation=GenerationSection(batch_size=8))
    alone = [generate_answers(*tiny, [row], generation=GenerationSection(batch_size=1))[0] for row in rows]
    assert together == alone


def test_rows_without_images_are_answered_too(tiny):
    blank = {"images": [], "prompt": user_turn("Is there a nodule?", num_images=0)}
    assert len(generate_answers(*tiny, [row | blank for row in some_rows(1)])) == 3


def test_generation_leaves_the_model_in_the_mode_it_was(tiny):
    model, processor = tiny
    model.train()
    generate_answers(model, processor, some_rows(1)[:1])
    assert model.training


def test_baselines_take_the_habits_of_instruction_rows_from_what_their_completions_say(tmp_path):
    row = {k: v for k, v in rows_of("p0", 1)[1].items() if k not in ("answer", "boxes")}
    taught = row | {"completion": assistant_turn("nodule [[0,0,50,50]]")}
    (learnt,) = read_reference(save([taught], tmp_path / "instruction"))
    assert learnt["boxes"] == [[0, 0, 50, 50]]
    asked, said = baselines(rows_of("p1", 3), [learnt])["mean_box_true_side"]
    assert [r["task"] for r in asked] == ["box"]
    assert json.loads(said[0]) == [[0, 0, 50, 50]]


def test_noise_has_the_size_of_the_image_and_is_the_same_every_time():
    rows = some_rows(2)
    first, again = (blinded(rows, "noise", seed=1) for _ in range(2))
    assert first[0]["images"][0].size == (32, 24)
    assert [image_key(r["images"][0]) for r in first] == [image_key(r["images"][0]) for r in again]
    assert first[0]["images"][0].tobytes() != first[3]["images"][0].tobytes()


def test_a_swapped_image_is_of_another_patient_with_other_findings():
    rows = some_rows(6)
    owner = {row["images"][0]["bytes"]: row for row in rows}
    for row, swapped in zip(rows, blinded(rows, "shuffled", seed=0), strict=True):
        other = owner[swapped["images"][0]["bytes"]]
        assert other["patient"] != row["patient"]
        assert ("left" in other["facts"]) != ("left" in row["facts"])
        assert swapped["prompt"] == row["prompt"]


def test_one_patient_is_swapped_with_another_of_its_own_images():
    rows = rows_of("p", 0) + rows_of("p", 2)
    swapped = blinded(rows, "shuffled", seed=0)
    assert all(s["images"] != row["images"] for s, row in zip(swapped, rows, strict=True))


def test_images_that_cannot_be_swapped_get_no_shuffled_control():
    assert controls_for(rows_of("p", 0)) == ["noise"]
    assert controls_for([row | {"images": []} for row in some_rows()]) == []
    with pytest.raises(InputError, match="no other image with other facts"):
        blinded(rows_of("p", 0), "shuffled", seed=0)


def test_the_baseline_is_the_mean_box_and_the_commonest_answer():
    reference = [row for n in range(4) for row in rows_of(f"r{n}", n)]
    found = baselines(rows_of("p", 0), reference)
    rows, answers = found["habit"]
    assert [row["task"] for row in rows] == ["presence", "box", "report"]
    # x1 = 10, 11, 12, 13: mean 11.5, rounded to even 12; x2 = 31.5 -> 32
    assert answers[:2] == ["Yes", "[[12, 10, 32, 30]]"]
    # on the right are the even ones, x1 = 10 and 12
    assert found["mean_box_true_side"][1] == ["[[11, 10, 31, 30]]"]


def test_a_question_without_a_habit_is_left_out_of_the_baseline():
    rows = rows_of("p", 0)
    assert baselines(rows, rows[:1])["mean_box_true_side"] == ([], [])


def test_a_limit_draws_the_same_rows_every_time():
    rows = some_rows()
    kept = limited(rows, limit=5, seed=2)
    assert kept == limited(rows, limit=5, seed=2)
    assert len(kept) == 5
    assert limited(rows, limit=99, seed=2) == rows
    with pytest.raises(InputError, match="at least 1 row"):
        limited(rows, limit=0, seed=0)


def test_pictures_are_chosen_one_a_patient_while_there_are_patients():
    lines = [
        {"image": f"{patient}{n}", "patient": patient, "task": task}
        for patient in "abcdefghijklmn" for n in range(2) for task in ("box", "report")
    ]  # fmt: skip
    chosen = pictured(lines)
    assert len(chosen) == 12
    assert len({key[0] for key in chosen}) == 12


def test_rows_of_another_kind_are_refused_by_the_missing_column(tmp_path):
    data = save([{"images": [], "prompt": user_turn("x")}], tmp_path)
    with pytest.raises(InputError, match="no column answer, boxes, facts"):
        read_rows(data)


def test_an_empty_split_is_refused(tmp_path):
    table = pa.Table.from_pylist(some_rows(1)).slice(0, 0).select(list(COLUMNS))
    pq.write_table(table, tmp_path / "test.parquet")
    with pytest.raises(InputError, match="holds no rows"):
        read_rows(tmp_path / "test")


def test_a_folder_without_an_evaluation_is_refused(tmp_path):
    with pytest.raises(InputError, match="clinalign eval"):
        Evaluation.read(tmp_path)
    (tmp_path / "evaluation.json").write_text("{}")
    with pytest.raises(InputError, match="not an evaluation"):
        Evaluation.read(tmp_path)


def test_data_without_a_card_have_none(tmp_path):
    assert card_of_rows(save(some_rows(1), tmp_path / "a" / "b")) is None


def unruled(row, **changes):
    """The row as a published set has it: nothing known of its image."""
    return row | {"facts": '{"rule_set":""}', "rule_set": ""} | changes


def test_rows_that_no_metric_judges_are_counted_by_reason_in_figures_answers_and_page(tiny, tmp_path):
    presence, box, report = rows_of("p0", 1)
    report = unruled(report, answer=None)
    rows = [presence, unruled(box), report, unruled(box, id="b", boxes=None), report | {"id": "r"}]
    evaluation = evaluate(*tiny, save(rows, tmp_path / "data"), out=tmp_path / "out", num_resamples=9)
    assert evaluation.unjudged == {"report without facts": 2, "box without true boxes": 1}
    assert Evaluation.read(tmp_path / "out").unjudged == evaluation.unjudged
    assert evaluation.metrics["clean"]["mean_iou"].num_rows == 1  # the box is judged without a rule set
    lines = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    assert [line["unjudged"] for line in lines] == [
        None, None, "report without facts", "box without true boxes", "report without facts",
    ]  # fmt: skip
    page = (tmp_path / "out" / "report.html").read_text()
    assert "3 of 5 rows of" in page
    assert "2 x report without facts; 1 x box without true boxes." in page


def test_rows_of_which_none_can_be_judged_are_refused_before_a_model_answers(tmp_path):
    rows = [unruled(rows_of(f"p{n}", n)[2], answer=None) for n in range(3)]
    data = save(rows, tmp_path / "data")
    with pytest.raises(InputError, match=r"no metric judges any of its 3 rows \(3 x report without facts\). Give"):
        evaluate(None, None, data, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rows_that_are_all_judged_leave_nothing_to_tell():
    assert unjudged_rows(some_rows(1)) == {}


def test_unknown_facts_may_be_null_or_empty(tmp_path):
    presence, box, _ = rows_of("p0", 1)
    rows = read_rows(save([presence | {"facts": None, "rule_set": None}, box | {"facts": ""}], tmp_path))
    assert [(row["facts"], row["rule_set"]) for row in rows] == [
        ('{"rule_set":""}', ""), ('{"rule_set":""}', "chest_xray@1"),
    ]  # fmt: skip
    assert blinded(rows, "noise", seed=0)
    assert [asked["task"] for asked in baselines(rows, rows)["habit"][0]] == ["presence", "box"]


def test_unreadable_facts_are_named_by_their_row(tmp_path):
    with pytest.raises(InputError, match="row p0-presence: 'facts': not readable"):
        read_rows(save([rows_of("p0", 1)[0] | {"facts": "{"}], tmp_path))


def test_the_image_of_each_box_is_kept_so_that_answers_can_be_judged_again(tiny, tmp_path):
    row = rows_of("p0", 1)[1] | {"task": "referring", "box_images": [1]}
    made = evaluate(*tiny, save([row], tmp_path / "data"), out=tmp_path / "out", blind_controls=False)
    [again] = outcomes_of(tmp_path / "out", "clean")
    assert again.counts["true_boxes[referring]"] == made.metrics["clean"]["mean_iou[referring]"].num_rows == 1


def test_stored_and_decoded_images_are_the_same_picture():
    stored = png(7)
    assert image_key(pixels(stored)) == image_key(pixels(pixels(stored)))


def test_sampled_answers_are_those_of_their_seed_and_resume_as_they_were(tiny, tmp_path):
    rows = [row for n in range(3) for row in rows_of(f"p{n}", n)]
    how = GenerationSection(batch_size=2, max_new_tokens=4, temperature=1.0)
    first, again = (generate_answers(*tiny, rows, generation=how) for _ in range(2))
    assert first == again
    assert first != generate_answers(*tiny, rows, generation=how.model_copy(update={"seed": 1}))
    assert first != generate_answers(*tiny, rows, generation=how.model_copy(update={"temperature": None}))
    kept = KeptAnswers(tmp_path, {})
    assert generate_answers(*tiny, rows, generation=how, kept=kept) == first
    file = tmp_path / "answers.unfinished.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))  # one batch was answered
    assert generate_answers(*tiny, rows, generation=how, kept=KeptAnswers(tmp_path, {})) == first


def test_batches_of_tokens_hold_no_more_than_they_may(tiny, monkeypatch):
    from alignment.evaluation import answers as module

    rows = [row for n in range(3) for row in rows_of(f"p{n}", n)]
    whole, sizes = module.generate, []

    def watched(model, processor, batch, **how):
        inputs = model_inputs(processor, batch)
        sizes.append(inputs["input_ids"].numel() + len(batch) * how["max_new_tokens"])
        return whole(model, processor, batch, **how)

    monkeypatch.setattr(module, "generate", watched)
    generate_answers(*tiny, rows, generation=GenerationSection(max_new_tokens=4, batch_tokens=60))
    few, most = len(sizes), max(sizes)
    generate_answers(*tiny, rows, generation=GenerationSection(max_new_tokens=4))
    assert most <= 60 < max(sizes)
    assert few > len(sizes) - few
