"""Published detectors that ask how well a generative model of in-distribution images gives an image back.

With a variational autoencoder: `vae` (error of the reconstruction), `vae-elbo`, `vae-mahalanobis`, `likelihood-regret`,
`typicality`. With a diffusion model: `multi-start`, `lift-map-detect`, `simplex`, `projection-regret`, which
reconstruct, and `msma`, `diffpath`, `trajectory-curvature`, which look at what the model says on the way. Each file has
the formula, the reference and the cost of its detector; levels of noise were published as steps of other schedules and
are given here as sigma.
"""
