"""A local transformers model as a language-model backend: nothing leaves the machine.

Requests that wait are answered together, in batches of one kind. With ``choices`` the likeliest choice is the reply,
by its mean log-probability a token. Left out: images (a vision judge belongs behind an endpoint such as vLLM's).
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignment.config.checkpoint_folders import model_folder
from alignment.config.foreign_code import pretrained
from alignment.models.generation import decoding
from rewards.config.input_error import InputError
from rewards.llm.client import Completion, LlmStop, Reply, Request

Waiting = tuple[Request, asyncio.Future[Completion]]


@dataclass
class LocalModel:
    """A causal language model by folder, hub name or ``smollm2`` (which a package carries), loaded at its first use.

    ``batch_size``: requests answered together. Sampled replies follow the request's ``sample`` as seed.
    """

    path: str
    batch_size: int = 8

    @property
    def model(self) -> str:
        """The name in the cache's keys: the path, and for a folder the time its weights were written."""
        weights = sorted(Path(self.path).glob("*.safetensors"))
        return f"{self.path}@{weights[0].stat().st_mtime_ns}" if weights else self.path

    @cached_property
    def loaded(self) -> tuple[Any, Any]:
        """Model in eval mode, on the accelerator if there is one, and its tokenizer.

        Raises: InputError if there is no such model, or it has no chat template.
        """
        source: dict[str, Any] = {}
        if self.path == "smollm2":
            from alignment.config.checkpoint_folders import gguf_file

            file = gguf_file()
            folder, source = str(file.parent), {"gguf_file": file.name}
        else:
            folder = model_folder(self.path)
        tokenizer: Any = pretrained(AutoTokenizer, folder, padding_side="left", **source)
        if not tokenizer.chat_template:
            raise InputError(f"model '{self.path}' has no chat template, so it cannot be asked.")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        device, dtype = ("cuda", "auto") if torch.cuda.is_available() else ("cpu", torch.float32)
        safe = {} if source else {"use_safetensors": True}
        model: Any = pretrained(AutoModelForCausalLM, folder, dtype=dtype, **safe, **source).eval()
        return model.to(device), tokenizer

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[Reply, None]:
        """Replies of the model; whatever has gathered while it was busy is its next batch."""
        busy, waiting = asyncio.Lock(), list[Waiting]()

        async def reply(request: Request) -> Completion:
            if request.num_images:
                raise LlmStop(f"local model '{self.path}' reads no images. Name an endpoint that does.")
            waits: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
            waiting.append((request, waits))
            async with busy:
                if not waits.done():
                    await self._answer_batch(waiting)
            return await waits

        yield reply

    async def _answer_batch(self, waiting: list[Waiting]) -> None:
        """Answers the oldest request and those of its kind that wait with it."""
        kind = _kind(waiting[0][0])
        batch = [entry for entry in waiting if _kind(entry[0]) == kind][: self.batch_size]
        for entry in batch:
            waiting.remove(entry)
        answer = self._choose if kind[0] else self._write
        completions = await asyncio.to_thread(answer, [request for request, _ in batch])
        for (_, waits), completion in zip(batch, completions, strict=True):
            waits.set_result(completion)

    def _prompts(self, requests: list[Request]) -> list[str]:
        turns = [[{"role": m.role, "content": m.text} for m in r.messages] for r in requests]
        return [self.loaded[1].apply_chat_template(t, tokenize=False, add_generation_prompt=True) for t in turns]

    @torch.inference_mode()
    def _write(self, requests: list[Request]) -> list[Completion]:
        model, tokenizer = self.loaded
        first = requests[0]
        inputs = tokenizer(self._prompts(requests), return_tensors="pt", padding=True, add_special_tokens=False)
        inputs = inputs.to(model.device)
        torch.manual_seed(first.sample)
        how = decoding(first.temperature or None)
        out = model.generate(**inputs, max_new_tokens=first.max_tokens, pad_token_id=tokenizer.pad_token_id, **how)
        written = out[:, inputs["input_ids"].shape[1] :]
        ends = [tokenizer.eos_token_id in row for row in written.tolist()]
        texts = tokenizer.batch_decode(written, skip_special_tokens=True)
        lengths = inputs["attention_mask"].sum(1).tolist()
        return [
            Completion(text, length, int((row != tokenizer.pad_token_id).sum()), truncated=not ended)
            for text, length, row, ended in zip(texts, lengths, written, ends, strict=True)
        ]

    def _choose(self, requests: list[Request]) -> list[Completion]:
        return [
            self._choice(request, prompt) for request, prompt in zip(requests, self._prompts(requests), strict=True)
        ]

    @torch.inference_mode()
    def _choice(self, request: Request, prompt: str) -> Completion:
        tokenizer = self.loaded[1]
        start = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        choices = [tokenizer(choice, add_special_tokens=False)["input_ids"] for choice in request.choices]
        first = self._logps(start, choices[0][:1])
        scores = [
            float(first[0, ids[0]]) if len(ids) == 1 else float(self._logps(start, ids)[range(len(ids)), ids].mean())
            for ids in choices
        ]
        return Completion(request.choices[scores.index(max(scores))], len(start), 1)

    def _logps(self, start: list[int], ids: list[int]) -> torch.Tensor:
        """Log-probabilities (len(ids), vocabulary) of what stands where ``ids`` do, after ``start``."""
        model = self.loaded[0]
        tokens = torch.tensor([start + ids], device=model.device)
        return model(tokens).logits[0, len(start) - 1 : -1].float().log_softmax(-1)


def _kind(request: Request) -> tuple[bool, int, float, int]:
    """What requests of one batch must share."""
    return bool(request.choices), request.max_tokens, request.temperature, request.sample
