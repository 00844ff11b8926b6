"""A pretrained ResNet on new images: its head, then all of it, then in 8 bits.

ResNet-20 (He et al. 2015, arXiv 1512.03385) with the weights for CIFAR-10 that
github.com/akamaster/pytorch_resnet_cifar10 publishes under BSD-2 goes to Fashion-MNIST
(Xiao et al. 2017, 1708.07747). Put the weights where `frozen.weights` says, or say
where they are. The images are prepared beforehand: a run without them says with which
command.

`frozen` trains a new last layer on the features as they are. `tuned` trains everything,
with turns and flips, dropout and L2. `quantized` follows without training: batch norms
folded, weights and activations in 8 bits, on ranges of 1,024 training images.

Expect (seed 0, all 10,000 test images): frozen 64.84 %, tuned 93.29 % in 911,705 bytes,
quantized 93.29 % in 257,091 bytes, 3.5 times smaller. Time: 20 minutes of CPU on AMD
EPYC, 2 cores, Python 3.11, JAX 0.10.2; in JAX the 8-bit network is no faster: export it
(`--config.export.targets`), or read BENCHMARKS.md. `configs/tune_bayes.py:images`
searches learning rate and batch size.

    python run.py --config=configs/image_classification.py --workdir=/tmp/fashion
    python run.py --config=configs/image_classification.py:smoke --workdir=/tmp/smoke
    python run.py ... --config.tuned.learning_rate=3e-3 --config.tuned.batch_size=64
    python run.py ... --config.data.name=PATH  # a folder of images by class
"""

from configs import common


def smoke(config):
    """Shrinks to seconds: a small net with fresh weights, on the digits."""
    config = common.smoke(config)
    config.data.update(dict(name="digits", image_shape=(8, 8, 3)))
    config.frozen.weights = config.frozen.fresh = ""
    config.frozen.model.update(dict(depth=8, widths=(4, 8, 8)))
    config.quantized.steps = 0
    config.adaround.steps = 20
    config.adaround.batches = config.fake_quantize.batches = 2
    return config


def get_config(arg=""):
    config = common.base(stages=("frozen", "tuned", "quantized"))
    config.data.update(
        dict(
            name="fashion_mnist",
            image_shape=(32, 32, 3),  # what the weights were trained on
            normalisation="imagenet",
            validation_fraction=0.1,
        )
    )
    config.eval_batch_size = 250
    config.log_every, config.save_every = 50, 250
    config.fixed.pattern = "^(?!logits/)"
    config.rotate.degrees = 10.0
    config.l2.weight = 1e-4
    config.adaround.bits = 8
    config.fake_quantize.calibration = "mse"
    config.adaround.batches = config.fake_quantize.batches = 8
    config.frozen = common.stage(
        model=common.model("resnet", depth=20, widths=(16, 32, 64), dropout=0.1),
        weights="~/.cache/pare/resnet20-12fca82f.th",
        fresh="^logits/",
        transforms=("fixed",),
        freeze_norm=0.0,  # the features stay what they were
        steps=300,
        batch_size=128,
        learning_rate=1e-2,
    )
    config.tuned = common.stage(
        start="frozen",
        objective=("cross_entropy", "l2"),
        augment=("flip", "rotate"),
        steps=1500,
        batch_size=128,
        learning_rate=2e-3,
        use="best",
    )
    config.quantized = common.stage(
        start="tuned",
        prepare=("fold_batch_norm",),
        transforms=("adaround",),
        program=("fake_quantize",),
        steps=0,
        batch_size=128,
    )
    return common.variant(arg, config, smoke=smoke)
