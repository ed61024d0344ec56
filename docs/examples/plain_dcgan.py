"""A whole DCGAN training in one file, on fastgan's parts, without its Trainer.

    python plain_dcgan.py                               # Fashion-MNIST, which fastgan brings along
    python plain_dcgan.py --data=my_images --size=64    # a folder of pictures of your own
    python plain_dcgan.py --steps=200 --base_width=16   # a try on a small machine

Read it from top to bottom. Every option is a plain variable, and --name=value on the command line
replaces it. The folder `out` gets a picture of real images, pictures of samples, and the
generator's weights.
"""

import ast
import copy
import itertools
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

import fastgan
from fastgan.data import Stream
from fastgan.monitor.pictures import save_grid
from fastgan.objectives import LOSSES

# Options.
data = "fashion-mnist"  # a folder, .zip, .npz, .npy or idx file of images, or the bundled ones
size = 32  # side of the images in pixels: 16, 32, 64, 128 ...
out = "runs/plain-dcgan"  # where pictures and weights go
steps = 2000  # updates of the generator
batch_size = 64  # real images, and as many fake ones, of a step
latent = 100  # random numbers that an image is made from
base_width = 32  # channels of the outermost layers; inner ones double
loss = "non-saturating"  # or minimax, hinge, wasserstein, least-squares, relativistic
lr = 2e-4  # Adam's learning rate, of both networks
beta1, beta2 = 0.5, 0.999  # Adam's decays, as in the DCGAN paper
ema_decay = 0.999  # samples are drawn from an average of the generator's weights
seed = 0  # first weights, noise and the order of the images follow from it
log_every = 50  # steps between two lines of losses
sample_every = 500  # steps between two pictures of samples
device = "cuda" if torch.cuda.is_available() else "cpu"
for argument in sys.argv[1:]:
    name, _, value = argument.removeprefix("--").partition("=")
    if name not in globals() or not value:
        sys.exit(f"{argument}: write --name=value, where name is one of the options above")
    known = globals()[name]
    globals()[name] = value if isinstance(known, str) else type(known)(ast.literal_eval(value))

# Data. `open` decodes and resizes once. A Stream gives batch after batch as a function of the
# position, so there is no DataLoader: small sets lie on the device as uint8, large ones are read
# from a memory map.
torch.manual_seed(seed)
dataset = fastgan.data.open(data, size=size)
stream = Stream(dataset, name="image", seed=seed, batch_size=batch_size, device=device)
channels = dataset.fields["image"].shape[2]
print(dataset.describe())

# Networks (Radford, Metz, Chintala 2016). G starts from 4x4 and doubles the side with each layer; D
# mirrors it.
depth = (size // 4).bit_length() - 1  # layers that double or halve the side
if size != 4 * 2**depth:
    sys.exit(f"--size={size}: give 8, 16, 32, 64, 128 ...")
widths = [base_width * 2**i for i in reversed(range(depth))]  # of G, from 4x4 on

layers = [nn.ConvTranspose2d(latent, widths[0], 4, bias=False)]
for inner, outer in itertools.pairwise(widths):
    layers += [
        nn.BatchNorm2d(inner),
        nn.ReLU(),
        nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=False),
    ]
layers += [nn.BatchNorm2d(base_width), nn.ReLU(), nn.ConvTranspose2d(base_width, channels, 4, 2, 1)]
G = nn.Sequential(*layers, nn.Tanh())  # images in [-1, 1]

layers = [nn.Conv2d(channels, base_width, 4, 2, 1), nn.LeakyReLU(0.2)]
for inner, outer in itertools.pairwise(reversed(widths)):
    layers += [
        nn.Conv2d(inner, outer, 4, 2, 1, bias=False),
        nn.BatchNorm2d(outer),
        nn.LeakyReLU(0.2),
    ]
D = nn.Sequential(*layers, nn.Conv2d(widths[0], 1, 4))  # logits: the losses want no Sigmoid

for layer in [*G, *D]:
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)
G = G.to(device, memory_format=torch.channels_last)
D = D.to(device, memory_format=torch.channels_last)
average = copy.deepcopy(G).requires_grad_(False)
if device != "cpu":  # fused kernels under the same modules; on a CPU PyTorch's own are used anyway
    fastgan.accelerate(G), fastgan.accelerate(D)

adam_g = torch.optim.Adam(G.parameters(), lr, (beta1, beta2), fused=True)
adam_d = torch.optim.Adam(D.parameters(), lr, (beta1, beta2), fused=True)


# One step. It never asks the device for a number (no .item(), no `if` on a tensor). That is what
# lets a GPU replay the whole step, optimisers included, as one CUDA graph.
def step(real, z):
    fake = G(z)

    adam_d.zero_grad()
    loss_d = LOSSES[loss].d(D(real), D(fake.detach()))
    loss_d.backward()
    adam_d.step()

    adam_g.zero_grad()
    D.requires_grad_(False)  # D only passes the gradient on: a third of its backward is saved
    loss_g = LOSSES[loss].g(D(real) if loss == "relativistic" else None, D(fake))
    loss_g.backward()
    D.requires_grad_(True)
    adam_g.step()

    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(G.parameters()), 1 - ema_decay)
        torch._foreach_copy_(list(average.buffers()), list(G.buffers()))
    return loss_d.detach(), loss_g.detach()


def noise(count):
    return torch.randn(count, latent, 1, 1, device=device)


examples = [stream.batch(0)["image"], noise(batch_size)]
state = [G, D, average, adam_g, adam_d]  # all that a step changes
step = fastgan.capture(step, example_inputs=examples, state=state)
print("one CUDA graph a step" if step.captured else f"eager steps: {step.reason}")

# Training.
fixed = noise(64)  # the same latent vectors in every picture
save_grid(f"{out}/reals.png", (stream.batch(0)["image"].cpu() + 1) / 2)
began = time.monotonic()
for number in range(1, steps + 1):
    real = stream.batch((number - 1) * batch_size)["image"]
    loss_d, loss_g = step(real, noise(batch_size))
    if number % log_every == 0:
        speed = number * batch_size / (time.monotonic() - began)
        losses = f"loss D {loss_d:.3f}, loss G {loss_g:.3f}"
        print(f"step {number:6d}: {losses}, {speed:.0f} images/s", flush=True)
    if number % sample_every == 0 or number == steps:
        with torch.no_grad():
            images = average.eval()(fixed).float().cpu()
        save_grid(f"{out}/{number:06d}.png", (images + 1) / 2)
weights = {name: value.contiguous() for name, value in average.state_dict().items()}
save_file(weights, Path(out) / "generator.safetensors")
print(f"done: pictures and generator.safetensors in {out}")
