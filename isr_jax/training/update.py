"""The initial state and one GAN update: pure functions, the same under jit, pmap and vmap.

One forward pass of the generator and one of the discriminator on each of the generated and the
real images serve both updates; the gradients are pulled back through those same passes:

    lr --G--> sr --D--> fake     content, perceptual(sr, target) --> d/d sr --+
              hr --D--> real         g_loss(real, fake), features --> d/d sr --+--> G's gradient
                                     d_loss(real, fake) ----------------------> D's gradient

Both are gradients at the state before the update, each with the other network held constant. So
they equal those of the usual order, in which G is updated first and then D on the same sr.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Key
from ml_collections import ConfigDict

from isr_jax import losses
from isr_jax.models import Discriminator, Generator
from isr_jax.perceptual import distances
from isr_jax.state import State
from isr_jax.training.optimizers import evaluated_params

Batch = Mapping[str, Float[Array, "n _ _ c"]]
Metrics = dict[str, Float[Array, ""]]


class Gradients(NamedTuple):
    """What one pass over a batch gives; means over it.

    Attributes:
        g, d: gradients of the networks; d is () where the adversarial part has not joined in.
        g_stats, d_stats: the networks' new statistics.
        metrics: see `make_update`.
    """

    g: Any
    d: Any
    g_stats: Any
    d_stats: Any
    metrics: Metrics


@runtime_checkable
class Update(Protocol):
    """One update, as `make_update` builds it."""

    def __call__(
        self,
        state: State,
        batch: Batch,
        key: Key[Array, ""],
        frozen: Any,
        *,
        adversarial: bool = True,
    ) -> tuple[State, Metrics]:
        """Return the state after one update, and its metrics.

        Args:
            state: before the update.
            batch: "lr" and "hr", float32 in [0, 1], and optionally "target", which the content and
                perceptual losses then use instead of "hr".
            key: for all that the update draws.
            frozen: by name, the parameters of the networks that the loss compares in
                (`distances.load_frozen`), VGG19's as "perceptual"; not a constant, so that a
                compiled program does not hold them.
            adversarial: whether the adversarial part has joined in; static.
        """
        ...


def init_state(
    key: Key[Array, ""],
    *,
    generator: Generator,
    discriminator: Discriminator,
    g_optimizer: optax.GradientTransformation,
    d_optimizer: optax.GradientTransformation,
) -> State:
    """Return the state before the first update."""
    g_key, d_key = jax.random.split(key)
    g_params, g_stats = generator.init(g_key)
    d_params, d_stats = discriminator.init(d_key)
    return State(
        step=jnp.zeros((), jnp.int32),
        g_params=g_params,
        g_stats=g_stats,
        # A copy: the state is donated, and one buffer must not be donated twice.
        ema=jax.tree.map(jnp.copy, g_params),
        g_opt=g_optimizer.init(g_params),
        d_params=d_params,
        d_stats=d_stats,
        d_opt=d_optimizer.init(d_params),
    )


def make_update(
    loss: ConfigDict,
    *,
    generator: Generator,
    discriminator: Discriminator,
    g_optimizer: optax.GradientTransformation,
    d_optimizer: optax.GradientTransformation,
    discriminator_crop: int = 0,
    ema_decay: float = 0.999,
    ema_from: int = 0,
    accumulate: int = 1,
    axis_name: str | None = None,
) -> Update:
    """Build the update (state, batch, key, frozen, *, adversarial=True) -> (state, metrics).

    Args:
        loss: `config.loss`: which losses, and their weights. Where it has no adversarial part, the
            discriminator is left out and stays as it is.
        generator, discriminator: the networks.
        g_optimizer, d_optimizer: their optimizers.
        discriminator_crop: side in pixels of the crop that the discriminator sees, at one random
            place per update; 0 for the whole images.
        ema_decay: decay of the EMA; (1 + step) / (10 + step) where that is less, so that the
            first updates do not linger in it.
        ema_from: updates until which the EMA is the parameters themselves; its steps count from
            there.
        accumulate: number of parts of the batch, which are passed through the networks one after
            the other, to save memory; their gradients are averaged.
        axis_name: of the pmap axis over which the batch is split, None without one. Under jit the
            batch may be split over devices by its sharding; nothing changes here.

    Returns:
        A pure function; see `Update`. Metrics are means over the whole batch: "loss" (the
        generator's), and, unweighted, each content loss by name, "perceptual", "lpips", "dists",
        "ldl", "lattice", "g_adversarial" and "feature_matching"; "d_loss" (without R1), "d_real"
        and "d_fake" (mean logits), "r1" (without gamma / 2), "g_grad_norm", "d_grad_norm" (with
        R1), and "d_paused", which is 1 where the discriminator was not updated.
    """
    content = loss.content.to_dict()
    compared, weights = distances.make(loss), distances.weights(loss)
    adversary = losses.ADVERSARIAL[loss.adversarial]

    def all_mean(tree: Any) -> Any:
        return lax.pmean(tree, axis_name) if axis_name else tree

    def content_loss(
        sr: Array, target: Array, frozen: Any, *, hr: Array, ema: Array | None
    ) -> tuple[Array, Metrics]:
        terms = losses.content_terms(sr, target, weights=content)
        total = sum((content[name] * term for name, term in terms.items()), jnp.zeros(()))
        for name, distance in compared.items():
            terms[name] = distance(frozen[name], sr, target)
            total += weights[name] * terms[name]
        if ema is not None:
            # Of the image itself: as the authors do it where other losses see a sharpened one.
            terms["ldl"] = losses.ldl(sr, hr, ema)
            total += loss.ldl * terms["ldl"]
        if loss.lattice:
            terms["lattice"] = losses.lattice(sr, target, scale=generator.scale)
            total += loss.lattice * terms["lattice"]
        return total, terms

    def discriminate(
        state: State, sr: Array, hr: Array, key: Key[Array, ""]
    ) -> tuple[Array, Array, Any, Any, Metrics]:
        """Return D's part of G's loss, its gradient by sr, D's gradient, statistics and metrics."""
        crop = discriminator_crop or hr.shape[1]
        y, x = jax.random.randint(key, (2,), 0, hr.shape[1] - crop + 1)

        def classify(d_params: Any, d_stats: Any, images: Array) -> tuple[tuple[Array, Any], Any]:
            n, _, _, c = images.shape
            window = lax.dynamic_slice(images, (0, y, x, 0), (n, crop, crop, c))
            logits, features, d_stats = discriminator.apply(d_params, d_stats, window, train=True)
            return (logits, features if loss.feature_matching else ()), d_stats

        # The generated images first, as where G is updated first: spectral norm's power iterations
        # depend on the order.
        (fake, sr_features), fake_pullback, d_stats = jax.vjp(
            lambda p, images: classify(p, state.d_stats, images), state.d_params, sr, has_aux=True
        )
        before = d_stats
        (real, hr_features), real_pullback, d_stats = jax.vjp(
            lambda p: classify(p, before, hr), state.d_params, has_aux=True
        )

        g_loss, (_, by_fake) = _logit_gradients(adversary.g_loss, real, fake, axis_name=axis_name)
        matching, by_features = jax.value_and_grad(losses.feature_matching)(
            sr_features, hr_features
        )
        total = loss.adversarial_weight * g_loss + loss.feature_matching * matching
        by_features = jax.tree.map(lambda g: loss.feature_matching * g, by_features)
        _, gradient = fake_pullback((loss.adversarial_weight * by_fake, by_features))

        d_loss, (by_real, by_fake) = _logit_gradients(
            adversary.d_loss, real, fake, axis_name=axis_name
        )
        none = jax.tree.map(jnp.zeros_like, by_features)
        from_real, from_fake = real_pullback((by_real, none))[0], fake_pullback((by_fake, none))[0]
        d_gradient = jax.tree.map(jnp.add, from_real, from_fake)
        metrics = {
            "g_adversarial": g_loss,
            "d_loss": d_loss,
            "d_real": jnp.mean(real),
            "d_fake": jnp.mean(fake),
        }
        if loss.feature_matching:
            metrics["feature_matching"] = matching
        if loss.r1:
            # By the same pass of the photos: its power iteration, its statistics of the batch.
            metrics["r1"], by_penalty = jax.value_and_grad(
                lambda p: losses.r1(lambda images: classify(p, before, images)[0][0], hr)
            )(state.d_params)
            d_gradient = jax.tree.map(lambda g, r: g + loss.r1 / 2 * r, d_gradient, by_penalty)
        return total, gradient, d_gradient, d_stats, metrics

    def gradients(
        state: State, batch: Batch, key: Key[Array, ""], frozen: Any, *, adversarial: bool
    ) -> Gradients:
        """Return the gradients of both networks on a batch; it is one pass through each."""
        lr, hr = batch["lr"], batch["hr"]
        sr, g_pullback, g_stats = jax.vjp(
            lambda p: generator.apply(p, state.g_stats, lr, train=True),
            state.g_params,
            has_aux=True,
        )
        ema = None
        if loss.ldl:
            ema, _ = generator.apply(state.ema, state.g_stats, lr, train=False)
        (total, metrics), gradient = jax.value_and_grad(content_loss, has_aux=True)(
            sr, batch.get("target", hr), frozen, hr=hr, ema=ema
        )
        d_gradient, d_stats = (), state.d_stats
        if adversarial:
            d_part, d_part_gradient, d_gradient, d_stats, d_metrics = discriminate(
                state, sr, hr, key
            )
            total, gradient = total + d_part, gradient + d_part_gradient
            metrics |= d_metrics
        (g_gradient,) = g_pullback(gradient)
        return Gradients(g_gradient, d_gradient, g_stats, d_stats, {"loss": total, **metrics})

    def in_parts(state: State, batch: Batch, *rest: Any, adversarial: bool) -> Gradients:
        """Return the mean of the gradients of equal parts of a batch."""

        def split(x: Array) -> Array:
            # Every kth example, so that each part is spread over all devices.
            return x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1)

        def add(total: Gradients, part: Batch) -> tuple[Gradients, None]:
            found = gradients(state, part, *rest, adversarial=adversarial)
            return jax.tree.map(lambda a, b: a + b / accumulate, total, found), None

        parts = jax.tree.map(split, dict(batch))
        first = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(lambda: gradients(state, first, *rest, adversarial=adversarial))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return lax.scan(add, zeros, parts)[0]

    def update(
        state: State,
        batch: Batch,
        key: Key[Array, ""],
        frozen: Any,
        *,
        adversarial: bool = True,
    ) -> tuple[State, Metrics]:
        adversarial = adversarial and losses.has_adversarial(loss)
        find = gradients if accumulate == 1 else in_parts
        found = all_mean(find(state, batch, key, frozen, adversarial=adversarial))
        metrics = {**found.metrics, "g_grad_norm": optax.tree.norm(found.g)}
        if adversarial:
            updates, d_opt = d_optimizer.update(found.d, state.d_opt, state.d_params)
            d_params = optax.apply_updates(state.d_params, updates)
            if loss.d_pause:
                # By this update's own loss, a mean over all devices: no new state, one decision.
                paused = found.metrics["d_loss"] < loss.d_pause
                d_params, d_opt = jax.tree.map(
                    lambda old, new: jnp.where(paused, old, new),
                    (state.d_params, state.d_opt),
                    (d_params, d_opt),
                )
                metrics["d_paused"] = paused.astype(jnp.float32)
            state = state._replace(d_params=d_params, d_stats=found.d_stats, d_opt=d_opt)
            metrics["d_grad_norm"] = optax.tree.norm(found.d)
        updates, g_opt = g_optimizer.update(found.g, state.g_opt, state.g_params)
        g_params = optax.apply_updates(state.g_params, updates)
        decay = _ema_decay(state.step, decay=ema_decay, start=ema_from)
        new_state = state._replace(
            step=state.step + 1,
            g_params=g_params,
            g_stats=found.g_stats,
            ema=optax.incremental_update(evaluated_params(g_opt, g_params), state.ema, 1.0 - decay),
            g_opt=g_opt,
        )
        return new_state, metrics

    return update


def _logit_gradients(
    of_logits: Callable[[Array, Array], Array],
    real: Array,
    fake: Array,
    *,
    axis_name: str | None,
) -> tuple[Array, tuple[Array, Array]]:
    """Return a loss of the whole batch's logits, and its gradients by this device's.

    The logits of all devices are gathered first, since a relativistic loss compares each with
    the mean of all; so no derivative is taken through a collective. The gradients are scaled
    to those of a mean over this device's images, as the content losses' are.
    """
    if axis_name is None:
        return jax.value_and_grad(of_logits, argnums=(0, 1))(real, fake)
    every = (lax.all_gather(x, axis_name, tiled=True) for x in (real, fake))
    value, gradients = jax.value_and_grad(of_logits, argnums=(0, 1))(*every)
    first = lax.axis_index(axis_name) * real.shape[0]
    own = tuple(lax.dynamic_slice_in_dim(g, first, real.shape[0]) for g in gradients)
    devices = lax.axis_size(axis_name)
    return value, (own[0] * devices, own[1] * devices)


def _ema_decay(step: Int[Array, ""], *, decay: float, start: int) -> Float[Array, ""]:
    """Return the decay of the EMA at an update, 0 before `start`; see `make_update`."""
    since = step.astype(jnp.float32)
    if start:
        since = jnp.maximum(since - start, 0.0)
    now = jnp.minimum(decay, (1.0 + since) / (10.0 + since))
    return jnp.where(step < start, 0.0, now) if start else now
