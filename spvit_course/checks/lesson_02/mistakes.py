"""Lesson 02: known mistakes, name → (hint, the options of answers.py that make it)."""

PRE_NORM = "Only what goes into attention or the MLP is normalised; what is carried past them is not."
BLOCK = {
    "post-norm": (f"the sum is normalised, as in the first transformer (post-norm). {PRE_NORM}",
        {"attention_norm": "after", "mlp_norm": "after"}),
    "norm at the end of a branch": ("what comes out of attention and of the MLP is normalised. It is what goes into "
        "them that should be.", {"attention_norm": "inside", "mlp_norm": "inside"}),
    "no norms": ("neither norm is used. Each branch begins with one.",
        {"attention_norm": "nowhere", "mlp_norm": "nowhere"}),
    "no norm before attention": ("the tokens go into attention as they are: norm1 is missing.",
        {"attention_norm": "nowhere"}),
    "no norm before the MLP": ("the tokens go into the MLP as they are: norm2 is missing.", {"mlp_norm": "nowhere"}),
    "no skips": ("nothing is carried past attention and the MLP: a branch is added to what went in, not put in its "
        "place.", {"attention_skip": "nothing", "mlp_skip": "nothing"}),
    "no skip past attention": ("nothing is carried past attention: its branch is added to x, not put in its place.",
        {"attention_skip": "nothing"}),
    "no skip past the MLP": ("nothing is carried past the MLP: its branch is added to what went in, not put in its "
        "place.", {"mlp_skip": "nothing"}),
    "skips from the norms": (f"both branches are added to the normalised tokens. {PRE_NORM} Was x overwritten by its "
        "norm?", {"attention_skip": "its norm", "mlp_skip": "its norm"}),
    "skip from norm1": (f"the attention's branch is added to the normalised tokens. {PRE_NORM} Was x overwritten by "
        "its norm?", {"attention_skip": "its norm"}),
    "skip from norm2": (f"the MLP's branch is added to the normalised tokens. {PRE_NORM} Was x overwritten by its norm?",
        {"mlp_skip": "its norm"}),
    "norm1 twice": ("norm1 is used in both branches. Each has a norm of its own.", {"norms": "11"}),
    "norm2 twice": ("norm2 is used in both branches. Each has a norm of its own.", {"norms": "22"}),
    "norms exchanged": ("norm1 and norm2 are exchanged: attention comes with norm1.", {"norms": "21"}),
    "MLP first": ("the MLP comes before attention. First the tokens talk, then each thinks for itself.",
        {"first": "mlp"}),
    "side by side": ("both branches read x. The MLP should read what attention has added to it already.",
        {"second_reads": "x"}),
    "attention's sum forgotten": ("the MLP reads the right tokens, but its branch is added to the x from the block's "
        "beginning: what attention brought is lost on the way past.", {"second_joins": "x"}),
    "attention unused": ("attention has no part in the result: the MLP reads x and is added to x, both from the "
        "block's beginning.", {"second_reads": "x", "second_joins": "x"}),
    "no GELU": ("the MLP's two layers follow each other without the GELU in between, so they are one linear layer.",
        {"activation": "none"}),
    "ReLU": ("the MLP has a ReLU where a GELU belongs. `self.mlp` has the right one.", {"activation": "ReLU"}),
}

AT_ONCE = "Positions are added to the patches at once, before the first block."
NOT_ON_THE_WIDTH = "Each of the D numbers is averaged over the patches: tokens of shape (B, N, D) become (B, D)."
VIT = {
    "no positions": (f"the positions are not used, so the order of the patches is lost. {AT_ONCE}",
        {"positions": "never"}),
    "positions after the first block": (f"the positions come late: they are added after the first block. {AT_ONCE}",
        {"positions": "after the first block"}),
    "positions after the blocks": ("the positions come late: they are added after the last block, where nothing can "
        f"use them. {AT_ONCE}", {"positions": "after the blocks"}),
    "reshaped": ("a reshape alone does not make tokens of (B, D, R, C): it mixes patches with their numbers. Flatten "
        "the grid, then move its axis.", {"order": "reshaped"}),
    "column by column": ("the patches are taken column by column. They come row by row: with plain attention that "
        "makes no difference, but with one that looks at the grid.", {"order": "column by column"}),
    "not transposed": ("the axes are in the wrong order: the flattened grid is (B, D, N), but blocks take (B, N, D).",
        {"order": "not transposed"}),
    "grid exchanged": ("the grid that the blocks get is (columns, rows). It is (rows, columns): plain attention does "
        "not look at it, others do.", {"grid": "(C, R)"}),
    "class token missing": ("with pool='class' a class token joins the patches. Here it is missing, and a patch is "
        "read instead.", {"token": "missing"}),
    "class token last, first read": ("the class token is put last, but the first token is read, which is a patch.",
        {"token": "last"}),
    "class token first, last read": ("the class token is put first, but the last token is read, which is a patch.",
        {"pool": "last of a class token"}),
    "class token last": ("the class token is put last and read there. Plain attention does not mind, but one that "
        "looks at the grid takes the patches to be the last tokens: put the class token in front.",
        {"token": "last", "pool": "last of a class token"}),
    "class token for one image": ("with pool='class' it works for a single image only. The class token is (1, 1, D), "
        "and torch.cat repeats nothing: it must grow to B first.", {"token": "for one image"}),
    "class token averaged in": ("with pool='class' the mean of all tokens is read. The class token alone should be.",
        {"pool": "all"}),
    "class token ignored": ("with pool='class' the mean of the patches is read. The class token should be, that is "
        "what it is for.", {"pool": "patches"}),
    "first patch": ("with pool='mean' there is no class token: token 0 is a patch as any other. Average all of them.",
        {"pool": "first"}),
    "always the first tokens": ("each block gets the same tokens. What one block returns goes into the next.",
        {"way": "always the first tokens"}),
    "last block left out": ("the tokens do not go through the last block.", {"way": "all but the last"}),
    "no final norm": ("the norm after the last block is missing.", {"norm": "never"}),
    "norm after pooling": ("the tokens are averaged first and normalised then. Here each token is normalised, then "
        "they are averaged.", {"norm": "pooled"}),
    "pools the width": (f"the mean runs over the numbers of each token. {NOT_ON_THE_WIDTH}", {"pool": "width"}),
    "pools the batch": (f"the mean runs over the images, so each answer mixes all of them. {NOT_ON_THE_WIDTH}",
        {"pool": "batch"}),
    "sum for mean": ("the patches are summed up. Their mean is asked for.", {"pool": "sum"}),
    "max for mean": ("the largest value over the patches is taken. Their mean is asked for.", {"pool": "max"}),
    "no head": ("the pooled token comes out as it is, of D numbers. The head makes one number for each class of it.",
        {"output": "pooled"}),
    "softmax on logits": ("the result sums to 1: it went through a softmax. A model returns logits; the loss takes the "
        "softmax itself.", {"output": "softmax"}),
    "log softmax on logits": ("the result went through a logarithm of a softmax. A model returns logits; the loss does "
        "that itself.", {"output": "log"}),
}
