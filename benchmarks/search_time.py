"""How long one scan's latent search takes, against the naive loop AnoGAN is usually written as.

    python benchmarks/search_time.py

Same networks, same run. Naive: one image at a time, 500 steps, fp32, the scan's discriminator features computed again
at every step, gradients kept for the networks too. Ours: the recipe as shipped, and with 500 steps. One warm-up each;
medians. Time only: the networks are untrained, which changes nothing about the arithmetic.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import parser, write_result

from anomaly.config import load_recipe
from anomaly.detectors.anogan.detector import AnoGan, AnoGanConfig
from anomaly.nets.dcgan import Discriminator, Generator
from anomaly.records import Float32


def naive(
    generator: Generator, discriminator: Discriminator, image: torch.Tensor, *, steps: int, weight: float
) -> float:
    """Search one image (1, C, S, S) the way AnoGAN is usually written; return the last loss."""
    generator.requires_grad_(True)
    discriminator.requires_grad_(True)
    z = torch.zeros(1, generator.latent, requires_grad=True)
    optimiser = torch.optim.Adam([z], lr=0.05)
    loss = torch.zeros(())
    for _ in range(steps):
        twin = generator(z)
        residual = (image - twin).abs().mean()
        discrimination = (discriminator.features(image) - discriminator.features(twin)).abs().mean()
        loss = (1 - weight) * residual + weight * discrimination
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return float(loss.detach())


def timed(work: Callable[[], Any], images: int, repeats: int) -> list[float]:
    """Return seconds per image of each repeat, after one warm-up."""
    work()
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        taken.append((time.perf_counter() - started) / images)
    return taken


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=2)
    chosen = arguments.parse_args()
    torch.set_num_threads(chosen.threads)
    recipe = load_recipe("anogan")
    config = AnoGanConfig.model_validate(recipe.detector)
    images: Float32 = np.random.default_rng(0).uniform(-1, 1, (config.score_batch, 1, recipe.size, recipe.size))
    images = images.astype(np.float32)

    def detector(**changes: Any) -> AnoGan:
        built = AnoGan(config.model_copy(update=changes), size=recipe.size, device="cpu")
        shapes = built._shapes(1)
        built._take(Generator(**shapes[0]), Discriminator(**shapes[1]))
        built.channels = 1
        return built

    shipped, long, long_fp32 = detector(), detector(search_steps=500), detector(search_steps=500, precision="fp32")
    generator_shape, discriminator_shape = shipped._shapes(1)
    generator, discriminator = Generator(**generator_shape).eval(), Discriminator(**discriminator_shape).eval()
    first = torch.from_numpy(images[:1])
    figures: dict[str, Any] = {"threads": chosen.threads, "score_batch": config.score_batch}
    cases: dict[str, tuple[Callable[[], Any], int]] = {
        "naive, 500 steps, fp32": (
            lambda: naive(generator, discriminator, first, steps=500, weight=config.weight),
            1,
        ),
        "ours, 500 steps, fp32": (lambda: long_fp32.score(images), len(images)),
        "ours, 500 steps": (lambda: long.score(images), len(images)),
        f"ours as shipped, {config.search_steps} steps": (lambda: shipped.score(images), len(images)),
    }
    for name, (work, count) in cases.items():
        seconds = timed(work, count, chosen.repeats)
        figures[name] = {"seconds_per_image": float(np.median(seconds)), "repeats": seconds}
        print(f"{name}: {np.median(seconds):.3f} s per image", flush=True)
    base = figures["naive, 500 steps, fp32"]["seconds_per_image"]
    figures["times_faster"] = {name: base / figures[name]["seconds_per_image"] for name in list(cases)[1:]}
    print(figures["times_faster"])
    write_result("search_time", figures)


if __name__ == "__main__":
    main()
