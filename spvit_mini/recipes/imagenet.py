"""Recipes on ImageNet and its parts: as published, as far as that is known, by DeiT's recipe or with token labels.

Batches, learning rates and lengths are those of the sources; on fewer GPUs keep `batch`, and set `--micro-batch-size` to
what one of them holds. With another `--batch-size` the learning rates are scaled in proportion.

Accuracies in these docstrings are published by others, top-1 in percent, with the source. Ours: not measured yet.

What differs from the sources in all of them, because this package's parts do:

- RandAugment is torchvision's, for timm's `rand-m9-mstd0.5-inc1`. Level 9 of timm's 10 is 27 of torchvision's 30, and
  that gives the same ranges: turns of 27°, shears of 0.27, colour, contrast, brightness and sharpness of 1 ± 0.81,
  solarising from 10 % of white on, shifts by 40.8 % of a side (timm: 40.5 %). Posterising keeps 4 bits (timm: 1). timm
  draws the level anew each time (standard deviation 0.5); here it is fixed. timm has two operations more, inverting and
  adding below a threshold, and torchvision one that does nothing; torchvision takes the nearest pixel, timm
  interpolates. In both, each of the two (L: three) operations happens with probability ½. The usual short cut,
  `randaugment=(2, 9)`, is another thing: a third of the ranges, always.
- Colour jitter (0.4, or 0.3) stands in their scripts, but timm leaves it out where RandAugment is on; so do we.
- MixUp and CutMix: one draw of λ for all images that a process takes at once, as in timm's "batch" mode. An image's
  partner is its neighbour in the batch, there the one as far from the other end (with MixToken here too).
- Images are resized with bicubic interpolation throughout; LV-ViT's and SP-ViT's scripts draw bicubic or bilinear.
- The data's fast way (data/fast.py): the filter is torch's, not Pillow's, to which 0.01 % of all bytes differ by more than 1.
- The schedule goes by steps, not by epochs. Its cosine begins where the warm-up ends, at the full peak; timm's begins
  at epoch 0, so that after 5 of 300 epochs it is 0.07 % below the peak. The 10 epochs of cool-down that stand in all
  the scripts are run by LV-ViT's and SP-ViT's, and so here; DeiT's and ConViT's end after 300 epochs, before them.
- Weight decay leaves spatial maps alone (`model.no_decay()`); their code spares only what has one dimension, positions
  and the class token, and so decays SP-SA's weight matrices and GPSA's v.
- bfloat16 for their float16; the running average of the weights warms up.
"""

from dataclasses import replace
from pathlib import Path

from ..data import AugmentOptions, DataOptions
from ..zoo import CROPS
from .options import ModelOptions, OptimOptions, TokenLabelOptions
from .recipe import Recipe

# What DeiT's and LV-ViT's recipes share (timm's defaults, and DeiT's table 9), but for how images are mixed.
AUGMENT = AugmentOptions(
    flip=True, crop="resized", crop_scale=(0.08, 1.0), randaugment=(2, 27), randaugment_prob=0.5, random_erasing_prob=0.25
)
LABELS = Path("data/imagenet_labels")  # where `python -m spvit_mini label --out` is asked to put them


def photographs(name: str, model: str, *, image_size: int = 224) -> DataOptions:
    """Choose a set, seen in validation as by the model's authors: the central 87.5 or 90 % of the frame, or the whole."""
    return DataOptions(name=name, image_size=image_size, eval_crop=CROPS.get(model, 1.0), workers=8, backend="tensor")


def deit(model: str, data: str = "imagenet") -> Recipe:
    """Train as DeiT (Touvron et al. 2021, table 9, and main.py of facebookresearch/deit).

    ConViT takes the same (d'Ascoli et al. 2021). Its released code draws images with replacement instead of repeating
    each three times; we keep to the paper. DeiT's code keeps an average of the weights (0.99996) too, but the published
    accuracies are those of the weights themselves, so there is none here.
    """
    return Recipe(
        model=ModelOptions(model, drop_path=0.1),
        data=photographs(data, model),
        augment=replace(AUGMENT, mixup=0.8, cutmix=1.0, repeats=3),
        # 5e-4 × batch / 512; only the peak is scaled there, so all three are as published at 1024.
        optim=OptimOptions(
            lr=1e-3, lr_base_batch_size=1024, final_lr=1e-5, warmup="5 epochs", warmup_lr=1e-6, weight_decay=0.05, clip_grad_norm=None
        ),
        duration="300 epochs",
        batch_size=1024,
        label_smoothing=0.1,
    )


def token_labelled(model: str) -> Recipe:
    """Train as SP-ViT (Zhou et al. 2022: main.py and distributed_train.sh), which trains as LV-ViT (Jiang et al. 2021).

    The class token, too, learns from the teacher's maps, not from the image's label, as in the released code. The drop
    path (S 0.1, M 0.2, L 0.3) is part of the models. L has a batch, a learning rate and three operations of its own.
    """
    large = model == "spvit_l"
    batch = 800 if large else 1024
    return Recipe(
        model=ModelOptions(model),
        data=photographs("imagenet", model),
        augment=replace(AUGMENT, randaugment=(3 if large else 2, 27)),
        optim=OptimOptions(
            lr=6e-4 if large else 1.6e-3, lr_base_batch_size=batch, final_lr=1e-5, warmup="5 epochs", warmup_lr=1e-6,
            cooldown="10 epochs", weight_decay=0.05, clip_grad_norm=None,
        ),
        token_labels=TokenLabelOptions(folder=LABELS, dense_weight=1.0, class_target="teacher", mixtoken=1.0),
        duration="310 epochs",
        batch_size=batch,
        label_smoothing=0.1,
        ema=0.99992,
    )  # fmt: skip


def imagenet(model: str) -> Recipe:
    """ImageNet, a thousand classes at 224 pixels: each model by the recipe it was published with.

    Command: torchrun --nproc-per-node 8 -m spvit_mini train spvit_s_imagenet --data.root FOLDER
    LV-ViT and SP-ViT need token labels, made beforehand (python -m spvit_mini label): --token-labels.folder FOLDER
    Sources: `deit` and `token_labelled`, above
    Cost, and what others reached; ours: not measured yet

    | model        | parameters | multiply-adds | images seen | published (source)                               |
    |--------------|------------|---------------|-------------|--------------------------------------------------|
    | deit_small   |  22.05 M   |   4.60 G      | 384 M       | 79.8 (ConViT's table 1), 79.9 (DeiT's README)    |
    | convit_small |  27.78 M   |   5.74 G      | 384 M       | 81.3 (ConViT's table 1), 81.4 (its table 2)      |
    | lvvit_s      |  26.15 M   |   6.55 G      | 397 M       | 83.3 (TokenLabeling's README)                    |
    | spvit_s      |  26.23 M   |   6.55 G      | 397 M       | 83.9 (SP-ViT's README)                           |
    | spvit_m      |  55.97 M   |  12.67 G      | 397 M       | 84.9 (SP-ViT's README), maybe with 10 SP-SA blocks |
    | spvit_l      | 150.27 M   |  34.57 G      | 397 M       | 85.5 (SP-ViT's README); see below                |

    The code released for SP-ViT-L builds no block with SP-SA at all, and M's script leaves their number at 10; in ours
    all but the last two have it, so those accuracies are no promises for these models.
    """
    return deit(model) if model in ("deit_small", "convit_small") else token_labelled(model)


def imagenet_fsdp(model: str) -> Recipe:
    """ImageNet with each weight spread over all GPUs (FSDP), for models that are too large for one.

    Command: torchrun --nproc-per-node 8 -m spvit_mini train spvit_l_imagenet_fsdp --data.root FOLDER
    Source, cost, expected: as spvit_l_imagenet, but without its average of the weights, which every process keeps whole
    """
    return replace(imagenet(model), sharding="fsdp", ema=None)


def imagenet_384(model: str) -> Recipe:
    """Fine-tuning on ImageNet at 384 pixels: name the run at 224 to go on from, --init-from RUN.

    Command: torchrun --nproc-per-node 8 -m spvit_mini train spvit_s_imagenet_384 --init-from runs/spvit_s_imagenet
    Source: distributed_fine_tune.sh of SP-ViT: a constant 5e-6 after the warm-up, weight decay 1e-8, everything else as
        before; batches of 256 (S), 128 (M) and 512 (L); L alone keeps an average of the weights. The script leaves the
        length at 300 + 10 epochs, and the paper's was not found: 30 epochs here, for which DeiT's README fine-tunes, at
        the same rates. LV-ViT-S by the same numbers
    Cost, and what others reached; ours: not measured yet

    | model   | parameters | multiply-adds | images seen | published (source)                                         |
    |---------|------------|---------------|-------------|------------------------------------------------------------|
    | lvvit_s |  26.30 M   |  21.90 G      | 38 M        | 84.4 (TokenLabeling's README)                              |
    | spvit_s |  26.38 M   |  21.96 G      | 38 M        | 85.1 (SP-ViT's README)                                     |
    | spvit_m |  56.16 M   |  41.73 G      | 38 M        | 86.0 (SP-ViT's README)                                     |
    | spvit_l | 150.57 M   | 109.71 G      | 38 M        | 86.3 (SP-ViT's README, arXiv v1), 86.1 (OpenReview's copy) |
    """
    large = model == "spvit_l"
    before = imagenet(model)
    batch = {"spvit_m": 128, "spvit_l": 512}.get(model, 256)
    return replace(
        before,
        data=photographs("imagenet", model, image_size=384),
        optim=replace(before.optim, lr=5e-6, final_lr=5e-6, lr_base_batch_size=batch, cooldown="0 epochs", weight_decay=1e-8),
        duration="30 epochs",
        batch_size=batch,
        ema=before.ema if large else None,
    )


def imagenet100(model: str) -> Recipe:
    """ImageNet-100, the list of Tian et al. (CMC), at 224 pixels: all models by DeiT's recipe.

    Command: torchrun --nproc-per-node 8 -m spvit_mini train spvit_s_imagenet100 --data.root FOLDER
    Source: `deit`, above, for all four models and without token labels, so that they can be compared. Which hundred
        classes SP-ViT's ablations took, for how long and how: not found
    Cost: multiply-adds as on ImageNet, and about a tenth of its images seen, 38 M
    Expected: not measured yet; published numbers on this list with these models: not found
    """
    return deit(model, "imagenet100")


def imagenet100_first(model: str) -> Recipe:
    """ImageNet-100, the first hundred classes, as in ConViT's ablations: otherwise as imagenet100.

    Command: torchrun --nproc-per-node 8 -m spvit_mini train spvit_s_imagenet100_first --data.root FOLDER
    Source: the classes of ConViT's study of its hyperparameters (d'Ascoli et al. 2021); the rest as imagenet100
    Cost: as imagenet100; the two sets share 8 classes, and their accuracies cannot be compared
    Expected: not measured yet
    """
    return deit(model, "imagenet100_first")


def part_of_imagenet(model: str, percent: int) -> Recipe:
    """Train on a part of each class, and as many times longer: as many steps as on all, on fewer images.

    Everything that is counted in epochs is stretched. Of the warm-up ConViT's paper doesn't say so.
    """
    whole = deit(model)
    epochs = {"duration": 300, "optim.warmup": 5, "evaluate_every": 1, "save_every": 1}
    stretched = {name: f"{number * 100 / percent:.8g} epochs" for name, number in epochs.items()}
    return whole.but(stretched | {"data.fraction": percent / 100})


def imagenet_5pct(model: str) -> Recipe:
    """5 % of each class of ImageNet for 6000 epochs: how far a model comes with few images.

    ConViT's study of sample efficiency (d'Ascoli et al. 2021, table 2), in which the images seen stay the same; all of
    each class is deit_small_imagenet and convit_small_imagenet.

    Command: torchrun --nproc-per-node 8 -m spvit_mini train convit_small_imagenet_5pct --data.root FOLDER
    Source: `deit` and `part_of_imagenet`, above
    Cost: as imagenet, 384 M images
    Published by them: deit_small 34.8, convit_small 47.8. Ours: not measured yet
    """
    return part_of_imagenet(model, 5)


def imagenet_10pct(model: str) -> Recipe:
    """10 % of each class of ImageNet for 3000 epochs, as imagenet_5pct.

    Command: torchrun --nproc-per-node 8 -m spvit_mini train convit_small_imagenet_10pct --data.root FOLDER
    Published by ConViT's authors: deit_small 48.0, convit_small 59.6 (table 2; their text says 46.5 and 59.5). Ours:
        not measured yet
    """
    return part_of_imagenet(model, 10)


def imagenet_30pct(model: str) -> Recipe:
    """30 % of each class of ImageNet for 1000 epochs, as imagenet_5pct.

    Command: torchrun --nproc-per-node 8 -m spvit_mini train convit_small_imagenet_30pct --data.root FOLDER
    Published by ConViT's authors: deit_small 66.1, convit_small 73.7 (table 2). Ours: not measured yet
    """
    return part_of_imagenet(model, 30)


def imagenet_50pct(model: str) -> Recipe:
    """50 % of each class of ImageNet for 600 epochs, as imagenet_5pct.

    Command: torchrun --nproc-per-node 8 -m spvit_mini train convit_small_imagenet_50pct --data.root FOLDER
    Published by ConViT's authors: deit_small 74.6, convit_small 78.2 (table 2). Ours: not measured yet
    """
    return part_of_imagenet(model, 50)
