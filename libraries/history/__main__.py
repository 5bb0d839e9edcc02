"""`python -m libraries.history DATA_DIR`: enter the runs that wait into its history, and name the models in it."""

import sys
from pathlib import Path

from libraries.history.reading import newest_models
from libraries.history.tracking import local_store

for name, address in newest_models(local_store(Path(sys.argv[1]).expanduser())).items():
    sys.stdout.write(f"MLflow model {name}: {address}\n")
