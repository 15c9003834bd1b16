"""GRPO over whole dialogues: one completion holds the model's answers and, masked, the clinician's further turns.

Goes through TRL's ``rollout_func``, whose ``env_mask`` keeps the clinician's tokens out of the loss and of every mean.
Dr-LLaVA (arXiv 2405.19567) gives every token the reward of the dialogue (``credit: dialogue``); beside it
``credit: turn`` gives each answer its own. Left out: vLLM, and keeping the cache from one turn to the next.
"""

import copy
import warnings
from typing import Any

import torch
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation

from alignment.config.recipe import DialogueSection
from alignment.dialogues.credit import over_tokens, turn_advantages, turn_returns
from alignment.dialogues.rollout import Conversation, Sampled, inputs_so_far, num_sampled, opened, roll_out
from alignment.resuming.resumable import ResumableGenerations
from rewards.dialogues.dialogue import read_dialogue


class DialogueTrainer(ResumableGenerations, GRPOTrainer):  # pyright: ignore[reportIncompatibleMethodOverride]
    """TRL's GRPOTrainer on rows with a column ``dialogue``. ``max_context``: in tokens."""

    def __init__(self, *, dialogue: DialogueSection, max_context: int | None, **rest: Any) -> None:
        self.dialogue, self.max_context = dialogue, max_context
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="You are using 'rollout_func'")
            super().__init__(rollout_func=self._dialogues, **rest)
        scripts = [read_dialogue(column) for column in rest["train_dataset"]["dialogue"]]
        self.num_turns = max(len(script.turns) for script in scripts)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's, with the rows at hand for the rollout, and with advantages of turns where these are asked for."""
        self._rows = inputs
        # Private in TRL 1.16: `rollout_func` is given the prompts and not the rows, and advantages of tokens have no
        # way in. Goes once it is given rows and may give advantages back.
        output = super()._generate_and_score_completions(inputs)
        if self.dialogue.credit == "turn":
            output["advantages"] = self._advantages(inputs, output["completion_ids"])
        return output

    def _advantages(self, inputs: list[dict[str, Any]], completion_ids: torch.Tensor) -> torch.Tensor:
        """(N, T): the advantages of this process' dialogues, each turn among its group, over all processes."""
        trl = self._untyped
        weights = zip(trl.reward_funcs, trl.args.reward_weights, strict=True)
        weighted = [(function.reward, weight) for function, weight in weights if weight]
        returns = turn_returns(weighted, inputs, num_turns=self.num_turns).to(completion_ids.device)
        group_size = trl.num_generations if trl.model.training else trl.num_generations_eval
        found = turn_advantages(trl.accelerator.gather(returns), group_size, scale=self.scale_rewards == "group")
        start = self.accelerator.process_index * len(inputs)
        turns = [row["turn_of_token"] for row in inputs]
        return over_tokens(found[start : start + len(inputs)], turns, completion_ids.shape[1])

    def _dialogues(self, _prompts: list[Any], _trainer: GRPOTrainer) -> dict[str, list[Any]]:
        """What TRL's ``rollout_func`` gives back, and for the rewards the model's turns and whether there was room."""
        talks = opened(self.processing_class, self._rows)
        roll_out(
            talks,
            self._answers,
            self.processing_class,
            max_answer_tokens=self.dialogue.max_answer_tokens,
            max_tokens=self._room,
            num_rounds=self._num_rounds(talks),
        )
        self._log_metric("dialogue/overlong", sum(talk.overlong for talk in talks) / len(talks))
        return {
            "prompt_ids": [talk.prompt_ids for talk in talks],
            "completion_ids": [talk.completion_ids for talk in talks],
            "logprobs": [talk.logprobs for talk in talks],
            "env_mask": [talk.loss_mask for talk in talks],
            "turn_of_token": [talk.turn_of_token for talk in talks],
            "model_turns": [talk.answers for talk in talks],
            "overlong": [talk.overlong for talk in talks],
        }

    def _room(self, talk: Conversation) -> int:
        """The most tokens that a dialogue's completion may have."""
        longest = int(self._untyped.max_completion_length)
        return min(longest, self.max_context - len(talk.prompt_ids)) if self.max_context else longest

    def _num_rounds(self, talks: list[Conversation]) -> int:
        """The longest script of any process: under ZeRO-3 all must generate equally often."""
        longest = torch.tensor([max(len(talk.script.turns) for talk in talks)], device=self.accelerator.device)
        return int(self._untyped.accelerator.gather(longest).max())

    @property
    def _untyped(self) -> Any:
        """This trainer, where TRL's types are wider than what it holds."""
        return self

    def _answers(self, talks: list[Conversation]) -> list[Sampled]:
        """One sampled answer to each conversation as it stands."""
        # Of the class above TRL's (transformers 5.23): TRL 1.16 overrides it to generate, and here only devices are
        # set.
        inputs = super(GRPOTrainer, self)._prepare_inputs(inputs_so_far(self.processing_class, talks))
        config = copy.copy(self.generation_config)
        config.update(max_new_tokens=self.dialogue.max_answer_tokens, return_dict_in_generate=True, output_logits=True)
        trl = self._untyped
        unwrapped: Any = unwrap_model_for_generation(
            trl.model_wrapped,
            trl.accelerator,
            gather_deepspeed3_params=trl.args.ds3_gather_for_generation,
            generation_kwargs=trl.generation_kwargs,
            gradient_checkpointing_kwargs=trl.args.gradient_checkpointing_kwargs,
        )
        with (
            unwrapped as model,
            torch.no_grad(),
            self._dist.summon_full_params(self.model_wrapped, recurse=False),
        ):
            out = model.generate(**inputs, generation_config=config)
        sampled = out.sequences[:, inputs["input_ids"].shape[1] :]
        logps = [
            (step.float() / self.temperature).log_softmax(-1).gather(1, sampled[:, k, None])
            for k, step in enumerate(out.logits)
        ]
        lengths = [num_sampled(ids, self.eos_token_ids) for ids in sampled.tolist()]
        both = zip(sampled.tolist(), torch.cat(logps, dim=1).tolist(), lengths, strict=True)
        return [(ids[:length], token_logps[:length]) for ids, token_logps, length in both]
