"""What an update keeps on the device beside parameters, gradients and optimizer: activations, moment by moment.

The peak meant is ``torch.cuda.max_memory_allocated``: tensors, without the CUDA context (0.5 to 1 GB) and without what
the allocator reserves beyond them. For a token (a patch in the tower), at w bytes a number, with hidden size h, inner
size i of the MLP, query width q and key width k (heads times head size), a layer keeps for its backward pass::

    norms      4 h each: they compute in float32 and keep that copy (in float32 the first one's is the layer's input,
               which a checkpoint is already); and w h each where their weight is trained; those of queries and keys,
               where a family has them, the same of q + k
    attention  w (2 q + 2 k): queries, keys, values, output; k = q where a mask is given, as sdpa then wants keys and
               values repeated for every query head; + 2 w q where q, k, v are one matrix, whose views keep it whole
    mask       3 bytes for each token of the row: sdpa turns the boolean one (1 byte, once) into an additive one (w)
    MLP        3 w i where it is gated (activation's input and output, and the other half), 2 w i for x sigmoid(1.7 x),
               else w i
    inputs     w of every different input of a matrix that is trained or adapted; and w r for rank r. Where peft casts
               the input to the adapter's float32, and autocast back (``module_settings.keep_input_dtype`` leaves it
               out unless there is dropout), every adapter keeps a copy of its own instead

At its worst moment a layer holds this and, passing (counted, as the rest, by ``test_activations.py``)::

    adapters that cast           6 i + 12 h: while the last matrix is recomputed, its input, the same in float32, and
                                 six tensors of the residual stream; without recomputation 6 i + 6 h
    else                         gradients of the MLP and of input and output: w (3 i + 2 h); one i less where the last
                                 matrix is trained and has released its input; without a gate one i less
    a tower without gradient     8 q float32 numbers of rotating queries and keys: 32 q bytes

With checkpointing a layer keeps its input alone, w h, and one layer at a time the whole. A projector keeps 4 h + w h
for a patch (its norm, and the input of its activation) where a gradient goes through it. The head, in tiles of 4096
tokens and 32768 words (trl's fused one), keeps what ``_head`` says. Left out: single vectors (rotary tables, sums of
squares), layer scales, more than one float32 copy in a norm (Gemma 3), the allocator's rounding (0.3 % of a 7B's
weights), generation's cache, and eager attention's matrices.
"""

from dataclasses import dataclass, replace

TILE_TOKENS, TILE_WORDS = 4096, 32768
WORKSPACE = 2 * 32 * 2**20
"""cuBLAS takes 32 MiB for each thread that multiplies (on Hopper): that of the forward, and that of the backward."""


@dataclass(frozen=True)
class Shape:
    """A layer's sizes, and what of it is trained.

    ``inputs``: widths of the different inputs that this keeps; ``adapted``: of the inputs of all adapters that cast
    them; ``ranks``: the adapters' ranks.
    """

    hidden: int
    queries: int
    keys: int
    inner: int
    norms: int = 2
    inner_kept: int = 3
    fused: bool = False
    head_norms: bool = False
    trained: bool = False
    trained_norms: int = 0
    adapted: int = 0
    inputs: int = 0
    ranks: int = 0


@dataclass(frozen=True)
class Stack:
    """Equal layers, and what goes through them at once.

    ``carries``: whether a gradient goes through; ``gradients``: bytes of its parameters'; ``adapters``: parameters of
    its adapters; ``mask``: columns of the mask that each token has, 0 without one.
    """

    shape: Shape
    count: int
    tokens: float
    mask: float = 0.0
    gradients: float = 0.0
    adapters: float = 0.0
    carries: bool = True
    checkpointed: bool = True


@dataclass(frozen=True)
class Batch:
    """What goes through a model at once, on one rank.

    ``tokens`` through the language model, ``scored`` by the head, ``patches`` through the tower; ``mask`` columns of
    each token; ``pixels`` bytes of pixels on the device.
    """

    tokens: float
    scored: float
    patches: float = 0.0
    mask: float = 0.0
    pixels: float = 0.0


def saved(shape: Shape, w: float, *, mask: float = 0.0, checkpointed: bool = True) -> float:
    """Bytes that one layer keeps for one token.

    >>> plain = Shape(hidden=10, queries=10, keys=2, inner=30)
    >>> saved(plain, 2)  # norms 2 x 40, attention 2 x (20 + 4), MLP 6 x 30
    308.0
    >>> saved(plain, 4), saved(plain, 4, checkpointed=False)  # the layer's input is counted as its checkpoint, or here
    (496.0, 536.0)
    """
    half = w < 4
    of_input = 0 if half or not checkpointed else 1
    norms = 4 * shape.hidden * (shape.norms - of_input) + w * shape.hidden * shape.trained_norms
    if shape.head_norms:
        norms += (4 + w * (shape.trained_norms > 0)) * (shape.queries + shape.keys)
    attention = w * (2 * shape.queries + 2 * (shape.queries if mask else shape.keys) + 2 * shape.queries * shape.fused)
    inputs = w * ((shape.adapted if half and shape.adapted else shape.inputs) + shape.ranks)
    return norms + attention + w * mask + w * shape.inner * shape.inner_kept + inputs


def passing(shape: Shape, w: float, *, recomputed: bool = True) -> float:
    """Bytes for one token beside the kept ones, at a layer's worst moment.

    >>> passing(Shape(hidden=10, queries=10, keys=2, inner=30), 2)  # 2 x (90 + 20)
    220
    >>> passing(Shape(hidden=10, queries=10, keys=2, inner=30, adapted=80), 2)  # 6 x 30 + 12 x 10
    300
    """
    if shape.adapted and w < 4:
        return 6 * shape.inner + (12 if recomputed else 6) * shape.hidden
    inner = max(2, shape.inner_kept) - (shape.trained or shape.adapted > 0)
    return w * (inner * shape.inner + 2 * shape.hidden)


def kept(stack: Stack, w: float) -> float:
    """Bytes that the stack keeps from its forward to its backward pass."""
    if not stack.carries:
        return 0.0
    if stack.checkpointed:
        return stack.count * w * stack.shape.hidden * stack.tokens + stack.mask * stack.tokens
    layer = saved(stack.shape, w, mask=stack.mask, checkpointed=False)
    cast = 2 * stack.adapters if w < 4 else 0.0  # autocast's copies of adapters, which the graph keeps
    return stack.count * layer * stack.tokens + stack.mask * stack.tokens + cast


def working(stack: Stack, w: float) -> float:
    """Bytes of the one layer at work, beside what the stack keeps."""
    if not stack.carries:
        rotating = 32 * stack.shape.queries
        return max(rotating, passing(replace(stack.shape, trained=False, adapted=0), w)) * stack.tokens
    more = saved(stack.shape, w, mask=stack.mask) if stack.checkpointed else 0.0
    return (more + passing(stack.shape, w, recomputed=stack.checkpointed)) * stack.tokens


def _head(language: Stack, scored: float, w: float) -> float:
    """Bytes of the last norm (its copy, input and output), a tile of logits, and the scored tokens and their gradient.

    Until the forward pass ends autocast also keeps its copies of adapters, those of checkpointed layers too.
    """
    tile = min(scored, TILE_TOKENS) * TILE_WORDS * w
    cast = 2 * language.adapters if w < 4 and language.checkpointed else 0.0
    return (
        (4 + 2 * w) * language.shape.hidden * language.tokens + tile + (4 + w) * language.shape.hidden * scored + cast
    )


def moments(language: Stack, tower: Stack, scored: float, w: float, *, projector: bool, held: bool) -> dict[str, float]:
    """Bytes beyond parameters and optimizer at each moment that can be the peak, gradients made so far among them.

    ``projector``: whether a gradient goes through it; ``held``: whether gradients lie there from the start (under
    DeepSpeed, or from an earlier part of an accumulated batch).
    """
    of_tower = kept(tower, w) + (4 + w) * tower.shape.hidden * tower.tokens * (projector or tower.carries)
    every = language.gradients + tower.gradients
    before, after = (every, every) if held else (0.0, language.gradients)
    both = of_tower + kept(language, w)
    return {
        "tower's forward": kept(tower, w) + working(replace(tower, carries=False), w) + before,
        "head": both + _head(language, scored, w) + before,
        "language, first layer of the backward": both + working(language, w) + before,
        "language, last layer of the backward": of_tower + working(language, w) + after,
        "tower's backward": (kept(tower, w) + working(tower, w) if tower.carries else 0.0) + every,
    }


def activation_bytes(
    language: Stack, tower: Stack, scored: float, w: float, *, projector: bool = False, held: bool = False
) -> float:
    """What the worst moment needs beyond parameters, optimizer and all gradients."""
    worst = max(moments(language, tower, scored, w, projector=projector, held=held).values())
    return max(0.0, worst - language.gradients - tower.gradients)
