"""How near two tensors are."""


def close(a, b, bound=5e-6):
    a, b = a.detach().double(), b.detach().double()
    assert a.shape == b.shape
    assert (a - b).norm() <= bound * max(b.norm().item(), 1e-6), ((a - b).norm() / b.norm()).item()
