"""Which weights of a kernel belong together: single ones, or those of a channel."""

from lib import errors

# What one group is -> the axis that counts the groups; None: each weight is its own.
GROUPS = {"element": None, "out": -1, "in": -2}


def shared_axes(groups: str, path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the axes along which the weights of one group lie; () for "element".

    Args:
      groups: a key of `GROUPS`.
      path: of the leaf, for the message.
      shape: of the leaf.

    Raises:
      UserError: groups "in" of a leaf with one axis.
    """
    axis = GROUPS[groups]
    if axis is None:
        return ()
    if len(shape) < -axis:
        raise errors.UserError(
            f"{path} with shape {shape} has no input channels; groups='out' takes it, "
            "or a pattern that leaves it out"
        )
    return tuple(i for i in range(len(shape)) if i != len(shape) + axis)
