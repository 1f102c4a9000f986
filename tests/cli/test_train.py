"""`python -m spvit_mini train` as a user meets it: the help, a run, an extension, and one clear line for every mistake."""

import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from PIL import Image

from spvit_mini import attention_registry, create_model
from spvit_mini.cli import label
from spvit_mini.cli.program import run_program
from spvit_mini.cli.train import main
from spvit_mini.errors import UserError
from spvit_mini.recipes import adopt_model, get_recipe
from spvit_mini.training import train
from spvit_mini.training.checkpoint import load_trained, read_recipe, read_state
from spvit_mini.training.metrics import read_rows
from spvit_mini.weights import load_weights, save_weights

TINY = (
    "--model.depth 1 --model.dim 16 --model.heads 2 --data.train-images 60 --data.val-images 20 --batch-size 10 "
    "--duration '1 epoch' --evaluate-every '3 steps' --save-every '2 steps' --device cpu"
)


def words(text):
    return shlex.split(text)


def fails(arguments, capsys) -> str:
    """Run the program in this process; check that it ends with one line and status 2, and give the line."""
    with pytest.raises(SystemExit) as end:
        run_program(lambda: main(words(arguments)))
    out, err = capsys.readouterr()
    assert end.value.code == 2
    assert err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in out
    assert not re.search("[╭╰│─]", out + err)
    return err


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--list"]])
def test_without_a_recipe_it_points_to_their_list(arguments, capsys):
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "python -m spvit_mini recipes " in out and "train spvit_mini_compass --help" in out


def test_help_tells_every_option_with_its_meaning_and_value_in_100_columns(capsys, monkeypatch):
    name = "vit_mini_cifar10"
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert not end.value.code
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 100
    text = " ".join(re.sub("[│╭╮╰╯─]", " ", out).split())
    recipe = get_recipe(name).flatten()
    del recipe["name"], recipe["imports"]
    for option in ("run-dir", "resume", "max-steps", "import", *(option.replace("_", "-") for option in recipe)):
        found = re.search(rf"--{re.escape(option)}[ ,](.*?)\(default: (.*?)\)(?= --| |$)", text)
        assert found, option
        assert len(found[1]) > 20, f"--{option} has no meaning"
    assert "--run-dir PATH Folder of the run: " in text and f"(default: runs/{name})" in text
    assert f"(default: {recipe['optim.lr']})" in text


def test_a_run_and_its_options(tmp_path, capsys):
    run = tmp_path / "run"
    assert (
        main(
            words(f"spvit_mini_compass6 {TINY} --run-dir {run} --seed 3 --optim.lr 5e-4 --model.attention-options hidden 8")
        )
        == 0
    )
    recipe = read_recipe(run)
    assert (recipe.name, recipe.seed, recipe.optim.lr, recipe.model.depth) == ("spvit_mini_compass6", 3, 5e-4, 1)
    assert recipe.model.overrides()["attention_options"] == {"hidden": 8}
    rows = read_rows(run / "metrics.csv")
    assert [row["step"] for row in rows] == [3, 6]
    out = capsys.readouterr().out
    assert out.startswith("model   spvit_mini, ") and "priors of width 8, initialised" in out
    best = max(row["val_top1"] for row in rows)
    assert f"best validation accuracy {best:.2f} % at step" in out and str(run / "best.safetensors") in out


def test_the_run_folder_is_named_after_the_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(words(f"vit_mini_textures6 {TINY} --max-steps 1"))
    assert (tmp_path / "runs" / "vit_mini_textures6" / "recipe.json").is_file()


def test_runs_on_images_of_the_user_s_own_are_named_by_the_data(tmp_path, monkeypatch, capsys):
    """From random initialisation, then fine-tuned from these weights with the model that they name; three classes."""
    monkeypatch.chdir(tmp_path)
    for part, folder in itertools.product(("train", "val"), "abc"):
        (tmp_path / "birds" / part / folder).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (40, 40), (80 * i, 9, 9)).save(tmp_path / "birds" / part / folder / f"{i}.png")
    tiny = "--model.depth 1 --model.dim 16 --model.heads 2 --batch-size 4 --duration '1 epoch' --optim.warmup '0 steps'"
    data = "--data.root . --data.name birds --data.image-size 32"
    assert main(words(f"spvit_mini_images {tiny} {data}")) == 0
    start = "--model.name spvit_mini --model.patch 8 --init-from runs/spvit_mini_birds"
    assert main(words(f"finetune_images {tiny} {data} {start}")) == 0
    assert main(words(f"vit_mini_images {tiny} --data.root birds --data.name folder --data.image-size 32 --max-steps 1")) == 0
    names = {path.parent.name: read_recipe(path.parent).name for path in tmp_path.glob("runs/*/recipe.json")}
    assert names == {
        "spvit_mini_birds": "spvit_mini_images", "finetune_spvit_mini_birds": "finetune_images",
        "vit_mini_birds": "vit_mini_images",
    }  # fmt: skip
    assert "3 classes" in capsys.readouterr().out
    line = fails(f"finetune_images {tiny} {data} {start.replace('patch 8', 'patch 16')} --run-dir runs/other", capsys)
    assert "has patch 8 for 16. Use --model.patch 8" in line and not (tmp_path / "runs" / "other").exists()


def test_stopped_it_says_how_to_go_on_and_resuming_needs_no_options_again(tmp_path, capsys):
    run = tmp_path / "run"
    main(words(f"vit_mini_compass6 {TINY} --run-dir {run} --optim.lr 5e-4 --max-steps 2"))
    out = capsys.readouterr().out
    command = f"python -m spvit_mini train vit_mini_compass6 --run-dir {run} --resume"
    assert f"stopped at step 2 of 6, saved in {run}; resume with: {command}" in out
    assert main(words(command)[4:]) == 0
    assert "resumed from" in capsys.readouterr().out
    assert read_state(run / "last.pt")["position"]["step"] == 6
    assert read_recipe(run).optim.lr == 5e-4


def test_resuming_needs_no_recipe_because_the_folder_has_it(tmp_path, capsys):
    """Also a recipe of the user's own, by the library and with a name that is not registered; then the run is finished."""
    run = tmp_path / "a run"
    options = {"model.depth": 1, "model.dim": 16, "model.heads": 2, "data.train_images": 60, "data.val_images": 20}
    recipe = get_recipe("vit_mini_compass6").override({**options, "batch_size": 10, "duration": "1 epoch", "device": "cpu"})
    recipe = replace(recipe, name="mine")
    train(recipe, run_dir=run, max_steps=2, progress=False)
    for name, resume in (([], 3), (["mine"], 4)):
        assert main([*name, "--resume", "--run-dir", str(run), "--max-steps", str(resume)]) == 0
        out = capsys.readouterr().out
        command = shlex.join([*name, "--run-dir", str(run), "--resume"])
        assert f"stopped at step {resume} of 6, saved in {run}; resume with: python -m spvit_mini train {command}\n" in out
    assert main([*shlex.split(command)[1:]]) == 0
    before = files(run)
    capsys.readouterr()
    assert main([f"--run_dir={run}", "--resume"]) == 0
    out = capsys.readouterr().out
    assert "last.pt at step 6: this run is finished, and nothing is left to train" in out and "stopped" not in out
    assert files(run) == before and read_recipe(run) == recipe


def test_options_of_a_resumed_run_are_changes_of_its_own_recipe(tmp_path):
    """16 divides the recorded batch size, but not that of the named recipe."""
    run = tmp_path / "run"
    main(words(f"vit_mini_compass6 {TINY} --batch-size 16 --run-dir {run} --max-steps 1"))
    assert main(words(f"vit_mini_compass6 --run-dir {run} --resume --micro-batch-size 16")) == 0
    assert read_state(run / "last.pt")["position"]["step"] == 3


def test_the_corrected_command_after_a_failed_start(tmp_path, capsys, tree_of_two_classes):
    """Token labels without a second head are found in the first step. Both the same folder and --resume work then."""
    images = f"--data.name tree --data.root {tree_of_two_classes} --data.image-size 16 --model.patch 8 --batch-size 2"
    start = f"vit_mini_flowers17 {TINY} {images} --augment.crop none --augment.mixup 0 --augment.cutmix 0"
    labels = tmp_path / "labels"
    teacher = create_model("vit_mini", num_classes=2, image_size=16, patch=8, pool="mean")
    teacher.preprocessing = replace(teacher.preprocessing, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    save_weights(teacher, tmp_path / "teacher.safetensors", classes=json.dumps(["blue", "red"]))
    where = f"--data.name tree --data.root {tree_of_two_classes} --out {labels} --top 2"
    assert label.main(words(f"--model {tmp_path / 'teacher.safetensors'} {where}")) == 0
    for resume in ("", " --resume"):
        run = tmp_path / f"run{resume.strip()}"
        wrong = f"{start} --duration '2 steps' --run-dir {run} --token-labels.folder {labels}"
        assert "dense" in fails(wrong, capsys) and not run.exists()
        assert main(words(f"{wrong} --model.pool class --model.dense-head True{resume}")) == 0
        assert fails(wrong, capsys)
        other = tmp_path / f"other{resume.strip()}"
        assert fails(wrong.replace(str(run), str(other)), capsys)
        assert main(words(f"{start} --duration '2 steps' --run-dir {other}{resume}")) == 0


@pytest.fixture
def tree_of_two_classes(tmp_path):
    for part in ("train", "val"):
        for name in ("blue", "red"):
            (tmp_path / "data" / "tree" / part / name).mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (20, 20 + i), name).save(tmp_path / "data" / "tree" / part / name / f"{i}.png")
    return tmp_path / "data"


# For a value that cannot be read the words are tyro's, and differ from release to release.
MISTAKES = {
    "spvit_mini_compas": "no recipe is called 'spvit_mini_compas'. Did you mean spvit_mini_compass",
    "--seed 1": "RECIPE comes before the options",
    "vit_mini_compass --optim.lrr 1": "no option --optim.lrr. Did you mean --optim.lr,",
    "vit_mini_compass --optim.lrr=1": "no option --optim.lrr. Did you mean --optim.lr,",
    "vit_mini_compass --lr 1": "no option --lr. Did you mean --optim.lr?",
    "vit_mini_compass --max_step 1": "no option --max-step. Did you mean --max-steps",
    "vit_mini_compass 240": "unexpected '240'",
    "vit_mini_compass --optim.lr fast": "--optim.lr is 'fast'; expected a number from 0 to 1e+30",
    "vit_mini_compass --seed": "--seed",
    "vit_mini_compass --optim.betas 0.9": "--optim.betas",
    "vit_mini_compass --precision half": "'half'",
    "vit_mini_compass --seed -1": "error: seed is -1; expected an integer from 0 to 4,294,967,295",
    "vit_mini_compass --optim.lr -1": "error: optim.lr is -1.0; expected",
    "vit_mini_compass --duration long": "error: duration is 'long'; expected a number and a unit",
    "vit_mini_compass --max-steps 0": "--max-steps is 0; expected an integer from 1",
    "vit_mini_compass --batch-size 5000": "batch_size is 5000; expected 1 to 2000",
    "vit_mini_compass --model.name vit_mimi": "no model is called 'vit_mimi'. Did you mean vit_mini",
    "vit_mini_compass --model.patch 5": "an image of 32×32 pixels cannot be cut into patches of 5×5",
    "vit_mini_compass --model.heads 7": "7 heads do not divide a width of 64",
    "spvit_mini_compass --model.attention-options hiden 3": "options of attention spsa are {'hiden': 3}",
    "vit_mini_compass --device abacus": "device is 'abacus'; expected auto, cpu, cuda, cuda:1 or mps",
    "vit_mini_compass --data.name compas": "no dataset 'compas'",
    "vit_mini_cifar10 --data.root nowhere": "cifar10 is missing",
    "vit_mini_flowers17 --data.root nowhere": "is not a folder",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert MISTAKES[arguments] in fails(arguments, capsys)
    assert list(tmp_path.iterdir()) == []


OWN = """
from spvit_mini import register_attention
from spvit_mini.attention import MHSA


def ext_attention(dim, heads, *, grid, **options):
    return MHSA(dim, heads, **options)


register_attention("ext_attention", ext_attention)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The path of a file that registers an attention; what it registers is forgotten at the end."""
    monkeypatch.setattr("spvit_mini.attention_registry.ATTENTIONS", dict(attention_registry.ATTENTIONS))
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "ext_own.py").write_text(OWN)
    yield str(tmp_path / "ext_own.py")
    sys.modules.pop("ext_own", None)


def test_an_extension_is_imported_recorded_and_asked_for(own, tmp_path, capsys):
    run = tmp_path / "run"
    options = ["vit_mini_compass6", *words(TINY), "--run-dir", str(run), "--max-steps", "3"]
    assert main([*options, "--import", own, "--model.attention", "ext_attention"]) == 0
    assert f"--run-dir {run} --resume --import {own}" in capsys.readouterr().out
    assert read_recipe(run).imports == (own,)
    assert load_weights(run / "best.safetensors")[1]["imports"] == json.dumps([own])
    with pytest.raises(UserError, match=f"the run in .* needs an extension that is not imported; add --import {own}"):
        main(["vit_mini_compass6", "--run-dir", str(run), "--resume"])
    assert load_trained(run)[0].config.attention == "ext_attention"
    del attention_registry.ATTENTIONS["ext_attention"]
    with pytest.raises(UserError, match=f"uses the attention 'ext_attention', which isn't registered; add --import {own}"):
        load_trained(run)


@pytest.mark.slow
def test_torchrun_needs_no_dashes_and_each_process_imports(own, tmp_path):
    """Two processes over gloo, of which each builds the attention of the user's file."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = ["-m", "spvit_mini", "train", "vit_mini_compass6", *words(TINY), "--run-dir", str(tmp_path / "run")]
    options += ["--import", own, "--model.attention", "ext_attention", "--max-steps", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ["PYTHONPATH"]])}
    done = subprocess.run([*torchrun, *options], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0 and "2 processes" in done.stdout, done.stderr
    assert read_recipe(tmp_path / "run").model.attention == "ext_attention"


@pytest.fixture
def kept(tmp_path, capsys):
    """A run of two saved states, and a check that its files are as they were when the test is over."""
    run = tmp_path / "run"
    main(words(f"vit_mini_compass6 {TINY} --run-dir {run} --max-steps 4"))
    capsys.readouterr()
    yield run


def files(run):
    return {p.name: p.read_bytes() for p in run.iterdir()}


def test_a_folder_with_a_run_is_not_begun_again(kept, capsys):
    before = files(kept)
    line = fails(f"vit_mini_compass6 {TINY} --run-dir {kept}", capsys)
    assert "has a run already" in line and "--resume" in line and "another --run-dir" in line
    assert files(kept) == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            "spvit_mini_compass6 --run-dir {run} --resume",
            "holds a run of vit_mini_compass6, not of spvit_mini_compass6; use --resume without a recipe, since ",
        ),
        ("--run-dir {run} --resume --seed 1", "has seed = 0, not 1"),
        ("--resume", "--run-dir is missing; expected the folder of a run to resume. Use python -m spvit_mini train RECIPE"),
        ("--resume --run-dir {run}/nothing", "nothing has no recipe.json; expected the folder of a run to resume"),
        ("vit_mini_compass6 --run-dir {run} --resume --optim.lr 1", "has optim.lr = 0.002, not 1.0"),
        ("vit_mini_compass6 --run-dir {run} --resume --model.depth 2", "has model.depth = 1, not 2"),
        ("vit_mini_compass6 --run-dir {run}/last.pt --resume", "last.pt is a file"),
        ("vit_mini_compass6 --run-dir {run}/last.pt/below", "last.pt is a file"),
    ],
)
def test_what_cannot_be_resumed_is_refused_and_kept(kept, capsys, arguments, says):
    before = files(kept)
    assert says in fails(arguments.format(run=kept), capsys)
    assert files(kept) == before


def test_a_state_cut_off_and_the_way_on(kept, capsys):
    whole = (kept / "last.pt").read_bytes()
    (kept / "last.pt").write_bytes(whole[:1000])
    before = files(kept)
    line = fails(f"vit_mini_compass6 --run-dir {kept} --resume", capsys)
    assert "last.pt is cut off or damaged" in line and "previous.pt (step 2), is complete: move last.pt away" in line
    assert files(kept) == before
    shutil.move(kept / "last.pt", kept / "broken.pt")
    assert main(words(f"vit_mini_compass6 --run-dir {kept} --resume")) == 0
    assert f"resumed from {kept / 'previous.pt'} at step 2" in capsys.readouterr().out


def test_a_broken_recipe_file(kept, capsys):
    (kept / "recipe.json").write_text('{"name": "vit_mini_compass6", ')
    assert "recipe.json is not JSON" in fails(f"vit_mini_compass6 --run-dir {kept} --resume", capsys)


def test_a_folder_of_images_with_an_empty_class(tree_with_empty_class, capsys, tmp_path):
    line = fails(
        f"vit_mini_flowers17 {TINY} --data.name tree --data.root {tree_with_empty_class} --run-dir {tmp_path / 'run'}",
        capsys,
    )
    assert "holds no images" in line and "violet" in line
    assert not (tmp_path / "run").exists()


@pytest.fixture
def tree_with_empty_class(tmp_path):
    for part in ("train", "val"):
        for name in ("red", "violet"):
            (tmp_path / "data" / "tree" / part / name).mkdir(parents=True)
        Image.new("RGB", (40, 40), "red").save(tmp_path / "data" / "tree" / part / "red" / "1.png")
    return tmp_path / "data"


def test_user_errors_of_the_library_and_the_program_are_the_same():
    with pytest.raises(UserError, match="no recipe is called"):
        main(["nothing"])


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status", "workers"), [(signal.SIGTERM, 143, 2), (signal.SIGINT, 130, 0)])
def test_a_signal_to_the_real_process_and_all_its_workers(tmp_path, capsys, number, status, workers):
    """As a terminal's Ctrl-C and a cluster's scancel do: the whole group of processes gets it."""
    command = [sys.executable, "-m", "spvit_mini", "train", "vit_mini_compass6", "--run-dir", str(tmp_path / "run")]
    options = ["--model.dim", "16", "--duration", "100000 steps", "--evaluate-every", "20 steps", "--device", "cpu"]
    options += ["--data.workers", str(workers)]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([*command, *options], **piped, env=environment, start_new_session=True) as process:
        while not (line := process.stdout.readline()).startswith("step "):
            assert line, process.stderr.read()
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    step = read_state(tmp_path / "run" / "last.pt")["position"]["step"]
    assert f"stopped at step {step} of 100000" in out and f"--run-dir {tmp_path / 'run'} --resume" in out
    assert "Traceback" not in err
    assert main([*command[4:], "--resume", "--max-steps", str(step + 3)]) == 0
    assert f"at step {step}" in capsys.readouterr().out
    assert read_state(tmp_path / "run" / "last.pt")["position"]["step"] == step + 3


@pytest.mark.slow
def test_as_a_process_a_mistake_exits_with_2(tmp_path):
    """Here the box that becomes a line is drawn with other signs than under pytest."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "spvit_mini", "train", "vit_mini_compass", "--seed", "x"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: --seed is 'x'; expected an integer from 0") and done.stderr.count("\n") == 1
    assert not re.search("[╭╰│─]", done.stderr)


def test_initial_weights_bring_their_architecture(tmp_path, capsys):
    """The run's recipe.json has it then, so that the run is resumed and evaluated; typed options must agree with it."""
    size = {"dim": 12, "depth": 2, "heads": 3, "patch": 8, "attention": "mlp/additive", "image_size": 24, "num_classes": 8}
    source = create_model("spvit_mini", **size)
    save_weights(source, tmp_path / "w.safetensors")
    more = "--data.train-images 20 --data.val-images 9 --batch-size 9 --duration '2 steps' --optim.warmup '0 steps' --device cpu"
    start = f"spvit_mini_compass6 --init-from {tmp_path / 'w.safetensors'} {more} --run-dir"
    assert main(words(f"{start} {tmp_path / 'run'} --model.drop-path 0.2 --max-steps 1")) == 0
    out = capsys.readouterr().out
    expected = "spvit_mini with patch 8, dim 12, depth 2, heads 3, attention mlp/additive"
    assert f"architecture of {tmp_path / 'w.safetensors'}: {expected}\n" in out
    recipe = read_recipe(tmp_path / "run")
    assert recipe.model.drop_path == 0.2 and recipe.model.overrides().items() >= {"dim": 12, "patch": 8, "depth": 2}.items()
    assert main(["--run-dir", str(tmp_path / "run"), "--resume"]) == 0
    assert "architecture of" not in capsys.readouterr().out
    found = load_trained(tmp_path / "run")[0].config
    assert found == replace(source.config, drop_path=0.2)

    line = fails(f"{start} {tmp_path / 'other'} --model.depth 3", capsys)
    assert "does not fit spvit_mini: it has depth 2 for 3. Use --model.depth 2." in line
    line = fails(f"vit_mini{start.removeprefix('spvit_mini')} {tmp_path / 'other'}", capsys)
    assert "(spvit_mini) does not fit vit_mini: it has" in line and "Use the model of the weights, spvit_mini." in line
    assert not (tmp_path / "other").exists()
    recipe = adopt_model(get_recipe("finetune_images"), tmp_path / "w.safetensors")  # a recipe for any model
    assert recipe.model.name == "spvit_mini" and recipe.model.dim == 12
    assert recipe.model.drop_path == get_recipe("finetune_images").model.drop_path
