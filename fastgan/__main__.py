import os
import sys
from pathlib import Path

# `python -m` puts the current folder first on the path: a run folder one stands in must not give
# modules.
if (
    not sys.flags.safe_path
    and sys.path[:1] == [os.getcwd()]
    and Path(__file__).parent.parent != Path(sys.path[0])
):
    del sys.path[0]

from fastgan.cli.main import main

main()
