"""isr_jax: image super-resolution GANs in JAX and Flax."""
