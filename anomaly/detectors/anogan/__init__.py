"""AnoGAN: a generator of normal chests, a search of its latent space, a comparison of the scan with its normal twin.

Schlegl, Seeböck, Waldstein, Schmidt-Erfurth, Langs: Unsupervised Anomaly Detection with Generative Adversarial
Networks to Guide Marker Discovery, IPMI 2017.
"""
