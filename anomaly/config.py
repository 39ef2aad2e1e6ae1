"""Recipes: YAML on disk <-> frozen pydantic models, `--set a.b=value`, and "did you mean" for every wrong key.

A recipe (`configs/NAME.yaml`) names a method, its settings, the preparation and the size. The method's own settings
are checked by the method's `Config`, which this module does not know; it gets them as the mapping `detector`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from anomaly.errors import UsageError


class Settings(BaseModel):
    """Base of every settings class: frozen, strict about unknown keys, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, serialize_by_alias=True)


class ReadConfig(Settings):
    """How files are read."""

    max_megapixels: float = Field(default=100.0, gt=0)


class PrepareConfig(Settings):
    """How a scan becomes the square a detector sees; the order is fixed (see `anomaly.prepare.prepare`)."""

    channels: Literal[1, 3] = 1
    crop: Literal["none", "auto"] = "none"
    markers: Literal["keep", "inpaint"] = "keep"
    registration: Literal["none", "affine"] = Field(default="none", alias="register")
    """`register` in recipes; as a field's name it would shadow a method of every abstract class."""
    lungs: Literal["none", "mask", "crop"] = "none"
    """What a fitted U-Net's lungs are used for: everything else made black, or the film cut down to them."""
    central_crop: float = Field(default=1.0, ge=0.3, le=1.0)
    """Share of the side that is kept, about the middle, once a film lies where it is to lie."""
    clahe: bool = True
    clahe_size: int = Field(default=512, ge=16, le=4096)
    clahe_clip: float = Field(default=2.0, gt=0)
    clahe_tiles: int = Field(default=8, ge=1, le=64)

    @model_validator(mode="after")
    def _placed_once(self) -> Self:
        if self.lungs == "crop" and self.registration != "none":
            raise ValueError("lungs=crop and register both say where the film lies: set one of them to none")
        return self


class CalibrationConfig(Settings):
    """How many normals are held out of training to turn scores into p-values, and the default alpha."""

    fraction: float = Field(default=0.2, gt=0, lt=1)
    minimum: int = Field(default=8, ge=1)
    alpha: float = Field(default=0.05, gt=0, lt=1)


class Recipe(Settings):
    """Everything `fit` needs beside the scans; written to a run's config.yaml, from which it can be fed back."""

    method: str
    size: int = Field(default=64, ge=16, le=2048)
    seed: int = Field(default=0, ge=0)
    read: ReadConfig = ReadConfig()
    prepare: PrepareConfig = PrepareConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    detector: dict[str, Any] = Field(default_factory=dict)


OF_ANOMALIB = "anomalib"
"""The recipe that takes a model's name behind a colon."""

S = TypeVar("S", bound=Settings)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean X?" for the nearest known word, or the list of known ones when none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(names)}" if names else ""


def validate(cls: type[S], data: Any, where: str) -> S:
    """Build settings of type `cls` from plain data.

    Args:
        cls: A `Settings` class.
        data: A mapping as read from YAML.
        where: What the user calls this data, for the message ("configs/anogan.yaml").

    Raises:
        UsageError: An unknown key (with the nearest known one) or a value out of range.
    """
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            hint = did_you_mean(str(first["loc"][-1]), _keys_at(cls, first["loc"][:-1]))
            raise UsageError(f"{where}: unknown setting {key!r}{hint}") from error
        told = first["type"] != "missing" and not isinstance(first["input"], Mapping)  # a whole section says nothing
        value = f" (got {first['input']!r})" if told else ""
        said = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{where}: setting {key or 'file'!r}: {said}{value}.") from error


def _keys_at(cls: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    for part in path:
        field = cls.model_fields.get(str(part))
        nested = field.annotation if field else None
        if not (isinstance(nested, type) and issubclass(nested, BaseModel)):
            return []
        cls = nested
    return [field.alias or name for name, field in cls.model_fields.items()]


def recipes_folder() -> Path:
    """Return the folder of shipped recipes: inside the wheel when installed, beside the package in a checkout."""
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes, sorted."""
    return sorted(path.stem for path in recipes_folder().glob("*.yaml"))


def recipe_text(name: str) -> str:
    """Return the commented YAML of a shipped recipe.

    Raises:
        UsageError: No recipe of that name.
    """
    path = recipes_folder() / f"{name}.yaml"
    if name not in recipe_names():
        raise UsageError(f"No recipe is called {name!r}{did_you_mean(name, recipe_names())}")
    return path.read_text(encoding="utf-8")


def parse_recipe(text: str, where: str, overrides: Sequence[str] = ()) -> Recipe:
    """Parse recipe YAML and apply `a.b=value` overrides before it is checked.

    Raises:
        UsageError: Not YAML, an unknown key, a value out of range, or an override without "=".
    """
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise UsageError(f"{where} must hold settings such as 'method: anogan'; `anomaly config anogan` shows one.")
    for override in overrides:
        _apply(data, override)
    return validate(Recipe, data, where)


def load_recipe(name: str | None, file: Path | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """Load a shipped recipe by name, or one's own from a file, with overrides applied.

    `anomalib:NAME` is the recipe `anomalib` with that model of anomalib's.

    Raises:
        UsageError: As `parse_recipe`, and when the file cannot be read.
    """
    if file is None:
        name, colon, model = (name or "anogan").partition(":")
        if colon and name != OF_ANOMALIB:
            raise UsageError(f"Only {OF_ANOMALIB} takes a model behind a colon, as in {OF_ANOMALIB}:Stfpm.")
        chosen = [f"detector.model={model}"] if colon else []
        return parse_recipe(recipe_text(name), f"configs/{name}.yaml", [*chosen, *overrides])
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"Cannot read the recipe {file}: {reason}. Start from `anomaly config anogan`.") from error
    return parse_recipe(text, str(file), overrides)


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML that `parse_recipe` reads back to the same settings."""
    return str(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))


def _apply(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set takes KEY=VALUE, such as detector.search_steps=50, not {override!r}.")
    *parents, last = key.strip().split(".")
    node = data
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise UsageError(f"--set {override}: {parent!r} holds a value, not settings.")
        node = child
    try:
        node[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UsageError(f"--set {override}: the value is not valid YAML.") from error
