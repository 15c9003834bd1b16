"""Local models as backend: a tiny random one for the mechanics, SmolLM2 (slow) for the real thing."""

import asyncio

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alignment.config.checkpoint_folders import gguf_file
from alignment.models.local_llm import LocalModel
from alignment.reward_functions.adapter import local_backend
from rewards.config.input_error import InputError
from rewards.judges.judge_spec import JudgeSpec, open_judge
from rewards.judges.judging import DIMENSIONS, Case, Pair, compared
from rewards.llm.client import Completion, LlmClient, LlmStop, ask
from rewards.llm.item_lists import parse_items
from rewards.llm.reply_cache import AppendLog

pytestmark = pytest.mark.filterwarnings("default")  # third-party deprecations of transformers
TEMPLATE = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} <e> {% endfor %}assistant"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a random two-layer language model with a chat template."""
    words = ["<e>", "<p>", "user", "assistant", "system", "A", "B", "tie", "one", "two", "three", "<u>"]
    tokenizer = Tokenizer(WordLevel({word: k for k, word in enumerate(words)}, unk_token="<u>"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<e>", pad_token="<p>", unk_token="<u>")
    fast.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        eos_token_id=0, pad_token_id=1, bos_token_id=0,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tiny_lm")
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return str(folder)


def replies(path, requests, **settings):
    return LlmClient(LocalModel(path, **settings), concurrency=8).complete_now(requests)


def test_a_batch_gives_what_each_request_gives_alone(tiny):
    requests = [ask(text, max_tokens=5) for text in ("one", "two three one", "three")]
    together = replies(tiny, requests, batch_size=8)
    alone = [replies(tiny, [request], batch_size=1)[0] for request in requests]
    assert together == alone
    assert all(isinstance(reply, Completion) and reply.completion_tokens <= 5 for reply in together)


def test_a_choice_is_the_likeliest_by_its_log_probability(tiny):
    reply = replies(tiny, [ask("one two", choices=("A", "B", "tie"))])[0]
    model, tokenizer = LocalModel(tiny).loaded
    ids = tokenizer("user one two <e> assistant", return_tensors="pt")["input_ids"]
    logits = model(ids).logits[0, -1]
    scores = {word: logits[tokenizer.convert_tokens_to_ids(word)].item() for word in ("A", "B", "tie")}
    assert reply.text == max(scores, key=scores.__getitem__)


def test_samples_follow_their_number(tiny):
    requests = [ask("one", max_tokens=8, temperature=1.0, sample=k) for k in range(6)]
    first, again = replies(tiny, requests), replies(tiny, requests)
    assert first == again
    assert len({reply.text for reply in first}) > 1


def test_a_choice_judge_on_a_local_model_has_a_verdict_and_a_second_run_none_to_ask(tiny, tmp_path):
    spec = JudgeSpec(model=tiny, style="choice", cache=str(tmp_path))
    judge = open_judge(spec, local=local_backend)
    pairs = [Pair(Case("one"), "two", "three"), Pair(Case("two"), "one", "one")]
    verdicts = asyncio.run(compared(judge, pairs))
    assert all(verdict is not None and set(verdict) == set(DIMENSIONS) for verdict in verdicts)
    assert verdicts[1] == dict.fromkeys(DIMENSIONS, 0.5)
    calls = len(list(AppendLog(tmp_path / "replies.jsonl").unread()))
    assert calls == judge.client.budget.spent.calls == 12
    assert asyncio.run(compared(open_judge(spec, local=local_backend), pairs)) == verdicts
    assert judge.client.budget.spent.calls == calls


def test_images_and_models_that_cannot_be_asked_are_one_clear_error(tiny, tmp_path):
    with pytest.raises(LlmStop, match="reads no images"):
        replies(tiny, [ask("one", images=(b"\x89PNG",))])
    with pytest.raises(InputError, match="no folder"):
        replies(str(tmp_path / "none"), [ask("one")])


@pytest.fixture(scope="module")
def smollm2():
    """The backend of SmolLM2-135M, where the package that carries it is installed."""
    try:
        gguf_file()
    except InputError as missing:
        pytest.skip(str(missing))
    return LocalModel("smollm2")


@pytest.mark.slow
def test_smollm2_writes_english(smollm2):
    reply = LlmClient(smollm2).complete_now([ask("What is the capital of France?", max_tokens=24)])[0]
    assert "Paris" in reply.text


@pytest.mark.slow
def test_smollm2_judges_pairs_however_weak_its_taste(smollm2):
    judge = open_judge(JudgeSpec(model="smollm2", style="choice"), local=lambda spec: smollm2)
    pair = Pair(Case("Is there a nodule?"), "Yes, there is a nodule on the left.", "qwx zzt qwx zzt")
    verdict = asyncio.run(compared(judge, [pair]))[0]
    assert set(verdict) == set(DIMENSIONS)
    assert set(verdict.values()) <= {0.0, 0.5, 1.0}


@pytest.mark.slow
def test_what_smollm2_returns_for_a_list_is_read_or_named(smollm2):
    prompt = "Write 3 numbered questions with answers about the human heart. Use the form:\n1. Q: ...\nA: ..."
    reply = LlmClient(smollm2).complete_now([ask(prompt, max_tokens=160)])[0]
    parsed = parse_items(reply.text, truncated=reply.truncated)
    assert parsed.items or parsed.rejects
