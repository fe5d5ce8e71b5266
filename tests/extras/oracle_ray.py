"""Ray's workers on this machine fill a store, to the bits of one that this process fills."""

from __future__ import annotations

import os

import joblib
import ray

import mtcore


def test_ray_fills_the_same_store(tmp_path):
    from ray.util.joblib import register_ray

    content = {"name": "tones", "datasets": {"tones": {"reader": {"use": "core.tones", "count": 300}}},
               "inputs": {"main": {"extractor": "core.spectrogram"}}, "split": {"folds": 1}, "model": {"trunk": "core.mlp"}}
    stores = {}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        register_ray()
        for name in ("alone", "ray"):
            experiment = mtcore.Experiment(content, tmp_path, cache=tmp_path / name)
            if name == "alone":
                experiment.extract()
            else:
                with joblib.parallel_config(backend="ray", n_jobs=2):
                    assert os.getpid() not in joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(4))
                    experiment.extract()
            [want] = experiment.wanted(experiment.runs())
            assert len(want.clips) == 300 and not want.missing()
            stores[name] = {key: want.store.read(key).data.tobytes() for key in want.clips}
    finally:
        ray.shutdown()
    assert stores["alone"] == stores["ray"]
