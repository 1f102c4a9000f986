"""Recipes on ImageNet and subsets of it: DeiT's recipe, or LV-ViT's and SP-ViT's with token labels, as far as published.

Batch sizes, learning rates and durations are those of the sources. On fewer GPUs keep `batch_size`, and set
`--micro-batch-size` to what one of them can hold. With another `--batch-size` the learning rates are scaled in proportion.

Accuracies in these docstrings are published by others: top-1 in percent, with the source. Ours: not measured yet.

What differs from the sources in all of these recipes, because parts of this package differ:

- RandAugment is torchvision's, for timm's `rand-m9-mstd0.5-inc1`. Level 9 of timm's 10 is 27 of torchvision's 30, which
  gives the same ranges: rotations of 27°, shears of 0.27, colour, contrast, brightness and sharpness of 1 ± 0.81,
  solarising from 10 % of white on, translations by 40.8 % of a side (timm: 40.5 %). Posterising keeps 4 bits (timm: 1).
  timm draws the level each time (standard deviation 0.5); here it is fixed. timm has two more operations, inverting and
  adding below a threshold, and torchvision one that does nothing. torchvision uses the nearest pixel, timm
  interpolates. In both, each of the two (L: three) operations happens with probability ½. The common
  `randaugment=(2, 9)` differs: a third of these ranges, with probability 1.
- Colour jitter (0.4, or 0.3) is in their scripts, but timm leaves it out where RandAugment is on; so do we.
- MixUp and CutMix draw one λ for all images of a micro-batch, as in timm's "batch" mode. An image's partner is its
  neighbour in the batch; in timm it is the image at the same distance from the other end (also here with MixToken).
- Images are resized with bicubic interpolation throughout; LV-ViT's and SP-ViT's scripts draw bicubic or bilinear.
- `data.backend` tensor (data/device_transform.py): torch's resizing filter differs from Pillow's by more than 1 in 0.01 % of
  all bytes.
- The schedule counts steps, not epochs. Its cosine begins at the end of the warm-up, at the full peak; timm's begins
  at epoch 0, so that after 5 of 300 epochs it is 0.07 % below the peak. All the scripts contain 10 epochs of cool-down;
  LV-ViT's and SP-ViT's run them, and so do these recipes. DeiT's and ConViT's end after 300 epochs, before them.
- Weight decay leaves spatial maps alone (`model.no_decay()`); their code leaves out only one-dimensional parameters, positions
  and the class token, and so decays SP-SA's weight matrices and GPSA's v.
- bfloat16 for their float16; the decay of the EMA weights warms up.
"""

from dataclasses import replace
from pathlib import Path

from ..data.options import AugmentOptions, DataOptions
from ..zoo import CROPS
from .options import ModelOptions, OptimOptions, TokenLabelOptions
from .recipe import Recipe

# Common to DeiT's and LV-ViT's recipes (timm's defaults, and DeiT's table 9), except how images are mixed.
AUGMENT = AugmentOptions(
    flip=True, crop="resized", crop_scale=(0.08, 1.0), randaugment=(2, 27), randaugment_prob=0.5, random_erasing_prob=0.25
)
LABELS = Path("data/imagenet_labels")  # `python -m spvit_mini label … --out data/imagenet_labels` writes them


def data_options(name: str, model: str, *, image_size: int = 224) -> DataOptions:
    """Select a dataset, with the validation crop of the model's authors: the central 87.5 or 90 % of a side, or all of it."""
    return DataOptions(name=name, image_size=image_size, eval_crop=CROPS.get(model, 1.0), workers=8, backend="tensor")


def deit(model: str, data: str = "imagenet") -> Recipe:
    """Train as DeiT (Touvron et al. 2021, table 9, and main.py of facebookresearch/deit).

    ConViT uses the same recipe (d'Ascoli et al. 2021). Its released code draws images with replacement instead of repeating
    each image three times; this recipe follows the paper. DeiT's code computes EMA weights (0.99996) too, but the published
    accuracies are those of the last weights, so there is no EMA here.
    """
    return Recipe(
        model=ModelOptions(model, drop_path=0.1),
        data=data_options(data, model),
        augment=replace(AUGMENT, mixup=0.8, cutmix=1.0, repeats=3),
        # 5e-4 × batch size / 512; only the peak is scaled there, so all three are as published at 1024.
        optim=OptimOptions(
            lr=1e-3, lr_base_batch_size=1024, final_lr=1e-5, warmup="5 epochs", warmup_lr=1e-6, weight_decay=0.05,
            clip_grad_norm=None,
        ),
        duration="300 epochs", batch_size=1024, label_smoothing=0.1,
    )  # fmt: skip


def token_labelled(model: str) -> Recipe:
    """Train as SP-ViT (Zhou et al. 2022: main.py and distributed_train.sh), which trains as LV-ViT (Jiang et al. 2021).

    The target of the class token, too, is the teacher's label, not the image's, as in the released code. The drop path
    (S 0.1, M 0.2, L 0.3) is part of the models. L has another batch size and learning rate, and three operations.
    """
    large = model == "spvit_l"
    batch = 800 if large else 1024
    return Recipe(
        model=ModelOptions(model),
        data=data_options("imagenet", model),
        augment=replace(AUGMENT, randaugment=(3 if large else 2, 27)),
        optim=OptimOptions(
            lr=6e-4 if large else 1.6e-3, lr_base_batch_size=batch, final_lr=1e-5, warmup="5 epochs", warmup_lr=1e-6,
            cooldown="10 epochs", weight_decay=0.05, clip_grad_norm=None,
        ),
        token_labels=TokenLabelOptions(folder=LABELS, dense_weight=1.0, class_target="teacher", mixtoken=1.0),
        duration="310 epochs", batch_size=batch, label_smoothing=0.1, ema=0.99992,
    )  # fmt: skip


def imagenet(model: str) -> Recipe:
    """ImageNet, 1,000 classes at 224 pixels: each model with the recipe of its paper.

    Command: torchrun --nproc-per-node 8 -m spvit_mini train spvit_s_imagenet --data.root FOLDER
    LV-ViT and SP-ViT need token labels; write them first (python -m spvit_mini label): --token-labels.folder FOLDER
    Sources: `deit` and `token_labelled`, above
    Cost, and accuracies published by others; ours: not measured yet

    | model        | parameters | multiply-adds | images seen | published (source)                               |
    |--------------|------------|---------------|-------------|--------------------------------------------------|
    | deit_small   |  22.05 M   |   4.60 G      | 384 M       | 79.8 (ConViT's table 1), 79.9 (DeiT's README)    |
    | convit_small |  27.78 M   |   5.74 G      | 384 M       | 81.3 (ConViT's table 1), 81.4 (its table 2)      |
    | lvvit_s      |  26.15 M   |   6.55 G      | 397 M       | 83.3 (TokenLabeling's README)                    |
    | spvit_s      |  26.23 M   |   6.55 G      | 397 M       | 83.9 (SP-ViT's README)                           |
    | spvit_m      |  55.97 M   |  12.67 G      | 397 M       | 84.9 (SP-ViT's README), maybe with 10 SP-SA blocks |
    | spvit_l      | 150.27 M   |  34.57 G      | 397 M       | 85.5 (SP-ViT's README); see below                |

    The code released for SP-ViT-L builds no block with SP-SA, and M's script leaves their number at 10. In these models
    all but the last two blocks have SP-SA, so those accuracies may not hold for them.
    """
    return deit(model) if model in ("deit_small", "convit_small") else token_labelled(model)


def imagenet_fsdp(model: str) -> Recipe:
    """ImageNet with each weight sharded over all GPUs (FSDP), for models that are too large for one GPU.

    Command: torchrun --nproc-per-node 8 -m spvit_mini train spvit_l_imagenet_fsdp --data.root FOLDER
    Source, cost, expected: as spvit_l_imagenet, but without its EMA weights, which are not sharded
    """
    return replace(imagenet(model), sharding="fsdp", ema=None)


def imagenet_384(model: str) -> Recipe:
    """Fine-tuning on ImageNet at 384 pixels, from the weights of a run at 224 pixels: --init-from RUN.

    Command: torchrun --nproc-per-node 8 -m spvit_mini train spvit_s_imagenet_384 --init-from runs/spvit_s_imagenet
    Source: distributed_fine_tune.sh of SP-ViT: a constant 5e-6 after the warm-up, weight decay 1e-8, everything else as
        before; batch sizes 256 (S), 128 (M) and 512 (L); only L has EMA weights. The script leaves the duration at 300 + 10
        epochs, and the paper's was not found: 30 epochs here, as in the fine-tuning of DeiT's README, at the same rates.
        LV-ViT-S uses the same numbers
    Cost, and accuracies published by others; ours: not measured yet

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
        data=data_options("imagenet", model, image_size=384),
        optim=replace(before.optim, lr=5e-6, final_lr=5e-6, lr_base_batch_size=batch, cooldown="0 epochs", weight_decay=1e-8),
        duration="30 epochs", batch_size=batch, ema=before.ema if large else None,
    )  # fmt: skip


def imagenet100(model: str) -> Recipe:
    """ImageNet-100, the list of Tian et al. (CMC), at 224 pixels: all models with DeiT's recipe.

    Command: torchrun --nproc-per-node 8 -m spvit_mini train spvit_s_imagenet100 --data.root FOLDER
    Source: `deit`, above, for all four models and without token labels, so that they can be compared. The hundred classes
        of SP-ViT's ablations, their duration and recipe: not found
    Cost: multiply-adds as on ImageNet, and about a tenth of its images seen, 38 M
    Expected: not measured yet; published numbers on this list with these models: not found
    """
    return deit(model, "imagenet100")


def imagenet100_first(model: str) -> Recipe:
    """ImageNet-100, the first hundred classes, as in ConViT's ablations; otherwise as imagenet100.

    Command: torchrun --nproc-per-node 8 -m spvit_mini train spvit_s_imagenet100_first --data.root FOLDER
    Source: the classes of ConViT's study of its hyperparameters (d'Ascoli et al. 2021); the rest as imagenet100
    Cost: as imagenet100; the two datasets share 8 classes, and their accuracies cannot be compared
    Expected: not measured yet
    """
    return deit(model, "imagenet100_first")


def imagenet_subset(model: str, percent: int) -> Recipe:
    """Train on a fraction of each class for proportionally more epochs: as many steps as on the whole dataset.

    All durations in epochs are scaled. ConViT's paper doesn't say whether its warm-up was.
    """
    whole = deit(model)
    epochs = {"duration": 300, "optim.warmup": 5, "evaluate_every": 1, "save_every": 1}
    scaled = {name: f"{number * 100 / percent:.8g} epochs" for name, number in epochs.items()}
    return whole.override(scaled | {"data.fraction": percent / 100})


def imagenet_5pct(model: str) -> Recipe:
    """5 % of each class of ImageNet for 6000 epochs, to measure sample efficiency.

    From ConViT's study of sample efficiency (d'Ascoli et al. 2021, table 2), in which the number of images seen is constant;
    deit_small_imagenet and convit_small_imagenet use the whole dataset.

    Command: torchrun --nproc-per-node 8 -m spvit_mini train convit_small_imagenet_5pct --data.root FOLDER
    Source: `deit` and `imagenet_subset`, above
    Cost: as imagenet, 384 M images
    Published by ConViT's authors: deit_small 34.8, convit_small 47.8. Ours: not measured yet
    """
    return imagenet_subset(model, 5)


def imagenet_10pct(model: str) -> Recipe:
    """10 % of each class of ImageNet for 3000 epochs, as imagenet_5pct.

    Command: torchrun --nproc-per-node 8 -m spvit_mini train convit_small_imagenet_10pct --data.root FOLDER
    Published by ConViT's authors: deit_small 48.0, convit_small 59.6 (table 2; their text says 46.5 and 59.5). Ours:
        not measured yet
    """
    return imagenet_subset(model, 10)


def imagenet_30pct(model: str) -> Recipe:
    """30 % of each class of ImageNet for 1000 epochs, as imagenet_5pct.

    Command: torchrun --nproc-per-node 8 -m spvit_mini train convit_small_imagenet_30pct --data.root FOLDER
    Published by ConViT's authors: deit_small 66.1, convit_small 73.7 (table 2). Ours: not measured yet
    """
    return imagenet_subset(model, 30)


def imagenet_50pct(model: str) -> Recipe:
    """50 % of each class of ImageNet for 600 epochs, as imagenet_5pct.

    Command: torchrun --nproc-per-node 8 -m spvit_mini train convit_small_imagenet_50pct --data.root FOLDER
    Published by ConViT's authors: deit_small 74.6, convit_small 78.2 (table 2). Ours: not measured yet
    """
    return imagenet_subset(model, 50)
