"""Training, evaluation and release. The only floor that knows torch, trl, peft, accelerate and deepspeed.

Importing it turns usage pings off. Hugging Face's libraries read their switch when they are imported, so it is set
here, before any of them: for the command, for launched workers and for Python alike. What a user has set stays.
"""

import os
import sys

SILENT = {"HF_HUB_DISABLE_TELEMETRY": "1", "VLLM_NO_USAGE_STATS": "1", "GRADIO_ANALYTICS_ENABLED": "False"}


def _send_no_pings() -> None:
    unsaid = "HF_HUB_DISABLE_TELEMETRY" not in os.environ
    for name, value in SILENT.items():
        os.environ.setdefault(name, value)
    constants = sys.modules.get("huggingface_hub.constants")  # imported before: it has read its switch already
    if constants is not None and unsaid:
        constants.__dict__["HF_HUB_DISABLE_TELEMETRY"] = True


_send_no_pings()
