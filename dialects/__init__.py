"""The IR: types, attributes, operations and what they mean. Imports nothing else of nybble."""
