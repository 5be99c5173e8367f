"""What this machine can do at most: generated code that only reads, or only multiplies."""
