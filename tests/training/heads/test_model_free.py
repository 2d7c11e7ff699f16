import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.heads.fitting import fit, noise, num_parameters
from training.heads import model_free
from training.heads.model_free import ModelFreeHead, hidden_queries

JOINTS, VERTICES = 5, (12, 20, 40)


@pytest.fixture
def head(monkeypatch):
    """A narrow one: in full size, a step takes seconds on a CPU."""
    monkeypatch.setattr(model_free, "HIDDEN", (64, 32, 16))
    monkeypatch.setattr(model_free, "BETWEEN", (48, 24))
    monkeypatch.setattr(model_free, "FEED_FORWARD", 64)
    monkeypatch.setattr(model_free, "LAYERS", 2)
    torch.manual_seed(0)
    template = 0.5 * noise(JOINTS + VERTICES[0], 3, seed=8)
    return ModelFreeHead(24, 9, template_Q3=template, num_joints=JOINTS, num_vertices=VERTICES)


def smpl(dim, num_patches):
    with torch.device("meta"):
        return ModelFreeHead(
            dim, num_patches, template_Q3=torch.zeros(445, 3), num_joints=14, num_vertices=(431, 1723, 6890)
        )


def test_parameters():
    """The published trunk has 102.3 M with inputs of 2051: 57.4 M that run, and BERT's word tables and poolers, that don't."""
    published = num_parameters(smpl(2048, 49).trunk)
    unused = sum((30522 + 512 + 2) * h + 2 * h + h * h + h for h in (1024, 256, 128))
    assert published == 57_423_238
    assert round((published + unused) / 1e6, 1) == 102.3
    # With ViT-B's 196 tokens of 768, only what reads the input is smaller.
    ours = smpl(768, 196)
    assert published - num_parameters(ours.trunk) == (2048 - 768) * (1024 + 512)
    assert ours.spread.weight.shape == (445, 196, 1)
    assert num_parameters(ours.finer) == 431 * 1723 + 1723 + 1723 * 6890 + 6890


def test_shapes(head):
    mesh = head(noise(3, 9, 24))
    assert mesh.joints.shape == (3, 5, 3)
    assert [tuple(v.shape) for v in mesh.vertices] == [(3, 12, 3), (3, 20, 3), (3, 40, 3)]
    assert mesh.camera_B3.shape == (3, 3)


def test_every_parameter_has_a_gradient_and_every_query_sees_every_patch(head):
    tokens = noise(1, 9, 24).requires_grad_()
    mesh = head.eval()(tokens)
    for point in (mesh.joints[0, 2], mesh.vertices[0][0, 7], mesh.vertices[-1][0, 0], mesh.camera_B3[0]):
        (gradient,) = torch.autograd.grad(point.sum(), tokens, retain_graph=True)
        assert gradient.any(dim=2).all()
    (mesh.vertices[-1].square().sum() + mesh.joints.square().sum() + mesh.camera_B3.square().sum()).backward()
    unused = [name for name, p in head.named_parameters() if p.grad is None or not p.grad.any()]
    assert unused == []


def test_a_finer_vertex_is_a_weighted_sum_of_coarser_ones(head):
    with torch.no_grad():
        coarse, middle, _ = head.eval()(noise(2, 9, 24)).vertices
        expected = sum(head.finer[0].weight[3, i] * coarse[1, i] for i in range(12)) + head.finer[0].bias[3]
    torch.testing.assert_close(middle[1, 3], expected)


def test_queries_are_hidden_in_training_alone_and_by_the_generator(head, monkeypatch):
    monkeypatch.setattr(torch.nn.functional, "dropout", lambda x, *_: x)
    for module in head.modules():
        if isinstance(module, torch.nn.Dropout | torch.nn.MultiheadAttention):
            setattr(module, "p" if isinstance(module, torch.nn.Dropout) else "dropout", 0.0)
    tokens = noise(4, 9, 24)

    def joints(seed):
        return head(tokens, generator=torch.Generator().manual_seed(seed)).joints

    with torch.no_grad():
        assert torch.equal(joints(1), joints(1))
        assert not torch.equal(joints(1), joints(2))
        head.eval()
        torch.testing.assert_close(joints(1), joints(2))


def test_a_hidden_query_is_one_small_number_and_the_others_stand_as_they_are(head):
    seen, tokens = [], noise(4, 9, 24)
    head.trunk.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        head.eval()(tokens)
        head.train()(tokens, generator=torch.Generator().manual_seed(1))
    hidden = hidden_queries(4, 17, generator=torch.Generator().manual_seed(1))
    assert hidden.any()
    torch.testing.assert_close(seen[0][..., :3], head.template_Q3.expand(4, -1, -1))
    assert (seen[1][hidden] == 0.01).all()
    assert torch.equal(seen[1][~hidden], seen[0][~hidden])


@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 500))
def test_at_most_a_third_of_the_queries_are_hidden(seed, images, queries):
    hidden = hidden_queries(images, queries, generator=torch.Generator().manual_seed(seed))
    assert hidden.shape == (images, queries)
    assert hidden.sum(1).max() <= 0.3 * queries


def test_shares_are_uniform_and_no_query_is_spared():
    hidden = hidden_queries(4000, 100, generator=torch.Generator().manual_seed(0)).float()
    assert hidden.mean() == pytest.approx(0.145, abs=0.005)  # floor of U(0, 30)
    assert hidden.mean(0).min() > 0.11
    assert hidden.sum(1).unique().tolist() == list(range(30))


def test_sixteen_random_meshes_are_learned_by_heart(head):
    tokens, joints, vertices = noise(16, 9, 24), noise(16, 5, 3, seed=1), noise(16, 12, 3, seed=2)

    def loss():
        mesh = head(tokens)
        return (mesh.joints - joints).square().mean() + (mesh.vertices[0] - vertices).square().mean()

    first, last = fit([head], loss, steps=120, rate=5e-3)
    assert first > 1
    assert last < 0.02


@pytest.mark.parametrize(("points", "vertices"), [(16, (12,)), (517, (512,))])
def test_a_template_that_does_not_fit(points, vertices):
    with pytest.raises(ValueError, match=rf"template must be \({vertices[0] + 5}, 3\) with at most 512 points"):
        ModelFreeHead(8, 4, template_Q3=torch.zeros(points, 3), num_joints=5, num_vertices=vertices)
