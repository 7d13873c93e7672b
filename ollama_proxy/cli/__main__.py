"""`python -m ollama_proxy.cli ...`."""

import sys

from ollama_proxy.cli.commands import main

sys.exit(main())
