"""A function transform that hands every contraction of a program to a handler."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from lib.program.interpreter import Bind, execute
from lib.program.sites import Site, read

Handler = Callable[[Site, jax.Array, jax.Array, Bind], jax.Array]


def rewrite(f: Callable[..., Any], handler: Handler) -> Callable[..., Any]:
    """Returns `f` with each contraction that can be reached replaced.

    The rest of the program is kept as it is, and so are its scopes: what is built on
    the result sees the same site names. It passes through jit, grad, vmap, remat and
    scan; outside of jit it is traced at every call. `missed` lists what it does not
    enter.

    Args:
      f: pure, `f(params, *args, **kwargs)`; what is no array in its arguments is
        static.
      handler: `handler(site, lhs, rhs, bind) -> out` returns the value of the
        contraction, of the shape and dtype of `site.out`. `bind(lhs, rhs)` is the
        contraction itself. Inside a scan it is traced once for all turns.
    """

    def step(site, lhs, rhs, bind, feed):
        del feed
        return handler(site, lhs, rhs, bind), None

    @functools.wraps(f)
    def rewritten(*args, **kwargs):
        return execute(read(f, args, kwargs), step, {})[0]

    return rewritten
