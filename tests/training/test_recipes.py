from dataclasses import FrozenInstanceError, replace

import pytest

from manifests.errors import RecipeError
from manifests.recipes import fingerprint, from_mapping, read_recipe, to_mapping
from training.model.croco import base_small, base_small_rope
from training.recipes import RECIPES, PretrainRecipe, body, body_beyond, body_rope, body_views, demo, mae_body, study

# Regenerate: python -c "from training.recipes import *; from manifests.recipes import fingerprint;
#   print({n: fingerprint(r())[:16] for n, r in RECIPES.items()})"
# A change here is a change of what a published name means: say so in CHANGELOG.md.
FINGERPRINTS = {
    "body": "4d1b9fbf8b4cbb59",
    "hand": "c4d870eb413f7100",
    "body_rope": "c12a9d9c642a7ff6",
    "body_base": "273718ee8ec7da9a",
    "body_large": "b3c7d7d71d574007",
    "body_beyond": "5621f0fb60e05525",
    "body_views": "91e7a4318c998fe8",
    "mae_body": "60b6446decb833fd",
    "mae_hand": "b75aed4f25f8c030",
    "keypoints": "6853e3fbc5290f69",
    "body_keypoints": "25fe5fdc4a5f7c7c",
    "study": "45af0a857ed6de03",
    "demo": "4fc1e10ebd9923df",
    "smoke": "452acf1590108902",
}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_published_recipes_keep_their_meaning(name):
    assert fingerprint(RECIPES[name]())[:16] == FINGERPRINTS[name]


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_survive_their_plain_form(name):
    recipe = RECIPES[name]()
    assert recipe.name == name
    assert from_mapping(PretrainRecipe, to_mapping(recipe)) == recipe


def test_body_is_the_network_and_masking_of_the_paper():
    recipe = body()
    assert recipe.architecture == base_small()
    assert (recipe.mask, recipe.mask_ratio, recipe.full_length) == ("human", 0.75, 49)
    assert recipe.peak_lr == pytest.approx(1.5e-4)
    assert body_rope().architecture == replace(base_small(), positions="rope")


def test_recipes_beyond_the_paper_say_what_they_change():
    beyond = body_beyond()
    assert (beyond.symmetric, beyond.masks_both, beyond.pad_to) == (True, True, 49)
    assert beyond.anneal_steps == beyond.num_steps  # the rate ends at zero
    assert body_views() == replace(body_rope(), name="body_views", num_references=3)
    mae = mae_body()
    assert mae == replace(body(), name="mae_body", network="mae")
    assert mae.masks_both


def test_a_file_changes_a_named_recipe(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "recipe: demo\nnum_steps: 700\nanneal_steps: 800\nmask: uniform\naugmentation: {flip: true}\npad_to: 49\n"
    )
    recipe = read_recipe(str(path), RECIPES)
    changed = replace(demo(), name="mine", num_steps=700, anneal_steps=800, mask="uniform", pad_to=49)
    assert recipe == replace(changed, augmentation=replace(demo().augmentation, flip=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "recipe: demo\nmask_ration: 0.9\n",
            r"unknown recipe key `mask_ration`(.|\n)*mine.yaml: mask_ration\n(.|\n)*did you mean `mask_ratio`",
        ),
        ("recipe: demo\naugmentation: {jiter: 0.1}\n", r"unknown recipe key `jiter`(.|\n)*augmentation(.|\n)*`jitter`"),
        ("recipe: demo\nbatch_size: many\n", "'many' is not a whole number"),
        ("recipe: demo\nmask: hand\n", "'hand' is not one of 'human', 'uniform'"),
        (
            "recipe: demo\nwarmup_steps: 9999\n",
            r"warmup_steps 9999 < num_steps(.|\n)*mine.yaml: num_steps, warmup_steps, anneal_steps\n",
        ),
        ("num_steps: 7\n", "names no recipe to start from(.|\n)*add `recipe:`"),
        ("recipe: [demo\n", "does not read"),
        ("- demo\n", "names no recipe"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        read_recipe(str(path), RECIPES)


def test_unknown_names_are_answered_with_the_known_ones(tmp_path):
    with pytest.raises(RecipeError, match=r"no recipe is called `bodi`(.|\n)*did you mean .body."):
        read_recipe("bodi", RECIPES)
    with pytest.raises(RecipeError, match="does not read"):
        read_recipe(str(tmp_path / "absent.yaml"), RECIPES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask_ratio": 1.0}, "mask_ratio must lie between"),
        ({"mask_ratio": 0.001}, "hides none of"),
        ({"pad_to": 40}, "pad_to 40: at mask_ratio 0.75 only 49 fits every image"),
        ({"num_steps": 0}, "num_steps must be positive"),
        ({"anneal_steps": 5}, "<= anneal_steps 5 does not hold"),
        ({"human_coverage": 0.0}, "human_coverage must lie"),
        ({"base_lr": 0.0}, "base_lr must be positive"),
        ({"group_size": 100}, "batch_size 256 is not a multiple of group_size 100"),
        ({"spike": 1.0}, "spike must be more than 1"),
        ({"completion_weight": 0.0}, "one of them more"),
        ({"keypoint_weight": -1.0}, "must be at least 0"),
        ({"network": "mae", "symmetric": True}, "cannot be symmetric"),
        ({"num_references": 0}, "num_references must be positive"),
        ({"num_references": 2, "symmetric": True}, "several references are seen whole"),
        ({"network": "mae", "architecture": base_small_rope()}, "has cosine positions"),
        ({"augmentation": replace(demo().augmentation, crop_px=200)}, "crop_px 200 is not a multiple of image_px"),
    ],
)
def test_contradictions_are_refused_before_anything_runs(change, message):
    with pytest.raises(ValueError, match=message):
        replace(body(), **change)


def test_a_recipe_does_not_change():
    with pytest.raises(FrozenInstanceError):
        demo().seed = 3


def test_the_study_masks_what_croco_masks_and_ends_at_rate_zero():
    recipe = study()
    assert (recipe.architecture.num_patches, recipe.full_length) == (49, 5)
    assert recipe.anneal_steps == recipe.num_steps
