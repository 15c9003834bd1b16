"""Memory of one rank by ZeRO stage, before anything is loaded (Rajbhandari et al. 2020, section 3 and figure 1).

For P parameters of which T are trained, on N ranks, in bytes (w = 2 in bfloat16, 4 in float32, 0.5 for 4-bit ones)::

    weights    w P        / N from ZeRO-3 on
    gradients  w T        / N from ZeRO-2 on
    optimizer  12 T       / N from ZeRO-1 on: DeepSpeed's float32 copy and AdamW's two moments
               2 w T      without DeepSpeed: AdamW's moments in the weights' own precision
    gathered   w min(P, stage3_max_live_parameters), with ZeRO-3 alone: what it may hold whole at one time
    buckets    2 w min(T, reduce_bucket_size) with ZeRO-2 (one is filled while one is sent)

Offload moves the optimizer (and gradients, where they are divided) to the CPU, and with parameter offload the weights.
A layer of hidden size h keeps 17 w h bytes a token, or with checkpointing w h and one whole layer (Korthikanti et al.
2022, eq. 2, without attention matrices and logits: sdpa, flash attention and the chunked head never hold them).
Left out: fragmentation, the CUDA context (about 1 GB) and generation's cache.
"""

from dataclasses import asdict, dataclass, replace

GIGABYTE = 1e9
ADAM_BYTES = 12
MAX_LIVE_PARAMETERS = 1_000_000_000
REDUCE_BUCKET = 500_000_000


@dataclass(frozen=True)
class Load:
    """What is to be held: parameters, and bytes of each weight (``base_bytes`` of the frozen ones).

    ``reference``: parameters of a reference model of its own; it is divided under ZeRO-3 as the policy is.
    """

    total: int
    trainable: int
    weight_bytes: float = 2.0
    base_bytes: float = 2.0
    reference: int = 0

    @property
    def weights(self) -> float:
        """Bytes of all weights of the policy."""
        return self.trainable * self.weight_bytes + (self.total - self.trainable) * self.base_bytes


@dataclass(frozen=True)
class Zero:
    """How DeepSpeed divides: ``stage`` 0 is training without it."""

    stage: int = 0
    offload_optimizer: bool = False
    offload_parameters: bool = False

    @property
    def name(self) -> str:
        """``none``, ``zero2``, ``zero3_offload``."""
        if not self.stage:
            return "none"
        return f"zero{self.stage}" + ("_offload" if self.offload_optimizer or self.offload_parameters else "")


SETTINGS = (Zero(0), Zero(1), Zero(2), Zero(2, True), Zero(3), Zero(3, True, True))


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank on its device, and ``cpu``: its share in the machine's memory."""

    weights: float
    gradients: float
    optimizer: float
    reference: float
    working: float
    activations: float = 0.0
    cpu: float = 0.0

    @property
    def device(self) -> float:
        """All that lies on the device."""
        return self.weights + self.gradients + self.optimizer + self.reference + self.working + self.activations

    def gigabytes(self) -> dict[str, float]:
        """Each part and ``device``, in units of 10^9 bytes."""
        return {name: round(size / GIGABYTE, 3) for name, size in (asdict(self) | {"device": self.device}).items()}


def per_rank(load: Load, zero: Zero, ranks: int, *, activations: float = 0.0) -> Memory:
    """What each of ``ranks`` ranks holds.

    >>> full = Load(total=7_000_000_000, trainable=7_000_000_000)
    >>> [per_rank(full, Zero(stage), 8).optimizer / 1e9 for stage in (1, 3)]
    [10.5, 10.5]
    """
    shares = {stage: ranks if zero.stage >= stage else 1 for stage in (1, 2, 3)}
    optimizer = load.trainable * (ADAM_BYTES if zero.stage else 2 * load.weight_bytes) / shares[1]
    whole = Memory(
        weights=load.weights / shares[3],
        gradients=load.trainable * load.weight_bytes / shares[2],
        optimizer=optimizer,
        reference=load.reference * load.base_bytes / shares[3],
        working=_working(load, zero),
        activations=activations,
    )
    return _offloaded(whole, zero)


def _working(load: Load, zero: Zero) -> float:
    if zero.stage == 3:
        return load.weights * min(1.0, MAX_LIVE_PARAMETERS / load.total)
    return 2 * load.weight_bytes * min(load.trainable, REDUCE_BUCKET) if zero.stage == 2 else 0.0


def _offloaded(memory: Memory, zero: Zero) -> Memory:
    moved: list[str] = []
    if zero.offload_optimizer:
        moved += ["optimizer", *(["gradients"] if zero.stage >= 2 else [])]
    if zero.offload_parameters:
        moved += ["weights", "reference"]
    sizes = asdict(memory)
    return replace(memory, **dict.fromkeys(moved, 0.0), cpu=sum(sizes[name] for name in moved))


@dataclass(frozen=True)
class Layers:
    """A stack of transformer layers: how many, their hidden size, and the tokens that go through it at once."""

    count: int
    hidden: int
    tokens: float
    trained: bool = True
    checkpointed: bool = True


def activation_bytes(stacks: list[Layers], weight_bytes: float) -> float:
    """What the stacks keep for the backward pass; of a stack through which no gradient goes, one layer's worth.

    >>> activation_bytes([Layers(count=2, hidden=10, tokens=3)], 2.0)  # 2 inputs of 60 bytes, one layer of 1020
    1140.0
    """
    return sum(_stack_bytes(stack, weight_bytes) for stack in stacks)


def _stack_bytes(stack: Layers, weight_bytes: float) -> float:
    row = weight_bytes * stack.hidden * stack.tokens
    if not stack.trained:
        return 17 * row
    return (stack.count + 17) * row if stack.checkpointed else stack.count * 17 * row
