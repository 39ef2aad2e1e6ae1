"""How long one scan's latent search takes, against the naive loop AnoGAN is usually written as, and what it costs.

    python benchmarks/search_time.py

Same networks, same score, same run; only the search differs. Naive: one image at a time, 500 steps from z = 0 down the
loss of 2017 (0.9 of the absolute residual, 0.1 of the discriminator's features), fp32, the scan's features computed
again at every step, gradients kept for the networks too. Beside it the same loop without the discriminator, as the
recipe shipped does without, and then with the networks' gradients off besides. Ours: the recipe as shipped, its
encoder alone, and 50 steps from z = 0, all in chunks as shipped; and a single scan, whose chunk is filled up. Times are
of a scan's score with its map, search included: one warm-up each, medians. AUROC on Kermany dev is that of the naive
arithmetic in batches, the score fitted on its own twins; how far the loop is from it on the timed images is told beside
it. Needs `anogan_ablation.py --train kermany-default`, and no other work on the machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anogan_default import fitted
from anogan_films import FOLDER, Films, film_files, films
from anogan_runs import Run
from anogan_twins import Twins, find, held_out, match, networks, weighted
from common import parser, write_result
from registered import minus, row

from anomaly.detectors.anogan.detector import AnoGan
from anomaly.nets.dcgan import Discriminator, Generator
from anomaly.records import Float32, Float64
from anomaly.runs import read_tensors, sha256_of, write_tensors

STEPS, RATE, WEIGHT = 500, 0.05, 0.1
"""Of the search of 2017 (configs/anogan-2017.yaml); `WEIGHT` is lambda, the discriminator's share."""
NAIVE: dict[str, tuple[float, bool]] = {
    f"naive, {STEPS} steps": (WEIGHT, False),
    "naive, no discriminator": (0.0, False),
    "naive, no discriminator, networks frozen": (0.0, True),
}
"""Name of each loop, lambda, and whether the networks keep no gradients; the first is the one to quote."""
THREADS = (2, 1)


def naive(
    generator: Generator, discriminator: Discriminator, image: torch.Tensor, *, weight: float, frozen: bool = False
) -> torch.Tensor:
    """Search one image (1, C, S, S) the way AnoGAN is usually written; return its latent, (1, latent)."""
    generator.requires_grad_(not frozen)
    discriminator.requires_grad_(not frozen)
    z = torch.zeros(1, generator.latent, requires_grad=True)
    optimiser = torch.optim.Adam([z], lr=RATE)
    for _ in range(STEPS):
        twin = generator(z)
        loss = (1 - weight) * (image - twin).abs().mean()
        if weight:
            loss = loss + weight * (discriminator.features(image) - discriminator.features(twin)).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return z.detach()


def batched(detector: AnoGan, images: Float32, batch: int = 32) -> Float32:
    """Do the arithmetic of the first loop many images at a time: float32 (N, latent). Adam moves each by itself."""
    generator, discriminator = (net.requires_grad_(False) for net in (detector._generator, detector._discriminator))
    found = []
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
            loss = ((1 - WEIGHT) * residual + WEIGHT * discrimination).sum()
            (z.grad,) = torch.autograd.grad(loss, z)
            optimiser.step()
        found.append(z.detach().numpy())
        print(f"naive arithmetic: {start + len(scans)} of {len(images)} films", flush=True)
    return np.concatenate(found)


def naive_twins(run: Run, detector: AnoGan, held: Films, dev: Films) -> tuple[Twins, Float32]:
    """Return held-out normals and dev films beside the naive twins, and the latents of the dev films; kept on disk."""
    files = film_files(run.data_set, run.recipe)
    of = {
        "model": sha256_of(run.weights),
        "search": [STEPS, RATE, WEIGHT],
        "films": [sha256_of(file) for file in files],
        "source": sha256_of(Path(__file__)),
    }
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


def apart(detector: AnoGan, twins: Twins, dev: Films, latents: Float32, count: int) -> dict[str, float]:
    """Return by how much the loop and the batches differ on the first dev films, at most.

    An absolute difference has the same slope however small it is, so that rounding grows over the steps: where latents
    differ, the scores, in standard deviations of those of the held-out normals, say whether it matters.
    """
    nets = detector._generator, detector._discriminator
    loop = [naive(*nets, torch.from_numpy(dev.images[i : i + 1]), weight=WEIGHT).numpy()[0] for i in range(count)]
    both = np.stack(loop), latents[:count]
    images, inside = dev.images[:count], dev.inside[:count]
    scores = [detector._scoring.score(match(detector, images, inside, z)).scores for z in both]
    sd = float(detector._scoring.score(twins.held).scores.std())
    told = {"latent": both[0] - both[1], "score_in_sd_of_normals": (scores[0] - scores[1]) / sd}
    return {"images": count, **{name: float(np.abs(difference).max()) for name, difference in told.items()}}


def one_by_one(loop: AnoGan, some: Films, *, weight: float, frozen: bool) -> list[float]:
    """Return seconds of each image of the naive loop, search, score and map, after one image to warm up."""
    nets, taken = (loop._generator, loop._discriminator), []
    for i in [0, *range(len(some))]:
        image = some.images[i : i + 1]
        started = time.perf_counter()
        z = naive(*nets, torch.from_numpy(image), weight=weight, frozen=frozen).numpy()
        loop._scoring.score(match(loop, image, some.inside[i : i + 1], z))
        taken.append(time.perf_counter() - started)
    return taken[1:]


def times(run: Run, shipped: AnoGan, loop: AnoGan, some: Films, *, images: int, repeats: int) -> dict[str, Any]:
    """Return seconds a scan of every search at the present number of threads, and by how much ours are faster."""
    others = {
        "encoder only": networks(run, search_steps=0, terms=shipped.config.terms),
        "50 steps from z = 0": networks(run, encoder=False, search_steps=50, terms=shipped.config.terms),
    }
    for detector in others.values():
        detector._head, detector._scoring = None, shipped._scoring  # what terms were fitted on takes no time
    first = some.of(np.arange(1))
    steps = shipped.config.search_steps
    ours: dict[str, Callable[[], list[float]]] = {
        f"as shipped, {steps} steps from the encoder": lambda: _scored(shipped, some, repeats),
        "as shipped, a single scan (its chunk filled up)": lambda: _scored(shipped, first, repeats),
    }
    ours |= {name: lambda one=detector: _scored(one, some, repeats) for name, detector in others.items()}
    figures: dict[str, Any] = {}
    for name, (weight, frozen) in NAIVE.items():
        figures[name] = _median(one_by_one(loop, some.of(np.arange(images)), weight=weight, frozen=frozen))
    for name, work in ours.items():
        figures[name] = _median(work())
        own = figures[name]["seconds_per_image"]
        figures[name]["times_faster"] = {base: figures[base]["seconds_per_image"] / own for base in NAIVE}
    for name, found in figures.items():
        print(f"{torch.get_num_threads()} threads, {name}: {found['seconds_per_image']:.4f} s a scan", flush=True)
    return figures


def _scored(detector: AnoGan, some: Films, repeats: int) -> list[float]:
    return timed(lambda: detector.score(some.images, inside=some.inside), len(some), repeats)


def _median(seconds: list[float]) -> dict[str, Any]:
    return {"seconds_per_image": float(np.median(seconds)), "repeats": seconds}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--repeats", type=int, default=5, help="of ours")
    arguments.add_argument("--images", type=int, default=5, help="that the naive loops are timed on")
    arguments.add_argument("--steps", type=int, help="of the training to read, where it was cut")
    chosen = arguments.parse_args()
    run = Run("kermany", "default", 0, chosen.steps)
    if not run.trained:
        raise SystemExit("the networks are not trained: run benchmarks/anogan_ablation.py --train kermany-default")
    shipped, loop = fitted(run), networks(run, terms=weighted(run), score_batch=1)
    loop._head = None
    held, dev = held_out(run), films(run.data_set, "dev", run.recipe)
    twins, latents = naive_twins(run, loop, held, dev)
    loop._scoring = twins.scoring(shipped.config, run.seed)
    ours = find(run, shipped, ("dev",))
    scores: dict[str, Float64] = {
        "naive": twins.score(loop._scoring),
        "as shipped": ours.score(shipped._scoring),
    }
    some = dev.of(np.arange(shipped.config.score_batch))
    told: dict[str, Any] = {}
    for threads in THREADS:
        torch.set_num_threads(threads)
        told[str(threads)] = times(run, shipped, loop, some, images=chosen.images, repeats=chosen.repeats)
    write_result(
        "search_time",
        {
            "networks": run.folder.name,
            "trained_steps": run.config.steps,
            "runs_on": shipped.runs_on(),
            "score_batch": shipped.config.score_batch,
            "naive": {name: {"weight": weight, "frozen": frozen} for name, (weight, frozen) in NAIVE.items()},
            "threads": told,
            "auroc": {name: row(name, dev.labels, own, dev.groups) for name, own in scores.items()},
            "shipped_minus_naive": minus(dev.labels, scores["as shipped"], scores["naive"], dev.groups),
            "loop_and_batch_apart": apart(loop, twins, dev, latents, chosen.images),
        },
    )


if __name__ == "__main__":
    main()
