"""Other libraries' quantization-aware training on the same modules, 8 bits each.

Both round weights and activations by the absolute maximum of the tensor at hand, and
both multiply int8 by int8 in the forward pass where the shapes allow it.
"""

import jax
from flax import linen as nn


def qwix(module: nn.Module):
    """Returns `apply` of the module under qwix's `QtProvider`, all contractions."""
    import qwix as library

    rule = library.QuantizationRule(
        module_path=".*", weight_qtype="int8", act_qtype="int8"
    )
    trained = library.quantize_model(module, library.QtProvider([rule]))

    def apply(params, variables, images):
        collections = {"params": params, **variables}
        (logits, _), new = trained.apply(
            collections, images, train=True, mutable=[*variables, "quant_stats"]
        )
        return logits, {name: new[name] for name in variables}

    return apply


def aqt(module: nn.Module):
    """Returns `apply` with AQT's op in every dense layer; convolutions have no such.

    The two matmuls of attention itself stay in float: they are no layers.
    """
    from aqt.jax.v2 import config
    from aqt.jax.v2.flax import aqt_flax
    from aqt.jax.v2.flax.intercept import aqt_intercept_methods as intercept

    op = config.config_v4(fwd_bits=8, dlhs_bits=None, drhs_bits=None)

    class EveryDense(intercept.AqtDotGeneralGenerator):
        def generate_by_module(self, module):
            if isinstance(module, nn.Dense | nn.DenseGeneral):
                return aqt_flax.AqtDotGeneral(op)
            return None

    def apply(params, variables, images):
        collections = {"params": params, **variables}
        with intercept.intercept_methods_replace_dot_general(EveryDense()):
            (logits, _), new = module.apply(
                collections,
                images,
                train=True,
                mutable=list(variables),
                rngs={"params": jax.random.key(0)},  # asked for, but nothing is drawn
            )
        return logits, new

    return apply
