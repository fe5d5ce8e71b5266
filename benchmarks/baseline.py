"""The honest baseline: logistic regression on means and deviations of log-mel bands, over an experiment's own folds.

    python benchmarks/baseline.py examples/voiceprompts.toml

For every multi-class task: macro recall on the test part of each fold, trained on training and validation part together. The stored
features of the experiment's first input are read; what is not stored is extracted first.
"""

from __future__ import annotations

import sys

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mtcore import Experiment


def main(path: str, *overrides: str) -> None:
    experiment = Experiment.from_file(path, dict(pair.split("=", 1) for pair in overrides))
    experiment.extract()
    for name, task in experiment.tasks.items():
        if task.kind != "multiclass":
            continue
        recalls = []
        for run in experiment.runs():
            if set(run.tasks) != {name} or run.fold < len(recalls):
                continue
            data = run.data()
            sets = {}
            for part in ("train", "validation", "test"):
                rows = data.clips(part)
                arrays = [data.input(d, data.names[0]).store.read(data.input(d, data.names[0]).keys[c]).data for d, c in rows]
                sets[part] = (np.array([np.concatenate([a.mean(-1).ravel(), a.std(-1).ravel()]) for a in arrays]).reshape(len(rows), -1),
                              np.array([data.encoded[data.datasets[d].name][c][name] for d, c in rows], int))
            x, y = (np.concatenate([sets["train"][i], sets["validation"][i]]) if len(sets["validation"][1]) else sets["train"][i] for i in (0, 1))
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(x, y)
            recalls.append(recall_score(sets["test"][1], model.predict(sets["test"][0]), average="macro", labels=np.unique(sets["test"][1]),
                                        zero_division=0))
        if recalls:
            print(f"{name}: macro recall {np.mean(recalls):.4f} ± {np.std(recalls, ddof=1):.4f} over {len(recalls)} folds: "
                  + ", ".join(f"{value:.4f}" for value in recalls), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
