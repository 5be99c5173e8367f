"""Quantized layers as other libraries write them, decoded into nybble's number formats."""
