"""What a record says, as messages of the house, whatever program it was written for.

Read are the ``conversations`` of LLaVA and ShareGPT, the ``messages`` of ms-swift, TRL and OpenAI, ``query`` and
``response`` with ``history`` of ms-swift, ``prompt`` and ``completion`` of TRL, ``instruction`` and ``output`` of
Alpaca, and ``question`` and ``answer``. An image tag becomes an image block where it stood, and text between images
stays between. Left out: tools, videos, audio, and boxes within text (``objects``).
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from data_builders.formats.record_images import IMAGE_KEYS, RecordError, RecordImage, record_image, record_images
from data_builders.schema import Message, message_text
from rewards.row_types import shown

Shape = Literal["conversations", "messages", "query", "prompt", "instruction", "question"]
SHAPES: tuple[Shape, ...] = get_args(Shape)
"""Each by the key that shows it; the first that a record has is its shape."""
ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "model", "bot"), "assistant"),
    "system": "system",
}
ANSWERS: dict[Shape, tuple[str, ...]] = {
    "conversations": ("answer", "solution"),
    "messages": ("answer", "solution"),
    "query": ("response", "answer"),
    "prompt": ("completion", "answer", "solution", "response"),
    "instruction": ("output", "response", "answer"),
    "question": ("answer", "response", "solution"),
}
"""Where the answer stands that follows the last question, the first that is there."""
MEDIA = ("videos", "video", "audios", "audio")
NOT_READ = (*MEDIA, "objects", "tools")
TAG = re.compile(r"<image>|<img>([^<>]+)</img>", re.IGNORECASE)
FOREIGN = re.compile(
    r"<(?:video|audio|ImageHere|image[ _]?\d+|image ?/|img(?!>[^<>]+</img>)(?: [^<>]*)?)>"
    r"|<\|(?:vision_start|image_pad|video_pad|image(?:_\d+)?)\|>",
    re.IGNORECASE,
)
"""Tags for which no picture would stand in the house's messages: of other media, and a model's own."""
IMAGE: dict[str, Any] = {"type": "image", "text": None}
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Conversation:
    """Messages that end with an answer, and the pictures of their image blocks, in order.

    ``untagged``: no tag says where its pictures stand, so they open the first question.
    """

    messages: list[Message]
    images: tuple[RecordImage, ...]
    untagged: bool = False


def shape_of(values: Json) -> Shape | None:
    """Which shape a record has; None where it has none that is known.

    >>> shape_of({"question": "Is there a nodule?", "answer": "no"}), shape_of({"text": "..."})
    ('question', None)
    """
    return next((shape for shape in SHAPES if not _is_null(values.get(shape))), None)


def conversation(values: dict[str, Any]) -> Conversation:
    """What a record says, with its pictures.

    Raises: RecordError if its shape is not known, roles do not alternate, an answer is missing, null or empty, or
    its image tags are not as many as its images.
    """
    messages = spoken(values)
    check_turns(messages)
    return with_images(messages, record_images(values))


def spoken(values: Json) -> list[Message]:
    """The messages of a record as they stand in it, its system prompt and its answer among them.

    An image block still holds the picture that it names itself (``with_images`` takes it out).

    Raises: RecordError as ``conversation`` does.
    """
    refuse_unwanted(values)
    messages = before_answer(values)
    if messages[-1]["role"] == "assistant":
        return messages
    shape = shape_of(values)
    assert shape is not None
    return [*messages, *_answer(values, shape)]


def before_answer(values: Json) -> list[Message]:
    """What ``spoken`` gives, without an answer that stands under a key of its own."""
    shape = shape_of(values)
    if shape is None:
        raise RecordError(f"no known shape: it has {', '.join(values) or 'nothing'}, and none of {', '.join(SHAPES)}")
    refuse_unread(values)
    has_history = shape == "query" or (shape == "instruction" and isinstance(values.get("history"), list))
    messages = [*(_history(values) if has_history else []), *messages_of(_question(values, shape), "user", shape)]
    _refuse_unheard(values, shape, messages)
    return behind_system(messages, values)


def _refuse_unheard(values: Json, shape: Shape, messages: list[Message]) -> None:
    """Raises RecordError for a second question or answer under a key of its own, which nobody would hear."""
    words = "".join(message_text(messages).split())
    for key in (*SHAPES[SHAPES.index(shape) + 1 :], "input"):
        other = values.get(key)
        if isinstance(other, str) and "".join(TAG.sub("", other).split()) not in words:
            raise RecordError(f"it asks in '{shape}' and in '{key}'; leave one out, or write both into one")
    if shape == "prompt":
        refuse_second_answer(messages, values)


def refuse_second_answer(prompt: list[Message], values: Json) -> None:
    """Raises RecordError for a completion behind a prompt that ends with an answer."""
    if prompt[-1]["role"] == "assistant" and values.get("completion") is not None:
        raise RecordError("its 'prompt' ends with an answer, and it has a 'completion' too; leave one of the two out")


def refuse_unwanted(values: Json) -> None:
    """Raises RecordError for an answer that is not to be learnt, as KTO's records hold them."""
    has_answer = any(values.get(key) is not None for key in ("completion", "messages", "conversations"))
    for key in ("label", "kto_tag"):
        if str(values.get(key)).casefold() == "false" and (has_answer or key == "kto_tag"):
            raise RecordError(f"'{key}' is false: an answer that is not to be learnt (KTO); leave the record out")


def refuse_unread(values: Json, keys: Collection[str] = NOT_READ) -> None:
    """Raises RecordError if a record holds what is not read, such as a video."""
    if ignored := [key for key in keys if values.get(key)]:
        raise RecordError(f"'{ignored[0]}' is not read; leave it out, or leave the record out")


def behind_system(messages: list[Message], values: Json) -> list[Message]:
    """The messages behind the system prompt that stands in the record's ``system``, if one does."""
    system = values.get("system")
    if system in (None, ""):
        return messages
    if messages[0]["role"] == "system":
        raise RecordError("it has a system prompt in 'system' and one in its messages; leave one of the two out")
    return [*messages_of(system, "system", "system"), *messages]


def _question(values: Json, shape: Shape) -> Any:
    more = values.get("input")
    is_more = shape == "instruction" and isinstance(more, str) and more.strip()
    return f"{values[shape]}\n{more}" if is_more else values[shape]


def _history(values: Json) -> list[Message]:
    """The turns before ``query``: pairs of question and answer."""
    history = values.get("history") or []
    messages: list[Message] = []
    for pair in cast("list[Any]", history if isinstance(history, list) else [history]):
        turns = cast("list[Any]", pair) if isinstance(pair, list) else []
        if len(turns) != 2:
            raise RecordError(f"'history' holds {shown(pair)}; expected pairs of question and answer")
        messages += [*messages_of(turns[0], "user", "history"), *messages_of(turns[1], "assistant", "history")]
    return messages


def _answer(values: Json, shape: Shape) -> list[Message]:
    known = [key for key in ANSWERS[shape] if key in values]
    key = next((key for key in known if not _is_null(values[key])), None)
    if key is None:
        raise RecordError(
            f"its answer is null ('{known[0]}')" if known else f"its last question has no '{ANSWERS[shape][0]}'"
        )
    return messages_of(as_text(values[key]), "assistant", key)


def _is_null(value: Any) -> bool:
    """Whether nothing is known; pandas writes that as NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def as_text(value: Any) -> Any:
    """A number as one writes it; pandas makes 3.0 of a 3 in a column with gaps. Anything else as it is."""
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def messages_of(value: Any, role: str, key: str) -> list[Message]:
    """A text as one message of this role, or the messages of a list. ``key``: where it stands in the record.

    Raises: RecordError naming the key and the turn.

    >>> messages_of("Compare <image> with <image>.", "user", "query")[0]["content"][2]
    {'type': 'text', 'text': ' with '}
    """
    if isinstance(value, dict):
        value = _rows_of_columns(cast(dict[str, Any], value))
    if not isinstance(value, list):
        return [_message(value, role, f"'{key}'")]
    turns = cast(list[Any], value)
    if not turns:
        raise RecordError(f"'{key}' is empty")
    return [_turn(turn, f"'{key}', turn {number}") for number, turn in enumerate(turns, start=1)]


def _rows_of_columns(value: dict[str, Any]) -> Any:
    """The turns of a struct of lists, as which ``datasets`` before version 4 stores a list of structs."""
    columns = [column for column in value.values() if isinstance(column, list)]
    if len(columns) != len(value) or len({len(column) for column in columns}) != 1:
        return value
    return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]


def _turn(turn: Any, location: str) -> Message:
    if not isinstance(turn, dict):
        raise RecordError(f"{location}: got {shown(turn)}; expected an object with a role and its words")
    given = cast(dict[str, Any], turn)
    name = given.get("role") or given.get("from")
    role = ROLES.get(name.casefold()) if isinstance(name, str) else None
    if role is None or given.get("tool_calls"):
        raise RecordError(f"{location}: the role {name!r} is not read; known: {', '.join(ROLES)}")
    if role == "assistant" and (given.get("weight") == 0 or given.get("loss") is False):
        raise RecordError(f"{location}: is not to be learnt ('weight' 0 or 'loss' false); leave the record out")
    if kept := [key for key in (*IMAGE_KEYS, "bytes") if given.get(key)]:
        raise RecordError(f"{location}: a picture under '{kept[0]}' of a turn; write <image>, and list it in 'images'")
    return _message(given["content"] if "content" in given else given.get("value"), role, location)


def _message(content: Any, role: str, location: str) -> Message:
    """One message, without white space around its words.

    Raises: RecordError if it is null or says nothing, or if another than the user shows an image.
    """
    if content is None:
        raise RecordError(f"{location}: {role} says null; expected words")
    if not isinstance(content, str | list):
        raise RecordError(f"{location}: got {shown(content)}; expected words")
    parts = cast("list[Any]", content if isinstance(content, list) else [content])
    blocks = _trimmed([block for part in parts for block in _blocks(part, location)])
    if role != "user" and any(block["type"] == "image" for block in blocks):
        raise RecordError(f"{location}: an image tag in the words of the {role}; only questions show images")
    if not blocks:
        raise RecordError(f"{location}: {role} says nothing")
    return {"role": role, "content": blocks}


def _blocks(part: Any, location: str) -> list[dict[str, Any]]:
    """The blocks of a text, or of one block in the vocabulary of TRL and OpenAI."""
    if isinstance(part, str):
        return _of_text(part, location)
    given = cast(dict[str, Any], part) if isinstance(part, dict) else {}
    kind = given.get("type")
    if kind == "text" and isinstance(given.get("text"), str):
        return _of_text(given["text"], location)
    if kind in ("image", "image_url"):
        fields = (given.get(name) for name in ("image", "image_url", "url", "path", "bytes"))
        value = next((field for field in fields if field), None)
        return [IMAGE if value is None else {**IMAGE, "image": record_image(value)}]
    raise RecordError(f"{location}: a block of content is {shown(part)}; expected a text or an image")


def _of_text(text: str, location: str) -> list[dict[str, Any]]:
    if foreign := FOREIGN.search(text):
        raise RecordError(f"{location}: holds {foreign[0]}, for which no picture is read; write <image>")
    blocks, start = list[dict[str, Any]](), 0
    for tag in TAG.finditer(text):
        named = {"image": record_image(tag[1])} if tag[1] else {}
        blocks += [*_words(text[start : tag.start()]), {**IMAGE, **named}]
        start = tag.end()
    return [*blocks, *_words(text[start:])]


def _words(text: str) -> list[dict[str, Any]]:
    """A text block; none for the white space between two tags."""
    return [{"type": "text", "text": text}] if text.strip() else []


def _trimmed(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks without white space about all of them, and without the line end that parts an image from words."""
    words = [index for index, block in enumerate(blocks) if block["type"] == "text"]
    trimmed = [dict(block) for block in blocks]
    if words:
        ends = "\r\n" if blocks[-1]["type"] == "image" else None
        trimmed[words[0]]["text"] = trimmed[words[0]]["text"].lstrip()
        trimmed[words[-1]]["text"] = trimmed[words[-1]]["text"].rstrip(ends)
    return trimmed


def check_turns(messages: list[Message]) -> None:
    """Raises RecordError unless questions and answers alternate, behind at most one system prompt, up to an answer."""
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    for number, role in enumerate(turns):
        if role != ("user", "assistant")[number % 2]:
            raise RecordError(f"its roles do not alternate: {', '.join(roles)}")
    if not turns or turns[-1] != "assistant":
        raise RecordError(f"its answer is missing: it ends with {turns[-1] if turns else 'its system prompt'}")


def with_images(messages: list[Message], images: list[RecordImage]) -> Conversation:
    """The conversation with the pictures of its image blocks; without any block, they open the first question.

    Raises: RecordError if there are not as many blocks as images.
    """
    named = [block.get("image") for message in messages for block in message["content"] if block["type"] == "image"]
    bare: list[Message] = [{**m, "content": [_without_image(block) for block in m["content"]]} for m in messages]
    found = [image for image in named if image is not None]
    if images and not named:
        return Conversation(_opened_by(len(images), bare), tuple(images), untagged=True)
    if len(found) == len(named) and (not images or images == found):
        return Conversation(bare, tuple(found))
    if len(named) - len(found) != len(images):
        raise RecordError(f"{len(named)} image tags for {len(found) + len(images)} images; expected as many")
    rest = iter(images)
    return Conversation(bare, tuple(next(rest) if image is None else image for image in named))


def _without_image(block: dict[str, Any]) -> dict[str, Any]:
    return dict(IMAGE) if block["type"] == "image" else block


def _opened_by(number: int, messages: list[Message]) -> list[Message]:
    """The messages with image blocks before the first question."""
    first = next(index for index, message in enumerate(messages) if message["role"] == "user")
    opening = [*(dict(IMAGE) for _ in range(number)), *messages[first]["content"]]
    return [*messages[:first], {"role": "user", "content": opening}, *messages[first + 1 :]]
