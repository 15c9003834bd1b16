"""GRPO in which a group's prompt and images are decoded, processed, prefilled and computed once.

TRL gives every sampled answer its own copy of the prompt. Here policy, old-policy and reference passes go through
``shared_prefix/layout.py``, generation starts from one prefill a group, and the image processor sees an image once. The
trajectory is that of TRL's trainer, to rounding. Left out: rollouts by tools or environments, which go TRL's way.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import PeftConfig, PeftModel
from PIL import Image as PilImage
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import pad, split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

from alignment.data.trl_rows import Rows, check_columns
from alignment.resuming.resumable import ResumableGenerations
from alignment.reward_functions.own_rewards import RewardFunction, as_trl_rewards
from alignment.shared_prefix.forward import answer_outputs, score_answers_only
from alignment.shared_prefix.image_rows import (
    IMAGE_FIELDS,
    Fields,
    by_row,
    decoded_once,
    joined,
    same_rows,
    undecoded,
)
from alignment.shared_prefix.layout import TOKEN_FIELDS, Batch, by_answer, packed, tokens_computed
from alignment.shared_prefix.prefill import shared_prefill
from alignment.shared_prefix.support import Setting, base_model, resolved
from alignment.training.mixed_batches import dummy_image, images_everywhere, run_vision_always
from alignment.training.sampler_check import FirstToken, check_sampler, one_pixel_budget, vllm_pixels

CHECKED_ROWS = 8
ORDERLESS_LOSSES = ("grpo", "dr_grpo", "dapo")


class ProcessedOnce:
    """A processor that hands out once more what it has made of the batch at hand, if it has."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self.made: dict[str, Any] | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_processor":  # a copy asks before it has one
            raise AttributeError(name)
        return getattr(self._processor, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The fields at hand, or a call of the processor."""
        return self._processor(*args, **kwargs) if self.made is None else dict(self.made)


class SharedPrefixGRPOTrainer(ResumableGenerations, GRPOTrainer):  # pyright: ignore[reportIncompatibleMethodOverride]
    """trl.GRPOTrainer, in whose place it stands, with the shared prefix; all else, the loss among it, is TRL's.

    It takes what TRL's takes, in the same order, and rows in TRL's columns; among ``reward_funcs`` also rewards of
    ours, by name or loaded (``trl_reward``).

    Args:
        shared_prefix: whether a group's answers go through the model behind one copy of their prompt.

    Raises: InputError for columns that prompt rows or rewards of ours need and that are not there.
    """

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        reward_funcs: RewardFunction | list[RewardFunction] | None = None,
        args: GRPOConfig | None = None,
        train_dataset: Rows | None = None,
        eval_dataset: Rows | dict[str, Rows] | None = None,
        processing_class: PreTrainedTokenizerBase | ProcessorMixin | None = None,
        reward_processing_classes: Any = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        quantization_config: Any = None,
        peft_config: PeftConfig | None = None,
        tools: list[Callable[..., Any]] | None = None,
        rollout_func: Any = None,
        environment_factory: Any = None,
        *,
        shared_prefix: Setting = "auto",
    ) -> None:
        self.shared, self.reward_seconds = False, 0.0
        self._tokens = torch.zeros(2, dtype=torch.long)
        if environment_factory is None:
            check_columns(train_dataset, ["prompt"], "prompt rows need")
        rewards = as_trl_rewards(reward_funcs, train_dataset)
        samples_elsewhere = args is not None and args.use_vllm and processing_class is not None
        with one_pixel_budget(processing_class) if samples_elsewhere else nullcontext():
            super().__init__(
                model=model,
                reward_funcs=rewards,
                args=args,
                train_dataset=undecoded(train_dataset) if isinstance(train_dataset, Dataset) else train_dataset,
                eval_dataset=eval_dataset,
                processing_class=processing_class,
                reward_processing_classes=reward_processing_classes,
                callbacks=callbacks,
                optimizers=optimizers,
                quantization_config=quantization_config,
                peft_config=peft_config,
                tools=tools,
                rollout_func=rollout_func,
                environment_factory=environment_factory,
            )
        self._unchecked = bool(self.use_vllm)
        form = resolved(shared_prefix, self.model, checkpointing=bool(self._arguments.gradient_checkpointing))
        self.shared = form != "repeated"
        by_trl = bool(self.tools) or self.environment_factories is not None  # what tools show is in no row
        self._logs_images = self.log_completions and self.log_multimodal and not by_trl
        self.log_multimodal = self.log_multimodal and by_trl
        image = dummy_image(self.processing_class) if self._is_vlm else {}
        if self._is_vlm:
            self.processing_class: Any = ProcessedOnce(self.processing_class)
        for scored in filter(None, (self.model, self.ref_model)):
            score_answers_only(scored, form)
            if self._is_vlm:
                run_vision_always(scored, image)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """TRL's, without its shuffle where that changes nothing but which rows share a forward."""
        steps, model, buffered = self._arguments.steps_per_generation, self._model, self._buffered_inputs
        due = self._step % (steps * self.num_iterations) == 0
        if not (model.training and (due or not buffered) and self._order_is_immaterial()):
            return super()._prepare_inputs(generation_batch)
        batch: Any = split_pixel_values_by_grid(self._generate_and_score_completions(generation_batch))
        torch.randperm(len(batch["prompt_ids"]))  # TRL draws here: the random stream stays in step with its own
        parts: Any = split_tensor_dict(batch, steps)
        self._buffered_inputs = [unsplit_pixel_values_by_grid(part) for part in parts]
        return self._buffered_inputs[self._step % steps]

    @property
    def _arguments(self) -> Any:
        return self.args

    @property
    def _model(self) -> Any:
        return self.model

    def _order_is_immaterial(self) -> bool:
        """One optimizer step takes all rows of a generation, and the loss is a sum over rows."""
        arguments = self._arguments
        whole = arguments.gradient_accumulation_steps == arguments.steps_per_generation
        plain = self.top_entropy_quantile == 1.0 and not self._entropy_bonus_enabled
        return self.shared and whole and plain and arguments.loss_type in ORDERLESS_LOSSES

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return super()._calculate_rewards(*args, **kwargs)
        finally:
            self.reward_seconds += time.perf_counter() - start

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's; logs ``time/reward_share``, what the rewards take of a step's seconds on this process."""
        times = self._metrics["train"]["step_time"]
        before = len(times)
        loss = super().training_step(*args, **kwargs)
        if len(times) > before:
            self._metrics["train"]["time/reward_share"].append(self.reward_seconds / times[-1])
            self.reward_seconds = 0.0
        return loss

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Any:
        rows = decoded_once(inputs)
        try:
            output = super()._generate_and_score_completions(rows)
        finally:
            if isinstance(self.processing_class, ProcessedOnce):
                self.processing_class.made = None
        if self._logs_images:
            self._logs["images"].extend(images_everywhere(rows))
        return output

    def _tokenize_prompts(self, prompts: list[Any]) -> Any:
        """TRL's on each different prompt once, given back to every row."""
        if not self.shared or self.tools or self.environment_factories is not None:
            return super()._tokenize_prompts(prompts)
        keys = [_prompt_key(prompt) for prompt in prompts]
        first = {key: k for k, key in reversed(list(enumerate(keys)))}
        different = sorted(first.values())
        row_of = {keys[k]: n for n, k in enumerate(different)}
        rows = [row_of[key] for key in keys]
        ids, images, fields = super()._tokenize_prompts([prompts[k] for k in different])
        tokens = {name: fields.pop(name) for name in TOKEN_FIELDS if name in fields}
        counts = [len(i or []) for i in images] if images is not None else [0] * len(ids)
        parts = by_row({name: _tensor(values) for name, values in fields.items()}, counts)
        if parts is None:
            return super()._tokenize_prompts(prompts)
        spread: dict[str, Any] = joined([parts[n] for n in rows]) if fields else {}
        tokens = {name: [list(values[n]) for n in rows] for name, values in tokens.items()}
        if spread:
            padded = {n: _padded([torch.tensor(v) for v in values], "left") for n, values in tokens.items()}
            self.processing_class.made = spread | padded
        return [ids[n] for n in rows], None if images is None else [images[n] for n in rows], spread | tokens

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int, has_tool_images: bool = False
    ) -> Any:
        if self.use_vllm and self._unchecked and not has_tool_images:
            self._unchecked = False
            with self._first_answers_checked(prompt_ids, images, multimodal_fields):
                return super()._generate_single_turn(prompt_ids, images, multimodal_fields, num_generations)
        counts = [len(i or []) for i in images] if images is not None else [0] * len(prompt_ids)
        plain = self.shared and not (self.use_vllm or has_tool_images)
        fields = {n: _tensor(v) for n, v in multimodal_fields.items() if n in IMAGE_FIELDS}
        rows = by_row(fields, counts) if plain else None
        groups = same_rows(prompt_ids, rows) if rows is not None else None
        with shared_prefill(base_model(self.model), groups, rows or []):
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )

    @contextmanager
    def _first_answers_checked(self, prompt_ids: Any, images: Any, multimodal_fields: Any) -> Generator[None]:
        """Within it, what vLLM gives back is compared with what the trainer sees (``sampler_check.py``).

        Raises: InputError where they disagree.
        """
        backend: Any = self.vllm_generation
        generate = backend.generate

        def checked(*args: Any, **kwargs: Any) -> Any:
            given = generate(*args, **kwargs)
            seen, tokens, logprobs, _ = given
            rows = range(min(len(tokens), CHECKED_ROWS))
            first = [(tokens[k][0], logprobs[k][0][0] if self._logprobs_are_plain() else None) for k in rows]
            theirs = [FirstToken(seen[k], *first[k]) for k in rows]
            ours = self._first_tokens(prompt_ids, images, multimodal_fields, [token for token, _ in first])
            processor = self.processing_class
            image_token = getattr(processor, "image_token_id", None)
            check_sampler(ours, theirs, image_token_id=image_token, pixels=vllm_pixels(processor))
            return given

        backend.generate = checked
        try:
            yield
        finally:
            backend.generate = generate

    def _logprobs_are_plain(self) -> bool:
        """Whether both sides' can be compared: vLLM tells them after filters that the trainer does not apply."""
        plain = self.top_p == 1.0 and self.top_k <= 0 and not self.min_p and self.repetition_penalty == 1.0
        return plain and not (self._arguments.generation_kwargs or {})

    @torch.no_grad()
    def _first_tokens(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, tokens: list[int]
    ) -> list[FirstToken]:
        """The first prompts as the trainer sees them, and what it gives these answers' first tokens."""
        counts = [len(i or []) for i in images] if images is not None else [0] * len(prompt_ids)
        rows = by_row({n: _tensor(v) for n, v in multimodal_fields.items() if n in IMAGE_FIELDS}, counts)
        if rows is None:
            return [FirstToken(ids, t, None) for ids, t in zip(prompt_ids, tokens, strict=False)]
        kinds = {
            n: [torch.tensor(v)[None] for v in multimodal_fields[n]] for n in TOKEN_FIELDS if n in multimodal_fields
        }
        found = []
        for k, token in enumerate(tokens):
            row = rows[k] | {name: torch.as_tensor(values[k]).reshape(1, -1) for name, values in kinds.items()}
            batch = self._packed_groups([[0]], [list(prompt_ids[k])], [[token]], [row])
            with self.accelerator.autocast():
                logprob = answer_outputs(self.model, batch).log_probs[0, 0].item()
            found.append(FirstToken(prompt_ids[k], token, logprob))
        return found

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        num_images: list[int] | None = None,
        num_tiles: list[int] | None = None,
        **fields: Any,
    ) -> Any:
        """As TRL's: log-probabilities and entropies (B, T) of the last ``logits_to_keep`` columns."""
        present = {name: fields[name] for name in (*IMAGE_FIELDS, *TOKEN_FIELDS) if fields.get(name) is not None}
        present |= {n: present[n][:, :-logits_to_keep] for n in TOKEN_FIELDS if n in present}
        rows = by_row(present, num_images or [0] * len(input_ids), num_tiles)
        if not self.shared or rows is None or compute_aux_loss:
            counts = {"num_images": num_images, "num_tiles": num_tiles}
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, compute_aux_loss,
                **counts, **fields,
            )  # fmt: skip
        prompts, answers = _token_lists(input_ids, attention_mask, logits_to_keep)
        groups = same_rows(prompts, rows)
        logps = input_ids.new_zeros(answers_shape := (len(input_ids), logits_to_keep), dtype=torch.float32)
        entropies = logps.new_zeros(answers_shape) if compute_entropy else None
        for chunk in _chunks(groups, batch_size or len(input_ids)):
            batch = self._packed_groups(chunk, prompts, answers, rows)
            with self.accelerator.autocast():
                outputs = answer_outputs(model, batch)
            order = torch.tensor([k for group in chunk for k in group], device=logps.device)
            logps = logps.index_copy(0, order, _table(outputs.log_probs[0], batch, logits_to_keep))
            if entropies is not None:
                entropies = entropies.index_copy(0, order, _table(outputs.entropy[0], batch, logits_to_keep))
            self._tokens += torch.tensor(tokens_computed(batch))
        return logps, entropies, None

    def _packed_groups(
        self, groups: Sequence[list[int]], prompts: list[list[int]], answers: list[list[int]], rows: list[Fields]
    ) -> Batch:
        """One packed row for each group."""
        first = [group[0] for group in groups]
        ids = [torch.tensor(prompts[k]) for k in first]
        prompt = joined([rows[k] for k in first]) if rows[0] else {}
        for name in TOKEN_FIELDS:
            if name in prompt:  # these came padded on the left
                prompt[name] = _padded([v[-len(i) :].cpu() for v, i in zip(prompt[name], ids, strict=True)], "right")
        prompt["input_ids"] = _padded(ids, "right")
        prompt["attention_mask"] = _padded([torch.ones_like(i) for i in ids], "right")
        packed_answers = [[answers[k] for k in group] for group in groups]
        batch = packed(prompt, packed_answers, pad_token_id=int(self._tokenizer.pad_token_id))  # pyright: ignore[reportArgumentType]
        return {name: values.to(self.accelerator.device) for name, values in batch.items()}

    def _compute_loss(self, model: Any, inputs: Any) -> Any:
        """TRL's loss; the tokens of policy, old policy and reference on all ranks are logged with it."""
        loss = super()._compute_loss(model, inputs)
        everywhere: Any = self.accelerator.gather(self._tokens[None].to(self.accelerator.device))
        computed, saved = everywhere.sum(dim=0).tolist()
        self._tokens.zero_()
        metrics = self._metrics["train" if self._model.training else "eval"]
        if self.shared:
            metrics["tokens/computed"].append(computed)
            metrics["tokens/saved"].append(saved)
        return loss


def _token_lists(
    input_ids: torch.Tensor, attention_mask: torch.Tensor, keep: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Prompt and answer of each row without padding. Both come to the CPU at once: a GPU is waited for twice."""
    input_ids, shown = input_ids.cpu(), attention_mask.cpu().bool()
    prompts = [ids[m].tolist() for ids, m in zip(input_ids[:, :-keep], shown[:, :-keep], strict=True)]
    answers = [ids[m].tolist() for ids, m in zip(input_ids[:, -keep:], shown[:, -keep:], strict=True)]
    return prompts, answers


def _table(values_N: torch.Tensor, batch: Batch, width: int) -> torch.Tensor:
    """Values of the answer tokens as (A, width) in float32, zero behind an answer."""
    table, _ = by_answer(values_N.float(), batch["answer_lengths"])
    return torch.nn.functional.pad(table, (0, width - table.shape[1]))


def _chunks(groups: list[list[int]], size: int) -> Iterator[list[list[int]]]:
    """Groups in turn, in chunks of at most ``size`` rows; a larger group is a chunk of its own."""
    chunk: list[list[int]] = []
    for group in groups:
        if chunk and sum(map(len, chunk)) + len(group) > size:
            yield chunk
            chunk = []
        chunk.append(group)
    yield chunk


def _tensor(values: Any) -> torch.Tensor:
    return values if isinstance(values, torch.Tensor) else torch.tensor(np.array(values))


def _padded(values: list[torch.Tensor], side: str) -> torch.Tensor:
    return pad(values, padding_value=0, padding_side=side)


def _prompt_key(prompt: Any) -> Any:
    """Equal for prompts with equal text and the same image objects."""
    if isinstance(prompt, dict):
        return tuple((name, _prompt_key(value)) for name, value in prompt.items())
    if isinstance(prompt, list):
        return tuple(_prompt_key(part) for part in prompt)
    return id(prompt) if isinstance(prompt, PilImage.Image) else prompt
