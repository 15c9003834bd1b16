"""Trainer and sampler before the first step: transformers' own generate stands in for vLLM, with eyes of its own."""

import copy
from importlib.util import find_spec

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignment.checks.read_recipe import read_recipe
from alignment.models.loading import load_model
from alignment.models.prepared import built_texts
from alignment.models.processors import limit_pixels, load_processor
from alignment.models.tiny import build_tiny
from alignment.training.sampler_check import FirstToken, check_sampler, one_pixel_budget, vllm_pixels
from alignment.training.trainer import make_trainer
from rewards.config.input_error import InputError

pytestmark = pytest.mark.filterwarnings("default")
IMAGE = 9
without_vllm = pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")


def compared(ours, theirs, **more):
    check_sampler(ours, theirs, image_token_id=IMAGE, pixels={"size": {"longest_edge": 64}}, **more)


def test_equal_prompts_and_near_log_probabilities_pass():
    compared([FirstToken([1, IMAGE, IMAGE, 2], 5, -1.0)], [FirstToken([1, IMAGE, IMAGE, 2], 5, -1.05)])


def test_another_number_of_image_tokens_names_both_and_the_budget():
    with pytest.raises(
        InputError, match=r"2 image tokens in the trainer, 1 in the sampler.*model\.max_pixels"
    ) as caught:
        compared([FirstToken([1, IMAGE, IMAGE], 5, -1.0)], [FirstToken([1, IMAGE], 5, -1.0)])
    assert "'longest_edge': 64" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_text_is_not_blamed_on_pixels():
    with pytest.raises(InputError, match="tokenizer or chat template"):
        compared([FirstToken([1, IMAGE, 2], 5, -1.0)], [FirstToken([1, IMAGE, 3], 5, -1.0)])


def test_the_median_decides_on_log_probabilities():
    ids = [1, IMAGE]
    ours = [FirstToken(ids, 5, -1.0)] * 3
    compared(ours, [FirstToken(ids, 5, value) for value in (-1.0, -1.1, -4.0)])
    with pytest.raises(InputError, match=r"differs from the trainer's by 3\.000 nats"):
        compared(ours, [FirstToken(ids, 5, value) for value in (-1.0, -4.0, -4.0)])


def test_log_probabilities_that_cannot_be_compared_are_left_out():
    compared([FirstToken([1], 5, None)], [FirstToken([1], 5, -9.0)])
    compared([FirstToken([1], 5, -1.0)], [FirstToken([1], 5, None)])


@given(ids=st.lists(st.integers(0, 12), min_size=1, max_size=6), drop=st.integers(0, 5))
def test_any_lost_token_is_caught(ids, drop):
    shorter = [token for k, token in enumerate(ids) if k != drop % len(ids)]
    with pytest.raises(InputError):
        compared([FirstToken(ids, 5, -1.0)], [FirstToken(shorter, 5, -1.0)])


class Sampler:
    """What TRL calls vLLM by, done by transformers: its own weights, its own processor, its own image tokens."""

    def __init__(self, folder, max_pixels=None, weights=None):
        self.model = load_model(folder).eval()
        self.processor = load_processor(folder, max_pixels=max_pixels)
        if weights:
            self.model.load_state_dict(weights)
        self.synced = 0

    def sync_weights(self):
        self.synced += 1

    @torch.no_grad()
    def generate(self, prompts, images, num_generations, profiler=None):
        """As ``VLLMGeneration.generate``: prompt ids with the image tokens that this side makes of the images."""
        token = self.processor.image_token_id
        fields = [self.processor.image_processor(i, return_tensors="pt") for i in images]
        seen, answers, logprobs = [], [], []
        for ids, made in zip(prompts, fields, strict=True):
            count = int(made["image_grid_thw"].prod()) // self.processor.image_processor.merge_size**2
            first = ids.index(token)
            last = len(ids) - ids[::-1].index(token)
            own = [*ids[:first], *[token] * count, *ids[last:]]
            inputs = dict(made) | {"input_ids": torch.tensor([own]), "attention_mask": torch.ones(1, len(own)).long()}
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == token).long()
            out = self.model.generate(
                **inputs, max_new_tokens=4, do_sample=True, top_k=0, output_logits=True, return_dict_in_generate=True
            )
            answer = out.sequences[0, len(own) :].tolist()
            logps = [step[0].log_softmax(-1)[t].item() for step, t in zip(out.logits, answer, strict=True)]
            seen.append(own)
            answers.append(answer)
            logprobs.append([[value] for value in logps])
        return seen, answers, logprobs, [[[t] for t in answer] for answer in answers]


@pytest.fixture(scope="module")
def start(data, tmp_path_factory):
    """A tiny Qwen3-VL, whose image tokens depend on the pixel budget."""
    texts = list(built_texts(str(data / "instruction/sft")))
    return str(build_tiny(texts, tmp_path_factory.mktemp("start") / "tiny", family="qwen3_vl", image_size=64))


@pytest.fixture
def first_answers(write_recipe, start, tmp_path):
    """Lets a GRPO trainer take its first answers from a sampler."""

    def ask(sampler, **model):
        changes = {"num_generations": 2, "per_device_train_batch_size": 4, "max_completion_length": 4}
        recipe = read_recipe(write_recipe("grpo", model={"path": start, **model}, trainer=changes))
        trainer = make_trainer(recipe, tmp_path / "run")
        trainer.use_vllm, trainer._unchecked, trainer.vllm_generation = True, True, sampler
        trainer._last_loaded_step, trainer.args.generation_kwargs = -1, None
        rows = [trainer.train_dataset[k] for k in (0, 0, 1, 1)]
        trainer.model.train()
        torch.manual_seed(0)
        trainer._generate_and_score_completions(rows)
        return trainer

    return ask


def test_the_same_eyes_and_weights_pass_once(first_answers, start):
    sampler = Sampler(start)
    trainer = first_answers(sampler)
    assert sampler.synced == 1
    assert trainer._unchecked is False
    assert sampler.generate.__func__ is Sampler.generate


def test_one_pixel_budget_on_both_sides_passes(first_answers, start):
    first_answers(Sampler(start, max_pixels=32 * 32), max_pixels=32 * 32)


def test_another_pixel_budget_is_caught_before_the_first_step(first_answers, start):
    with pytest.raises(InputError, match=r"4 image tokens in the trainer, 1 in the sampler"):
        first_answers(Sampler(start, max_pixels=32 * 32))


def test_other_weights_are_caught_by_the_first_token(first_answers, start):
    weights = copy.deepcopy(load_model(start).state_dict())
    torch.manual_seed(1)
    weights = {n: w + torch.randn_like(w) if w.is_floating_point() else w for n, w in weights.items()}
    with pytest.raises(InputError, match="first token's log-probability differs"):
        first_answers(Sampler(start, weights=weights))


@pytest.mark.parametrize("family", ["idefics3", "qwen3_vl", "llava"])
def test_the_budget_of_the_recipe_is_what_vllm_is_told(data, tmp_path, family):
    texts = list(built_texts(str(data / "instruction/sft")))
    folder = str(build_tiny(texts, tmp_path / family, family=family, image_size=64))
    processor = load_processor(folder, max_pixels=40 * 40)
    fresh = load_processor(folder)
    assert vllm_pixels(processor) != vllm_pixels(fresh)
    limit_pixels(fresh.image_processor, 40 * 40)
    assert vllm_pixels(processor) == vllm_pixels(fresh)
    assert max(vllm_pixels(processor)["size"].values()) in (40, 40 * 40)


def test_a_colocated_engine_is_started_with_the_budget(monkeypatch, start):
    import trl.generation.vllm_generation as backend

    monkeypatch.setattr(backend, "LLM", dict, raising=False)
    with one_pixel_budget(load_processor(start, max_pixels=32 * 32)):
        started = backend.LLM(model="m")
    assert started["mm_processor_kwargs"]["size"]["longest_edge"] == 32 * 32
    assert backend.LLM is dict


@without_vllm
def test_without_vllm_the_recipe_says_so(write_recipe, start):
    with pytest.raises(InputError, match=r"trainer\.use_vllm: needs the package 'vllm'"):
        read_recipe(write_recipe("grpo", model={"path": start}, trainer={"use_vllm": True}))
