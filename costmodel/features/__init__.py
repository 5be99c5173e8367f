"""What a predictor sees of a scheduled kernel: numbers, from IR or from sizes alone, and tokens."""
