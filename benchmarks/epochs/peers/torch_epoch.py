"""One contender of `benchmarks.epoch`: the same experiment in PyTorch, channels last.

python torch_epoch.py IMAGES.npz EPOCHS BATCH_SIZE
"""

import json
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional


def network(image_size):
    modules, channels, size = [], 3, image_size
    for layer, features in enumerate((16, 32, 64, 64, 64)):
        modules += [nn.Conv2d(channels, features, 3), nn.ReLU()]
        if layer in (1, 2):
            modules.append(nn.Dropout(0.5))
        modules.append(nn.MaxPool2d(2))
        channels, size = features, (size - 2) // 2
    modules += [nn.Flatten(), nn.Dropout(0.5)]
    modules += [nn.Linear(channels * size**2, 512), nn.ReLU(), nn.Linear(512, 1)]
    return nn.Sequential(*modules).to(memory_format=torch.channels_last)


def augment(images):
    """Flips, rotates (by 0.3 of a turn) and zooms (by 20 %) in one resampling."""
    count = len(images)
    angle = (torch.rand(count) * 2 - 1) * 0.3 * 2 * torch.pi
    zoom = 1 + (torch.rand(count) * 2 - 1) * 0.2
    flips = torch.randint(0, 2, (2, count)) * 2 - 1
    matrix = torch.zeros(count, 2, 3)
    matrix[:, 0, 0], matrix[:, 0, 1] = angle.cos() * flips[0], -angle.sin() * flips[0]
    matrix[:, 1, 0], matrix[:, 1, 1] = angle.sin() * flips[1], angle.cos() * flips[1]
    grid = functional.affine_grid(
        matrix * zoom[:, None, None], images.shape, align_corners=False
    )
    return functional.grid_sample(
        images, grid, padding_mode="reflection", align_corners=False
    )


def train_epoch(model, optimizer, images, labels, batch_size):
    for chosen in torch.randperm(len(labels)).split(batch_size):
        batch = augment(images[chosen].permute(0, 3, 1, 2).float() / 255)
        logits = model(batch.contiguous(memory_format=torch.channels_last))[:, 0]
        loss = functional.binary_cross_entropy_with_logits(logits, labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main(path, epochs, batch_size):
    with np.load(path) as split:
        images = torch.from_numpy(split["images"])
        labels = torch.from_numpy(split["labels"]).float()
    model = network(images.shape[1])
    optimizer = torch.optim.RMSprop(model.parameters(), 1e-4, alpha=0.9, eps=1e-7)
    for _ in range(epochs):
        start = time.perf_counter()
        train_epoch(model, optimizer, images, labels, batch_size)
        print(json.dumps({"epoch_seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
