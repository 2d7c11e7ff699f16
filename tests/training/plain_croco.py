"""A slow twin of the network and its loss: one pair at a time, loops over heads, explicit softmax, every patch embedded.

It reads the same state dict and shares no code with `training.model`.
"""

import math

import torch


def linear(x, state, name):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def norm(x, state, name):
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-6) * state[f"{name}.weight"] + state[f"{name}.bias"]


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def turn(x, place):
    """Rotary position of one head, as turns of complex numbers; x (n, a), place: list of (row, column)."""
    half, quarter = x.shape[1] // 2, x.shape[1] // 4
    rate = torch.tensor([100.0 ** (-2 * i / half) for i in range(quarter)], dtype=torch.float64)
    out = []
    for part in (0, 1):
        where = torch.tensor([p[part] for p in place], dtype=torch.float64)
        turns = torch.polar(torch.ones(len(place), quarter, dtype=torch.float64), where[:, None] * rate)
        mine = x[:, part * half : (part + 1) * half]
        turned = torch.complex(mine[:, :quarter], mine[:, quarter:]) * turns.to(x.dtype.to_complex())
        out += [turned.real, turned.imag]
    return torch.cat(out, dim=1)


def attend(q, k, v, heads, q_place, k_place):
    width = q.shape[-1] // heads
    mixed = []
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        q_h, k_h = q[:, part], k[:, part]
        if q_place is not None:
            q_h, k_h = turn(q_h, q_place), turn(k_h, k_place)
        scores = q_h @ k_h.T / math.sqrt(width)
        weights = torch.exp(scores - scores.max(dim=-1, keepdim=True).values)
        mixed.append(weights / weights.sum(-1, keepdim=True) @ v[:, part])
    return torch.cat(mixed, dim=-1)


def self_attention(x, state, name, heads, place):
    q, k, v = linear(x, state, f"{name}.qkv").chunk(3, dim=-1)
    return linear(attend(q, k, v, heads, place, place), state, f"{name}.proj")


def mlp(x, state, name):
    return linear(gelu(linear(x, state, f"{name}.fc1")), state, f"{name}.fc2")


def patches_of(image, patch_px):
    """(3, h, w) -> list of patches, each (patch_px * patch_px * 3,), by nested loops."""
    _, height, width = image.shape
    inside = [(p, q, c) for p in range(patch_px) for q in range(patch_px) for c in range(3)]
    corners = [(row, column) for row in range(0, height, patch_px) for column in range(0, width, patch_px)]
    return torch.stack([torch.stack([image[c, y + p, x + q] for p, q, c in inside]) for y, x in corners])


def embed(image, state, a):
    weight = state["patch_embed.proj.weight"]
    tokens = []
    for row in range(a.side):
        for column in range(a.side):
            window = image[
                :, row * a.patch_px : (row + 1) * a.patch_px, column * a.patch_px : (column + 1) * a.patch_px
            ]
            tokens.append((weight * window).sum(dim=(1, 2, 3)) + state["patch_embed.proj.bias"])
    return torch.stack(tokens)


def encode(image, state, a, seen):
    x, place = embed(image, state, a), None
    if a.positions == "cosine":
        x = (x + state["enc_pos_embed"])[seen]
    else:
        x, place = x[seen], [divmod(j, a.side) for j in seen]
    for i in range(a.enc_depth):
        name = f"enc_blocks.{i}"
        x = x + self_attention(norm(x, state, f"{name}.norm1"), state, f"{name}.attn", a.enc_heads, place)
        x = x + mlp(norm(x, state, f"{name}.norm2"), state, f"{name}.mlp")
    return norm(x, state, "enc_norm")


def complete(target, reference, state, a, seen, reference_seen=None, further=()):
    """(N, P) prediction for one pair: images (3, h, w), `seen` the list of visible patches; references are seen whole."""
    everything = list(range(a.num_patches))
    reference_seen = reference_seen or everything
    place, other = (
        None if a.positions == "cosine" else [divmod(j, a.side) for j in those]
        for those in (everything, reference_seen)
    )
    visible = linear(encode(target, state, a, seen), state, "decoder_embed")
    memory = [
        linear(encode(image, state, a, reference_seen), state, "decoder_embed") for image in (reference, *further)
    ]
    x = torch.stack([visible[seen.index(j)] if j in seen else state["mask_token"][0, 0] for j in everything])
    if a.positions == "cosine":
        x = x + state["dec_pos_embed"]
        memory = [tokens + state["dec_pos_embed"][reference_seen] for tokens in memory]
    other, memory = None if other is None else other * (1 + len(further)), torch.cat(memory)
    for i in range(a.dec_depth):
        name = f"dec_blocks.{i}"
        x = x + self_attention(norm(x, state, f"{name}.norm1"), state, f"{name}.attn", a.dec_heads, place)
        own = norm(memory, state, f"{name}.norm_y")
        q = linear(norm(x, state, f"{name}.norm2"), state, f"{name}.cross_attn.projq")
        k, v = linear(own, state, f"{name}.cross_attn.projk"), linear(own, state, f"{name}.cross_attn.projv")
        x = x + linear(attend(q, k, v, a.dec_heads, place, other), state, f"{name}.cross_attn.proj")
        x = x + mlp(norm(x, state, f"{name}.norm3"), state, f"{name}.mlp")
    return linear(norm(x, state, "dec_norm"), state, "prediction_head")


def loss(targets, references, state, a, visible_BV):
    """Batch loss as published: per-patch mean squared error, summed over masked patches, over their number."""
    seen = visible_BV.tolist()
    losses = [loss_of(complete(t, r, state, a, s), t, a, s) for t, r, s in zip(targets, references, seen, strict=True)]
    return sum(losses) / len(losses)


def loss_of(predicted, target, a, seen):
    """Loss of one pair; as many patches are masked in all pairs of a batch, their mean is the batch's."""
    total, truth = 0.0, patches_of(target, a.patch_px)
    for j in range(a.num_patches):
        if j in seen:
            continue
        values = truth[j]
        variance = ((values - values.mean()) ** 2).sum() / (len(values) - 1)
        wanted = (values - values.mean()) / torch.sqrt(variance + 1e-6)
        total = total + ((predicted[j] - wanted) ** 2).mean()
    return total / (a.num_patches - len(seen))


def complete_alone(image, state, a, seen):
    """(N, P) prediction of an MAE for one image; its state has the public names."""
    tokens = embed(image, state, a)
    tokens = (tokens + state["pos_embed"][0, 1:])[seen]
    x = torch.cat([state["cls_token"][0] + state["pos_embed"][0, :1], tokens])
    for i in range(a.enc_depth):
        x = x + self_attention(norm(x, state, f"blocks.{i}.norm1"), state, f"blocks.{i}.attn", a.enc_heads, None)
        x = x + mlp(norm(x, state, f"blocks.{i}.norm2"), state, f"blocks.{i}.mlp")
    x = linear(norm(x, state, "norm"), state, "decoder_embed")
    places = [x[1 + seen.index(j)] if j in seen else state["mask_token"][0, 0] for j in range(a.num_patches)]
    x = torch.stack([x[0], *places]) + state["decoder_pos_embed"][0]
    for i in range(a.dec_depth):
        name = f"decoder_blocks.{i}"
        x = x + self_attention(norm(x, state, f"{name}.norm1"), state, f"{name}.attn", a.dec_heads, None)
        x = x + mlp(norm(x, state, f"{name}.norm2"), state, f"{name}.mlp")
    return linear(norm(x, state, "decoder_norm"), state, "decoder_pred")[1:]


def numbers(shape, start):
    """Numbers in [-0.5, 0.5) without a generator: the same on every machine and in every version."""
    places = torch.arange(math.prod(shape), dtype=torch.float64) + start
    return ((torch.sin(places * 12.9898) * 43758.5453).remainder(1) - 0.5).reshape(shape)


def made_state(shapes):
    """A state dict of plausible weights, from the names and shapes of one; tables of positions stay as they are."""
    state = {}
    for number, (name, value) in enumerate(sorted(shapes.items())):
        if "pos_embed" in name:
            state[name] = value
        elif value.ndim == 1:
            state[name] = (0.2 * numbers(value.shape, 1000 * number) + ("norm" in name and "weight" in name)).to(value)
        else:
            state[name] = (3 / math.sqrt(value[0].numel()) * numbers(value.shape, 1000 * number)).to(value)
    return state
