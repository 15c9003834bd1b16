"""The card, the versions, the two roofs (a bfloat16 matrix product and a copy), and the kernels that may be there."""

import hashlib
import importlib
import platform
import statistics
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version

import torch
from verify_figures import LeftOut, one_line
from verify_model import synchronize

PACKAGES = ("torch", "triton", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "numpy")


def environment(figures, size):
    """Card, versions, roofs."""
    cuda = torch.cuda.is_available()
    with figures.measuring("device", needs=0) as go:
        if go:
            name = torch.cuda.get_device_name() if cuda else platform.processor() or "cpu"
            memory = f"{torch.cuda.get_device_properties(0).total_memory / 2**30:.1f} GiB" if cuda else "no GPU"
            figures.add("device", name, "", f"{memory}; Python {platform.python_version()}; CUDA {torch.version.cuda}")
    with figures.measuring("driver", needs=0) as go:
        if go and cuda:
            query = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,clocks.max.sm", "--format=csv,noheader"]
            done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
            figures.add("driver", done.stdout.strip(), "", "driver, clock, greatest clock")
    for name in PACKAGES:
        figures.add(name, _version(name))
    with figures.measuring("bf16 matrix product", needs=5) as go:
        if go:
            figures.add("bf16 matrix product", *matrix_product(8192 if cuda and not size.tiny else 256))
    with figures.measuring("copy", needs=5) as go:
        if go:
            figures.add("copy", *copy(2**31 if cuda and not size.tiny else 2**20))


def commit(root, given=""):
    """The commit that is measured, marked where files differ from it; without git, a digest of the sources."""
    if given:
        return given
    git = ["git", "-C", str(root)]
    done = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    if done.returncode:
        digest = hashlib.sha256()
        for file in sorted((root / "alignment").glob("*.py")):
            digest.update(file.read_bytes())
        return f"sources {digest.hexdigest()[:12]}"
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False)
    return done.stdout.strip() + (" and changes" if changed.stdout.strip() else "")


def versions():
    """In one line."""
    return ", ".join(f"{name} {_version(name)}" for name in ("torch", "transformers", "trl", "peft"))


def _version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "not there"


def matrix_product(n):
    """TFLOP/s of an n x n x n product of random bfloat16 matrices: 2 n^3 over the median of ten times."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (torch.randn(n, n, device=device).bfloat16() for _ in range(2))
    seconds = timed(lambda: a @ b)
    return 2 * n**3 / seconds / 1e12, "TFLOP/s", f"{n}^3 on random data; the roof"


def copy(size):
    """GB/s of a copy on the device, bytes read and bytes written counted."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a = torch.empty(size, dtype=torch.uint8, device=device).random_()
    b = torch.empty_like(a)
    return 2 * size / timed(lambda: b.copy_(a)) / 1e9, "GB/s", "read and written"


def timed(work, times=10):
    """Median seconds of one run after three that do not count; by CUDA's events where there are any."""
    for _ in range(3):
        work()
    found = []
    for _ in range(times):
        synchronize()
        if torch.cuda.is_available():
            first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            first.record()
            work()
            last.record()
            last.synchronize()
            found.append(first.elapsed_time(last) / 1000)
        else:
            begun = time.perf_counter()
            work()
            found.append(time.perf_counter() - begun)
    return statistics.median(found)


def optional_kernels(figures, size):
    """Liger and bitsandbytes, each by one small use of it, where they can be imported."""
    for name, use in (("liger_kernel", use_liger), ("bitsandbytes", use_bitsandbytes), ("flash_attn", use_flash)):
        with figures.measuring(name, needs=5) as go:
            if not go:
                continue
            try:
                module = importlib.import_module(name)
            except ImportError as error:
                figures.add(name, "not there", "", one_line(error))
                continue
            figures.add(name, getattr(module, "__version__", _version(name)), "", use(size))


def use_liger(size):
    """Its RMS norm against torch's."""
    from liger_kernel.transformers import LigerRMSNorm

    if size.device != "cuda":
        raise LeftOut("needs a GPU")
    x = torch.randn(64, 256, device="cuda")
    want = torch.nn.functional.rms_norm(x, (256,), eps=1e-6)
    error = (LigerRMSNorm(256).cuda()(x) - want).abs().max().item()
    return f"RMS norm differs by {error:.1e}"


def use_bitsandbytes(size):
    """A 4-bit linear layer against the layer it was made from."""
    import bitsandbytes

    if size.device != "cuda":
        raise LeftOut("needs a GPU")
    plain = torch.nn.Linear(256, 256, bias=False, device="cuda", dtype=torch.bfloat16)
    packed = bitsandbytes.nn.Linear4bit(256, 256, bias=False, quant_type="nf4", compute_dtype=torch.bfloat16)
    packed.load_state_dict(plain.state_dict())
    x = torch.randn(8, 256, device="cuda", dtype=torch.bfloat16)
    want, got = plain(x), packed.cuda()(x)
    return f"NF4 layer differs by {((got - want).norm() / want.norm()).item():.2f} of its output"


def use_flash(size):
    """Said in part b."""
    return "see part b"
