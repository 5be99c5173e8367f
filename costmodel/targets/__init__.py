"""Machines as data: one YAML file each, and the record that it is read into."""
