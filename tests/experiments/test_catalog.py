"""Studies: their runs, recipes and tuning; the catalog, with studies of the user's own."""

from dataclasses import replace

import pytest

from spvit_experiments import Arm, Study, catalog, get_study, list_studies, register_study
from spvit_mini.errors import UserError

TUNED = {"optim.lr": (1e-3, 4e-3), "optim.weight_decay": (0.0, 0.1)}


def test_pairs_come_together(tiny):
    assert tiny.runs() == [("plain", 0), ("prior", 0), ("plain", 1), ("prior", 1)]


def test_a_run_s_recipe_has_the_study_s_changes_the_arm_s_own_and_the_seed(tiny):
    study = replace(tiny, changes=tiny.changes | {"optim.lr": 9e-3})
    plain, prior = study.recipe("plain", 0), study.recipe("prior", 1)
    assert (plain.optim.lr, plain.model.dim, plain.seed, plain.name) == (9e-3, 16, 0, "vit_mini_compass6")
    assert (prior.optim.lr, prior.model.dim, prior.seed, prior.name) == (1e-3, 16, 1, "spvit_mini_compass6")


def test_every_arm_is_tuned_by_the_same_grid_on_held_out_images_and_seeds_of_their_own(tiny):
    tuning = replace(tiny, tuning=TUNED).tuning_study()
    assert tuning.name == "tiny-tuning" and tuning.seeds == (100, 101)
    assert len(tuning.arms) == 8 and len(tuning.runs()) == 16
    recipe = tuning.recipe("prior@optim.lr=0.004,optim.weight_decay=0.1", 101)
    assert (recipe.optim.lr, recipe.optim.weight_decay, recipe.data.holdout) == (4e-3, 0.1, 0.2)
    assert replace(tiny, tuning=TUNED).recipe("prior", 0).data.holdout == 0


def test_the_candidate_with_the_best_mean_is_chosen_for_each_arm(tiny):
    study = replace(tiny, tuning={"optim.lr": (1e-3, 2e-3, 4e-3)})
    accuracies = {  # 100 and 101
        "plain@optim.lr=0.001": (50.0, 52.0),
        "plain@optim.lr=0.002": (90.0, 10.0),  # best of one seed, but not on the mean
        "plain@optim.lr=0.004": (51.0, 51.0),  # an equal: the first one stands
        "prior@optim.lr=0.001": (10.0, 10.0),
        "prior@optim.lr=0.002": (10.0, 10.0),
        "prior@optim.lr=0.004": (10.0, 10.2),
    }
    finals = {(label, seed): value[seed - 100] for label, value in accuracies.items() for seed in (100, 101)}
    tuned = study.apply_tuning(finals)
    assert tuned.recipe("plain", 0).optim.lr == 1e-3
    assert tuned.recipe("prior", 0).optim.lr == 4e-3


def test_what_makes_no_study_is_refused(tiny):
    with pytest.raises(UserError, match="seed 1 is in seeds and in tuning_seeds"):
        replace(tiny, tuning=TUNED, tuning_seeds=(1, 2))
    with pytest.raises(UserError, match="no arm 'plian'. Did you mean plain"):
        replace(tiny, baseline="plian")
    with pytest.raises(UserError, match="the label of an arm is 'a/b'"):
        Study("bad", "?", {"a/b": Arm("vit_mini_compass6")}, (0,))
    with pytest.raises(UserError, match="no study is called 'demoo'. Did you mean demo"):
        get_study("demoo")


def test_a_study_of_the_user_s_own_is_found_by_name_and_its_recipes_and_commands_name_the_imports(tiny, monkeypatch):
    monkeypatch.setattr(catalog, "_STUDIES", dict(catalog._STUDIES))
    assert register_study(replace(tiny, tuning=TUNED)).name == "tiny"
    assert list(list_studies())[-2:] == ["tiny-tuning", "tiny"] and "demo" in list_studies()
    register_study(tiny)  # a file that is imported again
    assert get_study("tiny") == tiny and "tiny-tuning" not in list_studies()
    own = replace(tiny, tuning=TUNED, imports=("my_attention.py", "my.study"))
    options = "--import my_attention.py --import my.study"
    assert own.commands() == [f"python -m spvit_experiments study {name} {options}" for name in ("tiny-tuning", "tiny")]
    assert own.recipe("plain", 0).imports == own.tuning_study().imports == ("my_attention.py", "my.study")
    assert tiny.recipe("plain", 0).find_difference(own.recipe("plain", 0)) is None  # a file may move
    for name in ("demo", "variants_rings6-tuning", "mine-tuning"):
        with pytest.raises(UserError, match=f"the name of the study is '{name}'; expected .* Rename the study"):
            register_study(replace(tiny, name=name))


@pytest.mark.parametrize("name", list_studies())
def test_every_named_study_has_recipes_and_names_of_its_own(name):
    study = get_study(name)
    assert study.name == name
    recipes = {key: study.recipe(*key) for key in study.runs()}
    assert len(set(map(repr, recipes.values()))) == len(study.runs())
