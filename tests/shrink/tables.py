"""What goes together in each model: {group: {members: positions of each unit}}.

A member is `path:axis:role`, of a leaf of the parameters or of the running statistics.
"""

import numpy as np

# Positions of each unit, `[units, positions]`.


def each(n, start=0):
    """One position each, one after the other."""
    return start + np.arange(n)[:, None]


def outer(n, copies):
    """Along the first of two axes that are merged."""
    return np.arange(n * copies).reshape(n, copies)


def inner(copies, n):
    """Along the last of two axes that are merged: of images, channel by channel."""
    return np.arange(copies * n).reshape(copies, n).T


# Members, in words.


def made(*names, axis=1):
    return " ".join(f"{name}/kernel:{axis}:out" for name in names)


def read(*names, axis=0):
    return " ".join(f"{name}/kernel:{axis}:in" for name in names)


def bias(*names):
    return " ".join(f"{name}/bias:0" for name in names)


def affine(*names):
    return " ".join(f"{name}/bias:0 {name}/scale:0" for name in names)


def norm(*names):
    return " ".join(f"{affine(n)} {n}/mean:0 {n}/var:0" for n in names)


def conv(*names):
    return made(*names, axis=3)


def conv_of(*names):
    return read(*names, axis=2)


_QKV = ("query", "key", "value")


def _attention(i):
    """Heads, and their sizes where queries meet keys and where values are summed."""
    a = f"MultiHeadDotProductAttention_{i}"
    query, key, value = (f"{a}/{n}" for n in _QKV)
    sizes = " ".join(f"{n}/bias:1 {n}/kernel:2:out" for n in (query, key))
    last = f"{value}/bias:1 {value}/kernel:2:out {read(f'{a}/out', axis=1)}"
    heads = f"{bias(query, key, value)} {made(query, key, value)} {read(f'{a}/out')}"
    return {
        f"{a}/query:1": {heads: each(3)},
        f"{a}/query:2": {sizes: each(4)},
        f"{a}/value": {last: each(4)},
    }


def _fused(qkv, out):
    """Of `[3, heads, size]` merged: a head, or a place in all of them."""
    at = np.arange(36).reshape(3, 3, 4)
    return {
        qkv: {
            f"{bias(qkv)} {made(qkv)}": at.swapaxes(0, 1).reshape(3, 12),
            read(out): outer(3, 4),
        },
        f"{qkv}#1": {
            f"{bias(qkv)} {made(qkv)}": at.reshape(9, 4).T,
            read(out): inner(3, 4),
        },
    }


def _hidden(up, down, n=14):
    return {up: {f"{bias(up)} {made(up)} {read(down)}": each(n)}}


_NORMS = affine(*(f"LayerNorm_{i}" for i in range(5)))
_HEADS = [f"MultiHeadDotProductAttention_{i}" for i in range(2)]
_WIDTH = (
    f"cls:2 positions:2 {_NORMS} {bias('Conv_0', 'Dense_0', 'Dense_2')} "
    f"{conv('Conv_0')} {made('Dense_0', 'Dense_2')} "
    f"{read('Dense_1', 'Dense_3', 'Dense_4')} "
    f"{read(*(f'{a}/{n}' for a in _HEADS for n in _QKV))} "
    + " ".join(f"{a}/out/bias:0 {a}/out/kernel:2:out" for a in _HEADS)
)
_FUSED_WIDTH = (
    f"cls:2 positions:2 {_NORMS} {bias('Conv_0')} {conv('Conv_0')} "
    f"{bias('Dense_1', 'Dense_2', 'Dense_5', 'Dense_6')} "
    f"{made('Dense_1', 'Dense_2', 'Dense_5', 'Dense_6')} "
    f"{read('Dense_0', 'Dense_3', 'Dense_4', 'Dense_7', 'Dense_8')}"
)


def _lstm(cell, *readers):
    """All four gates of the input and of what is carried, which is read again."""
    inputs, carried = ([f"{cell}/{x}{g}" for g in "ifgo"] for x in "ih")
    return f"{made(*inputs, *carried)} {bias(*carried)} {read(*carried, *readers)}"


TABLES = {
    "mlp": {
        **_hidden("dense_0", "dense_1", 12),
        **_hidden("dense_1", "logits", 9),
    },
    "lenet5": {
        "conv1": {f"{bias('conv1')} {conv('conv1')} {conv_of('conv2')}": each(6)},
        "conv2": {
            f"{bias('conv2')} {conv('conv2')}": each(10),
            read("ip1"): inner(4, 10),  # 2 x 2 places of each channel
        },
        **_hidden("ip1", "ip2", 14),
    },
    "cnn": {
        "Conv_0": {
            f"{conv('Conv_0', 'Conv_2')} {conv_of('Conv_1', 'Conv_3')} "
            f"{norm('BatchNorm_0', 'BatchNorm_2')}": each(6)
        },
        "Conv_1": {
            f"{bias('Conv_1')} {conv('Conv_1')} {conv_of('Conv_2')} "
            f"{norm('BatchNorm_1')}": each(10)
        },
        "Conv_3": {
            f"{bias('Conv_3')} {conv('Conv_3')}": each(9),
            read("Dense_0"): inner(4, 9),
        },
        **_hidden("Dense_0", "Dense_1", 11),
    },
    "vit": {
        "Conv_0": {_WIDTH: each(12)},
        **_hidden("Dense_1", "Dense_0"),  # Linen numbers them from the outside in
        **_hidden("Dense_3", "Dense_2"),
        **_attention(0),
        **_attention(1),
    },
    "fused_qkv": {
        "Conv_0": {_FUSED_WIDTH: each(12)},
        **_fused("Dense_0", "Dense_1"),
        **_hidden("Dense_3", "Dense_2"),
        **_fused("Dense_4", "Dense_5"),
        **_hidden("Dense_7", "Dense_6"),
    },
    "lstm": {
        "Dense_0": {
            f"{bias('Dense_0')} {made('Dense_0')} "
            f"{read(*(f'LSTMCell_0/i{g}' for g in 'ifgo'))}": each(6)
        },
        "LSTMCell_0/ii": {
            _lstm("LSTMCell_0", *(f"LSTMCell_1/i{g}" for g in "ifgo")): each(7)
        },
        "LSTMCell_1/ii": {_lstm("LSTMCell_1", "Dense_1"): each(9)},
    },
    "glu": {
        "Dense_0": {
            f"{bias('Dense_0')} {made('Dense_0', 'Dense_2', 'Dense_4')} "
            f"{read('Dense_1', 'Dense_3', 'Dense_5')} "
            "RMSNorm_0/scale:0 RMSNorm_1/scale:0 RMSNorm_2/scale:0": each(8)
        },
        "Dense_1": {made("Dense_1"): inner(2, 12), read("Dense_2"): each(12)},
        "Dense_3": {made("Dense_3"): inner(2, 10), read("Dense_4"): each(10)},
    },
    "tied": {
        "Dense_0": {
            f"{bias('Dense_0')} {made('Dense_0')} {read('Dense_1')} "
            f"{affine('LayerNorm_0')} Embed_0/embedding:1:in": each(8)
        },
        **_hidden("Dense_1", "Dense_0", 11),
    },
    "shared": {
        "Dense_1": {
            f"{bias('Dense_0', 'Dense_1')} {made('Dense_0', 'Dense_1')} "
            f"{read('Dense_0', 'Dense_2')} kernel:0:both": each(8)
        },
        "kernel": {"kernel:1:both": each(11)},
    },
    "scan": {
        "Dense_1": {
            f"{bias('Dense_1')} {made('Dense_1')} {read('Dense_0')} "
            "layers/Dense_0/bias:1 layers/Dense_0/kernel:2:out "
            "layers/Dense_1/kernel:1:in layers/LayerNorm_0/bias:1 "
            "layers/LayerNorm_0/scale:1": each(8)
        },
        "layers/Dense_1": {
            "layers/Dense_0/kernel:1:in layers/Dense_1/bias:1 "
            "layers/Dense_1/kernel:2:out": each(12)
        },
    },
    "reshaped": {
        "Dense_0": {
            f"{bias('Dense_0')} {made('Dense_0')}": inner(8, 6),
            conv_of("Conv_0"): each(6),
        },
        "Conv_0": {conv("Conv_0"): each(5), read("Dense_1"): outer(5, 8)},
        "Dense_1": {
            f"{bias('Dense_1')} {made('Dense_1')}": outer(3, 4),
            conv_of("Conv_1"): each(3),
        },
        "Conv_1": {conv("Conv_1"): each(7), read("Dense_2"): outer(7, 4)},
    },
    "weight_norm": {},
}


def _stages(first, *units):
    """Channels that the stages of a ResNet carry from the `first` one on."""
    at = dict(enumerate(units, start=first))
    rows = {read("logits"): units[-1]}
    if not first:
        rows[f"{conv('conv')} {norm('norm')}"] = units[0]
    for stage, index in at.items():
        for b in range(3):
            block = f"block_{stage}_{b}"
            rows[f"{conv(f'{block}/conv_1')} {norm(f'{block}/norm_1')}"] = index
            before = at.get(stage if b else max(stage - 1, 0))
            if before is not None:
                rows[conv_of(f"{block}/conv_0")] = before
    return rows


def _at(*units):
    return np.array(units)[:, None]


# Some of the groups of a model.
PARTS = {
    # Option A: 2 channels of zeros on each side, then 4.
    "resnet20": {
        "conv": _stages(0, each(4), each(4, 2), each(4, 6)),
        "block_1_0/conv_1": _stages(1, _at(0, 1, 6, 7), _at(4, 5, 10, 11)),
        "block_2_0/conv_1": _stages(2, _at(0, 1, 2, 3, 12, 13, 14, 15)),
        "block_1_0/conv_0": {
            f"{conv('block_1_0/conv_0')} {conv_of('block_1_0/conv_1')} "
            f"{norm('block_1_0/norm_0')}": each(8)
        },
    },
    # A group of channels goes as a whole.
    "resnext": {
        "block_0_0/conv_0": {
            f"{conv('block_0_0/conv_0', 'block_0_0/conv_1')} "
            f"{conv_of('block_0_0/conv_2')} "
            f"{norm('block_0_0/norm_0', 'block_0_0/norm_1')}": outer(2, 4)
        },
    },
    "mobilenet_v2": {
        "Conv_3": {
            f"{conv('Conv_3', 'Conv_4')} {conv_of('Conv_5')} "
            f"{norm('BatchNorm_3', 'BatchNorm_4')}": each(12)
        },
    },
    # What a layer makes is read by all that follow, behind what was there before.
    "densenet": {
        "Conv_0": {
            f"{conv('Conv_0')} {conv_of('Conv_1', 'Conv_3', 'Conv_5', 'Conv_7')} "
            f"{norm('BatchNorm_0', 'BatchNorm_2')} "
            f"{norm('BatchNorm_4', 'BatchNorm_6')}": each(6)
        },
        "Conv_2": {
            conv("Conv_2"): each(4),
            f"{conv_of('Conv_3', 'Conv_5', 'Conv_7')} "
            f"{norm('BatchNorm_2', 'BatchNorm_4', 'BatchNorm_6')}": each(4, 6),
        },
        "Conv_4": {
            conv("Conv_4"): each(4),
            f"{conv_of('Conv_5', 'Conv_7')} {norm('BatchNorm_4', 'BatchNorm_6')}": each(
                4, 10
            ),
        },
    },
    # Groups of GroupNorm, and the places within all of them.
    "unet": {
        name: {
            f"{conv('Conv_0')} {conv_of('Conv_1', 'Conv_4')} "
            f"{affine('GroupNorm_0')}": index
        }
        for name, index in (("Conv_0", outer(3, 2)), ("Conv_0#1", inner(3, 2)))
    },
    "bert": {
        "q_0": {
            f"{bias('q_0', 'k_0', 'v_0')} {made('q_0', 'k_0', 'v_0')} "
            f"{read('out_0')}": outer(2, 5)
        },
        "q_0#1": {f"{bias('q_0', 'k_0')} {made('q_0', 'k_0')}": inner(2, 5)},
        "v_0": {f"{bias('v_0')} {made('v_0')} {read('out_0')}": inner(2, 5)},
    },
}
