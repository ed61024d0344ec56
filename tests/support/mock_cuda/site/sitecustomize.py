"""Python imports this by itself at its start where this folder is on PYTHONPATH: the process then
has the mock GPU."""

import mock_cuda

mock_cuda.install()
