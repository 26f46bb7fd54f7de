"""JAX: the losses inside ``jit``, ``grad``, ``vmap`` and ``shard_map``.

A loss that is given JAX arrays is a JAX function; :func:`learned` gives it a temperature, bias or boundary that is
differentiated too. Shapes are static and nothing depends on a label's value, so labels may be tracers; where they are
not (a list, a NumPy array, a constant), an anchor's positives are a list as long as the largest class instead of its
whole row. The angular loss takes as many products of the table as that list is long.

Many devices: inside ``shard_map``, ``loss(x, labels, group="axis")`` compares each device's rows with those of all
devices of the mesh axis. The value is the mean over all of them, the same on each device; the gradient of a device's
rows is that of this mean, so gradients of replicated parameters are summed over the devices (as ``shard_map`` does by
itself), not averaged. Each device holds as many rows as the others; class weights are whole on each, and so is their
gradient. Differentiating needs ``check_vma=True``, the default.

A loss is differentiated once and in reverse. The quadruplet loss runs on NumPy's engine through
``jax.pure_callback``, on the host; it and proxy anchor refuse ``group``.
"""

from nearfar.jax._learned import learned

__all__ = ["learned"]
