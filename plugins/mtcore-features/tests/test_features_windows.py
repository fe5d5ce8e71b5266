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


def test_frames_behind_the_last_window_are_counted(tmp_path):
    reader = {"use": "core.tones", "count": 24}
    windows = lambda length: {"extractor": {"use": "core.spectrogram", "hop": 0.01},
        "steps": [{"use": "features.window", "length": length, "hop": 13}]}
    build = lambda length: mtcore.Experiment({
        "name": "w", "datasets": {"tones": {"reader": reader}}, "split": {"folds": 1, "validation": 0.2}, "inputs": {"main": windows(length)},
        "model": {"trunk": {"use": "core.mlp", "hidden": [8]}}, "train": {"epochs": 1}, "report": {"reporters": []}}, tmp_path,
        cache=tmp_path / "cache")
    experiment = build(20)
    one, = experiment.run()
    data, log = one.data(), (one.folder.path / "run.log").read_text()
    whole = {part: [data.inputs["tones"]["main"].store.shape(data.inputs["tones"]["main"].keys[c])[-1] for _, c in data.clips(part)]
             for part in ("train", "validation", "test")}
    for part, lengths in whole.items():
        left = [length - (1 + (length - 20) // 13) * 13 - 7 for length in lengths]
        assert sum(left) > 0
        assert f"{part}: dataset tones, inputs.main: {sum(map(bool, left))} of {len(left)} clips end with frames that no whole window holds, " \
               f"{sum(left)} in all" in log
    assert any("of these few clips, train: dataset tones, inputs.main" in line for line in experiment.check())
    exact = whole["train"][0]
    assert set(sum(whole.values(), [])) == {exact}
    assert not build(exact).runs()[0].data().rows("train").dropped
