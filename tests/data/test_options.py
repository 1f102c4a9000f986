"""The options: every one is explained where the command line looks for it."""

import re
from dataclasses import fields

import pytest
import tyro

from spvit_mini.data import AugmentOptions, DataOptions


@pytest.mark.parametrize("options", [DataOptions, AugmentOptions])
def test_every_option_is_explained_with_its_default(options, capsys):
    with pytest.raises(SystemExit) as exit_:
        tyro.cli(options, args=["--help"])
    assert exit_.value.code == 0
    shown = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    documented = options.__doc__.split("Attributes:")[1]
    for field in fields(options):
        text = re.search(rf"^        {field.name}: (.*?)(?=^        \w+: |\Z)", documented, re.MULTILINE | re.DOTALL)
        assert text, f"{field.name} has no words"
        assert " ".join(text.group(1).split())[:40] in shown
        assert f"--{field.name.replace('_', '-')}" in shown


def test_options_are_read_from_words():
    read = tyro.cli(DataOptions, args=["--name", "flowers17", "--image-size", "64", "--on-corrupt-image", "skip"])
    assert read == DataOptions(name="flowers17", image_size=64, on_corrupt_image="skip")
    read = tyro.cli(
        AugmentOptions, args=["--flip", "--crop", "resized", "--crop-scale", "0.3", "1", "--randaugment", "2", "9"]
    )
    assert read == AugmentOptions(flip=True, crop="resized", crop_scale=(0.3, 1.0), randaugment=(2, 9))
