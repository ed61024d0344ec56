"""Why no mocked test runs a place that runs on a GPU first: by file, then by function and text."""

FAKE = "the fake driver, which refuses to start where a GPU is: tests/bench run it without one"

REASONS: dict[str, dict[str, str]] = {
    "bench/fake_gpu.py": {
        "_Utilities.get_device_properties: shared = SHARED_LIMIT[f'sm_{self.number}']": FAKE,
        "_Utilities.get_device_properties: return {'max_shared_mem': shared, 'max_num_regs': 65536,"
        " 'multiprocessor_count': SEEN_AS[self.number][1], 'warpSize': 32}": FAKE,
        "_Autocast.__init__: 'cpu'": FAKE,
    }
}
