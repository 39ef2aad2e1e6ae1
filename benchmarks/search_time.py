"""How long one scan's latent search takes, against the naive loop AnoGAN is usually written as, and what it costs.

    python benchmarks/search_time.py

Same networks, same score, same run. Naive: one image at a time, 500 steps from z = 0, fp32, the scan's discriminator
features computed again at every step, gradients kept for the networks too. Ours: the recipe as shipped, its encoder
alone, and 50 steps from z = 0. Times are of a scan's score with its map, search included: one warm-up each, medians.
AUROC on Kermany dev is that of the same arithmetic in batches, the score fitted on its own twins; how far the loop is
from it on the timed images is told beside it. Needs `anogan_ablation.py --train kermany-default`, and no other work on
the machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from anogan_default import fitted
from anogan_films import FOLDER, Films, films
from anogan_runs import Run
from anogan_twins import Twins, find, held_out, match, networks
from common import parser, write_result
from registered import minus, row

from anomaly.detectors.anogan.detector import AnoGan
from anomaly.nets.dcgan import Discriminator, Generator
from anomaly.records import Float32, Float64
from anomaly.runs import read_tensors, sha256_of, write_tensors

STEPS, RATE = 500, 0.05
THREADS = (2, 1)


def naive(generator: Generator, discriminator: Discriminator, image: torch.Tensor, *, weight: float) -> torch.Tensor:
    """Search one image (1, C, S, S) the way AnoGAN is usually written; return its latent, (1, latent)."""
    generator.requires_grad_(True)
    discriminator.requires_grad_(True)
    z = torch.zeros(1, generator.latent, requires_grad=True)
    optimiser = torch.optim.Adam([z], lr=RATE)
    for _ in range(STEPS):
        twin = generator(z)
        residual = (image - twin).abs().mean()
        discrimination = (discriminator.features(image) - discriminator.features(twin)).abs().mean()
        loss = (1 - weight) * residual + weight * discrimination
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return z.detach()


def batched(detector: AnoGan, images: Float32, batch: int = 32) -> Float32:
    """Do the naive arithmetic many images at a time: float32 (N, latent). Adam moves each number by itself."""
    generator, discriminator = detector._generator, detector._discriminator
    weight, found = detector.config.weight, []
    for start in range(0, len(images), batch):
        scans = torch.from_numpy(images[start : start + batch])
        z = torch.zeros(len(scans), generator.latent, requires_grad=True)
        optimiser = torch.optim.Adam([z], lr=RATE)
        with torch.no_grad():
            wanted = discriminator.features(scans)
        for _ in range(STEPS):
            twins = generator(z)
            residual = (scans - twins).abs().mean(dim=(1, 2, 3))
            discrimination = (wanted - discriminator.features(twins)).abs().mean(dim=(1, 2, 3))
            loss = ((1 - weight) * residual + weight * discrimination).sum()
            (z.grad,) = torch.autograd.grad(loss, z)
            optimiser.step()
        found.append(z.detach().numpy())
        print(f"naive arithmetic: {start + len(scans)} of {len(images)} films", flush=True)
    return np.concatenate(found)


def naive_twins(run: Run, detector: AnoGan, held: Films, dev: Films) -> tuple[Twins, Float32]:
    """Return held-out normals and dev films beside the naive twins, and the latents of the dev films; kept on disk."""
    of = {"model": sha256_of(run.weights), "weight": detector.config.weight}
    path = FOLDER / "naive" / f"{run.folder.name}.safetensors"
    if not path.is_file() or read_tensors(path)[1] != of:
        latents = {"held": batched(detector, held.images), "dev": batched(detector, dev.images)}
        write_tensors(path, latents, of)
    latents, _ = read_tensors(path)
    whole = np.ones_like(held.inside)
    twins = Twins(
        match(detector, held.images, whole, latents["held"]),
        held.groups,
        {"dev": match(detector, dev.images, dev.inside, latents["dev"])},
    )
    return twins, latents["dev"]


def timed(work: Callable[[], Any], images: int, repeats: int) -> list[float]:
    """Return seconds per image of each repeat, after one warm-up."""
    work()
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        taken.append((time.perf_counter() - started) / images)
    return taken


def apart(detector: AnoGan, dev: Films, latents: Float32, count: int) -> dict[str, float]:
    """Return by how much the loop and the batches differ on the first dev films, at most.

    An absolute difference has the same slope however small it is, so that rounding grows over the steps: where latents
    differ, the scores say whether it matters.
    """
    weight = detector.config.weight
    nets = detector._generator, detector._discriminator
    loop = [naive(*nets, torch.from_numpy(dev.images[i : i + 1]), weight=weight).numpy()[0] for i in range(count)]
    both = np.stack(loop), latents[:count]
    images, inside = dev.images[:count], dev.inside[:count]
    scores = [detector._scoring.score(match(detector, images, inside, z)).scores for z in both]
    told = {"latent": both[0] - both[1], "score": scores[0] - scores[1]}
    return {"images": count, **{name: float(np.abs(difference).max()) for name, difference in told.items()}}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--images", type=int, default=4, help="that the naive loop is timed on")
    arguments.add_argument("--steps", type=int, help="of the training to read, where it was cut")
    chosen = arguments.parse_args()
    run = Run("kermany", "default", 0, chosen.steps)
    if not run.trained:
        raise SystemExit("the networks are not trained: run benchmarks/anogan_ablation.py --train kermany-default")
    shipped, loop = fitted(run), networks(run)
    loop._head = None
    held, dev = held_out(run), films(run.data_set, "dev", run.recipe)
    twins, latents = naive_twins(run, loop, held, dev)
    loop._scoring = twins.scoring(shipped.config, run.seed)
    ours = find(run, shipped, ("dev",))
    scores: dict[str, Float64] = {
        "naive": twins.score(loop._scoring),
        "as shipped": ours.score(shipped._scoring),
    }
    others = {
        "encoder only": networks(run, search_steps=0, terms=shipped.config.terms),
        "50 steps from z = 0": networks(run, encoder=False, search_steps=50, terms=shipped.config.terms),
    }
    for detector in others.values():
        detector._head, detector._scoring = None, shipped._scoring  # what terms were fitted on takes no time
    some = dev.of(np.arange(shipped.config.score_batch))

    def one_by_one() -> None:
        nets = loop._generator, loop._discriminator
        for i in range(chosen.images):
            image = some.images[i : i + 1]
            z = naive(*nets, torch.from_numpy(image), weight=loop.config.weight).numpy()
            loop._scoring.score(match(loop, image, some.inside[i : i + 1], z))

    loop.config = loop.config.model_copy(update={"score_batch": 1})
    told: dict[str, Any] = {}
    for threads in THREADS:
        torch.set_num_threads(threads)
        figures: dict[str, Any] = {}
        cases: dict[str, tuple[Callable[[], Any], int]] = {
            f"naive, {STEPS} steps, fp32": (one_by_one, chosen.images),
            f"as shipped, {shipped.config.search_steps} steps from the encoder": (
                lambda: shipped.score(some.images, inside=some.inside),
                len(some),
            ),
        }
        for name, detector in others.items():
            cases[name] = (lambda one=detector: one.score(some.images, inside=some.inside), len(some))
        for name, (work, count) in cases.items():
            seconds = timed(work, count, chosen.repeats)
            figures[name] = {"seconds_per_image": float(np.median(seconds)), "repeats": seconds}
            print(f"{threads} threads, {name}: {np.median(seconds):.4f} s per image", flush=True)
        base, *rest = figures
        for name in rest:
            figures[name]["times_faster"] = figures[base]["seconds_per_image"] / figures[name]["seconds_per_image"]
        told[str(threads)] = figures
    write_result(
        "search_time",
        {
            "networks": run.folder.name,
            "trained_steps": run.config.steps,
            "runs_on": shipped.runs_on(),
            "score_batch": shipped.config.score_batch,
            "threads": told,
            "auroc": {name: row(name, dev.labels, own, dev.groups) for name, own in scores.items()},
            "shipped_minus_naive": minus(dev.labels, scores["as shipped"], scores["naive"], dev.groups),
            "loop_and_batch_apart": apart(loop, dev, latents, chosen.images),
        },
    )


if __name__ == "__main__":
    main()
