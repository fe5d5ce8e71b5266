"""Windows through a whole run: predictions per clip, or per window."""

import mtcore


def run(tmp_path, windows):
    experiment = mtcore.Experiment({
        "name": windows, "datasets": {"tones": {"reader": {"use": "core.tones", "count": 24}}}, "split": {"folds": 1, "validation": 0.2},
        "inputs": {"main": {"extractor": "core.spectrogram", "steps": ["core.standardize", {"use": "features.window", "length": "0.3s"}]}},
        "model": {"trunk": {"use": "core.mlp", "hidden": [8]}}, "train": {"epochs": 2}, "report": {"reporters": []},
        "evaluation": {"windows": windows}}, tmp_path, cache=tmp_path / "cache")
    return experiment.run()[0].folder.load_predictions("last")["test"]["timbre"]


def test_figures_per_window_or_clip(tmp_path):
    clip, each = run(tmp_path, "clip"), run(tmp_path, "each")
    assert len(each.clips) == 3 * len(clip.clips) and each.clips[:3] == [f"{clip.clips[0]}#{number}" for number in range(3)]
    assert abs(each.scores.reshape(len(clip.clips), 3, -1).mean(1) - clip.scores).max() < 1e-6
    assert each.targets.tolist() == clip.targets.repeat(3).tolist()
