"""The classes of this folder's weights, which are in the repository's pipeline.py.

diffusers looks for them here once it has loaded that file.
"""

import sys


def __getattr__(name):
    return getattr(sys.modules[__name__.rpartition(".")[0] + ".pipeline"], name)
