"""A Dask cluster of two worker processes on this machine fills a store; one of them is killed meanwhile."""

from __future__ import annotations

import os
import signal
import threading
import time

import joblib
from distributed import Client, LocalCluster

import mtcore


def test_a_killed_worker_loses_nothing(tmp_path):
    content = {"name": "tones", "datasets": {"tones": {"reader": {"use": "core.tones", "count": 1200}}},
               "inputs": {"main": {"extractor": "core.spectrogram"}}, "split": {"folds": 1}, "model": {"trunk": "core.mlp"}}
    stores = {}
    for name in ("alone", "cluster"):
        experiment = mtcore.Experiment(content, tmp_path, cache=tmp_path / name)
        if name == "alone":
            experiment.extract()
        else:
            folder, killed = experiment.wanted(experiment.runs())[0].store.folder, []
            with (LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client,
                  joblib.parallel_config(backend="dask")):
                pids = list(client.run(os.getpid).values())
                assert len({*pids, os.getpid()}) == 3

                def kill():
                    while not list(folder.glob("*.parquet")):
                        time.sleep(0.001)
                    killed.append(len(list(folder.glob("*.parquet"))))
                    os.kill(pids[0], signal.SIGKILL)

                killer = threading.Thread(target=kill)
                killer.start()
                experiment.extract()
                killer.join()
            assert 0 < killed[0] < 1200 // 64
        [want] = experiment.wanted(experiment.runs())
        assert len(want.clips) == 1200 and not want.missing()
        stores[name] = {key: want.store.read(key).data.tobytes() for key in want.clips}
    assert stores["alone"] == stores["cluster"]
