"""The learned cost model: training, files, predictions with intervals, and how good they are."""
