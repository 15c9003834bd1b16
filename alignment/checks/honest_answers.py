"""What the honest answer earns, asked before a run: units that do not fit show as right answers that are not paid.

The truth of a few rows of each task, written as the model writes it (``data.box_space``), is scored plain and in the
think-then-answer format. Left out: rewards that are judged in batches, which may ask a service, and dialogues.
"""

import random
from collections.abc import Iterator

from alignment.config.box_units import UNIT_COLUMNS, Row, trained_space, truth_faults
from alignment.config.data_entries import train_rows
from alignment.config.methods import METHODS
from alignment.config.recipe import Recipe
from alignment.config.reward_entry import loaded_reward
from data_builders.cards import card_grid
from data_builders.schema import message_text
from rewards.attacks.attacks import tagged
from rewards.boxes.coordinate_space import Units, in_written_units
from rewards.config.input_error import InputError
from rewards.loading import Reward, knobs_of
from rewards.reading.box_text import located_boxes

ROWS_A_TASK = 12
SLACK = 1e-9
BOX_COLUMNS = ("id", "task", "boxes", "box_images", *UNIT_COLUMNS)


def honesty_faults(recipe: Recipe) -> list[str]:
    """What in a recipe's data and rewards leaves honest answers unpaid, or taught in other units than are read."""
    names = train_rows(recipe).columns
    if "rewards" not in METHODS[recipe.method].sections:
        return _taught_faults(recipe, names)
    rows = _rows(recipe, [name for name in BOX_COLUMNS if name in names])
    faults = [f"data.train: {fault}" for fault in truth_faults(rows)][:1] or _space_faults(recipe, rows)
    faults += _start_faults(recipe, rows)
    for index, entry in enumerate(recipe.rewards):
        if "box_space" in entry.knobs:
            faults.append(f"rewards[{index}]: 'box_space' is set once, for all that reads boxes: data.box_space.")
    return faults or _unpaid_faults(recipe, names)


def _rows(recipe: Recipe, columns: list[str]) -> list[Row]:
    """The training rows with these columns, and with their units."""
    rows = train_rows(recipe)
    grid = {} if "box_grid" in columns else {"box_grid": card_grid(rows.file)}
    return [{"id": f"number {k + 1}", **row, **grid} for k, row in enumerate(rows.records(columns))]


def _space_faults(recipe: Recipe, rows: list[Row]) -> list[str]:
    """A space that cannot be brought into the units of the rows."""
    space = recipe.data.box_space
    if space == "grid":
        return []
    boxed = [row for row in rows if row.get("boxes")]
    if space in ("pixels", "processed"):
        lacking = next((row for row in boxed if not row.get("image_size")), None)
        cure = "which says how many pixels an image has. Rebuild the data"
    else:
        lacking = next((row for row in boxed if row["box_grid"] is None and not row.get("image_size")), None)
        cure = "nor 'box_grid', the units of its true boxes. Rebuild the data, or add one of the two columns"
    faults = [] if lacking is None else [f"data.box_space: {space}: row {lacking['id']} has no 'image_size', {cure}."]
    if space == "pixels" and recipe.data.too_long == "resize":
        faults.append("data.box_space: pixels: 'too_long: resize' changes them; use 0-1000, or drop what is too long.")
    return faults


def _start_faults(recipe: Recipe, rows: list[Row]) -> list[str]:
    """A run to start from that was trained to write other units than these rewards read."""
    learnt, space = trained_space(recipe.model.path), recipe.data.box_space
    grids = {row["box_grid"] for row in rows if row.get("boxes")}
    same = {"grid", *(f"0-{grid}" for grid in grids)} if len(grids) == 1 else {"grid"}
    if learnt in (None, space) or {learnt, space} <= same:
        return []
    return [f"data.box_space: {space}, but {recipe.model.path} was trained to write boxes in '{learnt}'. Say the same."]


def _taught_faults(recipe: Recipe, names: list[str]) -> list[str]:
    """Answers of the data whose boxes are in other units than ``data.box_space`` says that the model writes."""
    answers = next((name for name in ("completion", "chosen") if name in names), None)
    grid, space = card_grid(train_rows(recipe).file), recipe.data.box_space
    if answers is None or grid is None or space in ("grid", f"0-{grid}"):
        return []
    wanted = [name for name in ("id", "task", answers) if name in names]
    boxed = (row for row in _rows(recipe, wanted) if next(located_boxes(message_text(row[answers])), None))
    row = next(boxed, None)
    if row is None:
        return []
    return [
        f"data.box_space: {space}, but the {answers} of row {row['id']} states boxes on the grid of {grid} that the "
        f"data were built on, and that is what is learnt. Leave box_space out, or build with another box_grid."
    ]


def _unpaid_faults(recipe: Recipe, names: list[str]) -> list[str]:
    """Rewards on boxes, or all rewards together, by which no honest answer earns anything."""
    if recipe.rewards and all(entry.weight <= 0 for entry in recipe.rewards):
        return ["rewards: no reward has a weight above 0, so no answer can be paid. Give one of them a weight."]
    weighted = [(entry, loaded_reward(entry, recipe.data.box_space)) for entry in recipe.rewards if entry.weight > 0]
    plain = [(entry, reward) for entry, reward in weighted if isinstance(reward, Reward)]
    read = {"answer", *BOX_COLUMNS, *(c for _, reward in plain for c in (*reward.columns, *reward.optional))}
    rows = _answered(recipe, [name for name in names if name in read])
    if not rows or not plain or recipe.dialogue:
        return []
    try:
        paid = {reward.name: list(_gains(recipe, reward, rows)) for _, reward in plain}
    except InputError as fault:
        return [f"rewards: {fault}"]
    faults = [
        f"rewards: '{name}' pays no true answer on {recipe.data.train}: '{said}' earns the least there is. Are its "
        f"boxes in other units (data.box_space: {recipe.data.box_space})?"
        for name, gains in paid.items()
        if "box_space" in knobs_of(name) and (said := _unpaid_box(gains))
    ]
    judged = [gain for gains in paid.values() for _, _, gain in gains]
    if faults or len(plain) < len(weighted) or max(judged, default=0.0) > SLACK:
        return faults
    return [
        f"rewards: no answer can be paid: the true answer to each of {len(rows)} rows of {recipe.data.train} earns the "
        "least that the rewards give. Name a reward for these tasks, see `clinalign rewards`."
    ]


def _answered(recipe: Recipe, names: list[str]) -> list[Row]:
    """A few rows of each task that have an answer."""
    by_task: dict[str, list[Row]] = {}
    rows = _rows(recipe, names) if "answer" in names else []
    for row in random.Random(0).sample(rows, len(rows)):
        of_task = by_task.setdefault(row.get("task") or "", [])
        if row["answer"] and len(of_task) < ROWS_A_TASK:
            of_task.append(row)
    return [row for of_task in by_task.values() for row in of_task]


def _gains(recipe: Recipe, reward: Reward, rows: list[Row]) -> Iterator[tuple[Row, str, float]]:
    """Each row that a reward judges, its true answer, and what that earns beyond the reward's least."""
    for row in rows:
        shown = {**row, "processed_size": row.get("image_size")}  # what the processor makes of it is not known here
        units = Units.of(shown, recipe.data.box_space)
        said = in_written_units(row["answer"], units, row.get("box_images"))
        scores = [_score(reward, answer, shown) for answer in (said, tagged(said))]
        judged = [score for score in scores if score is not None]
        if judged:
            yield row, said, max(judged) - reward.bounds[0]


def _score(reward: Reward, answer: str, row: Row) -> float | None:
    columns = {"completion_ids": answer.split(), **row}
    return reward(answer, **columns) if set(reward.columns) <= columns.keys() else None


def _unpaid_box(gains: list[tuple[Row, str, float]]) -> str | None:
    """A true answer with boxes, where a reward pays none of those that it judges."""
    boxed = [(said, gain) for row, said, gain in gains if row.get("boxes")]
    return boxed[0][0] if boxed and max(gain for _, gain in boxed) <= SLACK else None
