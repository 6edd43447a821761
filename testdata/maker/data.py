"""The data sets: handwritten digits, digits as token sequences, synthetic speech-like spectrograms."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

Arrays = dict[str, np.ndarray]

PAD, CLS, FIRST_TOKEN = 0, 1, 2
PIXEL_LEVELS = 5
VOCABULARY = FIRST_TOKEN + PIXEL_LEVELS**2

SPEECH_BINS = 16
SPEECH_FRAMES = 32
SPEECH_CLASSES = 6


def digits() -> tuple[Arrays, Arrays]:
    """Handwritten digits as a stratified split of 1297 and 500: `x` float32 [N,1,8,8] in 0..1, `y` int64 [N]."""
    source = load_digits()
    x = (source.images / 16).astype(np.float32)[:, None]
    y = source.target.astype(np.int64)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=500, stratify=y, random_state=0)
    return {"x": x_train, "y": y_train}, {"x": x_test, "y": y_test}


def tokens(digits_part: Arrays) -> Arrays:
    """Digits as token sequences: a CLS token, then one token for each two neighbouring pixels, row by row.

    Pixels are quantised to `PIXEL_LEVELS` levels. Blank pairs at the end are cut off, which gives sequences of
    different lengths; they are padded with PAD to 33 tokens. `input_ids` and `attention_mask` are int64 [N,33],
    `y` int64 [N].
    """
    pixels = np.minimum((digits_part["x"] * PIXEL_LEVELS).astype(np.int64), PIXEL_LEVELS - 1).reshape(-1, 32, 2)
    pairs = pixels[..., 0] * PIXEL_LEVELS + pixels[..., 1]
    lengths = 32 - np.argmax(pairs[:, ::-1] > 0, axis=1)
    used = np.arange(32) < lengths[:, None]
    first = np.full((len(pairs), 1), CLS)
    ids = np.concatenate([first, np.where(used, pairs + FIRST_TOKEN, PAD)], axis=1)
    return {"input_ids": ids, "attention_mask": (ids != PAD).astype(np.int64), "y": digits_part["y"]}


def speech(samples: int, seed: int) -> Arrays:
    """Synthetic spectrograms cut into segments of 3 to 8 frames, every frame labelled.

    Class 0 is silence; 1 to 3 are steady sounds with two formants; 4 and 5 sweep one formant up and down, so that
    telling them apart takes more than one frame. Values are multiples of 1/32 in 0..2.
    `x` is float32 [N,1,SPEECH_BINS,SPEECH_FRAMES], `y` int64 [N,SPEECH_FRAMES].
    """
    rng = np.random.default_rng(seed)
    formants = {1: (2, 9), 2: (4, 12), 3: (6, 13)}
    bins = np.arange(SPEECH_BINS)
    x = rng.normal(0.25, 0.2, (samples, SPEECH_BINS, SPEECH_FRAMES))
    y = np.zeros((samples, SPEECH_FRAMES), np.int64)
    for spectrum, labels in zip(x, y):
        begin = 0
        while begin < SPEECH_FRAMES:
            label = rng.integers(SPEECH_CLASSES)
            end = min(begin + rng.integers(3, 9), SPEECH_FRAMES)
            labels[begin:end] = label
            loudness = rng.uniform(0.6, 1.2)
            for frame in range(begin, end):
                sweep = 3 + 1.5 * (frame - begin) + rng.uniform(-0.5, 0.5)
                centres = formants.get(label) or {0: (), 4: (sweep,), 5: (SPEECH_BINS - 1 - sweep,)}[label]
                for centre in centres:
                    spectrum[:, frame] += loudness * np.exp(-0.5 * ((bins - centre) / 1.2) ** 2)
            begin = end
    x = np.round(np.clip(x, 0, 2) * 32) / 32
    return {"x": x.astype(np.float32)[:, None], "y": y}
