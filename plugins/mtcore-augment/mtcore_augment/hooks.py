"""What this plugin provides. Imports nothing heavy: components are named, not imported."""

from mtcore.plugin import PreparerSpec, hookimpl


@hookimpl
def mtcore_register_preparers():
    yield PreparerSpec("gain", "mtcore_augment.level:Gain", "Louder or quieter by a random number of dB")
    yield PreparerSpec("polarity", "mtcore_augment.level:Polarity", "Sign of the samples, by a coin")
    yield PreparerSpec("clipping", "mtcore_augment.level:Clipping", "Peaks cut off at a random level")
    yield PreparerSpec("filter", "mtcore_augment.level:Filter", "Random low-, high- or band-pass without delay")
    yield PreparerSpec("noise", "mtcore_augment.mixing:Noise", "White, pink or brown noise at a random signal-to-noise ratio")
    yield PreparerSpec("mix_noise", "mtcore_augment.mixing:MixNoise", "Noise out of a material at a random signal-to-noise ratio",
                       example="mtcore_augment.examples:mix_noise")
    yield PreparerSpec("reverb", "mtcore_augment.mixing:Reverb", "A room: an impulse response out of a material",
                       example="mtcore_augment.examples:reverb")
    yield PreparerSpec("shift", "mtcore_augment.time:Shift", "Earlier or later by a random time")
    yield PreparerSpec("stretch", "mtcore_augment.time:Stretch", "Faster or slower at the same pitch")
    yield PreparerSpec("pitch", "mtcore_augment.time:Pitch", "Higher or lower at the same speed")
    yield PreparerSpec("random_crop", "mtcore_augment.time:RandomCrop", "One length for all, from a random place",
                       example="mtcore_augment.examples:random_crop")
    yield PreparerSpec("spec_augment", "mtcore_augment.masks:SpecAugment", "Random bands and stretches of features hidden")
    yield PreparerSpec("audiomentations", "mtcore_augment.library:Audiomentations", "A transform of the library audiomentations",
                       example="mtcore_augment.examples:audiomentations")
    yield PreparerSpec("mixup", "mtcore_augment.batches:Mixup", "Weighted means of two rows of a batch and of their targets")
    yield PreparerSpec("cutmix", "mtcore_augment.batches:Cutmix", "A stretch of another row of the batch, and its share of the targets")
