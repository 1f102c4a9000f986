"""The problem sets' questions that a person grades: what code can't show that somebody has understood.

A rubric says for each point what earns it, so that two readers of one answer agree. Numbers in model answers are
computed in tests/course/test_problem_sets.py. Records in questions are invented, and say so.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """A question in words: its name (grade_id), points, text, what earns the points, and a model answer, in Markdown."""

    name: str
    points: int
    text: str
    rubric: str
    answer: str


# Set 1: attention and geometry ------------------------------------------------------------------------------------------

LARGE_SCORES = Question(
    name="large-scores",
    points=3,
    text=r"""**Scores of the wrong size.** A head is C = 64 numbers wide. All numbers of its queries and keys are drawn
independently, with mean 0 and variance 1, and there are 36 keys. Two people write the scores wrongly: A forgets to
divide, B divides by $C$ in place of $\sqrt C$.

1. What is the standard deviation of a score as it should be, with A, and with B?
2. For A and for B: do the weights have more or less entropy than they should, and which number of nats would it
   approach if $C$ became larger and larger?
3. A third person says: “No matter, the network can learn that away.” Is that right? Say which parameters would have to
   change and by what factor, and what is different all the same.""",
    rubric=r"""- **1 point**: all three standard deviations, 1, 8 and ⅛. (8² = 64 in place of 8: no point.)
- **1 point**: A less, towards 0; B more, towards log 36 ≈ 3.58, the most that 36 keys allow. Both directions and both
  limits.
- **1 point**: what can be computed is the same: the query's (or the key's) weights times ⅛ for A, times 8 for B, or a
  share of it on both sides; *and* the start of training is another one (A begins with hard choices, B with a plain
  average). “It learns it away” or “it can't” alone: no point.""",
    answer=r"""1. A score is a sum of 64 products, each with mean 0 and variance 1, so its variance is 64. Divided by
   √64 it has the standard deviation 1; with A it is 8, with B ⅛.
2. A's scores are large, the larger the wider the head, so one key takes nearly all: less entropy, towards 0. B's are
   all nearly 0, so the weights are nearly equal: more entropy, towards log 36 = 3.58 nats, the largest that there is.
3. It is right for what the layer *can* compute: multiply the weights that make the queries by ⅛ (A) or by 8 (B), and
   the scores are as they should be. But training starts elsewhere: A begins with hard choices among keys that mean
   nothing yet, and little gradient for most of them; B begins with an average to which the content hardly matters.""",
)

TWO_SHUFFLES = Question(
    name="two-shuffles",
    points=4,
    text=r"""**Three networks, two shuffles.** Images of 6 × 6 patches show a ship somewhere beside a lighthouse; the
class is the direction. Take (a) a ViT without positions whose last tokens are averaged, (b) the same with a learned
vector for each place, (c) a small network of 3 × 3 convolutions. Each is trained on images in order and scored on
images in order. What happens to its accuracy

- if **one order**, drawn once, shuffles the patches of all images, and the network is *trained anew* on such images
  and scored on such images?
- if the network that was trained *in order* is **only scored** on images shuffled by one order?

Give for each of the six cases “exactly the same”, “the same but for the luck of the draw”, or “lower”, with the reason
in a sentence.""",
    rubric=r"""- **1 point**: (a), both cases, exactly the same; the reason names both steps: the blocks carry the
  order along, and the mean forgets it. (That it is at chance in any case may be said; alone it is no reason.)
- **1 point**: (b) trained anew: the same but for luck, since the vectors of places are drawn at random and learned:
  shuffled places are as good names as any. “Exactly the same” is wrong here, and so is “lower”.
- **1 point**: (b) and (c) only scored: lower, since the place vectors (b) and the neighbourhoods (c) no longer belong
  to the patches with which they were learned.
- **1 point**: (c) trained anew: lower, at least with few images, since the kernel joins patches that are no neighbours
  any more, and what is learned at one place says nothing of another. “It can't learn at all” is too much: no point.""",
    answer=r"""- (a) *Trained anew* and *only scored*: exactly the same. Without positions each block carries an order
  of its tokens along, and the mean of the tokens forgets it: an image and its shuffled pieces have the same logits,
  for any weights. (So it was at chance before, too.)
- (b) *Trained anew*: the same but for the luck of the draw. A place's vector is a name, not a coordinate: with names
  shuffled along with the patches the whole training is the same, and shuffled names are as likely a draw as the
  others. *Only scored*: lower. Each patch now gets another place's vector, so the direction that the network reads off
  is that of two other places.
- (c) *Trained anew*: lower with few images. The kernel's taps join patches that had been far apart, differently at
  every place, so that nothing learned at one place helps at another. (With many images it may still learn, from what
  zeros at the border tell of the place.) *Only scored*: lower, towards chance: the neighbours that its taps have
  learned to compare are others.""",
)

PASSING_TEST = Question(
    name="passing-test",
    points=3,
    text=r"""**A test that passes.** Somebody writes `delta = places[:, None] - places[None]`, looks each pair's offset
up in a table and tests the result on a grid of 6 × 9 patches, with a table that holds the *length* of each offset. All
entries of the map are equal to distances that were measured one by one.

1. What is wrong with `delta`, and why does this test not see it?
2. Give the smallest test that does: take a grid of 1 × 2 patches and the table (10, 20, 30) for the column offsets −1,
   0, +1. Which map is right, which one comes out?
3. Having understood, the author turns the sign of `delta` round *and* transposes the finished map. What comes out now,
   and why?""",
    rubric=r"""- **1 point**: `delta` is query minus key (entry [i, j] is $p_i - p_j$), *and* a length is the same for
  δ and −δ.
- **1 point**: right is ((20, 30), (10, 20)); out comes ((20, 10), (30, 20)). Both, rows as queries.
- **1 point**: the wrong map again, ((20, 10), (30, 20)): each of the two repairs alone is enough, since a turned sign
  is the same as a transposed map, and two of them cancel.""",
    answer=r"""1. Entry [i, j] is the place of i minus the place of j, so all arrows point from the key to the query.
   The length of an offset is that of its opposite, so a symmetric table can't tell the two apart, on any grid.
2. Right: query 0 sees itself (20) and the key one to its right (30), query 1 the key one to its left (10) and itself
   (20): ((20, 30), (10, 20)). Out comes ((20, 10), (30, 20)), its transposed.
3. The wrong map again. To turn the sign is to transpose the map, so the first repair made it right, and the second
   undid that.""",
)

# Set 2: bias and windows ------------------------------------------------------------------------------------------------

LARGER_GRID = Question(
    name="larger-grid",
    points=4,
    text=r"""**The same head on a larger grid.** A head was trained on 7 × 7 patches and looks at “two to the right”.
Now it is asked on 13 × 13 patches, without further training. Its map was one of these:

- (a) a table of 13 × 13 entries, resized to 25 × 25 as a picture would be;
- (b) embeddings as in Shaw 2D, with clip 3;
- (c) a network of δ in patches;
- (d) a network of offsets that are divided by the side of the grid *at hand* less one, so by 6 in training and by 12
  now.

1. About how many columns to the right does it look now, with each of the four?
2. What does each know of an offset of nine columns, which no image in training had?
3. Which two suit if the images show *more* of the world at the same scale, and which two if the same picture is cut
   into *finer* patches?
4. Can any map, of these four kinds or another, get both right if it is given the grid and the offsets, but not which
   of the two cases it is? Reason in one or two sentences.""",
    rubric=r"""- **1 point**: (a) near 4 (2 · 25/13 = 3.85), (b) 2, (c) 2, (d) 4. All four; for (a) “between 3 and 4,
  smeared” will do, and so will 4, if corners are taken to stay on corners.
- **1 point**: at least three of: (a) reads between entries that were learned for 4 and 5 columns (9 · 13/25 = 4.7, or
  4.5 with corners on corners); (b) uses the embedding of 3, the clip; (c) makes up something that was never trained (it
  goes on as its layers do); (d) reads what it learned for 4.5.
- **1 point**: more of the world: (b) and (c); finer patches: (a) and (d).
- **1 point**: no; the patches and their grid are the same numbers in both cases, so somebody has to say what a larger
  grid means (or the network has to find out from the images). An answer that only repeats 3 earns nothing.""",
    answer=r"""1. (a) The table is stretched by 25/13, so two columns become 3.85, smeared over its neighbours. (b) 2,
   which is within the clip. (c) 2. (d) 2/6 = 4/12, so 4.
2. (a) At nine columns stands what was learned for 9 · 13/25 = 4.7. (b) The embedding of three columns. (c) Its network
   is asked about an input it never had, and goes on as its last layers happen to. (d) 9/12 = 4.5/6, between what it
   learned for four and for five.
3. More of the world at the same scale: (b) and (c), where patches stay patches. The same picture cut finer: (a) and
   (d), where shares of the image stay shares.
4. No. In both cases the map is handed the same grid of 13 × 13 and the same offsets; nothing in them says what a patch
   is. Who uses the network has to decide, or train on both.""",
)

FINDING = Question(
    name="finding",
    points=4,
    text=r"""**A finding about windows.** A group takes a trained ViT on 14 × 14 patches, without a class token (its
tokens are averaged), and multiplies its scores by a sliding window, 1 in the 5 × 5 patches around the query and 0
outside: `weights = (scores * window).softmax(-1)`. Nothing is trained again. Accuracy falls by 0.3 points. They write:
“What lies outside a patch's neighbourhood is of no use to a trained ViT.”

1. A query in the middle of the image has scores of 0 with all its keys. Which share of its weight lies outside the
   window? (Two digits.)
2. If its scores inside are all alike, s, how large must s be for only 5 % of its weight to lie outside? (Two digits.)
3. Why does the conclusion not follow from the experiment?
4. Give the line of code that does what they meant to do, and name two other measurements that should stand beside it
   before that sentence may be written.""",
    rubric=r"""- **1 point**: 171/196 = 87 %.
- **1 point**: s = log(19 · 171/25) ≈ 4.9.
- **1 point**: a score of 0 is no weight of 0 ($e^0 = 1$): the outside keeps a large, content-blind share, so they have
  measured what happens if far patches are *averaged*, not if they are left out. (Naming only exp(0) = 1, without what
  was measured: no point.)
- **1 point**: `scores.masked_fill(~window, -inf).softmax(-1)`, or an equal form (add log of the window; multiply the
  exponentials and share anew); *and* two sensible measurements: the share of weight outside before and after, windows
  of several sizes, a network trained with the window, several seeds or images with an interval, or random windows of
  the same size beside it.""",
    answer=r"""1. 25 keys are inside, 171 outside, and all count e⁰ = 1: 171/196 = 87 %.
2. 171/(171 + 25 eˢ) = 0.05, so 25 eˢ = 19 · 171 and s = log 130 = 4.9.
3. Multiplied by 0 a score becomes 0, not −∞: each far patch still counts 1. Unless the scores inside are large, most
   of the weight lies outside and is spread evenly. So the experiment says that this network does not suffer much if
   far patches are mixed in as a plain average, which may even carry what is needed. It says nothing about leaving them
   out.
4. `weights = scores.masked_fill(~window, -torch.inf).softmax(-1)`. Beside it: how much weight lay outside before the
   mask, the same with windows of other sizes and with random sets of 25 patches, and the difference in accuracy with
   an interval over images.""",
)

WHO_HEARS = Question(
    name="who-hears",
    points=3,
    text=r"""**News along a row.** Twelve patches in a row. Attention is masked to tiles of 4. Plain and shifted layers
take turns: in the shifted ones the tiles are moved by 2, so that the pieces are 2, 4, 4 and 2 long. After how many
layers has patch 0 heard of patch 11,

1. if the first layer is a plain one? If it is a shifted one? Give one piece a layer, on the way from patch 11 to
   patch 0.
2. if all layers have sliding windows of five patches instead (two to each side)?
3. if the tiles stay as in 1., but a class token stands in front that sees everyone and is seen by everyone? What does
   the news lose on this way?""",
    rubric=r"""- **1 point**: 5 layers with a plain one first, 6 with a shifted one first, with the pieces for at least
  one of the two.
- **1 point**: 6 layers: 2 patches a layer, and 11 is more than 10.
- **1 point**: 2 layers, one for the token to hear, one for patch 0 to be told; *and* the loss: all news goes through
  one vector, where it is mixed with everyone's.""",
    answer=r"""1. A plain layer first: {8–11}, {6–9}, {4–7}, {2–5}, {0–3}, so **5** layers; each shares two patches
   with the one before. A shifted layer first: patch 11 shares its piece with patch 10 alone, which brings the news no
   nearer than the next layer does by itself: {10–11}, {8–11}, {6–9}, {4–7}, {2–5}, {0–3}, so **6**.
2. Two patches a layer: 2, 4, 6, 8, 10 after five layers, so **6**.
3. **2**: in the first layer the class token hears of patch 11, in the second patch 0 hears of the token. One vector
   holds what everyone says, so patch 0 hears of patch 11 only what survives in that mixture.""",
)

# Set 3: positional attention and gates ----------------------------------------------------------------------------------

READ_A_HEAD = Question(
    name="read-a-head",
    points=4,
    text=r"""**Reading heads.** Four heads attend by PSA's map alone,
$f = v \cdot (\lVert\delta\rVert^2, \delta_\text{row}, \delta_\text{column})$ with δ key minus query:

$$v_a = (-\tfrac12,\ 1,\ -2) \qquad v_b = (-4,\ 0,\ 8) \qquad v_c = (0.1,\ 0,\ 0) \qquad v_d = (0,\ 0,\ 3)$$

1. Where does a query in the middle of a large image look with each of them? Give strength and centre where there are
   such.
2. Which of the four could serve as a tap of a convolution? Why not the others?
3. A query in the *last column* of the image, away from its corners: where does head b look there? With which padding
   would a convolution do the same?""",
    rubric=r"""- **1 point**: a has strength ½ and centre (1, −2): one below and two to the left, a wide bell.
- **1 point**: b has strength 4 and centre (0, 1): one to the right; it alone is (nearly) a tap, since it gives nearly
  all its weight to one patch at a fixed offset. a spreads over several patches; c and d have no fixed offset.
- **1 point**: c has a negative strength and looks at the corner farthest away; d has no bell: the last column, in all
  rows alike. Both.
- **1 point**: at itself: of the patches that there are, the query is the nearest to the centre. That is padding by
  *replication* of the border, not by zeros. Both halves.""",
    answer=r"""1. With v = −α(1, −2Δ): **a** has α = ½ and Δ = (1, −2), one below and two to the left, in a wide bell.
   **b** has α = 4 and Δ = (0, 1), the patch to its right, sharply. **c** has α = −0.1: the score grows with the
   distance, so the farthest corner gets most. **d** has no square at all: the score grows to the right, so the last
   column has nearly all, each row the same share.
2. b: nearly all its weight, 93 %, is on one patch at one offset. a gives its centre a small share and its neighbours
   the rest; c and d look at places of the image, not at an offset.
3. The centre lies outside the image. The nearest patch that exists is the query itself (distance 1; the next ones √2),
   so b looks there: what a convolution does that replicates its border. Zeros can't be looked at.""",
)

ONE_LINE = Question(
    name="one-line",
    points=3,
    text=r"""**One line of a GPSA layer.** There are 36 patches and one class token. Somebody writes

    by_position = F.pad(positions, (1, 0)).softmax(-1)     # positions (H, 36, 36) → (H, 36, 37)

1. In a head all positional scores are 0. Which share does this line give to the class token?
2. Now −5 is added to all positional scores of that head. What should that change, and what share does the class token
   get from this line?
3. What is the right line, and why is 0 not neutral here, though it is where a bias is added to content scores?""",
    rubric=r"""- **1 point**: 1/37 = 2.7 %.
- **1 point**: it should change nothing (a softmax does not see a number added to a whole row); here 1/(1 + 36 e⁻⁵) ≈
  80 %. Both.
- **1 point**: pad after the softmax, with 0 (or before it with −∞); *and* the reason: alone in a softmax a 0 is a
  score like any other, exp(0) = 1, while an added 0 leaves the content's score as it is.""",
    answer=r"""1. All 37 count 1, so 1/37 = 2.7 %, where it should get nothing.
2. Rightly nothing changes, since the same number for all keys cancels in a softmax. Here the patches count e⁻⁵ each
   and the class token still 1: 1/(1 + 36 · 0.0067) = 80 %. The layer's result depends on a constant that ought to have
   no meaning.
3. `F.pad(positions.softmax(-1), (1, 0))`: by position a patch gives the token a *weight* of 0. A score of 0 that is
   *added* to a content score changes nothing; a score of 0 that stands *alone* in a softmax is a wish like any other,
   worth e⁰ = 1.""",
)

THREE_HEADS = Question(
    name="three-heads",
    points=4,
    text=r"""**A record of heads** (invented). Three heads of a ConViT on 6 × 6 patches, before and after training:

| head | σ(λ), start | σ(λ), end | nonlocality, start | nonlocality, end |
|---|---|---|---|---|
| 1 | 0.73 | 0.35 | 1.49 | 1.10 |
| 2 | 0.73 | 0.74 | 1.49 | 2.60 |
| 3 | 0.73 | 0.10 | 1.49 | 3.05 |

A hill of the first width has a nonlocality of 0.90, looking everywhere alike has 3.08. The report says: “Heads 1
and 3 have escaped from locality; head 2 has stayed local.”

1. Which nonlocality would heads 1 and 3 have if their hills had kept their width and content looked everywhere alike?
2. What do you say of head 1? What must have happened to its content part, and how do you know?
3. And of head 2? Can its content part alone explain 2.60? (Two patches of this grid are at most 7.1 apart.)
4. Correct the report's sentence, and name one thing about these heads that the table can't tell.""",
    rubric=r"""- **1 point**: σ · 0.90 + (1 − σ) · 3.08: 2.32 for head 1, 2.86 for head 3 (± 0.02).
- **1 point**: head 1's content itself has become local: even with a hill of no width, content that looks everywhere
  would give 0.65 · 3.08 = 2.0 > 1.10.
- **1 point**: head 2's hill must have widened or moved: with the first hill, content would have to look (2.60 − 0.74 ·
  0.90)/0.26 = 7.4 patches far on average, more than there are. (“Its hill may have changed” without the reason: no
  point.)
- **1 point**: head 1 is the most local of the three though its gate fell, 2 has let go though its gate stayed, 3 looks
  nearly everywhere; *and* one thing left open: whether the heads matter to the answer, other seeds, *where* they look,
  how it came about, what a plain ViT's heads do here.""",
    answer=r"""1. Head 1: 0.35 · 0.90 + 0.65 · 3.08 = 2.32. Head 3: 0.10 · 0.90 + 0.90 · 3.08 = 2.86.
2. Head 1 looks nearer than it began, though its gate fell by half. Content alone, looking everywhere, would contribute
   0.65 · 3.08 = 2.0, whatever the hill does. So its content part has become local: it picks near patches by what they show.
3. No. The first hill contributes 0.74 · 0.90 = 0.67; the other 26 % would have to look 1.93/0.26 = 7.4 patches far on
   average, and no two patches are farther apart than 7.1. So the hill itself has widened or moved away from the query.
4. “Head 3 looks nearly everywhere; head 2 looks farther than at the start, though its gate stayed; head 1 is the most
   local of the three, though its gate fell.” The table doesn't say whether any of them matters to the accuracy,
   nor whether other seeds agree.""",
)

# Set 4: learned priors, and a fair comparison ---------------------------------------------------------------------------

FACTOR_OR_BIAS = Question(
    name="factor-or-bias",
    points=3,
    text=r"""**A factor or a bias.** A query has three keys, with the scores $(1, 0, -1) \cdot \log 2$. The third lies
to the right. One head has the factor f = (1, 1, 3), another the bias g = (0, 0, log 4).

1. The weights without either, with the factor, with the bias, as fractions.
2. The same three once more, with 2 log 2 added to all scores.
3. Explain what you see by a formula. What does it say of the sentence “a factor can never raise what does not match, a
   bias can”?""",
    rubric=r"""- **1 point**: 4 : 2 : 1 of 7; 16 : 8 : 1 of 25; 2 : 1 : 2 of 5.
- **1 point**: only the factor's row changes; it is 2 : 1 : 2 of 5 now.
- **1 point**: f ⊙ (S + c) = f ⊙ S + c f: the common part acts as a bias of c · f; *and* so the sentence holds only
  where scores have no (large) common part, that is, it is wrong as it stands.""",
    answer=r"""1. Without: 2 : 1 : ½, that is (4, 2, 1)/7. Factor: the scores become (1, 0, −3) log 2, so 2 : 1 : ⅛,
   (16, 8, 1)/25. Bias: 2 : 1 : 2, (2, 1, 2)/5.
2. Without and with the bias nothing changes: a softmax does not see what is added to all scores. With the factor the
   scores are (3, 2, 3) log 2, so 8 : 4 : 8, (2, 1, 2)/5.
3. f ⊙ (S + c) = f ⊙ S + c f. What all scores have in common turns the factor into a bias of c · f. Here c f = (2, 2,
   6) log 2, which raises the third by 4 log 2 beside the others, and the factor does what the bias did. The sentence
   holds for c = 0 only; how large c is, the queries and keys decide.""",
)

ZERO_START = Question(
    name="zero-start",
    points=3,
    text=r"""**Another zero.** SP-SA starts with $w_2 = 0$ and $b_2 = 1$, and a random first layer. Somebody starts
with $w_2 = 0$ and **$b_2 = 0$** instead.

1. Which attention weights does the layer have at the start, whatever the image?
2. Which parameters of the *whole layer* get no gradient at the first step: among $W_1$, $b_1$, $w_2$, $b_2$, and among
   those that make queries, keys and values? Give the reason for each group.
3. Is the layer stuck? And one that starts with $W_1 = b_1 = w_2 = b_2 = 0$: what can it ever learn of space?""",
    rubric=r"""- **1 point**: f = 0, all scores 0: each query gives all tokens the same weight, 1/N.
- **1 point**: no gradient for $W_1$, $b_1$ (they act through $w_2 = 0$) *and* for the query's and key's weights (their
  scores are multiplied by f = 0); $w_2$, $b_2$ and the values do get one.
- **1 point**: the first is not stuck: after one step $w_2$, $b_2$ ≠ 0 and all move. The second learns nothing of
  space: its hidden units stay 0, so only $b_2$ ever moves, a temperature. Both.""",
    answer=r"""1. f = 0 everywhere, so f ⊙ S = 0: every weight is 1/N, an average over all tokens.
2. $W_1$ and $b_1$ get none, as with $b_2 = 1$: what they do is multiplied by $w_2 = 0$. The weights of queries and
   keys get none either: the gradient of a score is multiplied by f = 0. $w_2$ and $b_2$ do get one, since the scores
   they multiply are not 0, and so do the values, which don't pass through the softmax.
3. Not stuck: after one step $w_2$ and $b_2$ are no longer 0, so f is not, and from the second step on everything
   moves. With all four at 0 the hidden units are ReLU(0) = 0, so $w_2$ has no gradient, and $W_1$, $b_1$ have none
   through $w_2 = 0$: this stays so. $b_2$ alone moves, one number for all offsets, a temperature that knows nothing of
   space.""",
)

AN_ABSTRACT = Question(
    name="an-abstract",
    points=5,
    text=r"""**Refereeing** (the paper is invented).

> *We present HEX-SA, which multiplies attention scores by a learned hexagonal prior. On Compass-6 it reaches 99.8 %,
> the best of five seeds, where a plain ViT stays at 12.5 %: a gain of 87 points. The learning rate of HEX-SA was
> chosen among six on the validation images; the ViT was trained with the rate of its paper. On Textures-6 HEX-SA
> reaches 69 ± 40 %; one seed, whose training had visibly failed, was left out. Our models also have a convolution
> after each block, as is usual today. An added form of the prior gained 3 points on Textures-6, from −2 to +8, so
> adding has no effect: it is the product that attention needs. HEX-SA needs hardly more computation.*

Name **five different** flaws of what was done or concluded. For each: quote the words, say in a sentence why the
conclusion is not safe, and what should have been done instead.""",
    rubric=r"""**1 point for each of five flaws, with quote, reason and remedy; a flaw that lacks one of the three
counts half, and halves are rounded down in the sum.** Accept for instance:

- *plain ViT* as the only rival: the strongest simple baseline is missing (PSA; an added network)
- *best of five seeds*: show all, compare pairs
- *chosen among six* against *the rate of its paper*: the same effort for both sides
- *on the validation images*: tuned on what is scored; hold other images out
- *69 ± 40 %*: two humps; every seed, the share that solved it, steps to a level
- *left out*: after the fact, on one side; a failed run counts, by a rule named before
- *a convolution after each block*: the gain may be its own; switch the parts one by one
- *from −2 to +8, so … no effect*: not told apart is not equal; more pairs, or say so
- *it is the product that attention needs*: map and way changed together, two made tasks; the same map both ways, claim
  less
- *hardly more computation*: no number; parameters and time per step of both

Two wordings of one flaw count once.""",
    answer=r"""1. “where a plain ViT stays at 12.5 %”: anything that knows of space beats it here. A local quadratic
   that is simply added, and the same network added, belong beside it, with intervals.
2. “the best of five seeds”: the luckiest draw of one side. Show all five of each, and the paired differences.
3. “chosen among six on the validation images; … the rate of its paper”: six chances against none, and chosen on the
   images that are scored. The same candidates for both, on images held out of training.
4. “one seed … was left out”: decided after seeing it, and for one side. It counts as it ended, or a rule for all arms
   is written down before.
5. “from −2 to +8, so adding has no effect”: the interval also holds gains of 8 points. Say that five pairs don't tell,
   and how many would.""",
)
