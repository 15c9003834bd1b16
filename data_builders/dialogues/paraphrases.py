"""Other wordings of a dialogue's answers, by an LLM; who uses one reads it back first (``dialogues.Writer``).

Each sentence is asked for a few wordings once, however many rows use it, and these are taken in turn, so that the same
replies (kept in the ``cache``) give the same rows. Left out: paraphrased questions, and any check of meaning here.
"""

from dataclasses import dataclass, field

from pydantic import Field

from rewards.config.strict_model import StrictModel
from rewards.llm.client import Completion, Failure, LlmClient, ask
from rewards.llm.spec import LlmSpec, LocalBackend, open_llm

PROMPT = """Say the following in other words, as a pathologist or radiologist would in conversation.
Keep exactly what it states: no finding more or less, no doubt where there is none, no negation turned round.
One short sentence. Reply with that sentence alone.
Sentence: {sentence}"""
MAX_TOKENS = 64


class Paraphrase(StrictModel):
    """The wordings that are asked for. ``variants``: of each sentence."""

    llm: LlmSpec
    variants: int = Field(default=4, ge=1)
    temperature: float = Field(default=0.8, ge=0, le=2)


@dataclass
class LlmParaphraser:
    """``paraphraser(sentence)``: its next wording; empty where the LLM gave none."""

    client: LlmClient
    settings: Paraphrase
    _known: dict[str, list[str]] = field(default_factory=dict[str, list[str]], init=False)
    _taken: dict[str, int] = field(default_factory=dict[str, int], init=False)

    @classmethod
    def of(cls, settings: Paraphrase, *, local: LocalBackend | None = None) -> "LlmParaphraser":
        """Raises: InputError as ``open_llm`` does."""
        return cls(open_llm(settings.llm, local=local), settings)

    def __call__(self, sentence: str) -> str:
        """The wordings of a sentence in turn.

        Raises: LlmStop (an InputError) where the LLM cannot be reached or a cap is spent.
        """
        wordings = self._known.get(sentence) or self._known.setdefault(sentence, self._requested(sentence))
        number = self._taken[sentence] = self._taken.get(sentence, -1) + 1
        return wordings[number % len(wordings)]

    def _requested(self, sentence: str) -> list[str]:
        prompt, temperature = PROMPT.format(sentence=sentence), self.settings.temperature
        samples = range(self.settings.variants)
        requests = [ask(prompt, max_tokens=MAX_TOKENS, temperature=temperature, sample=k) for k in samples]
        return [_sentence(reply) for reply in self.client.complete_now(requests)]


def _sentence(reply: Completion | Failure) -> str:
    """The sentence of a reply, without quotation marks; empty for a failure and for a reply that was cut off."""
    if isinstance(reply, Failure) or reply.truncated:
        return ""
    return " ".join(reply.text.split()).strip("\"'")
