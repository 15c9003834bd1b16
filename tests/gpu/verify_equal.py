"""Packed attention against the repeated layout: log-probabilities and gradients, in float32 and bfloat16.

The reference is the repeated layout in float32. Beside every error in bfloat16 stands that of the repeated layout in
bfloat16, which is what the precision costs by itself. Errors: the largest difference of a token's log-probability, and
``|g - r| / |r|`` over the gradients of all adapters (language model and vision tower) taken as one vector.
"""

import contextlib
import importlib.util
import os
import time
from pathlib import Path
from typing import Any

import torch
from verify_figures import Figures, LeftOut
from verify_model import Scale, Shape, config_folder, make_model, make_processor, prompts_of, row, sampled, synchronize

SHAPE = Shape((16, 16), 30, 1)
TINY = Shape((2, 3), 5, 2)


def equality(figures: Figures, size: Scale, folder: Path, only: str = "") -> None:
    """All forms, or those that have one of the words of ``only`` in them, each against the repeated one in float32."""
    from peft import LoraConfig, get_peft_model
    from trl.trainer.utils import add_fused_lm_head

    from alignment.shared_prefix.forward import score_answers_only

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    shape = TINY if size.tiny else SHAPE
    processor = make_processor(shape)
    begun = time.time()
    model: Any = make_model(size, config_folder(size, processor.tokenizer, folder / "model"))
    synchronize()
    figures.add("parameters", sum(p.numel() for p in model.parameters()) / 1e9, "10^9", f"{size.precision} weights")
    figures.add("model made in", time.time() - begun, "s")
    add_fused_lm_head(model)
    score_answers_only(model)
    lora = LoraConfig(r=8, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(model, lora).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.normal_(std=0.02)
    prompt = prompts_of(processor, [row(k, shape, processor) for k in range(shape.prompts)])
    answers = sampled(shape, 3, len(processor.tokenizer))
    runner = Runner(figures, model, prompt, answers, processor.tokenizer.pad_token_id, size)
    flex = "packed, flex"  # compiled at its first call: last
    wanted = [form for form in FORMS if any(word in form for word in only.split(",")) or form == REFERENCE]
    runner.cast(torch.float32)
    for form in (REFERENCE, ONE_CALL, "packed, sdpa with mask", "cached, sdpa"):
        if form in wanted:
            runner.compare(form)
    runner.cast(torch.bfloat16)
    if ONE_CALL in wanted:
        tower_alone(figures, model, size)
    for form in wanted:
        runner.compare(form)
    runner.cast(torch.float32)
    if flex in wanted:
        runner.compare(flex)


class Runner:
    """One model in one precision after the other; the first form's numbers are what the others are held against."""

    def __init__(self, figures, model, prompt, answers, pad, size):
        self.figures, self.model, self.size = figures, model, size
        self.prompt, self.answers, self.pad = prompt, answers, pad
        self.dtype, self.reference = None, None

    def cast(self, dtype):
        """Parameters of the base model; buffers (the rotary frequencies) and adapters stay float32, as in training."""
        self.dtype = dtype
        for name, parameter in self.model.named_parameters():
            if "lora_" not in name:
                parameter.data = parameter.data.to(dtype)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def batch(self, *, shared):
        from alignment.shared_prefix.layout import packed

        prompt, answers = self.prompt, self.answers
        if not shared:
            prompt, answers = repeated_prompts(prompt, answers)
        batch = packed(dict(prompt), answers, pad_token_id=self.pad)
        return {name: values.to(self.size.device) for name, values in batch.items()}

    def compare(self, form):
        """The form's log-probabilities and gradients beside the reference's."""
        word = str(self.dtype).removeprefix("torch.")
        with self.figures.measuring(f"{form} {word}", needs=20 if "flex" in form else 5) as go:
            if not go:
                return
            logps, gradients, seconds = self.measured(form)
            if self.reference is None:
                self.reference = (logps, gradients)
                spread = f"mean {logps.mean():.2f}, {len(logps)} tokens"
                self.figures.add(f"{form} {word}", None, "", f"the reference: {spread}; {seconds:.2f} s")
                return
            want, want_gradients = self.reference
            difference = (logps - want).abs()
            norm = relative(gradients, want_gradients)
            tower = relative(
                *({n: g for n, g in side.items() if "visual" in n} for side in (gradients, want_gradients))
            )
            note = f"mean {difference.mean():.1e}; {seconds:.2f} s"
            assert torch.isfinite(logps).all(), "log-probabilities are not finite"
            self.figures.add(f"{form} {word}: log-probability", difference.max().item(), "nats, largest error", note)
            if gradients:
                note = f"tower alone {tower:.1e}" if tower is not None else ""
                self.figures.add(f"{form} {word}: gradient", norm, "relative error", note)

    def measured(self, form):
        """Log-probabilities (N, on the CPU), gradients by name, and seconds (first call: compilation among them)."""
        from alignment.shared_prefix.forward import answer_outputs

        shared, context, backward = FORMS[form](self.model, self.dtype, self.size)
        batch = self.batch(shared=shared)
        begun = time.time()
        autocast = torch.autocast(self.size.device, torch.bfloat16, enabled=self.dtype == torch.bfloat16)
        with context, autocast:
            with contextlib.nullcontext() if backward else torch.no_grad():
                logps = answer_outputs(self.model, batch).log_probs[0].float()
            if backward:
                self.model.zero_grad()
                weights = torch.linspace(-1.0, 1.5, len(logps), device=logps.device)
                (weights * logps).sum().backward()
        synchronize()
        named = self.model.named_parameters()
        gradients = {n: p.grad.float().cpu() for n, p in named if backward and p.grad is not None}
        self.model.zero_grad()
        return logps.detach().cpu(), gradients, time.time() - begun


def tower_alone(figures, model, size):
    """Seconds of the tower by itself, forward and backward: called by windows, and in one call."""
    from alignment.shared_prefix.support import base_model

    visual = base_model(model).model.visual
    for grid in [(4, 6)] if size.tiny else [(32, 32), (52, 100)]:
        patches = torch.randn(2 * grid[0] * grid[1], 3 * 2 * 14**2, device=size.device)
        grids = torch.tensor([[1, *grid]] * 2, device=size.device)
        for way in ("windows", "one_call"):
            name = f"tower alone, 2 images of {grid[0] * grid[1]} patches, {way.replace('_', ' ')}"
            with figures.measuring(name) as go:
                if not go:
                    continue
                with tower(model, way) as said, torch.autocast(size.device, torch.bfloat16):
                    seconds = []
                    for _ in range(3):
                        synchronize()
                        begun = time.time()
                        found = visual(patches.to(visual.dtype), grid_thw=grids)
                        found.last_hidden_state.float().square().mean().backward()
                        synchronize()
                        seconds.append(time.time() - begun)
                model.zero_grad()
                figures.add(name, min(seconds), "s", f"forward and backward, best of 3; {said}")


@contextlib.contextmanager
def tower(model, way):
    """The tower's attention, ``windows`` or ``one_call``, for as long as it lasts; gives what was taken."""
    from alignment.models.tower_attention import use_one_call, windowed_modules

    before = [(m.config, m.config._attn_implementation) for m in windowed_modules(model)]
    try:
        yield use_one_call(model, way)
    finally:
        for config, name in before:
            config._attn_implementation = name


def relative(got, want):
    """``|g - r| / |r|`` over all of them as one vector; None where there are none."""
    if not got or not want:
        return None
    error = sum(float((got[name] - want[name]).square().sum()) for name in want)
    return (error / sum(float(g.square().sum()) for g in want.values())) ** 0.5


def repeated_prompts(prompt, answers):
    """Each prompt once for each of its answers, its pixels too."""
    counts = [len(row) for row in answers]
    rows = [k for k, count in enumerate(counts) for _ in range(count)]
    patches = prompt["pixel_values"].split(prompt["image_grid_thw"].prod(dim=-1).tolist())
    out = {n: v[rows] for n, v in prompt.items() if n != "pixel_values"}
    out["pixel_values"] = torch.cat([patches[k] for k in rows])
    return out, [[answer] for row in answers for answer in row]


def kernel(model, name):
    """The language model's attention kernel, for as long as it lasts; the tower keeps sdpa."""
    from alignment.shared_prefix.support import base_model

    @contextlib.contextmanager
    def changed():
        text = base_model(model).config.get_text_config()
        before, text._attn_implementation = text._attn_implementation, name
        try:
            yield
        finally:
            text._attn_implementation = before

    return changed()


@contextlib.contextmanager
def through_cache(model, inner=None):
    """The cached form for as long as it lasts."""
    from alignment.shared_prefix.key_value_cache import MARK, continue_from_cache
    from alignment.shared_prefix.support import base_model

    backbone = base_model(model).base_model
    continue_from_cache(backbone)
    try:
        with inner or contextlib.nullcontext():
            yield
    finally:
        delattr(backbone, MARK)
        del backbone.forward


def torch_flash(dtype, size, *, masks=False):
    """Torch's own flash attention and nothing else: a kernel that takes no mask (or another one for those)."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if size.device != "cuda" or dtype == torch.float32:
        raise LeftOut("flash attention computes in half precision on a GPU only")
    other = [SDPBackend.EFFICIENT_ATTENTION] if masks else []
    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, *other])


def _flash_package(model, dtype, size):
    if importlib.util.find_spec("flash_attn") is None:
        raise LeftOut("flash_attn is not there; torch's own flash backend stands in for it")
    if size.device != "cuda" or dtype == torch.float32:
        raise LeftOut("flash attention computes in half precision on a GPU only")
    return kernel(model, "flash_attention_2")


def _flex(model):
    if os.environ.get("TORCH_COMPILE_DISABLE"):
        raise LeftOut("flex attention has to be compiled, and compiling is switched off")
    return kernel(model, "flex_attention")


# (shared layout?, context, backward?) of each form; flex attention has no backward on a CPU
REFERENCE, ONE_CALL = "repeated, sdpa", "repeated, tower in one call against windows"
FORMS: dict[str, Any] = {
    REFERENCE: lambda m, d, s: (False, contextlib.nullcontext(), True),
    ONE_CALL: lambda m, d, s: (False, tower(m, "one_call"), True),
    "packed, sdpa with mask": lambda m, d, s: (True, contextlib.nullcontext(), True),
    "cached, sdpa": lambda m, d, s: (True, through_cache(m), True),
    "repeated, torch's flash backend": lambda m, d, s: (False, torch_flash(d, s), True),
    "cached, torch's flash backend for prompts": lambda m, d, s: (
        True,
        through_cache(m, torch_flash(d, s, masks=True)),
        True,
    ),
    "repeated, flash_attn": lambda m, d, s: (False, _flash_package(m, d, s), True),
    "cached, flash_attn": lambda m, d, s: (True, through_cache(m, _flash_package(m, d, s)), True),
    "packed, flex": lambda m, d, s: (True, _flex(m), s.device == "cuda"),
}
