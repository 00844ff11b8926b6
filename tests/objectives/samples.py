"""Outputs of a student and a teacher with every kind of feature, and settings."""

import jax
import jax.numpy as jnp
import numpy as np

from lib import objectives

CLASSES, LENGTH = 5, 4
LABELS = np.array([0, 1, 2, 0, 4, 3], np.int32)
WEIGHT = np.array([1, 0.5, 1, 1, 0, 0], np.float32)
KEPT = slice(0, 4)  # those of a weight
MASK = np.array(
    [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]
).astype(bool)


def outputs(seed, *, width, channels, side, heads=2):
    """Float64 (logits, features) of six examples, texts and images at once."""
    rng, n = np.random.default_rng(seed), len(LABELS)
    tokens = (n, heads, LENGTH, width // heads)
    shapes = {
        "pooled": (n, channels),
        "stage_0": (n, side, side, channels),
        "embed": (n, LENGTH, width),
        "block_0": (n, LENGTH, width),
        "scores_0": (n, heads, LENGTH, LENGTH),
        "scores_1": (n, heads, LENGTH, LENGTH),
        **{f"{r}_{i}": tokens for r in ("query", "key", "value") for i in (0, 1)},
    }
    features = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    for name in ("scores_0", "scores_1"):
        features[name] = np.where(MASK[:, None, None], features[name], -1e9)
    return rng.normal(size=(n, CLASSES)), {**features, "mask": MASK}


STUDENT = outputs(0, width=4, channels=3, side=2)
TEACHER = outputs(1, width=8, channels=6, side=4)
TWIN = outputs(2, width=4, channels=3, side=2)  # of the student's shapes
BATCH = {"label": LABELS, "weight": WEIGHT, "key": jax.random.key(3)}
PARAMS = {"dense": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.ones(2)}}

POOLED = (("pooled", "pooled"),)
OPTIONS = {
    "attention_scores": {"pairs": (("scores_0", "scores_1"),)},
    "attention_transfer": {"pairs": (("stage_0", "stage_0"),), "power": 2.0},
    "born_again": {"kind": "cwtm"},
    "correlation": {"pairs": POOLED, "gamma": 0.4, "order": 2},
    "crd": {
        "pairs": POOLED,
        "size": 3,
        "temperature": 0.5,
        "examples": 50,
        "negatives": "classes",
    },
    "cross_entropy": {"label_smoothing": 0.0},
    "dist": {"inter": 0.5, "intra": 2.0, "temperature": 2.0},
    "distill": {"temperature": 2.0},
    "dkd": {"target": 0.5, "others": 3.0, "temperature": 2.0},
    "elastic_net": {"l1_ratio": 0.5},
    "embeddings": {"pairs": (("embed", "embed"),), "projection": "learned"},
    "group_lasso": {"groups": "in"},
    "hidden": {
        "pairs": (("block_0", "block_0"),),
        "projection": "learned",
        "distance": "mse",
        "tokens": "all",
    },
    "hint": {"pairs": (("pooled", "pooled"), ("stage_0", "stage_0"))},
    "l1": {},
    "l2": {},
    "minilm": {
        "student": -1,
        "teacher": -1,
        "relations": ("scores", "value"),
        "heads": 0,
    },
    "rkd_angle": {"pairs": POOLED},
    "rkd_distance": {"pairs": POOLED},
    "self_distill": {"features": ("stage_0",), "share": 0.3, "temperature": 2.0},
    "similarity": {"pairs": POOLED},
    "squared_hinge": {},
}


def floats(tree):
    """Returns the tree as JAX has it, in float32."""
    return jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float32 if x.dtype == np.float64 else None), tree
    )


def settings(name):
    """Returns what a config says of a term."""
    kept = {k: v for k, v in OPTIONS[name].items() if k != objectives.COUNT}
    return {"weight": 1.0, **kept}


def term(name, **changes):
    return objectives.TERMS[name](**{**OPTIONS[name], **changes})


def heads_of(made, student=STUDENT, teacher=TEACHER):
    if not isinstance(made, objectives.Headed):
        return ()
    return (jax.jit(made.init)(jax.random.key(7), floats(student), floats(teacher)),)


def value(made, student=STUDENT, teacher=TEACHER, batch=BATCH, heads=None):
    """Returns the term's value; its heads are those of a key unless given."""
    heads = heads_of(made, student, teacher) if heads is None else heads
    batch = {k: jnp.asarray(v) for k, v in batch.items()}
    args = floats(student), batch, PARAMS, floats(teacher), *heads
    return jax.jit(lambda *args: made(*args))(*args)


def mean(each):
    """Returns the mean of six numbers by their weights."""
    return (np.asarray(each)[KEPT] * WEIGHT[KEPT]).sum() / WEIGHT.sum()


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def affine(head, x):
    """Returns what a learned map of heads gives, in float64."""
    kernel, bias = (np.asarray(head[k], np.float64) for k in ("kernel", "bias"))
    return x @ kernel + bias
