"""Every backend of SP-SA against its equation; which one is chosen; and that a cached map is never outdated."""

import copy
import functools
import math
import pickle
import shutil

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from spvit_mini import attention_backends, create_model
from spvit_mini.attention import GPSA, SPSA, AnchoredSPSA, RelativeBias
from spvit_mini.errors import UserError

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="FlexAttention has gradients on CUDA alone")
SIZES = [(3, 2, 12, 5), (1, 1, 64, 8), (2, 3, 17, 4)]  # images, heads, tokens, width of a head


def equation(q, k, v, f, g=None):
    """softmax(f ⊙ S + g) @ v in float64, with a loop over images and heads."""
    images = []
    for b in range(len(q)):
        heads = []
        for h in range(q.shape[1]):
            scores = f[h % len(f)] * (q[b, h] @ k[b, h].T / math.sqrt(q.shape[-1]))
            powers = (scores if g is None else scores + g[h % len(g)]).exp()
            heads.append(powers / powers.sum(1, keepdim=True) @ v[b, h])
        images.append(torch.stack(heads))
    return torch.stack(images)


def draw(size, *, added, shared, gradients=True, device="cpu", dtype=torch.float64):
    B, H, N, C = size
    shapes = [(B, H, N, C)] * 3 + [(1 if shared else H, N, N)] * (1 + added)
    return [torch.randn(shape, dtype=dtype, device=device, requires_grad=gradients) for shape in shapes]


def assert_same(ours, theirs, inputs, *, tolerance):
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    weight = torch.randn_like(ours)
    mine = torch.autograd.grad((ours * weight).sum(), inputs)
    other = torch.autograd.grad((theirs * weight).sum(), inputs, retain_graph=True)
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.fixture
def compile_by(monkeypatch):
    """Compile with another backend than the one that needs a C++ compiler and a minute; gives the counter."""

    def use(backend):
        counter = CompileCounterWithBackend(backend)
        real = torch.compile
        monkeypatch.setattr(torch, "compile", lambda function, **more: real(function, backend=counter, **more))
        return counter

    caches = attention_backends.compile_eager, attention_backends.compile_flex
    for cache in caches:
        cache.cache_clear()
    torch._dynamo.reset()
    yield use
    for cache in caches:
        cache.cache_clear()
    torch._dynamo.reset()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("backend", ["auto", "eager", "recompute"])
def test_eager_and_recompute_are_the_equation_in_value_and_gradient(backend, added, shared, size, monkeypatch):
    inputs = draw(size, added=added, shared=shared)
    theirs = equation(*inputs)
    assert_same(attention_backends.attend_modulated(*inputs, backend=backend), theirs, inputs, tolerance=1e-10)
    monkeypatch.setattr(attention_backends, "CACHE", 1)  # one image at a time
    assert_same(attention_backends.attend_modulated(*inputs, backend=backend), theirs, inputs, tolerance=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("added", [False, True])
def test_what_is_compiled_is_the_equation_in_value_and_gradient(added, compile_by):
    compile_by("aot_eager")
    inputs = draw(SIZES[0], added=added, shared=False)
    assert_same(attention_backends.attend_modulated(*inputs, backend="compile"), equation(*inputs), inputs, tolerance=1e-10)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="on a CPU torch.compile wants a C++ compiler")
def test_the_compile_backend_is_the_equation_in_value_and_gradient():
    inputs = draw((2, 3, 20, 4), added=False, shared=False, dtype=torch.float32)
    assert_same(attention_backends.attend_modulated(*inputs, backend="compile"), equation(*inputs), inputs, tolerance=1e-4)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("added", [False, True])
def test_flex_attention_is_the_equation_in_value(added, shared, size):
    inputs = draw(size, added=added, shared=shared, gradients=False, dtype=torch.float32)
    expected = equation(*(tensor.double() for tensor in inputs)).float()
    torch.testing.assert_close(attention_backends.attend_flex(*inputs, compile=False), expected, rtol=1e-4, atol=1e-5)


@CUDA
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("tokens", [64, 196, 197])
def test_flex_attention_is_the_equation_in_value_and_gradient(tokens, added):
    inputs = draw((4, 3, tokens, 64), added=added, shared=False, device="cuda", dtype=torch.float32)
    assert_same(attention_backends.attend_modulated(*inputs, backend="flex_attention"), equation(*inputs), inputs, tolerance=2e-2)


@CUDA
def test_the_eager_backend_has_the_same_gradients_in_each_run_on_cuda():
    inputs = draw((8, 6, 196, 64), added=False, shared=False, device="cuda", dtype=torch.float32)
    runs = [torch.autograd.grad(attention_backends.attend_modulated(*inputs).square().sum(), inputs) for _ in range(3)]
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(run, runs[0], strict=True))


@pytest.mark.parametrize("added", [False, True])
def test_recompute_under_autocast_is_as_near_to_float64_as_eager(added):
    inputs = draw((3, 2, 30, 16), added=added, shared=False, dtype=torch.float64)
    weight = torch.randn(inputs[0].shape, dtype=torch.float64)

    def outcome(function, qkv_type, map_type):
        given = [t.detach().to(qkv_type if i < 3 else map_type).requires_grad_() for i, t in enumerate(inputs)]
        out = function(*given)
        return [out, *torch.autograd.grad((out * weight).sum(), given)]

    truth = outcome(equation, torch.float64, torch.float64)
    for backend in ("eager", "recompute"):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            attend = functools.partial(attention_backends.attend_modulated, backend=backend)
            found = outcome(attend, torch.bfloat16, torch.float32)
        assert found[0].dtype == torch.bfloat16 and found[4].dtype == torch.float32
        for a, b in zip(found, truth, strict=True):
            assert (a - b).norm() < 0.03 * b.norm()


def test_recompute_stores_nothing_of_the_size_of_the_scores():
    inputs = draw((5, 2, 40, 4), added=True, shared=False, dtype=torch.float32)
    stored = {}
    for backend in ("eager", "recompute"):
        sizes = stored[backend] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
            attention_backends.attend_modulated(*inputs, backend=backend)
    assert max(stored["eager"]) == 5 * 2 * 40 * 40 and max(stored["recompute"]) == 2 * 40 * 40


# --- Which backend ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("requested", "device", "gradients", "chosen", "why"),
    [
        ("auto", "cpu", True, "eager", "compiling was slower"),
        ("auto", "cuda", True, "eager", "the same in each run"),
        ("eager", "cuda", True, "eager", "requested"),
        ("recompute", "cpu", True, "recompute", "stores no scores"),
        ("compile", "cpu", True, "compile", "requested"),
        ("flex_attention", "cpu", False, "flex_attention", "stores no scores"),
        ("flex_attention", "cuda", True, "flex_attention", "stores no scores"),
    ],
)
def test_the_backend_that_is_chosen_and_why(requested, device, gradients, chosen, why):
    choice = attention_backends.choose_backend(requested, device, gradients=gradients)
    assert choice.backend == chosen and why in choice.reason


def test_what_cannot_be_had_is_refused_with_the_reason():
    with pytest.raises(UserError, match=r"backend is 'recomputed'; expected one of auto, .*\. Did you mean recompute\?"):
        attention_backends.choose_backend("recomputed", "cpu", gradients=False)
    with pytest.raises(UserError, match="gradients on CUDA alone"):
        attention_backends.choose_backend("flex_attention", "cpu", gradients=True)
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(UserError, match="deterministic algorithms are on"):
            attention_backends.choose_backend("flex_attention", "cuda", gradients=True)
        assert attention_backends.choose_backend("flex_attention", "cuda", gradients=False).backend == "flex_attention"
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_model_uses_the_backend_that_is_set(monkeypatch):
    model = create_model("spvit_mini", depth=2).eval()
    images, calls = torch.randn(1, 3, 32, 32), []
    eager = attention_backends.attend_eager
    monkeypatch.setattr(attention_backends, "attend_flex", lambda *inputs: calls.append(1) or eager(*inputs))
    with torch.no_grad():
        expected = model(images)
        assert attention_backends.set_backend(model, "flex_attention") == 2
        torch.testing.assert_close(model(images), expected)
    assert len(calls) == 2
    with pytest.raises(UserError, match="gradients on CUDA alone"):
        model(images)
    assert len(model.attention_maps(images)) == 2  # by the equation, whatever the backend
    assert attention_backends.set_backend(create_model("vit_mini", depth=2), "flex_attention") == 0
    with pytest.raises(UserError, match="backend is 'quick'"):
        attention_backends.set_backend(model, "quick")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["compile", "flex_attention"])
def test_a_model_of_many_layers_is_compiled_once(backend, compile_by):
    """Past eight compilations PyTorch would go on uncompiled, in silence, and store all scores."""
    counter = compile_by("eager")
    model = create_model("spvit_mini", depth=10, dim=16).eval()
    attention_backends.set_backend(model, backend)
    images = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        for _ in range(2):
            model(images)
    assert counter.frame_count == 1


@pytest.mark.slow
def test_a_compiler_that_sees_the_whole_gets_the_equation_and_no_cached_map():
    model = create_model("spvit_mini", depth=2, dim=16).eval()
    images = torch.randn(1, 3, 16, 16)
    torch._dynamo.reset()
    with torch.no_grad():
        expected = model(images)
        found = torch.compile(model, backend="eager", fullgraph=True)(images)
        torch.testing.assert_close(found, expected)
    torch._dynamo.reset()


# --- Cached maps -----------------------------------------------------------------------------------------------------------

LAYERS = {
    "spsa": lambda: SPSA(12, 3, 4),
    "log": lambda: SPSA(12, 3, 4, log=True),
    "anchored": lambda: AnchoredSPSA(12, 3, 4),
    "table": lambda: RelativeBias(12, 3, (3, 4)),
    "gpsa": lambda: GPSA(12, 3),
}


def stir(layer):
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return layer


@pytest.fixture(params=LAYERS)
def layer(request):
    return stir(LAYERS[request.param]()).eval()


def outcome(layer, grid=(3, 4), prefix=1, keep=True):
    """Compute a layer's result without gradients; `keep` False: with them, so that nothing from the cache can enter."""
    torch.manual_seed(0)
    first = next(layer.parameters())
    x = torch.randn(2, prefix + grid[0] * grid[1], 12).to(first)
    with torch.set_grad_enabled(not keep):
        return layer(x, grid).detach()


def count_maps(layer, monkeypatch):
    """Count how often the map of a layer is made."""
    made, table = [], attention_backends.OffsetMap.forward
    monkeypatch.setattr(attention_backends.OffsetMap, "forward", lambda self, grid: made.append(grid) or table(self, grid))
    return made


def test_without_gradients_a_map_is_made_once_for_a_grid(layer, monkeypatch):
    made = count_maps(layer, monkeypatch)
    results = [outcome(layer) for _ in range(3)]
    assert len(made) == 1 and torch.equal(results[0], results[2])
    outcome(layer, grid=(2, 3))
    assert len(made) == 2 and made[-1] == (2, 3)
    outcome(layer, grid=(2, 3), prefix=0)
    torch.testing.assert_close(outcome(layer), results[0])
    with torch.inference_mode():
        outcome(layer)


CHANGES = {
    "an optimiser's step": lambda layer: step(layer),
    "load_state_dict": lambda layer: layer.load_state_dict({k: v + 1 for k, v in layer.state_dict().items()}),
    "load_state_dict by assignment": lambda layer: layer.load_state_dict(
        {k: v + 1 for k, v in layer.state_dict().items()}, assign=True
    ),
    "in place, behind autograd's back": lambda layer: [p.data.mul_(1.5) for p in layer.spatial.parameters()],
    "through numpy": lambda layer: [p.detach().numpy().__imul__(1.5) for p in layer.spatial.parameters()],
    "float64 and back": lambda layer: layer.double().float(),
    "half and back": lambda layer: layer.half().float(),
    "float64": lambda layer: layer.double(),
    "another map": lambda layer: setattr(layer, "spatial", stir(copy.deepcopy(layer.spatial))),
    "a parameter put in its place": lambda layer: replace_a_parameter(layer),
    "training and back": lambda layer: [layer.train(), step(layer), layer.eval()],
}


def step(layer):
    optimiser = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(torch.randn(2, 13, 12), (3, 4)).square().sum().backward()
    optimiser.step()
    optimiser.zero_grad()


def replace_a_parameter(layer):
    spatial = getattr(layer.spatial, "prior", layer.spatial)
    name, old = next(iter(spatial.named_parameters()))
    setattr(spatial, name, torch.nn.Parameter(old.detach() + 1))


@pytest.mark.parametrize("change", CHANGES)
def test_a_cached_map_is_never_outdated(layer, change):
    before = outcome(layer)
    CHANGES[change](layer)
    after = outcome(layer)
    torch.testing.assert_close(after, outcome(layer, keep=False), rtol=1e-4, atol=1e-5)
    if change not in ("float64 and back", "float64", "half and back"):
        assert not torch.allclose(after, before)
    assert after.dtype == next(layer.parameters()).dtype


def test_a_setting_of_a_map_is_seen_too():
    layer = stir(SPSA(12, 3, 4)).eval()
    before = outcome(layer)
    layer.spatial.log = True
    after = outcome(layer)
    assert not torch.allclose(after, before) and torch.allclose(after, outcome(layer, keep=False))


def test_copies_and_files_have_no_cached_map(layer):
    fresh = len(pickle.dumps(layer))
    outcome(layer)
    assert len(pickle.dumps(layer)) == fresh
    other = stir(copy.deepcopy(layer))
    assert not torch.allclose(outcome(other), outcome(layer))
    for one in (other, layer):
        torch.testing.assert_close(outcome(one), outcome(one, keep=False), rtol=1e-4, atol=1e-5)


def test_the_cache_is_emptied_by_gradients_and_with_the_layer(layer):
    outcome(layer)
    assert layer in attention_backends.MAP_CACHE
    outcome(layer, keep=False)
    assert layer not in attention_backends.MAP_CACHE
    layer.train()
    outcome(layer)
    assert layer not in attention_backends.MAP_CACHE
    layer.eval()
    outcome(layer)
    held = len(attention_backends.MAP_CACHE)
    del layer
    assert len(attention_backends.MAP_CACHE) in (held, held - 1)


def test_a_map_of_others_is_always_made_anew():
    class Own(torch.nn.Module):
        scale = 1.0

        def forward(self, grid):
            return self.scale * torch.arange(12.0)[None, :, None].expand(3, -1, 12)

    layer = SPSA(12, 3, spatial=Own()).eval()
    before = outcome(layer)
    layer.spatial.scale = 0.1
    assert not torch.allclose(outcome(layer), before) and layer not in attention_backends.MAP_CACHE
