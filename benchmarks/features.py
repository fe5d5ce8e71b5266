"""mtcore-features against its references over a folder of recordings: how equal, and how fast.

    OMP_NUM_THREADS=1 python benchmarks/features.py [FOLDER] [--speed-only] [--rounds 15]

Equality: per clip max|a - b| / max|b|; over the folder its median, its maximum, the clip of the maximum, and how many exceed
1e-4. Speed: seconds of audio per second, and the median over rounds of the paired ratio of times (A B B A) with its range, for the
recordings as they are, for 10 s of them joined and taken as 32 kHz (frame and FFT 1024, hop 320), and for 3 s taken as 48 kHz. Without
a folder: the speed alone, on noise.
"""

import argparse
import time
from pathlib import Path

import librosa
import numpy as np
import python_speech_features as psf
import soundfile
from mtcore_features.logbank import Logbank, LogbankSummary
from mtcore_features.spectral import LogMel, Mel, Mfcc, Stft

from mtcore.plugin import ClipError


def mel(e, rate, x):
    frame, hop, fft = e.lengths(rate)
    return librosa.feature.melspectrogram(y=x, sr=rate, n_fft=fft, win_length=frame, hop_length=hop, n_mels=e.filters)


def stft(e, rate, x):
    frame, hop, fft = e.lengths(rate)
    return np.abs(librosa.stft(y=x, n_fft=fft, win_length=frame, hop_length=hop))


def logmel(e, rate, x):
    return librosa.power_to_db(S=mel(e, rate, x))


def mfcc(e, rate, x):
    cepstra = librosa.feature.mfcc(S=logmel(e, rate, x), n_mfcc=e.coefficients)
    deltas = [librosa.feature.delta(data=cepstra, width=e.width, order=order) for order in range(1, e.deltas + 1)]
    return np.concatenate([cepstra, *deltas], axis=-2)


def logbank(e, rate, x):
    return np.stack([psf.logfbank(channel, rate, e.frame, e.hop, e.filters, e.lengths(rate).fft).T for channel in x])


def logbank_summary(e, rate, x):
    b = logbank(e, rate, x)
    parts = [f(b, axis=-1) for f in (np.min, np.max, np.std, np.mean, np.median)]
    return np.concatenate([*parts, *np.percentile(b, [25, 75], axis=-1)], axis=-1)


PAIRS = [(Stft(), stft), (Mel(), mel), (LogMel(), logmel), (Mfcc(deltas=2), mfcc), (Logbank(), logbank),
         (LogbankSummary(), logbank_summary)]


def equality(clips):
    print(f"\nmax|a - b| / max|b| over {len(clips)} recordings")
    print(f"{'':16} {'median':>9} {'maximum':>9} {'> 1e-4':>7} {'skipped':>8}  clip of the maximum")
    for ours, reference in PAIRS:
        found, skipped = [], 0
        for path, rate, x in clips:
            try:
                a = ours.prepare(rate)(x)
            except ClipError as error:  # too short: said, and counted
                skipped += 1
                print(f"{path.name}: {error}") if skipped <= 3 else None
                continue
            b = reference(ours, rate, x)
            found.append((float(np.abs(a - b).max() / np.abs(b).max()), path))
        values = [value for value, _ in found]
        print(f"{reference.__name__:16} {np.median(values):9.1e} {max(values):9.1e} {sum(v > 1e-4 for v in values):7} "
              f"{skipped:8}  {max(found)[1].name}")


def clock(function, sounds):
    start = time.perf_counter()
    for x in sounds:
        function(x)
    return time.perf_counter() - start


def speed(what, sounds, rate, rounds):
    audio = sum(x.shape[-1] for x in sounds) / rate
    print(f"\nspeed on {what}: {len(sounds)} sounds, {audio:.0f} s, {rounds} rounds")
    print(f"{'':16} {'ours s/s':>9} {'reference':>9} {'ratio':>6} {'range':>13}")
    for ours, reference in PAIRS:
        new, old, ratios = ours.prepare(rate), lambda x: reference(ours, rate, x), []
        a = b = np.inf
        for _ in range(rounds + 1):
            times = [clock(new, sounds), clock(old, sounds), clock(old, sounds), clock(new, sounds)]
            ratios.append((times[1] + times[2]) / (times[0] + times[3]))
            a, b = min(a, times[0], times[3]), min(b, times[1], times[2])
        print(f"{reference.__name__:16} {audio / a:9.0f} {audio / b:9.0f} {np.median(ratios[1:]):6.2f} "
              f"{min(ratios[1:]):5.2f} to {max(ratios[1:]):5.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--speed-only", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    clips = []
    for path in sorted(p for p in given.folder.rglob("*") if p.suffix[1:].upper() in soundfile.available_formats()) if given.folder else ():
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        clips.append((path, rate, np.ascontiguousarray(samples.T)))
    joined = np.random.default_rng(0).standard_normal(1_920_000, dtype=np.float32) * 0.1
    if clips:
        if not given.speed_only:
            equality(clips)
        rate = clips[0][1]
        some = [x for _, own, x in clips[::max(len(clips) // 40, 1)] if own == rate and x.shape[-1] >= 0.1 * rate][:40]
        speed(f"recordings as they are, {rate} Hz", some, rate, given.rounds)
        joined = np.concatenate([x[0] for _, _, x in clips])
    for seconds, rate in ((10, 32000), (3, 48000)):
        n = seconds * rate
        speed(f"{seconds} s at {rate} Hz", [joined[None, i * n:(i + 1) * n] for i in range(min(6, len(joined) // n))], rate, given.rounds)


if __name__ == "__main__":
    main()
