"""Backends of joblib that give no result before the last, as Ray's, fill stores like any other."""

import joblib
from joblib._parallel_backends import ThreadingBackend


class AllAtOnce(ThreadingBackend):
    supports_return_generator = False
    used = 0

    def configure(self, *args, **more):
        AllAtOnce.used += 1
        return super().configure(*args, **more)


def test_results_that_come_all_at_once(make):
    joblib.register_parallel_backend("all at once", AllAtOnce)
    stored = []
    for backend in ("threading", "all at once"):
        experiment = make(datasets={"a": {"reader": {"use": "core.tones", "count": 70}}},
                          inputs={"main": {"extractor": "core.spectrogram", "steps": [{"use": "core.crop_or_pad", "length": 10 + len(stored)}]}})
        with joblib.parallel_config(backend=backend, n_jobs=2):
            experiment.extract()
        want, = experiment.wanted(experiment.runs())
        assert not want.missing()
        stored.append({key: want.store.read(key).data[..., :10].tobytes() for key in want.clips})
    assert stored[0] == stored[1] and len(stored[0]) == 70
    assert AllAtOnce.used >= 1
