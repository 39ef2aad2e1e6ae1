"""Recipes: every shipped one is true to the code, every wrong key gets a hint, --set does what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from anomaly.config import (
    Recipe,
    Settings,
    did_you_mean,
    dump_recipe,
    load_recipe,
    parse_recipe,
    recipe_names,
    recipe_text,
    validate,
)
from anomaly.errors import UsageError
from anomaly.registry import METHODS, SEGMENTERS, detector_class, segmenter_class

RECIPES = [
    *("alexnet", "anogan", "anogan-2017", "anomalib", "atlas", "densenet161", "efficientnet_b5", "feature-gaussian"),
    *("mobilenet_v2", "mobilenet_v3_large", "padim", "padim-max", "patchcore", "patchcore-max", "pixel-stats"),
    *("resnet152", "resnet18", "resnet50", "resnetv2_50", "retinanet", "unet", "vgg16", "xception"),
]
AT_DEFAULTS = [
    *("anogan", "anomalib", "atlas", "feature-gaussian", "padim", "patchcore", "pixel-stats", "resnet18", "retinanet"),
    "unet",
]
"""Recipes that spell out their method's defaults; others exist to change them."""


def class_of(recipe: Recipe) -> Any:
    return segmenter_class(recipe.method) if recipe.method in SEGMENTERS else detector_class(recipe.method)


def settings_of(recipe: Recipe) -> Settings:
    config: Settings = validate(class_of(recipe).Config, recipe.detector, "detector")
    return config


def test_the_shipped_recipes_are_these() -> None:
    assert recipe_names() == RECIPES
    assert {load_recipe(name).method for name in RECIPES} == {*METHODS, *SEGMENTERS}, "every method has a recipe"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_parses_and_its_method_takes_its_settings(name: str) -> None:
    settings_of(load_recipe(name))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_every_setting_there_is(name: str) -> None:
    recipe = load_recipe(name)
    segments = recipe.method in SEGMENTERS  # and gives no score to calibrate
    assert recipe.model_fields_set == set(Recipe.model_fields) - ({"calibration"} if segments else set())
    for part in (recipe.read, recipe.prepare, *(() if segments else (recipe.calibration,))):
        assert part.model_fields_set == set(type(part).model_fields)
    assert list(recipe.detector.keys() - type(settings_of(recipe)).model_fields.keys()) == []
    assert list(type(settings_of(recipe)).model_fields.keys() - recipe.detector.keys()) == []


@pytest.mark.parametrize("name", AT_DEFAULTS)
def test_a_default_recipe_holds_the_defaults_of_the_code(name: str) -> None:
    recipe = load_recipe(name)
    assert settings_of(recipe) == class_of(recipe).Config()
    if name == "pixel-stats":  # the others need a preparation of their own
        assert recipe == Recipe(method=recipe.method, detector=recipe.detector)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_opens_with_purpose_command_time_and_needs(name: str) -> None:
    text = recipe_text(name)
    comments = text[: text.index("\nmethod:")].strip().splitlines()
    assert all(line.startswith("#") for line in comments)
    assert comments[0].startswith(f"# {name} — ")
    command = [line for line in comments if re.match(r"#   anomaly \w+", line)]
    assert len(command) == 1
    assert ("anomaly segment fit " in command[0]) == (load_recipe(name).method in SEGMENTERS)
    asked = re.search(r" -d ([\w-]+)", command[0])
    assert name == "anogan" or (asked and asked[1] == name), "the command is for this recipe"
    assert any("Time: " in line for line in comments)
    assert any("Needs: " in line for line in comments)


@pytest.mark.parametrize("name", RECIPES)
def test_a_dumped_recipe_parses_back_to_itself(name: str) -> None:
    recipe = load_recipe(name, overrides=["seed=7", "detector.score_batch=3", "prepare.register=affine"])
    assert parse_recipe(dump_recipe(recipe), "dump") == recipe


@pytest.mark.parametrize(
    ("line", "key", "meant"),
    [
        ("sise: 64", "sise", "size"),
        ("prepare: {clahe_sise: 64}", "prepare.clahe_sise", "clahe_size"),
        ("prepare: {registre: affine}", "prepare.registre", "register"),
        ("prepare: {registration: affine}", "prepare.registration", "register"),
        ("calibration: {alhpa: 0.1}", "calibration.alhpa", "alpha"),
        ("read: {max_megapixel: 3}", "read.max_megapixel", "max_megapixels"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(line: str, key: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_recipe(f"method: anogan\n{line}\n", "mine.yaml")
    for word in ("mine.yaml", repr(key), "did you mean", repr(meant)):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("method", "key", "meant"), [("anogan", "serch_steps", "search_steps"), ("pixel-stats", "flor", "floor")]
)
def test_an_unknown_key_of_a_method_is_refused_with_the_nearest_one(method: str, key: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean '{meant}'"):
        settings_of(load_recipe(method, overrides=[f"detector.{key}=3"]))


def test_a_key_like_no_other_gets_the_list_of_known_ones() -> None:
    with pytest.raises(UsageError, match=r"known: .*method.*size"):
        parse_recipe("method: anogan\nzzzzzz: 1", "mine.yaml")


def test_an_unknown_recipe_or_method_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match="anogan"):
        load_recipe("anogam")
    with pytest.raises(UsageError, match="pixel-stats"):
        detector_class("pixelstats")
    with pytest.raises(UsageError, match="unet"):
        segmenter_class("unett")


def test_what_draws_masks_and_what_scores_each_has_its_own_command() -> None:
    with pytest.raises(UsageError, match="anomaly segment fit -d unet"):
        detector_class("unet")
    with pytest.raises(UsageError, match="anomaly fit -d padim"):
        segmenter_class("padim")


def test_no_name_loads_the_default_recipe() -> None:
    assert load_recipe(None) == load_recipe("anogan")


def test_a_recipe_name_is_never_a_path(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        load_recipe("../configs/anogan")


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("size=32", "size", 32),
        ("prepare.clahe=false", "prepare.clahe", False),
        ("prepare.clahe=off", "prepare.clahe", False),
        ("prepare.register=affine", "prepare.register", "affine"),
        ("prepare.central_crop=0.8", "prepare.central_crop", 0.8),
        ("prepare.clahe_clip=1e-4", "prepare.clahe_clip", 1e-4),
        ("calibration.alpha=5e-2", "calibration.alpha", 0.05),
        (" calibration.alpha = 0.1", "calibration.alpha", 0.1),
        ("read.max_megapixels=12", "read.max_megapixels", 12.0),
    ],
)
def test_set_changes_one_setting_and_nothing_else(override: str, path: str, value: object) -> None:
    changed, before = load_recipe("anogan", overrides=[override]).model_dump(), load_recipe("anogan").model_dump()
    *parents, last = path.split(".")
    changed_part, part = changed, before
    for parent in parents:
        changed_part, part = changed_part[parent], part[parent]
    assert changed_part[last] == value
    part[last] = value
    assert changed == before


def test_set_reaches_a_methods_own_settings_with_numbers_yaml_reads_as_text() -> None:
    recipe = load_recipe("anogan", overrides=["detector.learning_rate=1e-4", "detector.search_steps=5"])
    settings = settings_of(recipe).model_dump()
    assert (settings["learning_rate"], settings["search_steps"]) == (1e-4, 5)


def test_the_last_of_two_sets_wins() -> None:
    assert load_recipe("anogan", overrides=["size=32", "size=128"]).size == 128


@pytest.mark.parametrize(
    "override", ["size", "=3", " =3", "size=[1", "size.x=3", "prepare=3", "a..b=1", ".=1", "seed=-1"]
)
def test_a_wrong_set_is_refused(override: str) -> None:
    with pytest.raises(UsageError):
        load_recipe("anogan", overrides=[override])


@pytest.mark.parametrize(
    "override",
    ["size=8", "size=many", "size=", "size=nan", "seed=1.5", "prepare.channels=2", "calibration.alpha=0",
     "calibration.alpha=1", "calibration.alpha=.nan", "calibration.fraction=1.5", "prepare.clahe_clip=.inf",
     "read.max_megapixels=.nan", "method=3", "prepare.register=rigid", "prepare.central_crop=0.2",
     "prepare.central_crop=1.1"],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_with_its_key(override: str) -> None:
    with pytest.raises(UsageError, match=override.partition("=")[0]):
        load_recipe("anogan", overrides=[override])


@pytest.mark.parametrize("text", ["", "- a\n- b", "method", "3", "method: [", "\tmethod: x", "1: 2", "size: 64"])
def test_what_is_no_recipe_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match=r"mine\.yaml"):
        parse_recipe(text, "mine.yaml")


def test_a_missing_or_unreadable_recipe_file_is_refused_with_the_way_to_start(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x81")
    for file in (tmp_path / "nothing.yaml", tmp_path, binary):
        with pytest.raises(UsageError, match=f"{file.name}.*anomaly config anogan"):
            load_recipe(None, file)


def test_ones_own_recipe_file_loads(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(recipe_text("pixel-stats"), encoding="utf-8")
    assert load_recipe(None, file) == load_recipe("pixel-stats")


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_recipe("anogan").size = 3  # type: ignore[misc]


def test_did_you_mean_is_silent_when_nothing_is_known() -> None:
    assert did_you_mean("x", []) == ""


def test_a_model_of_anomalib_is_named_behind_a_colon() -> None:
    assert load_recipe("anomalib:Fastflow").detector["model"] == "Fastflow"
    assert load_recipe("anomalib:Fastflow", overrides=["detector.model=Dfm"]).detector["model"] == "Dfm"
    with pytest.raises(UsageError, match="anomalib:Stfpm"):
        load_recipe("padim:resnet18")
