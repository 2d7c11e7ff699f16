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
    """Rotary position of one head: x (n, a); place: list of (row, column)."""
    n, a = x.shape
    half, quarter = a // 2, a // 4
    out = []
    for t in range(n):
        channels = [None] * a
        for part, coordinate in enumerate(place[t]):
            for i in range(quarter):
                angle = coordinate * 100.0 ** (-2 * i / half)
                first, second = x[t, part * half + i], x[t, part * half + quarter + i]
                channels[part * half + i] = first * math.cos(angle) - second * math.sin(angle)
                channels[part * half + quarter + i] = second * math.cos(angle) + first * math.sin(angle)
        out.append(torch.stack(channels))
    return torch.stack(out)


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


def encode(image, state, a, seen):
    weight = state["patch_embed.proj.weight"]
    tokens = []
    for row in range(a.side):
        for column in range(a.side):
            window = image[
                :, row * a.patch_px : (row + 1) * a.patch_px, column * a.patch_px : (column + 1) * a.patch_px
            ]
            tokens.append((weight * window).sum(dim=(1, 2, 3)) + state["patch_embed.proj.bias"])
    x, place = torch.stack(tokens), None
    if a.positions == "cosine":
        x = (x + state["enc_pos_embed"])[seen]
    else:
        x, place = x[seen], [divmod(j, a.side) for j in seen]
    for i in range(a.enc_depth):
        name = f"enc_blocks.{i}"
        x = x + self_attention(norm(x, state, f"{name}.norm1"), state, f"{name}.attn", a.enc_heads, place)
        x = x + mlp(norm(x, state, f"{name}.norm2"), state, f"{name}.mlp")
    return norm(x, state, "enc_norm")


def complete(target, reference, state, a, seen):
    """(N, P) prediction for one pair: images (3, h, w), `seen` the list of visible patches."""
    everything = list(range(a.num_patches))
    place = None if a.positions == "cosine" else [divmod(j, a.side) for j in everything]
    visible = linear(encode(target, state, a, seen), state, "decoder_embed")
    memory = linear(encode(reference, state, a, everything), state, "decoder_embed")
    x = torch.stack([visible[seen.index(j)] if j in seen else state["mask_token"][0, 0] for j in everything])
    if a.positions == "cosine":
        x, memory = x + state["dec_pos_embed"], memory + state["dec_pos_embed"]
    for i in range(a.dec_depth):
        name = f"dec_blocks.{i}"
        x = x + self_attention(norm(x, state, f"{name}.norm1"), state, f"{name}.attn", a.dec_heads, place)
        own = norm(memory, state, f"{name}.norm_y")
        q = linear(norm(x, state, f"{name}.norm2"), state, f"{name}.cross_attn.projq")
        k, v = linear(own, state, f"{name}.cross_attn.projk"), linear(own, state, f"{name}.cross_attn.projv")
        x = x + linear(attend(q, k, v, a.dec_heads, place, place), state, f"{name}.cross_attn.proj")
        x = x + mlp(norm(x, state, f"{name}.norm3"), state, f"{name}.mlp")
    return linear(norm(x, state, "dec_norm"), state, "prediction_head")


def loss(targets, references, state, a, visible_BV):
    """Batch loss as published: per-patch mean squared error, summed over masked patches, over their number."""
    total, count = 0.0, 0
    for target, reference, seen in zip(targets, references, visible_BV.tolist(), strict=True):
        predicted, truth = complete(target, reference, state, a, seen), patches_of(target, a.patch_px)
        for j in range(a.num_patches):
            if j in seen:
                continue
            values = truth[j]
            variance = ((values - values.mean()) ** 2).sum() / (len(values) - 1)
            wanted = (values - values.mean()) / torch.sqrt(variance + 1e-6)
            total, count = total + ((predicted[j] - wanted) ** 2).mean(), count + 1
    return total / count
