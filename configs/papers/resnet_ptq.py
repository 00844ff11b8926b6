"""Post-training quantization of ResNet-20 and ResNet-56 on CIFAR-10, in integers.

Networks: He et al. 2015 (arXiv 1512.03385, section 4.2), with the weights that
github.com/akamaster/pytorch_resnet_cifar10 publishes under BSD-2 (8.27 % and 6.61 %
wrong). Put them where `dense.weights` says, or say where they are. They were trained on
the whole train split, so its images in the validation part are known to the network:
choices were made there by the distance to the float logits, and not by accuracy.

Nothing trains. `w8a8`: weights in 8 bits an output channel, rounded as AdaRound learns
(Nagel et al. 2020, 2004.10568). `w4a8`: in 4 bits an output channel by GPTQ (Frantar et
al. 2022, 2210.17323). Activations in 8 bits, in the ranges that round what was seen
with the least squared error. Ranges and Hessians are measured on 1,024 images of the
train split. Every convolution and the dense layer are rounded, inputs and weights, the
first and the last as well.

    python run.py --config=configs/papers/resnet_ptq.py --workdir=/tmp/ptq
    python run.py --config=configs/papers/resnet_ptq.py:resnet56 --workdir=/tmp/ptq56
    python run.py --config=configs/papers/resnet_ptq.py:smoke --workdir=/tmp/smoke
    python run.py ... --config.gptq.bits=3 --config.dense.weights=PATH

RESULTS.md holds what came out. CIFAR-10 is prepared beforehand: a run on a machine
without it says with which command. The smoke variant trains on the digits instead.
"""

from configs import common
from configs.papers import common as papers

IMAGES = 1024  # of the train split, that ranges and Hessians are measured on
BATCH = 128

# depth -> the published file, and per cent wrong on the test split.
PUBLISHED = {
    20: ("resnet20-12fca82f.th", 8.27),
    56: ("resnet56-4bfd9763.th", 6.61),
}


def published(config, depth):
    """Starts from the weights of one depth, and claims to stay near them."""
    file, error = PUBLISHED[depth]
    config.dense.model.depth = depth
    config.dense.weights = f"~/.cache/pare/{file}"
    config.claim.paper = f"ResNet-{depth} on CIFAR-10, W4A8 after training (1512.03385)"
    config.claim.error = error
    return config


def smoke(config):
    """Shrinks to seconds: a small net, trained for some steps, on digits."""
    config = papers.digits(common.smoke(config))
    config.data.normalisation = "measured"
    config.dense.weights = ""
    config.dense.model.depth = 8
    config.dense.model.widths = (4, 8, 8)
    config.w8a8.steps = config.w4a8.steps = 0
    config.adaround.steps = 20
    for technique in (config.fake_quantize, config.adaround, config.gptq):
        technique.batches = 2
    return config


def get_config(arg=""):
    config = common.base(stages=("dense", "w8a8", "w4a8"))
    config.data.name = "cifar10"
    config.data.normalisation = "imagenet"
    config.data.validation_fraction = 0.04  # 2,000 of 50,000
    config.eval_batch_size = 250
    config.latency.repeats = 10
    config.fake_quantize.calibration = "mse"
    config.adaround.bits = 8
    config.gptq.bits = 4
    for technique in (config.fake_quantize, config.adaround, config.gptq):
        technique.batches = IMAGES // BATCH
    config.dense = common.stage(
        model=common.model("resnet", depth=20, widths=(16, 32, 64)),
        steps=0,
        batch_size=BATCH,
    )
    after = dict(start="dense", program=("fake_quantize",), steps=0, batch_size=BATCH)
    config.w8a8 = common.stage(transforms=("adaround",), **after)
    config.w4a8 = common.stage(transforms=("gptq",), **after)
    config = papers.attach(
        config,
        says="W4A8 after training, within 1.5 points of float",
        within=1.5,
        dense="dense",
        stage="w4a8",
        differs="the error claimed is that of the float weights as published",
    )
    config = published(config, 20)
    return common.variant(
        arg,
        config,
        smoke=smoke,
        resnet20=lambda config: published(config, 20),
        resnet56=lambda config: published(config, 56),
    )
