"""The words of a vocabulary that was made from a data set's texts: in what people wrote, a name can become a token.

Only ``tiny`` has such a vocabulary, and only of rows that a person may have written is it looked through. Left out:
words of three letters, and names that are words of clinalign's own.
"""

import ast
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from alignment.lineage import Step
from rewards.strict_yaml import InputError

NO_PERSONS_WORDS = frozenset(
    {"phantom_chest", "phantom_marrow", "phantom_oct", "lidc_ct", "bccd", "vqa_rad", "slake", "path_vqa", "iu_xray"}
)
"""Sources that are drawn, or published with their words."""


def check_vocabulary(tokenizer: Any, steps: list[Step], where: Path) -> None:
    """Raises InputError if a vocabulary made from the first step's data holds words that clinalign does not write."""
    sources = {data.get("source") for data in steps[0].data} or {None}
    if steps[0].recipe["model"]["path"] != "tiny" or sources <= NO_PERSONS_WORDS:
        return
    if foreign := foreign_words(tokenizer):
        raise InputError(
            f"{where}: its vocabulary was made from the texts of its data, and {len(foreign)} of its words are none of "
            f"clinalign's ({', '.join(foreign[:5])}): a patient's name could be among them. Release a model that "
            "starts from a published one (model.path), or train on rows that nobody wrote by hand."
        )


def foreign_words(tokenizer: Any) -> list[str]:
    """The words of four letters and more in the vocabulary that stand nowhere in what clinalign writes."""
    told = _own_words()
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    texts = [tokenizer.convert_tokens_to_string([token]) for token in tokenizer.get_vocab() if token not in special]
    return sorted({word for text in texts for word in re.findall(r"[^\W\d_]{4,}", text) if word.casefold() not in told})


def _own_words() -> str:
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
