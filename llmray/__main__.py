"""`python -m llmray` is `llmray`."""

import sys

from llmray.cli import main

sys.exit(main())
