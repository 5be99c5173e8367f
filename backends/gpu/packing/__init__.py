"""The layout of weights in GPU memory: one record that packs, decodes and orders fragments."""
