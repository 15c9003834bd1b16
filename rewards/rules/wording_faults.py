"""Words that a reader would mistake: of a decision, where test wording is training wording too, and normal phrases."""

import re
from collections.abc import Iterator, Mapping
from itertools import product
from string import Formatter

from rewards.config.input_error import nearest
from rewards.config.yaml_lines import KeyPath
from rewards.rules.decision import Decision
from rewards.rules.faults import Fault
from rewards.rules.nodes import Node, Pool
from rewards.rules.symbols import read_symbol

CLAIM_FIELDS = {"claim", "ask"}


def wording_faults(decision: Decision) -> Iterator[Fault]:
    """Phrases of two symbols, templates that do not read back, templates in both splits, broken placeholders."""
    for name, node in decision.nodes.items():
        at = ("decision", "nodes", name)
        yield from _phrase_faults(node, at)
        yield from _pool_faults(node.ask, (*at, "ask"))
        for symbol, answer in node.answers.items():
            yield from _pool_faults(answer.say, (*at, "answers", symbol, "say"))
            yield from _reading_faults(node, symbol, answer.say, (*at, "answers", symbol, "say"))
    for key, pool in (("hint", decision.hint), ("confirm", decision.confirm)):
        yield from _pool_faults(pool, ("decision", key))
        yield from _claim_faults(pool, ("decision", key))
    for k, context in enumerate(decision.context):
        if _fields(context.text) is None:
            place = ("decision", "context", k, "text")
            yield Fault(
                place,
                f"'{context.text}': a brace is open, or holds no plain name. Write {{column}}, or {{{{ for a brace.",
            )


def normal_faults(normal: Mapping[str, list[str]], findings: list[str]) -> Iterator[Fault]:
    """Phrases that cannot be read or are two of one kind, and what they deny that is no finding."""
    owners: dict[str, str] = {}
    for phrase, denied in normal.items():
        place = ("wording", "normal", phrase)
        first = owners.setdefault(_words(phrase), phrase)
        if not _words(phrase):
            yield Fault(place, f"'{phrase}' holds no word. Give the words of the phrase.")
        elif first != phrase:
            yield Fault(place, f"'{phrase}' is read as '{first}' is. Keep one of them.")
        if re.search(r"[.,;:!?\n]", phrase):
            yield Fault(place, f"'{phrase}' holds a stop, and is looked for within parts of a sentence. Leave it out.")
        if not denied:
            yield Fault(place, f"'{phrase}' denies nothing. List the findings that it denies.")
        for name in denied:
            if name not in findings:
                yield Fault(place, f"no finding is named '{name}'.{nearest(name, findings)}")


def _phrase_faults(node: Node, at: KeyPath) -> Iterator[Fault]:
    """Phrases that two symbols share, or that stand inside a phrase of another symbol unannounced."""
    for (symbol, phrases), (other, others) in product(node.lexicon.items(), repeat=2):
        if symbol == other:
            continue
        for phrase, longer in product(phrases, others):
            if phrase.casefold() == longer.casefold() and symbol < other:
                yield Fault(_phrases_at(node, at, other), f"phrase '{phrase}' is also of '{symbol}'. Keep it in one.")
            elif phrase.casefold() != longer.casefold() and phrase.casefold() in longer.casefold():
                yield from _contained(node, at, (symbol, phrase), (other, longer))


def _contained(node: Node, at: KeyPath, inner: tuple[str, str], outer: tuple[str, str]) -> Iterator[Fault]:
    (symbol, phrase), (other, longer) = inner, outer
    allowed = node.answers[other].may_contain if other in node.answers else []
    if symbol not in allowed:
        yield Fault(
            _phrases_at(node, at, other),
            f"'{longer}' contains '{phrase}' of '{symbol}'. Reword one; or, if the longest match is meant, "
            f"write may_contain: [{symbol}] under '{other}'.",
        )


def _phrases_at(node: Node, at: KeyPath, symbol: str) -> KeyPath:
    return (*at, "answers", symbol, "phrases") if symbol in node.answers else (*at, "also_read", symbol)


def _reading_faults(node: Node, symbol: str, say: Pool, at: KeyPath) -> Iterator[Fault]:
    for split in ("train", "test"):
        for k, template in enumerate(say.of(split)):
            reading = read_symbol(template, node)
            if reading.stated != symbol:
                read = reading.symbol or ""
                yield Fault(
                    (*at, split, k),
                    f"'{template}' reads as {' '.join(filter(None, (reading.kind, read)))}, not as '{symbol}'. "
                    "Reword it, or add its phrase.",
                )


def _pool_faults(pool: Pool, at: KeyPath) -> Iterator[Fault]:
    train = {_words(template): template for template in pool.train}
    for k, template in enumerate(pool.test):
        if _words(template) in train:
            yield Fault((*at, "test", k), f"'{template}' is a training template too. Reword one of them.")


def _words(template: str) -> str:
    return " ".join(re.findall(r"\w+", template.casefold()))


def _claim_faults(pool: Pool, at: KeyPath) -> Iterator[Fault]:
    splits: Mapping[str, list[str]] = {"train": pool.train, "test": pool.test}
    for split, templates in splits.items():
        for k, template in enumerate(templates):
            if _fields(template) != CLAIM_FIELDS:
                yield Fault((*at, split, k), f"'{template}' must hold {{claim}} and {{ask}}, and no other placeholder.")


def _fields(template: str) -> set[str] | None:
    """The placeholders of a template, which are plain names; None if it is not well formed."""
    try:
        fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except ValueError:
        return None
    return set(fields) if all(field.isidentifier() for field in fields) else None
