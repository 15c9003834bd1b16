"""The words that a model's processor brings along: a name can be a token, or stand in the chat template.

Of vocabularies only ``tiny``'s is made from a data set's texts, and only of rows that a person may have written is it
looked through; special tokens and templates, which people write, are of every model. Left out: words of three letters,
names that are words of clinalign's or transformers' own, and patterns by which a tokenizer splits.
"""

import ast
import re
from collections.abc import Collection, Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.provenance.lineage import Step
from alignment.release.released_model import without_comments
from alignment.release.transformers_words import words
from rewards.config.input_error import InputError
from rewards.config.json_lines import json_value

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

NO_PERSONS_WORDS = frozenset(
    {"phantom_chest", "phantom_marrow", "phantom_oct", "lidc_ct", "bccd", "vqa_rad", "slake", "path_vqa", "iu_xray"}
)
"""Sources that are drawn, or published with their words."""
OF_TEMPLATES = (
    "january", "february", "march", "april", "june", "july", "august", "september", "october", "november", "december",
    "artificial", "intelligence", "curious", "polite", "roles", "brave", "wolfram", "medgemma", "blockquote",
    "endofchunk", "endofprompt",
)  # fmt: skip
"""Words of published templates and special tokens that transformers does not write."""
NO_TEXTS = ("type", "strategy", "direction", "behavior", "prepend_scheme", "version", "Regex", "precompiled_charsmap")
"""Fields of a tokenizer.json that hold words of tokenizers, or patterns and tables."""


def check_vocabulary(
    tokenizer: "PreTrainedTokenizerBase", steps: list[Step], where: Path, *, written: Collection[str] = ()
) -> None:
    """Raises InputError if a vocabulary made from the first step's data holds words that clinalign does not write.

    ``written``: the rule sets of the user's own that the release keeps; their words may stay.
    """
    sources = {data.get("source") for data in steps[0].data} or {None}
    if steps[0].recipe["model"]["path"] != "tiny" or sources <= NO_PERSONS_WORDS:
        return
    if foreign := foreign_words(tokenizer, written=written):
        raise InputError(
            f"{where}: its vocabulary was made from the texts of its data, and {len(foreign)} of its words are none of "
            f"clinalign's ({', '.join(foreign[:5])}): a patient's name could be among them. Release a model that "
            "starts from a published one (model.path), or train on rows that nobody wrote by hand."
        )


def check_texts(
    processor: "ProcessorMixin",
    where: Path,
    *,
    published: "ProcessorMixin | None" = None,
    not_names: Collection[str] = (),
) -> None:
    """Raises InputError if the processor's special tokens or chat template hold words that nobody is known to write.

    ``published``: the processor of a published model that this one comes from, whose words may stay; ``not_names``:
    words of which a person says that they are nobody's name.
    """
    may_stay = {word for _, text in _texts(published) for word in _personal(text)} if published else set[str]()
    may_stay |= set(not_names)
    for part, text in _texts(processor):
        if foreign := sorted(word for word in _personal(text) - may_stay if not _is_known(word)):
            raise InputError(
                f"{where}: its {part} holds words that neither clinalign nor transformers writes "
                f"({', '.join(foreign[:20])}{', ...' * (len(foreign) > 20)}): a patient's name could be among them. "
                f"If you have looked and none is: clinalign release ... --not-a-name {foreign[0]}, and so on. Else "
                "take them out of the model that the first step starts from, and train anew."
            )


def _texts(processor: "ProcessorMixin") -> Iterator[tuple[str, str]]:
    """What a processor holds in words, by where: its templates, its special tokens, and how its tokenizer works."""
    tokenizer = processor.tokenizer
    for template in (processor.chat_template, tokenizer.chat_template):
        yield "chat template", without_comments(" ".join(_leaves(template)))
    special_names = [name for key, name in vars(processor).items() if key.endswith("_token")]
    special = [*tokenizer.all_special_tokens, *tokenizer.get_added_vocab(), *_leaves(special_names)]
    yield "special tokens", "\n".join(special)
    if backend := getattr(tokenizer, "backend_tokenizer", None):
        content = json_value(backend.to_str(), "tokenizer", "Save the tokenizer anew.")
        for large in ("vocab", "merges"):
            content["model"].pop(large, None)
        yield "tokenizer", "\n".join(_leaves(content))


def _leaves(content: object) -> Iterator[str]:
    """Every text in a JSON value, but for those fields in which tokenizers takes no text of one's own."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict):
        for key, inner in content.items():
            if key not in NO_TEXTS:
                yield from _leaves(inner)
    elif isinstance(content, list):
        for inner in content:
            yield from _leaves(inner)


def _personal(text: str) -> set[str]:
    """Its words that could be a person's: four letters and more, two in a script of its own, or five digits."""
    return set(re.findall(r"[^\W\d_]{4,}|[^\W\d_\x00-\x7f]{2,}|\d{5,}", text))


def _is_known(word: str) -> bool:
    folded = word.casefold()
    return folded in OF_TEMPLATES or folded in words() or folded in _written_words()


def foreign_words(tokenizer: Any, *, written: Collection[str] = ()) -> list[str]:
    """The words of four letters and more in the vocabulary that stand nowhere in what clinalign writes.

    ``written``: further texts whose words are known.
    """
    known = "\n".join([_written_words(), *(text.casefold() for text in written)])
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    texts = [tokenizer.convert_tokens_to_string([token]) for token in tokenizer.get_vocab() if token not in special]
    return sorted(
        {word for text in texts for word in re.findall(r"[^\W\d_]{4,}", text) if word.casefold() not in known}
    )


@cache
def _written_words() -> str:
    """What the rule sets, the curricula and the code of the builders put into words."""
    shelves = [Path(str(files(name))) for name in ("rewards", "data_builders")]
    knowledge = [file.read_text(encoding="utf-8") for shelf in shelves for file in sorted(shelf.rglob("*.yaml"))]
    code = [_texts_in(file) for shelf in shelves for file in sorted(shelf.rglob("*.py"))]
    return "\n".join([*knowledge, *code, "user assistant"]).casefold()


def _texts_in(file: Path) -> str:
    """The texts in a module, without its docstrings: those name people."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    spoken = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in spoken]
    return "\n".join(node.value for node in found if isinstance(node.value, str))
