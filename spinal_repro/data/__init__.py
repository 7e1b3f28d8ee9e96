"""Data: where images come from, how they are split, augmented and brought to the device."""
