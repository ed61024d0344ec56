"""``python3 -m fastgan.bench.gpu`` is ``fastgan bench --stages``, without an installation."""

import sys

from fastgan.bench.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["--stages", *sys.argv[1:]]))
