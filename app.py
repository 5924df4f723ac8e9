"""Opens the page: ``python app.py``; ``python app.py --help`` lists its options."""

import sys

from dloral.errors import DLoRALError
from dloral.studio import launch

if __name__ == "__main__":
    try:
        launch()
    except DLoRALError as error:
        sys.exit(f"app.py: {error}")
