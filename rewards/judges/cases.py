"""Rows of a batch as the cases that a judge sees: question, images, reference, facts."""

from io import BytesIO
from typing import Any

from rewards.judges.judging import Case


def cases(columns: dict[str, list[Any]], *, reference: str | None = None) -> list[Case]:
    """One case a row, from the columns ``prompt`` and, where given, ``images``, ``facts`` and the ``reference``."""
    return [
        Case(
            question=prompt_text(prompt),
            images=tuple(image_bytes(image) for image in _at(columns, "images", k) or ()),
            reference=_at(columns, reference, k) if reference else None,
            facts=_at(columns, "facts", k),
        )
        for k, prompt in enumerate(columns["prompt"])
    ]


def _at(columns: dict[str, list[Any]], name: str, index: int) -> Any:
    return columns[name][index] if name in columns else None


def prompt_text(prompt: Any) -> str:
    """The words of a prompt: a string, or messages of strings or content blocks, with the speaker where several.

    >>> prompt_text([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is it?"}]}])
    'Is it?'
    """
    if isinstance(prompt, str):
        return prompt
    turns = [(message["role"], _words(message.get("content") or "")) for message in prompt]
    return turns[0][1] if len(turns) == 1 else "\n".join(f"{role}: {words}" for role, words in turns)


def _words(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(block.get("text") or "" for block in content if block.get("type") == "text")


def image_bytes(image: Any) -> bytes:
    """The bytes of an image as a row holds it: bytes, ``{"bytes": ...}``, or a Pillow image (then as PNG)."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, dict):
        return image["bytes"]
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
