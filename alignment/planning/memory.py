"""Memory of one rank by ZeRO stage, before anything is loaded (Rajbhandari et al. 2020, section 3 and figure 1).

For P parameters of which T are trained, on N ranks, in bytes (w = 2 in bfloat16, 4 in float32, 0.5 for 4-bit ones)::

    weights    w P        / N from ZeRO-3 on
    gradients  w T        / N from ZeRO-2 on
    optimizer  12 T       / N from ZeRO-1 on: DeepSpeed's float32 copy and AdamW's two moments
               2 w T      without DeepSpeed: AdamW's moments in the weights' own precision
    gathered   w min(P, stage3_max_live_parameters), with ZeRO-3 alone: what it may hold whole at one time
    buckets    2 w min(T, reduce_bucket_size) with ZeRO-2 (one is filled while one is sent)

Adapters are float32 (peft makes them so) beside weights in half precision; DeepSpeed casts them to w, and trl those of
4-bit weights. Offload moves the optimizer (and gradients, where they are divided) to the CPU, and with parameter
offload the weights. Activations: ``activations.py``. Left out: fragmentation, the CUDA context (about 1 GB) and
generation's cache.
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
    ``lone_bytes``: bytes of each trained weight without DeepSpeed, where they differ (adapters).
    """

    total: int
    trainable: int
    weight_bytes: float = 2.0
    base_bytes: float = 2.0
    reference: int = 0
    lone_bytes: float | None = None

    def of(self, zero: "Zero") -> "Load":
        """The same, as it is under this setting."""
        return self if zero.stage or self.lone_bytes is None else replace(self, weight_bytes=self.lone_bytes)

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
    """Bytes of one rank on its device, and ``cpu``: its share in the machine's memory.

    ``working``: DeepSpeed's buffers; ``inputs``: a batch's pixels, and the workspace of the matrix products.
    """

    weights: float
    gradients: float
    optimizer: float
    reference: float
    working: float
    activations: float = 0.0
    inputs: float = 0.0
    cpu: float = 0.0

    @property
    def device(self) -> float:
        """All that lies on the device."""
        fixed = self.weights + self.gradients + self.optimizer + self.reference
        return fixed + self.working + self.activations + self.inputs

    def gigabytes(self) -> dict[str, float]:
        """Each part and ``device``, in units of 10^9 bytes."""
        return {name: round(size / GIGABYTE, 3) for name, size in (asdict(self) | {"device": self.device}).items()}


def per_rank(load: Load, zero: Zero, ranks: int, *, activations: float = 0.0, inputs: float = 0.0) -> Memory:
    """What each of ``ranks`` ranks holds.

    >>> full = Load(total=7_000_000_000, trainable=7_000_000_000)
    >>> [per_rank(full, Zero(stage), 8).optimizer / 1e9 for stage in (1, 3)]
    [10.5, 10.5]
    """
    load = load.of(zero)
    shares = {stage: ranks if zero.stage >= stage else 1 for stage in (1, 2, 3)}
    optimizer = load.trainable * (ADAM_BYTES if zero.stage else 2 * load.weight_bytes) / shares[1]
    whole = Memory(
        weights=load.weights / shares[3],
        gradients=load.trainable * load.weight_bytes / shares[2],
        optimizer=optimizer,
        reference=load.reference * load.base_bytes / shares[3],
        working=_working(load, zero),
        activations=activations,
        inputs=inputs,
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
