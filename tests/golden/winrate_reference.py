"""Reference figures of tests/stats_winrate.rs: the official AlpacaEval package on a simulated file.

    python -m venv v && v/bin/pip install --no-deps alpaca_eval==0.6.6 && v/bin/pip install pandas scikit-learn patsy
    v/bin/python tests/golden/winrate_reference.py 1 805 graded

The package downloads the difficulty of its own 805 questions even where the model does not read it; here that
file is replaced by zeros, and the modules that only talk to the network by empty ones.
"""

import importlib.util
import json
import os
import sys
import tempfile
import types

import numpy as np
import pandas as pd


def rows(seed, n, graded):
    """Integers only, so that any language can make the same file."""
    x = seed

    def draw(m):
        nonlocal x
        x = (1103515245 * x + 12345) % 2147483648
        return (x >> 8) % m

    for i in range(n):
        one, two = 40 + draw(400), 30 + draw(600)
        lean = 45 + (two - one) // 16 + draw(40) - 20
        if graded:
            preference = 1 + max(0, min(1000, 10 * lean + draw(400) - 200)) / 1000
        else:
            preference = 1.5 if draw(20) == 0 else (2.0 if draw(100) < lean else 1.0)
        yield {
            "index": i,
            "output_1": "a" * one,
            "output_2": "b" * two,
            "generator_1": "reference",
            "generator_2": "candidate",
            "preference": preference,
            "annotator": "simulated",
        }


def module(name, **content):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__dict__.update(content)
    return sys.modules[name]


def official(n):
    folder = tempfile.mkdtemp()
    pd.DataFrame({"index": range(n), "model": "x", "instruction_difficulty": 0.0}).to_csv(f"{folder}/df_gamed.csv")
    module("huggingface_hub", hf_hub_download=lambda filename, **_: os.path.join(folder, filename))
    root = importlib.util.find_spec("alpaca_eval").submodule_search_locations
    frame = lambda d: d if isinstance(d, pd.DataFrame) else pd.DataFrame.from_records(d)
    valid = lambda x, is_allow_nan=True: (1 <= x <= 2) or (is_allow_nan and np.isnan(x))
    package = module("alpaca_eval", __path__=root)
    package.constants = module(
        "alpaca_eval.constants", DATASETS_TOKEN=None, DATASETS_FORCE_DOWNLOAD=False, DEFAULT_CACHE_DIR=None
    )
    package.types = module("alpaca_eval.types", AnyLoadableDF=object)
    package.utils = module(
        "alpaca_eval.utils", convert_to_dataframe=frame, load_or_convert_to_dataframe=frame,
        validate_alpacaeval_preference=valid,
    )
    from alpaca_eval.metrics import glm_winrate

    return glm_winrate


if __name__ == "__main__":
    seed, n, kind = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    frame = pd.DataFrame(list(rows(seed, n, kind == "graded")))
    figures = official(n).get_length_controlled_winrate(
        frame, glm_name="length_controlled_minimal", save_weights_dir=None
    )
    print(json.dumps({name: float(value) for name, value in figures.items()}))
