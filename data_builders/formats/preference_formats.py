"""Preference pairs in the shapes that others write: MMedPO, LLaVA, ms-swift and TRL, read and written.

``mmedpo``: a JSON list of ``id, image, conversations, rejected_conversations, weighted_score`` and, for the image
side, ``rejected_image``. ``llava``: the same without a score. ``ms_swift``: JSON Lines of ``messages, images,
rejected_response, rejected_images``. ``trl``: JSON Lines of ``prompt, chosen, rejected, images``, with our
``rejected_images`` and ``weight``. All but ``llava`` hold a pair's ``relevance`` (before normalisation) where it is
known; MMedPO's own files have none beside ``weighted_score``, which is not normalised. Images are named, not held.
Left out: dialogues of several turns, system prompts.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from data_builders.pairs.hallucination_checks import META_TEXT, brevity_report, fault_of_rejected, same_polarity
from data_builders.pairs.relevance import weight_report
from data_builders.schema import assistant_turn, message_text, user_turn
from rewards.config.input_error import InputError
from rewards.config.json_lines import json_value
from rewards.config.strict_yaml import read_text

Format = Literal["mmedpo", "llava", "ms_swift", "trl"]
FORMATS: tuple[Format, ...] = get_args(Format)
Json = dict[str, Any]


class FormatError(ValueError):
    """Why one record cannot be read."""


@dataclass(frozen=True)
class Pair:
    """One preference pair. ``images`` and ``rejected_images`` name files; no ``rejected_images``: the same images.

    ``relevance`` in [0, 1], before normalisation (None: not known); ``weight`` after it.
    """

    id: str
    images: tuple[str, ...]
    question: str
    chosen: str
    rejected: str
    weight: float = 1.0
    rejected_images: tuple[str, ...] = ()
    relevance: float | None = None

    @property
    def is_identical(self) -> bool:
        """Whether both sides are one: such a pair has no gradient."""
        return self.chosen.strip() == self.rejected.strip() and self.rejected_images in ((), self.images)


def read_pairs(path: Path, shape: Format) -> tuple[list[Pair], dict[int, str]]:
    """The pairs of a file in its order, and for each record that cannot be read its place and why.

    Raises: InputError if the file is missing or holds no records.
    """
    pairs: list[Pair] = []
    faults: dict[int, str] = {}
    for place, record in enumerate(read_records(path)):
        try:
            if not isinstance(record, dict):
                raise FormatError(f"expected an object, got {type(record).__name__}")
            pairs.append(_READERS[shape](record, place))
        except FormatError as fault:
            faults[place] = str(fault)
    return pairs, faults


def read_records(path: Path) -> list[Any]:
    """The records of a JSON list or of JSON Lines.

    Raises: InputError if there is no such file, it is not JSON, or it holds none.
    """
    text = read_text(path)
    if text.lstrip().startswith("["):
        records = json_value(text, str(path), "Write a list of records.")
    else:  # no ``splitlines``, which also parts a text at the line separators that may stand in its words
        lines = enumerate(text.split("\n"), start=1)
        records = [json_value(line, f"{path}:{k}", "Write one record a line.") for k, line in lines if line.strip()]
    if not records:
        raise InputError(f"{path}: holds no records.")
    return records


def _field(record: Json, name: str, kind: type | tuple[type, ...], *, default: Any = None) -> Any:
    value = record.get(name, default)
    if value is None:
        raise FormatError(f"no '{name}'")
    if not isinstance(value, kind) or isinstance(value, bool):
        raise FormatError(f"'{name}' is {type(value).__name__}")
    return value


def _names(record: Json, name: str) -> tuple[str, ...]:
    """File names under a key that holds one, a list, or nothing."""
    value = record.get(name)
    listed = [] if value in (None, "") else [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise FormatError(f"'{name}' is not a file name or a list of them")
    return tuple(listed)


def _weight(record: Json, name: str, *, required: bool) -> float:
    return float(_field(record, name, (int, float), default=None if required else 1.0))


def _relevance(record: Json) -> float | None:
    if record.get("relevance") is None:
        return None
    value = float(_field(record, "relevance", (int, float)))
    if not 0 <= value <= 1:
        raise FormatError(f"'relevance' is {value:g}, outside 0 to 1")
    return value


def _bare(text: str) -> str:
    return text.replace("<image>", "").strip()


def _turns(record: Json, name: str, keys: tuple[str, str], roles: tuple[str, str]) -> tuple[str, str]:
    """Question and answer of a dialogue of two turns."""
    turns, (who, what) = _field(record, name, list), keys
    if len(turns) != 2 or not all(isinstance(turn, dict) for turn in turns):
        raise FormatError(f"'{name}' does not hold two turns")
    if (turns[0].get(who), turns[1].get(who)) != roles:
        raise FormatError(f"'{name}' is not from {roles[0]}, then {roles[1]}")
    said = [turn.get(what) for turn in turns]
    if not all(isinstance(text, str) for text in said):
        raise FormatError(f"'{name}' holds a turn without '{what}'")
    return _bare(said[0]), said[1].strip()


def _from_llava(record: Json, place: int, *, scored: bool = False) -> Pair:
    for switch in ("rejected_noised", "chosen_noised"):
        if record.get(switch):
            raise FormatError(f"'{switch}' asks for pure noise in place of its image; build lesion noise instead")
    keys, roles = ("from", "value"), ("human", "gpt")
    question, chosen = _turns(record, "conversations", keys, roles)
    other, rejected = _turns(record, "rejected_conversations", keys, roles)
    if other != question:
        raise FormatError("its two dialogues ask different questions")
    weight = _weight(record, "weighted_score", required=scored)
    images, others = _names(record, "image"), _names(record, "rejected_image")
    return Pair(str(record.get("id", place)), images, question, chosen, rejected, weight, others)


def _from_mmedpo(record: Json, place: int) -> Pair:
    """A score beside no relevance is the relevance itself, unless it is on another scale."""
    pair, relevance = _from_llava(record, place, scored=True), _relevance(record)
    is_relevance = relevance is None and 0 <= pair.weight <= 1
    return replace(pair, relevance=pair.weight if is_relevance else relevance)


def _from_ms_swift(record: Json, place: int) -> Pair:
    keys, roles = ("role", "content"), ("user", "assistant")
    question, chosen = _turns(record, "messages", keys, roles)
    if "rejected_messages" in record:
        other, rejected = _turns(record, "rejected_messages", keys, roles)
        if other != question:
            raise FormatError("its two dialogues ask different questions")
    elif "rejected_response" in record:
        rejected = _field(record, "rejected_response", str).strip()
    else:  # its shape for pairs that differ in their images only
        _field(record, "rejected_images", (list, str))
        rejected = chosen
    weight, others = _weight(record, "weight", required=False), _names(record, "rejected_images")
    images = _names(record, "images")
    return Pair(str(record.get("id", place)), images, question, chosen, rejected, weight, others, _relevance(record))


def _from_trl(record: Json, place: int) -> Pair:
    question, chosen, rejected = (_bare(_said(record, name)) for name in ("prompt", "chosen", "rejected"))
    weight, others = _weight(record, "weight", required=False), _names(record, "rejected_images")
    images = _names(record, "images")
    return Pair(str(record.get("id", place)), images, question, chosen, rejected, weight, others, _relevance(record))


def _said(record: Json, name: str) -> str:
    """The words of one turn: TRL takes bare strings, messages of strings and messages of blocks."""
    value = _field(record, name, (str, list))
    if isinstance(value, str):
        return value
    if len(value) != 1 or not isinstance(value[0], dict):
        raise FormatError(f"'{name}' does not hold one turn")
    content = value[0].get("content")
    if isinstance(content, str):
        return content
    try:
        return message_text(value)
    except (KeyError, TypeError):
        raise FormatError(f"'{name}' holds neither text nor content blocks") from None


_READERS: dict[Format, Callable[[Json, int], Pair]] = {
    "mmedpo": _from_mmedpo,
    "llava": _from_llava,
    "ms_swift": _from_ms_swift,
    "trl": _from_trl,
}


def write_pairs(pairs: Iterable[Pair], path: Path, shape: Format) -> Path:
    """The pairs as a file of this shape; what it has no place for is left out (LLaVA: weight and relevance)."""
    records = [_WRITERS[shape](pair) for pair in pairs]
    if shape in ("mmedpo", "llava"):
        text = json.dumps(records, indent=1, ensure_ascii=False) + "\n"
    else:
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text(text, encoding="utf-8")
    return path


def _to_llava(pair: Pair) -> Json:
    question = f"{'<image>' * len(pair.images)}\n{pair.question}" if pair.images else pair.question
    sides = {
        name: [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
        for name, answer in (("conversations", pair.chosen), ("rejected_conversations", pair.rejected))
    }
    others = {"rejected_image": _one_or_list(pair.rejected_images)} if pair.rejected_images else {}
    return {"id": pair.id, "image": _one_or_list(pair.images), **sides, **others}


def _one_or_list(names: tuple[str, ...]) -> str | list[str]:
    return names[0] if len(names) == 1 else list(names)


def _relevance_of(pair: Pair) -> Json:
    return {} if pair.relevance is None else {"relevance": pair.relevance}


def _to_mmedpo(pair: Pair) -> Json:
    return {**_to_llava(pair), "weighted_score": pair.weight, **_relevance_of(pair)}


def _to_ms_swift(pair: Pair) -> Json:
    question = "<image>" * len(pair.images) + pair.question
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": pair.chosen}]
    others = {"rejected_images": list(pair.rejected_images)} if pair.rejected_images else {}
    paired = {"rejected_response": pair.rejected, "weight": pair.weight, **_relevance_of(pair)}
    return {"id": pair.id, "messages": messages, "images": list(pair.images), **paired, **others}


def _to_trl(pair: Pair) -> Json:
    turns = {"prompt": user_turn(pair.question, num_images=len(pair.images))}
    turns |= {"chosen": assistant_turn(pair.chosen), "rejected": assistant_turn(pair.rejected)}
    others = {"rejected_images": list(pair.rejected_images)} if pair.rejected_images else {}
    return {"id": pair.id, **turns, "images": list(pair.images), "weight": pair.weight, **_relevance_of(pair), **others}


_WRITERS: dict[Format, Callable[[Pair], Json]] = {
    "mmedpo": _to_mmedpo,
    "llava": _to_llava,
    "ms_swift": _to_ms_swift,
    "trl": _to_trl,
}


def survey(pairs: Sequence[Pair]) -> Json:
    """What is known to be weak in released pairs, counted: identical, repeated, contained, leaked, without weight."""
    asked = Counter((pair.images, pair.question) for pair in pairs)
    text = [pair for pair in pairs if not pair.rejected_images]
    faults = Counter(fault_of_rejected(pair.chosen, pair.rejected, limit=None) for pair in text)
    return {
        "pairs": len(pairs),
        "identical": sum(pair.is_identical for pair in pairs),
        "repeated": sum(number - 1 for number in asked.values()),
        "contains_truth": faults["contains the truth"],
        "same_polarity": sum(same_polarity(pair.chosen, pair.rejected) for pair in text if not pair.is_identical),
        "meta_text": sum(bool(META_TEXT.search(pair.rejected)) for pair in text),
        "weights": weight_report([pair.weight for pair in pairs]),
        "brevity": brevity_report([pair.chosen for pair in text], [pair.rejected for pair in text]),
    }
